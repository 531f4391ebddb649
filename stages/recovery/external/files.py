"""Where the result of a video lies, and reading it."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import fsspec

from schemas.records import Video
from stages.recovery.external.parsers import Result, parse, parse_tram
from stages.recovery.external.reading import SUFFIXES, ResultError, read_plain

_NAMED = ("wham_output.pkl", "hmr4d_results.pt", "hpe_results.pt")
"""What the estimators call their result in a video's folder; any other name counts if it is the only one."""
_SINGLE = (".pkl", ".pt", ".npz")


def names_of(video: Video) -> list[str]:
    """What a video's result may be called: its source's id, or its file's name without ending. WHAM takes off the last
    ending, TRAM all that follows the first dot."""
    name = PurePosixPath(video.source.uri).name
    return list(dict.fromkeys([video.source.id, PurePosixPath(name).stem, name.split(".")[0]]))


def find_result(folder: str, names: Sequence[str]) -> str:
    """The sub-folder or file of the first name that there is one of. Raises ResultError."""
    fs, root = fsspec.core.url_to_fs(folder)
    for name in names:
        for ending in ("", *SUFFIXES):
            path = f"{root.rstrip('/')}/{name}{ending}"
            if fs.isdir(path) or (ending and fs.exists(path)):
                return fs.unstrip_protocol(path).removeprefix("file://")
    tried = ", ".join(dict.fromkeys(names))
    raise ResultError(
        "no_result",
        f"{folder}: no folder or result file named {tried}; run the estimator on that video, or rename its output",
    )


def read_result(uri: str) -> Result:
    """A result file, or a video's folder as an estimator leaves it; any fsspec path. Raises ResultError."""
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.exists(path):
        raise ResultError("no_result", f"{uri}: there is no such file or folder; check the path")
    digest = hashlib.sha256()

    def read(file: str) -> Any:
        try:
            content = fs.cat_file(file)
        except OSError as error:
            raise ResultError("unreadable_result", f"{file}: cannot be read ({error}); check its permissions") from None
        digest.update(content)
        return read_plain(file, content)

    if fs.isdir(path):
        inside = {PurePosixPath(found).name: found for found in sorted(fs.ls(path, detail=False))}
        if "camera.npy" in inside:
            result = parse_tram(
                path, read(inside["camera.npy"]), {name: read(file) for name, file in _tracks(fs, path)}
            )
            return replace(result, digest=digest.hexdigest()[:12])
        single = [name for name in _NAMED if name in inside] or [name for name in inside if name.endswith(_SINGLE)]
        if len(single) != 1:
            what = f"{len(single)} result files ({', '.join(single)})" if single else "no result file"
            raise ResultError(
                "unknown_layout",
                f"{uri}: {what} in the folder; leave one of {', '.join(_NAMED)}, or TRAM's camera.npy and hps",
            )
        path = inside[single[0]]
    held = read(path)
    if path.endswith(".npy"):
        raise ResultError(
            "unknown_layout", f"{path}: a part of TRAM's result; name the folder that holds camera.npy and hps"
        )
    return replace(parse(path, held), digest=digest.hexdigest()[:12])


def _tracks(fs: Any, folder: str) -> list[tuple[str, str]]:
    """Name and path of TRAM's tracks, in their order."""
    hps = f"{folder}/hps"
    found = fs.ls(hps, detail=False) if fs.isdir(hps) else []
    numbered = [(int(match[1]), match[0], file) for file in found if (match := re.search(r"hps_track_(\d+)", file))]
    if not numbered:
        raise ResultError(
            "unknown_layout", f"{hps}: no hps_track_*.npy; run TRAM's estimate_humans.py on the video too"
        )
    return [(name, file) for _, name, file in sorted(numbered)]
