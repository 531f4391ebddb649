"""Expansion of a config's `sources` (files, folders, globs, manifests) into Source records, before any work starts."""

import csv
import io
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import fsspec
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from schemas.addresses import is_remote, path_part, public_form
from schemas.config import Config
from schemas.errors import UsageError
from schemas.ids import source_id
from schemas.network import HTTP, folder_of, protocol_of
from schemas.records import Source
from schemas.storage import open_file
from stages import mocap
from stages.media.focal_length import LONGEST_MM, SHORTEST_MM, is_plausible

SUFFIXES = {
    "video": {
        ".264", ".265", ".3g2", ".3gp", ".amv", ".asf", ".avi", ".avs", ".bik", ".dav", ".divx", ".dv", ".f4v", ".flv", ".gif",
        ".h264", ".h265", ".hevc", ".insv", ".ivf", ".lrv", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mk3d",
        ".mkv", ".mod", ".mov", ".mp4", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nsv", ".nut", ".obu", ".ogg", ".ogm", ".ogv",
        ".qt", ".rm", ".rmvb", ".roq", ".tod", ".trp", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
    },
    "mocap": set(mocap.SUFFIXES),
    "studio": set(mocap.SUFFIXES),
}  # fmt: skip
"""File extensions that are searched in a folder; single files and manifests may have any extension."""
_MANIFEST_SUFFIXES = {".csv", ".tsv", ".jsonl", ".parquet"}
_GENERATED = "generated"
_DELIMITERS = ",;\t|"
_MAX_NAMED = 5
"""Files that a message names; it counts the others."""
_OPTIONAL = ("id", "title", "description", "licence", "consent", "joint_map")
MAX_FPS = 10_000.0
"""Highest frame rate that a manifest may give."""


_log = logging.getLogger(__name__)


class SourceConfig(Config):
    """One entry of `sources`."""

    kind: Literal["video", "mocap", "studio"] = "video"
    """Content of the files; `studio` is motion capture (or no file, see `path`) that is filmed with synthetic people."""
    path: str
    """A file, a folder (searched recursively), a glob, or a manifest (.csv, .tsv, .jsonl, .parquet) with a column `uri`
    and optionally `id`, `title`, `description`, `licence`, `consent`, `focal_35mm`, and for mocap `fps` and
    `joint_map`; any fsspec path. Other columns are not read.
    For kind studio also `generated`, or `generated:ACTION` for one action of the motion generator."""
    count: int = Field(1, ge=1)
    """For `generated`: number of sources, each of which is a film."""
    seed: int = Field(0, ge=0)
    """For `generated`: seed of the first source; the next sources have consecutive seeds."""
    licence: str = "unknown"
    """Licence of the files, where a manifest gives none."""
    consent: str = "unknown"
    """Consent of the people in the files, where a manifest gives none."""
    focal_35mm: float = 0.0
    """35 mm equivalent focal length of the camera, millimetres, where a manifest gives none; 0: from the metadata of the
    videos, if present."""

    @model_validator(mode="after")
    def _check_generated_fields(self) -> "SourceConfig":
        if not self.generated and (self.count, self.seed) != (1, 0):
            raise ValueError("count and seed belong to kind: studio with path: generated; leave them out")
        return self

    @property
    def generated(self) -> bool:
        """Whether the sources are generated, without files."""
        return self.kind == "studio" and self.path.partition(":")[0] == _GENERATED

    @property
    def store(self) -> str:
        """The file or folder that is named, or the folder of the manifest; of a glob, the folder above its first sign."""
        path = path_part(self.path)
        if protocol_of(path) in HTTP:  # the store is its host
            return path
        start = min([len(path), *(path.index(sign) for sign in "*?[" if sign in path)])
        is_manifest = PurePosixPath(path).suffix.lower() in _MANIFEST_SUFFIXES
        return folder_of(path[:start]) or "." if start < len(path) or is_manifest else path


def list_sources(configs: Sequence[SourceConfig]) -> list[Source]:
    """All sources in the order of their ids.

    Raises UsageError for a missing path, a folder without files of its kind, a manifest without a `uri` column, and for a
    duplicate id.
    """
    sources = [source for config in configs for source in _expand(config)]
    duplicates = [name for name, count in Counter(source.id for source in sources).items() if count > 1]
    if duplicates:
        uris = [source.uri for source in sources if source.id == duplicates[0]]
        raise UsageError(
            f"sources: id {duplicates[0]!r} is used {len(uris)} times ({', '.join(uris[:3])}); give every source a unique id"
            + (f" ({len(duplicates)} ids are affected)" if len(duplicates) > 1 else "")
        )
    return sorted(sources, key=lambda source: source.id)


def passed_over(configs: Sequence[SourceConfig]) -> list[str]:
    """Names of the files in the configs' folders that are not listed, because their extensions are not those of their kind."""
    names = []
    for config in configs:
        if not config.generated:
            fs, root = fsspec.core.url_to_fs(config.path)
            if _is_folder(fs, root, config.path):
                names += [_name(path) for path in _files(config, fs, root)[1]]
    return names


def _files(config: SourceConfig, fs: Any, root: str) -> tuple[list[str], list[str]]:
    """Files of a folder that are of the config's kind by their names, and the others, hidden ones apart."""
    found = sorted(fs.find(root))
    listed = [path for path in found if _suffix(path) in SUFFIXES[config.kind] and _is_text(path)]
    kept = set(listed)
    return listed, [path for path in found if path not in kept and not _is_hidden(path)]


def _expand(config: SourceConfig) -> Iterable[Source]:
    if config.generated:
        return _generated_sources(config)
    name = public_form(config.path)
    fs, root = fsspec.core.url_to_fs(config.path)
    if any(sign in path_part(config.path) for sign in "*?[") and (is_remote(config.path) or not fs.exists(root)):
        paths = sorted(path for path in fs.glob(root) if fs.isfile(path))
        if not paths:
            raise UsageError(f"sources: no file matches {name!r}; check the pattern")
        return [_file_source(config, fs.unstrip_protocol(path)) for path in paths]
    if PurePosixPath(path_part(config.path)).suffix.lower() in _MANIFEST_SUFFIXES:
        return _read_manifest(config)
    if _is_folder(fs, root, config.path):
        paths, left = _files(config, fs, root)
        others = _named(left)
        if not paths:
            raise UsageError(
                f"sources: {name} contains no {config.kind} file ({', '.join(sorted(SUFFIXES[config.kind]))}); "
                "list them in a manifest" + (f" (it contains {others})" if others else "")
            )
        if others:
            _log.warning(
                "sources: %s: %s passed over, whose names are not those of %s files; list what is one in a manifest",
                name, others, config.kind,
            )  # fmt: skip
        return [_file_source(config, fs.unstrip_protocol(path)) for path in paths]
    # A missing single file rejects that source and does not stop the job.
    return [_file_source(config, config.path)]


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _is_hidden(path: str) -> bool:
    return PurePosixPath(path).name.startswith(".")


def _is_text(path: str) -> bool:
    """Whether a name can be written into a dataset; names of other encodings than UTF-8 cannot."""
    return not any("\ud800" <= sign <= "\udfff" for sign in path)


def _name(path: str) -> str:
    return PurePosixPath(path).name.encode(errors="replace").decode()


def _named(paths: Sequence[str]) -> str:
    """How many files there are, and the names of the first ones; empty if there are none."""
    names = [_name(path) for path in paths[:_MAX_NAMED]]
    more = ", ..." if len(paths) > _MAX_NAMED else ""
    return f"{len(paths)} file{'s' if len(paths) > 1 else ''} ({', '.join(names)}{more})" if paths else ""


def _is_folder(fs: Any, root: str, path: str) -> bool:
    if path_part(path) != path or re.match("(?i)https?:", path):
        # Asking a web server whether an address is a folder fetches all of it, to look for links.
        return path_part(path).endswith("/")
    try:
        if not fs.isdir(root):
            return False
        fs.ls(root, detail=False)
    except PermissionError:
        raise UsageError(
            f"sources: no permission to read {public_form(path)}; grant it to this user, or choose another folder"
        ) from None
    return True


def _file_source(config: SourceConfig, uri: str) -> Source:
    uri = _local(uri)
    return Source(
        id=_id(config, uri), uri=uri, kind=config.kind, licence=config.licence, consent=config.consent,
        focal_35mm=_focal_35mm(config.focal_35mm, public_form(config.path)),
    )  # fmt: skip


def _focal_35mm(value: Any, where: str) -> float:
    """A focal length from a config or manifest; 0 if none is given."""
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        number = -1.0
    if number == 0 or math.isnan(number):
        return 0.0
    if not is_plausible(number):
        raise UsageError(
            f"sources: {where}: focal_35mm is {value!r}; give the 35 mm equivalent in millimetres, {SHORTEST_MM:.0f} to "
            f"{LONGEST_MM:.0f}, or leave it out"
        )
    return number


def _fps(value: Any, where: str) -> float:
    """A frame rate from a manifest; 0 if none is given."""
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        number = -1.0
    if math.isnan(number):
        return 0.0
    if not 0 <= number <= MAX_FPS:
        raise UsageError(
            f"sources: {where}: fps is {value!r}; give frames per second, above 0 to {MAX_FPS:.0f}, or leave it out"
        )
    return number


def _id(config: SourceConfig, uri: str) -> str:
    """The id of a file; a file can be both motion capture and a source of films."""
    return f"studio-{source_id(uri)}" if config.kind == "studio" else source_id(uri)


def _generated_sources(config: SourceConfig) -> list[Source]:
    from stages.synthesis.motions import ACTIONS

    action = config.path.partition(":")[2] or "*"
    if action not in (*ACTIONS, "*"):
        raise UsageError(
            f"sources: {config.path}: no such action; use `generated` for any, or one of {', '.join(ACTIONS)}"
        )
    name = "any" if action == "*" else action
    return [
        Source(
            id=f"studio-{name}-{seed:06d}", uri=f"studio:{action}#{seed}", kind=config.kind, licence=config.licence,
            consent=config.consent,
        )
        for seed in range(config.seed, config.seed + config.count)
    ]  # fmt: skip


def _local(uri: str) -> str:
    """Local URIs as absolute paths, others unchanged."""
    if uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    return uri if is_remote(uri) else str(Path(uri).expanduser().absolute())


def _read_manifest(config: SourceConfig) -> list[Source]:
    name = public_form(config.path)
    try:
        with open_file(config.path) as file:
            content = file.read()
    except FileNotFoundError:
        raise UsageError(f"sources: manifest {name} does not exist; check the path") from None
    except OSError as error:
        raise UsageError(f"sources: manifest {name} cannot be read ({error}); check its permissions") from None
    try:
        rows = _rows(content, PurePosixPath(path_part(config.path)).suffix.lower())
    except (ValueError, OSError, csv.Error) as error:
        raise UsageError(f"sources: manifest {name} cannot be parsed ({error}); fix the file") from None
    if not rows:
        raise UsageError(f"sources: manifest {name} has no rows; list at least one video")
    sources = []
    folder = config.path if path_part(config.path) == config.path else re.split("[?#]", config.path, maxsplit=1)[0]
    base = folder.rsplit("/", 1)[0] if "/" in folder else "."
    for number, row in enumerate(rows, start=1):
        uri = str(row.get("uri") or "").strip()
        if not uri:
            columns = ", ".join(str(column) for column in row) or "none"
            raise UsageError(
                f"sources: {name}, row {number}: no value in column `uri` (columns: {columns}); every row needs one"
            )
        if "\\" in uri and "/" not in uri:  # written on Windows
            uri = uri.replace("\\", "/")
        if not is_remote(uri) and not uri.startswith(("/", "~")):
            uri = f"{base}/{uri}"
        uri = _local(uri)
        given: dict[str, Any] = {name: str(row[name]) for name in _OPTIONAL if row.get(name) not in (None, "")}
        if re.fullmatch(r"\d+\.0+", given.get("id", "")):  # a number, which a spreadsheet or data frame made fractional
            given["id"] = given["id"].partition(".")[0]
        defaults = {"id": _id(config, uri), "licence": config.licence, "consent": config.consent}
        focal = _focal_35mm(row.get("focal_35mm") or config.focal_35mm, f"{name}, row {number}")
        fps = _fps(row.get("fps"), f"{name}, row {number}")
        sources.append(Source(**{**defaults, **given, "uri": uri, "kind": config.kind}, focal_35mm=focal, fps=fps))
    return sources


def _rows(content: bytes, suffix: str) -> list[dict[str, Any]]:
    """The rows with the names of columns in lower case; missing values (None, NaN) are left out."""
    if suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in _text(content).splitlines() if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is not a JSON object")
    else:
        rows = _table(_text(content))
    return [
        {
            str(name).strip().lower(): value
            for name, value in row.items()
            if name and value is not None and value == value
        }
        for row in rows
    ]


def _text(content: bytes) -> str:
    """Text as spreadsheets export it: UTF-8 or UTF-16 with or without a mark, or else a Western European code page."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    if b"\0" in content[:2]:
        return content.decode("utf-16-be" if content[:1] == b"\0" else "utf-16-le")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _table(text: str) -> list[dict[str, Any]]:
    """Rows of a table whose columns are separated by commas, semicolons, tabs or bars, whichever gives its header a `uri`."""
    first, _, rest = text.partition("\n")
    if first.strip().strip('"').lower().startswith("sep="):  # an instruction to a spreadsheet
        text, first = rest, rest.partition("\n")[0]

    def names(delimiter: str) -> list[str]:
        return [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]

    delimiter = next((one for one in _DELIMITERS if "uri" in names(one)), ",")
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
