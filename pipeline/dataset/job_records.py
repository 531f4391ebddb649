"""Records of jobs, jobs/DIGEST-SOURCES.json: settings in their public form, without credentials."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from schemas.ids import digest
from schemas.secrets import public_settings
from schemas.storage import Storage

LEFT_OUT = "left_out"
"""Key of a record: names of the settings that were given with credentials."""


def write_job(storage: Storage, config_digest: str, settings: dict[str, Any]) -> str:
    """Record a job's settings unless they are already recorded; returns the path. Addresses get their public form, and settings
    that name a credential no value."""
    path, content = _record(config_digest, settings)
    with contextlib.suppress(FileExistsError):
        storage.create(path, content)
    return path


def digest_of_job(path: str) -> str:
    """Digest of the settings, as the ledger has it."""
    return path.removeprefix("jobs/").partition("-")[0]


def jobs_with_secrets(storage: Storage) -> Iterator[tuple[str, list[str]]]:
    """Records that hold credentials, and the settings that do. A record that is not JSON is none of them: reading it reports it."""
    for path in storage.list("jobs", ".json"):
        with contextlib.suppress(ValueError):
            names = public_settings(json.loads(storage.read_bytes(path)))[1]
            if names:
                yield path, names


def redact_jobs(storage: Storage) -> None:
    """Replace records that hold credentials."""
    for path, _ in list(jobs_with_secrets(storage)):
        new, content = _record(digest_of_job(path), json.loads(storage.read_bytes(path)))
        storage.write_bytes(new, content)
        if new != path:
            storage.delete(path)


def _record(config_digest: str, settings: dict[str, Any]) -> tuple[str, bytes]:
    content, left_out = public_settings(settings)
    left_out = sorted({*content.pop(LEFT_OUT, []), *left_out})
    sources = digest(json.dumps(content["sources"], sort_keys=True), digits=12)
    content |= {LEFT_OUT: left_out} if left_out else {}
    return f"jobs/{config_digest}-{sources}.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
