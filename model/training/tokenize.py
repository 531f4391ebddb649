"""Codes of a dataset's motions, written beside its shards: codes/TOKENIZER/SUBSET-SPLIT-NUMBER.parquet, a table per shard with the
columns key, steps and codes (steps x parts x levels, flattened). TOKENIZER is the fingerprint of the weights, so that codes of
different tokenizers never mix; codes/TOKENIZER/tokenizer.json is its model.json.
"""

import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int

from model import checkpoints
from model.data.dataset import MotionDataset, check_body_model
from model.features.motions import motion_features
from model.tokenizer.motion_tokenizer import load_tokenizer
from schemas.body_model import BodyModel
from schemas.dataset import codes_path, read_description
from schemas.errors import HumoError
from schemas.storage import Storage

_SHA256 = b"shard_sha256"


@dataclass(frozen=True, kw_only=True)
class TokenizeReport:
    """What was written."""

    folder: str
    """Folder of the codes in the dataset."""
    motions: int
    frames: int
    too_short: int
    """Motions shorter than a step, which have no codes."""
    shards: int
    kept_shards: int
    """Shards whose codes were there already."""


def tokenize(checkpoint: str | Path, dataset: str, *, body_model: str = "", device: str = "cpu") -> TokenizeReport:
    """Write the codes of all motions; shards whose codes are there are left alone. Raises HumoError for an unusable checkpoint or
    dataset."""
    folder, _ = checkpoints.find(checkpoint, "tokenizer")
    tokenizer, description = load_tokenizer(folder)
    body = BodyModel.load(body_model or None)
    check_body_model(dataset, body)
    if description["body_model"] != body.id:
        raise HumoError(f"{checkpoint}: trained for the body {description['body_model']}, this dataset uses {body.id}")
    tokenizer.to(device)
    storage, name = Storage(dataset), checkpoints.fingerprint(folder)
    counts: dict[str, int] = defaultdict(int)
    shards = [shard for shard in read_description(storage).shards if shard.samples]
    for split in sorted({shard.split for shard in shards}):
        samples = MotionDataset(dataset, split=split)
        first = 0
        for shard in samples.reader.shards:
            numbers = range(first, first + shard.samples)
            first += shard.samples
            path = codes_path(name, shard.path)
            if storage.exists(path) and _made_from(storage, path) == shard.sha256:
                counts["kept"] += 1
                continue
            rows = []
            for number in (number for number in numbers if not samples.removed[number]):
                sample = samples.sample(number)
                if len(sample.motion.poses) <= tokenizer.config.downsample:
                    counts["short"] += 1
                    continue
                features = motion_features([sample.motion], body, tokenizer.config.features).to(device)
                with torch.inference_mode():
                    codes = tokenizer.encode(features)[0].cpu().numpy().astype(np.uint16)
                rows.append({"key": sample.key, "steps": len(codes), "codes": codes.ravel()})
                counts["motions"] += 1
                counts["frames"] += len(sample.motion.poses)
            storage.write_bytes(path, _table(rows, shard.sha256))
            counts["shards"] += 1
    storage.write_bytes(f"codes/{name}/tokenizer.json", json.dumps(description, indent=1, sort_keys=True).encode())
    return TokenizeReport(
        folder=f"codes/{name}", motions=counts["motions"], frames=counts["frames"], too_short=counts["short"],
        shards=counts["shards"] + counts["kept"], kept_shards=counts["kept"],
    )  # fmt: skip


def read_codes(storage: Storage, path: str, parts: int, levels: int) -> dict[str, Int[np.ndarray, "S P K"]]:
    """Codes of a shard by sample key."""
    table = pq.read_table(io.BytesIO(storage.read_bytes(path)))
    return {
        row["key"]: np.asarray(row["codes"], np.int64).reshape(row["steps"], parts, levels) for row in table.to_pylist()
    }


def _table(rows: list[dict[str, object]], sha256: str) -> bytes:
    fields = [("key", pa.string()), ("steps", pa.int32()), ("codes", pa.list_(pa.uint16()))]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields, metadata={_SHA256: sha256.encode()})), file)
    return file.getvalue()


def _made_from(storage: Storage, path: str) -> str:
    metadata = pq.read_schema(io.BytesIO(storage.read_bytes(path))).metadata or {}
    return metadata.get(_SHA256, b"").decode()
