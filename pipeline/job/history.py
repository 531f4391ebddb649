"""The jobs that wrote to a dataset: their settings, so that a later one can say what is different, and a retry can repeat them."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import STAGES, stage_class
from schemas.config import parse_config
from schemas.errors import HumoError
from schemas.ids import digest
from schemas.storage import Storage

_MOST_CHANGES = 12
"""Changed settings that are told one by one."""


def record_job(storage: Storage, config: IngestConfig) -> None:
    """Keep the settings of a job as jobs/DIGEST-SOURCES.json, whatever becomes of it."""
    content = config.model_dump(mode="json")
    name = f"jobs/{config.digest}-{digest(json.dumps(content['sources'], sort_keys=True), digits=12)}.json"
    with contextlib.suppress(FileExistsError):
        storage.create(name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def recorded_jobs(storage: Storage) -> Iterator[tuple[str, IngestConfig]]:
    """Digest and settings of every job that ever wrote to the dataset; raises UsageError for a key that this humo does not
    know."""
    for path in storage.list("jobs", ".json"):
        yield _digest_of(path), parse_config(_read(storage, path), IngestConfig, f"{storage.uri}/{path}")


def changes(storage: Storage, config: IngestConfig, digests: Counter[str]) -> list[str]:
    """In words, how each of these earlier settings, by digest with its number of sources, differs from the job's."""
    recorded = {_digest_of(path): path for path in storage.list("jobs", ".json")}
    now = _deciding(config.model_dump(mode="json"))
    told = []
    for name, number in digests.most_common():
        if name not in recorded:
            told.append(f"{number} sources: settings {name}, of which no record is left")
            continue
        before = _deciding(_read(storage, recorded[name]))
        keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        shown = [f"{key}: {_shown(before.get(key))} -> {_shown(now.get(key))}" for key in keys[:_MOST_CHANGES]]
        shown += [f"and {len(keys) - _MOST_CHANGES} more"] if len(keys) > _MOST_CHANGES else []
        told.append(f"{number} sources: {'; '.join(shown) or 'another version of humo'}")
    return told


def _digest_of(path: str) -> str:
    return path.removeprefix("jobs/").partition("-")[0]


def _read(storage: Storage, path: str) -> dict[str, Any]:
    """A recorded job's settings, under the names that they have now."""
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise HumoError(f"{storage.uri}/{path}: not JSON ({error}); delete it") from None
    for stage, settings in content.get("stages", {}).items():
        if stage in STAGES and isinstance(settings, dict):
            content["stages"][stage] = stage_class(stage).Config.current_names(settings)
    return content


def _deciding(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what a sample holds, flat."""
    flat: dict[str, Any] = {}
    _flatten({"chain": ", ".join(content["chain"]), "stages": content["stages"]}, "", flat)
    return flat


def _flatten(value: Any, name: str, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(inner, f"{name}.{key}" if name else key, into)
    else:
        into[name] = value


def _shown(value: Any) -> str:
    return "(not there)" if value is None else json.dumps(value, ensure_ascii=False)
