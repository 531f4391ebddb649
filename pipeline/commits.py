"""The commit protocol: samples of some sources are written to a part, then the ledger says so. No ledger row, no source.

Both files are named by what they decide on, so a job that was killed between the two writes the same part again.
"""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.bundles import Bundle
from schemas.dataset import LEDGER, read_table, write_table
from schemas.ids import digest
from schemas.records import Rejection, Sample
from schemas.shards import encode_sample, write_tar
from schemas.storage import Storage


def commit(storage: Storage, bundles: Sequence[Bundle], config_digest: str) -> str:
    """Write part and ledger row of finished bundles; returns the commit's name."""
    bundles = sorted(bundles, key=lambda bundle: bundle.source.id)
    name = digest("commit", config_digest, *((b.source.id, b.source.uri, b.sha256) for b in bundles), digits=16)
    samples = sorted(
        ((bundle, sample) for bundle in bundles for sample in bundle.samples), key=lambda pair: pair[1].key
    )
    accepted = []
    if samples:
        part = f"parts/{name}.tar"
        with storage.publish(part) as file:
            content = write_tar(file, (encode_sample(sample.key, sample.members) for _, sample in samples))
        accepted = [
            _row(bundle, outcome="accepted", record_id=sample.key, subset=sample.subset, stage="encode_clip", part=part)
            | {"offset": offset, "length": length, "part_sha256": content.sha256, "seconds": _seconds(sample)}
            for (bundle, sample), (offset, length) in zip(samples, content.spans, strict=True)
        ]
    rejected = [_rejected(bundle, rejection) for bundle in bundles for rejection in bundle.rejections]
    rows = [row | {"commit": name, "config_digest": config_digest} for row in accepted + rejected]
    write_table(storage, f"ledger/{name}.parquet", pa.Table.from_pylist(rows, schema=LEDGER))
    return name


def done_sources(storage: Storage) -> dict[str, str]:
    """Source -> digest of the settings that it was decided under, from the ledger."""
    done: dict[str, str] = {}
    for path in storage.list("ledger", ".parquet"):
        table = read_table(storage, path)
        done |= dict(zip(table.column("source_id").to_pylist(), table.column("config_digest").to_pylist(), strict=True))
    return done


def _row(bundle: Bundle, **values: Any) -> dict[str, Any]:
    source = bundle.source
    empty = {"subset": "", "reason": "", "detail": "", "measured": float("nan"), "limit": float("nan"), "part": ""}
    none = {"offset": 0, "length": 0, "part_sha256": "", "seconds": 0.0}
    known = {"source_id": source.id, "uri": source.uri, "sha256": bundle.sha256, "licence": source.licence}
    return empty | none | known | values


def _rejected(bundle: Bundle, one: Rejection) -> dict[str, Any]:
    return _row(
        bundle, outcome="rejected", record_id=one.id, stage=one.stage, reason=one.reason, detail=one.detail,
        measured=one.measured, limit=one.limit,
    )  # fmt: skip


def _seconds(sample: Sample) -> float:
    meta = json.loads(sample.members["meta.json"])
    return meta["frames"] / meta["fps"]
