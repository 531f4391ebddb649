"""The commit protocol: samples of some sources are written to a part, then the ledger says so. No ledger row, no source.

A commit is named by what it decides on, its part also by its bytes, and neither is ever written over: a job that was killed in
between decides the same again under the same name, and of two that decide at once one counts. A part that no ledger row
names is an orphan (see `pipeline.dataset.maintenance`).
"""

import hashlib
import io
import json
from collections.abc import Sequence
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
    """Write part and ledger rows of finished work items; returns the commit's name. Once more it changes nothing.

    Raises HumoError where the dataset cannot be written to.
    """
    work_items = sorted(work_items, key=lambda work_item: work_item.source.id)
    decided = ((b.source.id, b.source.uri, b.sha256, b.generation) for b in work_items)
    name = digest("commit", config_digest, *decided, digits=16)
    try:
        rows = _accepted(storage, name, work_items)
        rows += [_rejected(work_item, rejection) for work_item in work_items for rejection in work_item.rejections]
        rows = [row | {"commit": name, "config_digest": config_digest} for row in rows]
        storage.create(f"ledger/{name}.parquet", ledger_bytes(rows))
    except FileExistsError:
        pass  # decided before, by a worker that died after this or by another job
    except OSError as error:
        raise HumoError(
            f"{storage.uri}: a commit could not be written ({error}); make room or mend its rights, then run the same "
            "command again: what was committed before stays"
        ) from None
    return name


def done_sources(storage: Storage) -> dict[str, str]:
    """Source -> digest of the settings that it was decided under, from the ledger."""
    return {source: one.config_digest for source, one in decisions(read_history(storage)).items()}


def _accepted(storage: Storage, name: str, work_items: Sequence[WorkItem]) -> list[dict[str, Any]]:
    """Writes the part, if there is anything to put into it."""
    samples = sorted(
        ((work_item, sample) for work_item in work_items for sample in work_item.samples), key=lambda pair: pair[1].key
    )
    if not samples:
        return []
    buffer = io.BytesIO()
    stretches = [encode_sample(sample.key, sample.members) for _, sample in samples]
    content = write_tar(buffer, stretches)
    part = f"parts/{name}-{content.sha256[:12]}.tar"
    if not storage.exists(part):
        storage.write_bytes(part, buffer.getvalue())
    return [
        _row(work_item, outcome="accepted", record_id=sample.key, subset=sample.subset, stage="encode_clip", part=part)
        | {"offset": offset, "length": length, "part_sha256": content.sha256, "seconds": _seconds(sample)}
        | {"record_sha256": hashlib.sha256(stretch).hexdigest()}
        for (work_item, sample), (offset, length), stretch in zip(samples, content.spans, stretches, strict=True)
    ]


def _row(work_item: WorkItem, **values: Any) -> dict[str, Any]:
    source = work_item.source
    empty = {"subset": "", "reason": "", "detail": "", "measured": float("nan"), "limit": float("nan"), "part": ""}
    none = {"offset": 0, "length": 0, "part_sha256": "", "record_sha256": "", "seconds": 0.0}
    known: dict[str, Any] = {
        "source_id": source.id,
        "uri": source.uri,
        "sha256": work_item.sha256,
        "licence": source.licence,
    }
    known["generation"] = work_item.generation
    return empty | none | known | values


def _rejected(work_item: WorkItem, one: Rejection) -> dict[str, Any]:
    return _row(
        work_item, outcome="quarantined" if one.reason in QUARANTINE_REASONS else "rejected", record_id=one.id,
        stage=one.stage, reason=one.reason, detail=one.detail, measured=one.measured, limit=one.limit,
    )  # fmt: skip


def _seconds(sample: Sample) -> float:
    meta = json.loads(sample.members["meta.json"])
    return meta["frames"] / meta["fps"]
