"""The settings of all jobs that wrote to a dataset, so that a later job can report differences and a retry can repeat them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import STAGES, stage_class
from pipeline.dataset.job_records import LEFT_OUT, digest_of_job, write_job
from schemas.config import parse_config
from schemas.errors import HumoError
from schemas.secrets import public_settings
from schemas.storage import Storage

_MAX_CHANGES = 12
"""Maximum number of changed settings that are listed individually."""


def record_job(storage: Storage, config: IngestConfig) -> None:
    """Save the settings of a job as jobs/DIGEST-SOURCES.json, independent of the job's outcome; addresses in their public form,
    without the values of settings that name a credential. `left_out` lists the settings from which something was left out."""
    write_job(storage, config.digest, config.model_dump(mode="json"))


@dataclass(frozen=True, kw_only=True)
class RecordedJob:
    """A job that wrote to the dataset."""

    path: str
    """Of its record."""
    digest: str
    """Of its settings, as the ledger has it."""
    config: IngestConfig
    left_out: list[str]
    """Settings that were given with credentials, which are not recorded."""


def recorded_jobs(storage: Storage) -> Iterator[RecordedJob]:
    """Every job that wrote to the dataset; raises UsageError for a key that this version does not know."""
    for path in storage.list("jobs", ".json"):
        content = _read(storage, path)
        left_out = content.pop(LEFT_OUT, [])
        config = parse_config(content, IngestConfig, f"{storage.uri}/{path}")
        yield RecordedJob(path=path, digest=digest_of_job(path), config=config, left_out=left_out)


def describe_changes(storage: Storage, config: IngestConfig, digests: Counter[str]) -> list[str]:
    """One line for each of these earlier settings, given by digest with its number of sources: the differences from the job's
    settings."""
    recorded = {digest_of_job(path): path for path in storage.list("jobs", ".json")}
    now = _sample_settings(public_settings(config.model_dump(mode="json"))[0])
    lines = []
    for settings_digest, count in digests.most_common():
        if settings_digest not in recorded:
            lines.append(f"{count} sources: settings {settings_digest}, which are not recorded")
            continue
        before = _sample_settings(_read(storage, recorded[settings_digest]))
        keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        differences = [f"{key}: {_format(before.get(key))} -> {_format(now.get(key))}" for key in keys[:_MAX_CHANGES]]
        differences += [f"and {len(keys) - _MAX_CHANGES} more"] if len(keys) > _MAX_CHANGES else []
        lines.append(f"{count} sources: {'; '.join(differences) or 'another version of humo'}")
    return lines


def _read(storage: Storage, path: str) -> dict[str, Any]:
    """A recorded job's settings, under their current names."""
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise HumoError(f"{storage.uri}/{path}: not JSON ({error}); delete it") from None
    for stage, settings in content.get("stages", {}).items():
        if stage in STAGES and isinstance(settings, dict):
            content["stages"][stage] = stage_class(stage).Config.current_names(settings)
    return content


def _sample_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine the content of samples, flattened."""
    flat: dict[str, Any] = {}
    _flatten({"chain": ", ".join(content["chain"]), "stages": content["stages"]}, "", flat)
    return flat


def _flatten(value: Any, name: str, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(inner, f"{name}.{key}" if name else key, into)
    else:
        into[name] = value


def _format(value: Any) -> str:
    return "(not there)" if value is None else json.dumps(value, ensure_ascii=False)
