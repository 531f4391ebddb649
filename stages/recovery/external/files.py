"""Location and reading of a video's result."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import fsspec

from schemas.archives import MAX_UNPACKED_BYTES
from schemas.errors import SourceError
from schemas.records import Video
from stages.recovery.external.parsers import Result, parse, parse_tram
from stages.recovery.external.reading import SUFFIXES, ResultError, read_plain

_RESULT_NAMES = ("wham_output.pkl", "hmr4d_results.pt", "hpe_results.pt")
"""File names that the estimators use in a video's folder; any other name is accepted if it is the only one."""
_RESULT_SUFFIXES = (".pkl", ".pt", ".npz")


def names_of(video: Video) -> list[str]:
    """Possible names of a video's result: its source id, or its file name without suffix. WHAM removes the last suffix, TRAM
    everything after the first dot."""
    name = PurePosixPath(video.source.uri).name
    return list(dict.fromkeys([video.source.id, PurePosixPath(name).stem, name.split(".")[0]]))


def find_result(folder: str, names: Sequence[str]) -> str:
    """The sub-folder or file of the first name that exists. Raises ResultError."""
    fs, root = fsspec.core.url_to_fs(folder)
    for name in names:
        for suffix in ("", *SUFFIXES):
            path = f"{root.rstrip('/')}/{name}{suffix}"
            if fs.isdir(path) or (suffix and fs.exists(path)):
                return fs.unstrip_protocol(path).removeprefix("file://")
    tried = ", ".join(dict.fromkeys(names))
    raise ResultError(
        "no_result",
        f"{folder}: no folder or result file named {tried}; run the estimator on that video, or rename its output",
    )


def read_result(uri: str) -> Result:
    """A result file, or a video's folder as written by an estimator; any fsspec path. Raises ResultError."""
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.exists(path):
        raise ResultError("no_result", f"{uri}: no such file or folder; check the path")
    digest = hashlib.sha256()

    def read(file: str) -> Any:
        try:
            size = fs.size(file) or 0
            content = fs.cat_file(file) if size <= MAX_UNPACKED_BYTES else b""
        except OSError as error:
            raise ResultError("unreadable_result", f"{file}: cannot be read ({error}); check its permissions") from None
        if size > MAX_UNPACKED_BYTES:
            raise SourceError("result_too_large", f"{file}: bytes", size, MAX_UNPACKED_BYTES)
        digest.update(content)
        return read_plain(file, content)

    if fs.isdir(path):
        files = {PurePosixPath(file).name: file for file in sorted(fs.ls(path, detail=False))}
        if "camera.npy" in files:
            result = parse_tram(path, read(files["camera.npy"]), {name: read(file) for name, file in _tracks(fs, path)})
            return replace(result, digest=digest.hexdigest()[:12])
        candidates = [name for name in _RESULT_NAMES if name in files]
        candidates = candidates or [name for name in files if name.endswith(_RESULT_SUFFIXES)]
        if len(candidates) != 1:
            found = f"{len(candidates)} result files ({', '.join(candidates)})" if candidates else "no result file"
            raise ResultError(
                "unknown_layout",
                f"{uri}: {found} in the folder; leave one of {', '.join(_RESULT_NAMES)}, or TRAM's camera.npy and hps",
            )
        path = files[candidates[0]]
    data = read(path)
    if path.endswith(".npy"):
        raise ResultError(
            "unknown_layout", f"{path}: a part of TRAM's result; give the folder that contains camera.npy and hps"
        )
    return replace(parse(path, data), digest=digest.hexdigest()[:12])


def _tracks(fs: Any, folder: str) -> list[tuple[str, str]]:
    """Name and path of TRAM's tracks, in order."""
    hps = f"{folder}/hps"
    files = fs.ls(hps, detail=False) if fs.isdir(hps) else []
    numbered = [(int(match[1]), match[0], file) for file in files if (match := re.search(r"hps_track_(\d+)", file))]
    if not numbered:
        raise ResultError(
            "unknown_layout", f"{hps}: no hps_track_*.npy; run TRAM's estimate_humans.py on the video too"
        )
    return [(name, file) for _, name, file in sorted(numbered)]
