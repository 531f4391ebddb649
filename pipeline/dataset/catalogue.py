"""The catalogue: one row per sample with the facts for audits, which saves opening tars."""

import io
import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.sample import sources_of, version_of
from schemas.shards import decode_sample_bytes

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
        ("version", pa.int64()), ("coverage", pa.string()),
    ]
)  # fmt: skip
"""Columns of the catalogue; one `score_NAME` per score follows. `sources` are all sources of a sample, `segments` the keys
of the samples that a joined motion consists of."""
SINCE_VERSION_2 = ("version", "coverage")
"""Columns that catalogues of layout 4 do not have."""


def catalogue_row(sample: bytes, subset: str, split: str, shard: str) -> dict[str, Any]:
    """Catalogue row of an encoded sample."""
    _, members = decode_sample_bytes(sample, shard)
    meta = json.loads(members["meta.json"])
    text = json.loads(members["text.json"])
    instances = json.loads(members["instructions.json"])["instances"]
    shared = {name: meta[name] for name in CATALOGUE.names if name in meta}
    return shared | {
        "subset": subset,
        "split": split,
        "shard": shard,
        "seconds": meta["frames"] / meta["fps"],
        "version": version_of(meta),
        "coverage": meta.get("coverage", "whole"),
        "caption": text["body"][0],
        "kinds": sorted({event["kind"] for event in text["rules"]}),
        "parts": sorted({event["part"] for event in text["rules"] if event["kind"] != "rest"}),
        "sources": sources_of(meta),
        "segments": [one["key"] for one in meta.get("segments", [])],
        "instructions": len(instances),
        "bytes": len(sample),
        **_describer_columns(text),
        "visual_embedding": _embedding(members),
        **{f"score_{name}": value for name, value in meta["scores"].items()},
    }


def catalogue_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of one shard, with a column for every score that occurs in them."""
    scores = sorted({name for row in rows for name in row if name.startswith("score_")})
    return pa.Table.from_pylist(rows, schema=pa.schema([*CATALOGUE, *((name, pa.float64()) for name in scores)]))


def _describer_columns(text: dict[str, Any]) -> dict[str, Any]:
    """Outcome and cost of the describer, and verdicts on its sentences."""
    usage = text["describer"]
    verdicts = Counter(check["verdict"] for check in text["checks"])
    return {
        "describer": usage["describer"],
        "describer_outcome": usage["outcome"],
        "describer_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
        "describer_usd": usage["cost_usd"],
        "sentences_added": verdicts["supported"] + verdicts["unknown"],
        "sentences_rejected": verdicts["rejected"],
    }


def describer_totals(catalogue: pa.Table) -> Counter[str]:
    """Sums over the describers' outcomes and cost for a shard; `describer_OUTCOME` counts samples."""
    totals: Counter[str] = Counter()
    for name in ("describer_tokens", "describer_usd", "sentences_added", "sentences_rejected"):
        totals[name] = pc.sum(catalogue.column(name)).as_py() or 0
    return totals + Counter(f"describer_{outcome}" for outcome in catalogue.column("describer_outcome").to_pylist())


def _embedding(members: dict[str, bytes]) -> list[float]:
    """Embedding of the images; empty for motion capture and if none was computed."""
    if "keypoints.npz" not in members:
        return []
    with np.load(io.BytesIO(members["keypoints.npz"]), allow_pickle=False) as arrays:
        return arrays["visual_embedding"].tolist()
