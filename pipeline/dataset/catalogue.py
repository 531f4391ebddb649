"""The catalogue: a row a sample, with what an auditor asks for, so that nobody has to open a tar."""

import io
import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.sample import sources_of
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
    ]
)  # fmt: skip
"""Columns of the catalogue; one `score_NAME` a score follows. `sources` are all that a sample was made of, `segments` the
keys of the samples that a joined one was made of."""


def catalogue_row(stretch: bytes, subset: str, split: str, shard: str) -> dict[str, Any]:
    """What the catalogue says of a sample, from its stretch of a tar."""
    _, members = decode_sample_bytes(stretch, shard)
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


def catalogue_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of one shard, with a column for each score that any of them has."""
    scores = sorted({name for row in rows for name in row if name.startswith("score_")})
    return pa.Table.from_pylist(rows, schema=pa.schema([*CATALOGUE, *((name, pa.float64()) for name in scores)]))


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


def tallied(catalogue: pa.Table) -> Counter[str]:
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
