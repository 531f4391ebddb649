"""Damaged motion-capture files: a result or a reason, whatever was done to them."""

import random
from pathlib import Path

import numpy as np
from mocap_files import body_motion, global_poses, write_gltf, write_known_bvh

from pipeline.fault_injection.corrupt_mocap import damage, read


def test_damaged_files_end_in_a_result_or_a_reason(tmp_path: Path) -> None:
    motion = body_motion("walk", 2.0)
    files = [
        write_known_bvh(tmp_path / "a.bvh", motion, "cmu_bvh"),
        write_gltf(tmp_path / "b.glb", motion),
        tmp_path / "c.npy",
    ]
    np.save(files[2], global_poses(motion)[0][:, :22].astype(np.float32))
    (tmp_path / "d.csv").write_text("uri,fps\na.bvh,30\n")
    files.append(tmp_path / "d.csv")
    assert all(read(path) == "result" for path in files)
    rng = random.Random(0)
    kinds = set()
    for number in range(24):
        source = files[number % len(files)]
        path = tmp_path / f"damaged{source.suffix}"
        path.write_bytes(damage(source.read_bytes(), rng))
        kinds.add(read(path))
    assert "result" in kinds
    assert len(kinds) > 3, kinds
