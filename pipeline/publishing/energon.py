"""Metadata for Megatron Energon: `.nv-meta`, and the sample offsets of each shard.

The formats follow its documentation (Dataset Format on Disk) and its reader: `.info.json` counts samples by shard, `split.yaml`
lists the shards of each split, `dataset.yaml` names the loader class, and `SHARD.tar.idx` holds the offset of each sample and
the end of the last one, as little-endian 64-bit integers.
"""

import json
from collections.abc import Sequence

import numpy as np
import yaml

from schemas.dataset import SPLITS, ShardEntry, read_table
from schemas.storage import Storage

_FOLDER = ".nv-meta"
_LOADER = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
"""Raw samples for the trainer's own cooker, since none of Energon's sample types has motions."""


def write_energon(storage: Storage, shards: Sequence[ShardEntry], tables: Sequence[str]) -> None:
    """Write Energon's metadata for shards; `tables` are the catalogue files of the shards, in the same order.

    `split.yaml` covers all subsets, `split-SUBSET.yaml` (for `split_config`) one.
    """
    for shard, table in zip(shards, tables, strict=True):
        sizes = read_table(storage, table).column("bytes").to_numpy()
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype("<u8")
        storage.write_bytes(shard.path.removesuffix(".tar") + ".tar.idx", offsets.tobytes())
    info = {"shard_counts": {shard.path: shard.samples for shard in shards}}
    storage.write_bytes(f"{_FOLDER}/.info.json", json.dumps(info, indent=1).encode())
    storage.write_bytes(f"{_FOLDER}/.info.yaml", yaml.safe_dump(info).encode())  # read by older versions
    storage.write_bytes(f"{_FOLDER}/dataset.yaml", yaml.safe_dump(_LOADER).encode())
    for subset in ["", *sorted({shard.subset for shard in shards})]:
        selected = [shard for shard in shards if subset in ("", shard.subset)]
        parts = {split: [shard.path for shard in selected if shard.split == split] for split in SPLITS}
        name = f"split-{subset}.yaml" if subset else "split.yaml"
        storage.write_bytes(f"{_FOLDER}/{name}", yaml.safe_dump({"exclude": [], "split_parts": parts}).encode())
