"""Shards, catalogue and dataset.json from the commits: same commits, same bytes, whatever happened in between."""

import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import __version__
from schemas.dataset import (
    DESCRIPTION,
    SPLITS,
    DatasetDescription,
    ShardEntry,
    read_description,
    read_ledger,
    read_tombstones,
    write_description,
    write_table,
)
from schemas.errors import HumoError
from schemas.ids import digest, unit_interval
from schemas.sample import sources_of
from schemas.shards import END_OF_ARCHIVE, read_samples, write_tar
from schemas.storage import Storage

CATALOGUE = pa.schema(
    [
        ("key", pa.string()), ("subset", pa.string()), ("split", pa.string()), ("shard", pa.string()),
        ("source_id", pa.string()), ("uri", pa.string()), ("sha256", pa.string()), ("licence", pa.string()),
        ("consent", pa.string()), ("title", pa.string()), ("person", pa.int64()), ("start_s", pa.float64()),
        ("end_s", pa.float64()), ("frames", pa.int64()), ("seconds", pa.float64()), ("source_fps", pa.float64()),
        ("width", pa.int64()), ("height", pa.int64()), ("body_model", pa.string()), ("config_digest", pa.string()),
        ("caption", pa.string()), ("kinds", pa.list_(pa.string())), ("parts", pa.list_(pa.string())),
        ("sources", pa.list_(pa.string())), ("segments", pa.list_(pa.string())),
        ("instructions", pa.int64()), ("bytes", pa.int64()), ("describer", pa.string()),
        ("describer_outcome", pa.string()), ("describer_tokens", pa.int64()), ("describer_usd", pa.float64()),
        ("sentences_added", pa.int64()), ("sentences_rejected", pa.int64()), ("visual_embedding", pa.list_(pa.float32())),
    ]
)  # fmt: skip
"""Columns of the catalogue; one `score_NAME` a score follows. `sources` are all that a sample was made of, `segments` the
keys of the samples that a joined one was made of."""


def split_of(sha256: str, shares: Mapping[str, float]) -> str:
    """Split of a source by its content, so that two copies of a video never part."""
    place, edge = unit_interval("split", sha256), 0.0
    for split in SPLITS:
        edge += shares.get(split, 0.0)
        if place < edge:
            return split
    return next(split for split in SPLITS if shares.get(split, 0.0) > 0)


def pack(dataset: str, *, splits: Mapping[str, float], shard_bytes: int) -> DatasetDescription:
    """Write shards, catalogue and, last, dataset.json; what no longer belongs is removed after that.

    Raises HumoError where the ledger is empty or a part is missing or altered.
    """
    storage = Storage(dataset)
    ledger = read_ledger(storage)
    if not len(ledger):
        raise HumoError(f"{dataset}: its ledger is empty; run humo ingest first")
    rows = _live_rows(ledger.to_pylist(), read_tombstones(storage))
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["record_id"]):
        groups[row["subset"], split_of(row["sha256"], splits)].append(row)
    shards: list[ShardEntry] = []
    tables: list[str] = []
    body_models: set[str] = set()
    described: Counter[str] = Counter()
    for (subset, split), members in sorted(groups.items()):
        for number, some in enumerate(_fill(members, shard_bytes)):
            path = f"shards/{subset}/{split}-{number:06d}.tar"
            entry, catalogue = _write_shard(storage, path, subset, split, some)
            table = f"catalogue/{subset}-{split}-{number:06d}.parquet"
            write_table(storage, table, catalogue)
            shards.append(entry)
            tables.append(table)
            body_models.update(catalogue.column("body_model").to_pylist())
            described.update(_tallied(catalogue))
    description = replace(
        _describe(ledger, rows, shards, described),
        version=version_of(storage, splits, shard_bytes),
        body_models=sorted(body_models),
        splits=dict(splits),
        shard_bytes=shard_bytes,
    )
    write_description(storage, description)
    for path in storage.list("shards", ".tar") + storage.list("catalogue", ".parquet"):
        if path not in {*tables, *(shard.path for shard in shards)}:
            storage.delete(path)
    return description


def version_of(storage: Storage, splits: Mapping[str, float], shard_bytes: int) -> str:
    """Digest of all that a packed dataset depends on: commits, removals and how it is packed."""
    commits = storage.list("ledger", ".parquet")
    return digest(*commits, sorted(read_tombstones(storage)), sorted(splits.items()), shard_bytes, digits=16)


def is_packed(storage: Storage, splits: Mapping[str, float], shard_bytes: int) -> bool:
    """Whether dataset.json describes these very commits, packed this way."""
    return storage.exists(DESCRIPTION) and read_description(storage).version == version_of(storage, splits, shard_bytes)


def _live_rows(rows: list[dict[str, Any]], removed: set[str]) -> list[dict[str, Any]]:
    """Accepted rows without the removed ones; a key that two sources have (the same content twice) is taken once."""
    live: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["outcome"] == "accepted" and row["record_id"] not in removed:
            live.setdefault(row["record_id"], row)
    return list(live.values())


def _fill(rows: list[dict[str, Any]], shard_bytes: int) -> Iterator[list[dict[str, Any]]]:
    some: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if some and size + row["length"] > shard_bytes:
            yield some
            some, size = [], 0
        some.append(row)
        size += row["length"]
    if some:
        yield some


def _write_shard(
    storage: Storage, path: str, subset: str, split: str, rows: list[dict[str, Any]]
) -> tuple[ShardEntry, pa.Table]:
    entries: list[dict[str, Any]] = []

    def stretches() -> Iterator[bytes]:
        for row in rows:
            stretch = _stretch(storage, row)
            entries.append(_catalogue_row(row, stretch, subset, split, path))
            yield stretch

    with storage.publish(path) as file:
        content = write_tar(file, stretches())
    entry = ShardEntry(
        path=path, subset=subset, split=split, samples=len(rows), bytes=content.bytes, sha256=content.sha256,
        hours=sum(row["seconds"] for row in rows) / 3600,
    )  # fmt: skip
    scores = sorted({name for row in entries for name in row if name.startswith("score_")})
    schema = pa.schema([*CATALOGUE, *((name, pa.float64()) for name in scores)])
    return entry, pa.Table.from_pylist(entries, schema=schema)


def _stretch(storage: Storage, row: dict[str, Any]) -> bytes:
    """The bytes of one sample, copied from its part."""
    try:
        stretch = storage.read_bytes(row["part"], row["offset"], row["offset"] + row["length"])
    except FileNotFoundError:
        stretch = b""
    if len(stretch) != row["length"] or not stretch.startswith(row["record_id"].encode() + b"."):
        raise HumoError(
            f"{storage.uri}/{row['part']}: does not hold sample {row['record_id']} where the ledger says; "
            f"restore the file, or delete ledger/{row['commit']}.parquet and run humo ingest again"
        )
    return stretch


def _catalogue_row(row: dict[str, Any], stretch: bytes, subset: str, split: str, shard: str) -> dict[str, Any]:
    _, members = next(read_samples(io.BytesIO(stretch + END_OF_ARCHIVE), shard))
    meta = json.loads(members["meta.json"])
    text = json.loads(members["text.json"])
    instances = json.loads(members["instructions.json"])["instances"]
    same = {name: meta[name] for name in CATALOGUE.names if name in meta}
    return same | {
        "subset": subset,
        "split": split,
        "shard": shard,
        "seconds": meta["frames"] / meta["fps"],
        "caption": text["body"][0],
        "kinds": sorted({event["kind"] for event in text["rules"]}),
        "parts": sorted({event["part"] for event in text["rules"] if event["kind"] != "rest"}),
        "sources": sources_of(meta),
        "segments": [one["key"] for one in meta.get("segments", [])],
        "instructions": len(instances),
        "bytes": len(stretch),
        **_described(text),
        "visual_embedding": _embedding(members),
        **{f"score_{name}": value for name, value in meta["scores"].items()},
    }


def _described(text: dict[str, Any]) -> dict[str, Any]:
    """How the describer fared, and what became of its sentences."""
    effort = text["describer"]
    verdicts = Counter(check["verdict"] for check in text["checks"])
    return {
        "describer": effort["describer"],
        "describer_outcome": effort["outcome"],
        "describer_tokens": effort["prompt_tokens"] + effort["completion_tokens"],
        "describer_usd": effort["cost_usd"],
        "sentences_added": verdicts["supported"] + verdicts["unknown"],
        "sentences_rejected": verdicts["rejected"],
    }


def _tallied(catalogue: pa.Table) -> Counter[str]:
    """What the describers of a shard's samples did, summed; `failed` counts samples."""
    tally: Counter[str] = Counter()
    for name in ("describer_tokens", "describer_usd", "sentences_added", "sentences_rejected"):
        tally[name] = pc.sum(catalogue.column(name)).as_py() or 0
    return tally + Counter(f"describer_{outcome}" for outcome in catalogue.column("describer_outcome").to_pylist())


def _embedding(members: dict[str, bytes]) -> list[float]:
    """Of the pictures; empty for motion capture and where nobody looked."""
    if "keypoints.npz" not in members:
        return []
    with np.load(io.BytesIO(members["keypoints.npz"]), allow_pickle=False) as arrays:
        return arrays["visual_embedding"].tolist()


def _describe(
    ledger: pa.Table, rows: list[dict[str, Any]], shards: list[ShardEntry], described: Counter[str]
) -> DatasetDescription:
    outcomes = Counter(ledger.column("outcome").to_pylist())
    samples: Counter[str] = Counter()
    for shard in shards:
        samples[f"{shard.subset}/{shard.split}"] += shard.samples
    return DatasetDescription(
        humo=__version__,
        config_digests=sorted(set(ledger.column("config_digest").to_pylist())),
        counts={
            "sources": len(set(ledger.column("source_id").to_pylist())),
            "sources_with_samples": len({row["source_id"] for row in rows}),
            "accepted": outcomes["accepted"],
            "rejected": outcomes["rejected"],
            "live": len(rows),
            "samples": dict(sorted(samples.items())),
            "hours": round(sum(shard.hours for shard in shards), 6),
            "describers": {
                "answered": described["describer_answered"],
                "skipped": described["describer_skipped"],
                "failed": described["describer_failed"],
                "sentences_added": described["sentences_added"],
                "sentences_rejected": described["sentences_rejected"],
                "tokens": described["describer_tokens"],
                "usd": round(float(described["describer_usd"]), 6),
            },
        },
        shards=shards,
    )
