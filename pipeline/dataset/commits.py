"""The commit protocol: samples of some sources are written to a part, then recorded in the ledger, which completes the commit.

A commit is named by a digest of settings and sources, its part also of its bytes and its lease, and neither is ever overwritten: a
job that was killed in between makes the same commit again under the same name, and of two concurrent ones only one counts. A part
without a ledger row is an orphan (see `pipeline.dataset.maintenance`). A job that has lost its lease cannot commit any more.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.chain.work_item import WorkItem
from schemas.errors import HumoError
from schemas.ids import digest
from schemas.ledger import decisions, ledger_bytes, read_history
from schemas.records import Rejection, Sample
from schemas.shards import encode_sample, write_tar
from schemas.storage import Storage
from stages.base import QUARANTINE_REASONS


def commit(storage: Storage, work_items: Sequence[WorkItem], config_digest: str) -> str:
    """Write part and ledger rows of finished work items; returns the commit's name. Idempotent.

    Raises HumoError if the dataset is not writable or the lease that `storage` belongs to has been lost.
    """
    work_items = sorted(work_items, key=lambda work_item: work_item.source.id)
    name = commit_name(config_digest, [(b.source.id, b.source.uri, b.sha256, b.generation) for b in work_items])
    try:
        rows = _accepted(storage, name, work_items)
        rows += [_rejected(work_item, rejection) for work_item in work_items for rejection in work_item.rejections]
        rows = [row | {"commit": name, "config_digest": config_digest, "epoch": storage.epoch} for row in rows]
        storage.create(f"ledger/{name}.parquet", ledger_bytes(rows))
    except FileExistsError:
        pass  # committed earlier, by a worker that died afterwards or by another job
    except OSError as error:
        raise HumoError(
            f"{storage.uri}: cannot write a commit ({error}); free disk space or fix permissions, then run the same "
            "command again: earlier commits are kept"
        ) from None
    return name


def commit_name(config_digest: str, identities: Iterable[tuple[str, str, str, int]]) -> str:
    """Name of a commit of these sources: (id, public form of the address, sha256, generation), sorted by id."""
    return digest("commit", config_digest, *identities, digits=16)


def done_sources(storage: Storage) -> dict[str, str]:
    """Source -> digest of the settings of its current decision."""
    return {source: decision.config_digest for source, decision in decisions(read_history(storage)).items()}


def _accepted(storage: Storage, name: str, work_items: Sequence[WorkItem]) -> list[dict[str, Any]]:
    """Write the part, if there are samples, and return its rows."""
    samples = sorted(
        ((work_item, sample) for work_item in work_items for sample in work_item.samples), key=lambda pair: pair[1].key
    )
    if not samples:
        return []
    buffer = io.BytesIO()
    encoded = [encode_sample(sample.key, sample.members) for _, sample in samples]
    content = write_tar(buffer, encoded)
    part = part_path(storage, name, content.sha256)
    if not storage.exists(part):
        storage.write_bytes(part, buffer.getvalue())
    return [
        _row(work_item, outcome="accepted", record_id=sample.key, subset=sample.subset, stage="encode_clip", part=part)
        | {"offset": offset, "length": length, "part_sha256": content.sha256, "seconds": _seconds(sample)}
        | {"record_sha256": hashlib.sha256(sample_bytes).hexdigest()}
        for (work_item, sample), (offset, length), sample_bytes in zip(samples, content.spans, encoded, strict=True)
    ]


def part_path(storage: Storage, commit_name: str, sha256: str) -> str:
    """Path of a part of this commit and content, as this lease writes it.

    No other lease uses the name, so that the late deletion of an orphan cannot hit a part that a commit has named since.
    """
    epoch = f"-{storage.epoch}" if storage.epoch else ""
    return f"parts/{commit_name}-{sha256[:12]}{epoch}.tar"


def _row(work_item: WorkItem, **values: Any) -> dict[str, Any]:
    source = work_item.source
    defaults = {"subset": "", "reason": "", "detail": "", "measured": float("nan"), "limit": float("nan"), "part": ""}
    defaults |= {"offset": 0, "length": 0, "part_sha256": "", "record_sha256": "", "seconds": 0.0}
    known: dict[str, Any] = {
        "source_id": source.id,
        "uri": source.uri,
        "sha256": work_item.sha256,
        "licence": source.licence,
    }
    known["generation"] = work_item.generation
    return defaults | known | values


def _rejected(work_item: WorkItem, rejection: Rejection) -> dict[str, Any]:
    return _row(
        work_item, outcome="quarantined" if rejection.reason in QUARANTINE_REASONS else "rejected",
        record_id=rejection.id, stage=rejection.stage, reason=rejection.reason, detail=rejection.detail,
        measured=rejection.measured, limit=rejection.limit,
    )  # fmt: skip


def _seconds(sample: Sample) -> float:
    meta = json.loads(sample.members["meta.json"])
    return meta["frames"] / meta["fps"]
