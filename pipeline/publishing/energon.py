"""What Megatron Energon wants beside the shards: `.nv-meta`, and where the samples of each shard begin.

Formats as its documentation (Dataset Format on Disk) and its reader have them: `.info.json` counts samples by shard,
`split.yaml` lists the shards of each split, `dataset.yaml` names the class that hands samples over, and `SHARD.tar.idx` holds
where each sample begins and the last one ends, as 64-bit integers, the least byte first.
"""

import json
from collections.abc import Sequence

import numpy as np
import yaml

from schemas.dataset import SPLITS, ShardEntry, read_table
from schemas.storage import Storage

_FOLDER = ".nv-meta"
_LOADER = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
"""Samples as they are, for the trainer's own cooker: none of Energon's sample types has motions."""


def write_energon(storage: Storage, shards: Sequence[ShardEntry], tables: Sequence[str]) -> None:
    """Describe shards, and the tables of the catalogue that belong to them one by one, for Energon.

    `split.yaml` is about all subsets, `split-SUBSET.yaml` (its `split_config`) about one.
    """
    for shard, table in zip(shards, tables, strict=True):
        sizes = read_table(storage, table).column("bytes").to_numpy()
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype("<u8")
        storage.write_bytes(shard.path.removesuffix(".tar") + ".tar.idx", offsets.tobytes())
    info = {"shard_counts": {shard.path: shard.samples for shard in shards}}
    storage.write_bytes(f"{_FOLDER}/.info.json", json.dumps(info, indent=1).encode())
    storage.write_bytes(f"{_FOLDER}/.info.yaml", yaml.safe_dump(info).encode())  # what older ones read
    storage.write_bytes(f"{_FOLDER}/dataset.yaml", yaml.safe_dump(_LOADER).encode())
    for subset in ["", *sorted({shard.subset for shard in shards})]:
        mine = [shard for shard in shards if subset in ("", shard.subset)]
        parts = {split: [shard.path for shard in mine if shard.split == split] for split in SPLITS}
        name = f"split-{subset}.yaml" if subset else "split.yaml"
        storage.write_bytes(f"{_FOLDER}/{name}", yaml.safe_dump({"exclude": [], "split_parts": parts}).encode())
