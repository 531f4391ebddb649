"""Videos of calibrated cameras: their folders, joints from several views, and real people whose joints are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_data import SHARED_DATA
from test_calibrations import QUALISYS

from pipeline.benchmarks import views as bench_views
from pipeline.benchmarks.calibrations import read_calibrations
from pipeline.benchmarks.view_folders import read_views
from schemas.errors import UsageError
from schemas.records import Clip, Shot, Source, Track, Video
from schemas.skeleton import keypoint

JOINTS = ["left_hip", "right_hip", "left_wrist"]


def folder_with(folder: Path, truth: dict[str, Any] | None = None, **described: Any) -> Path:
    cameras = [{"name": name, "video": f"{name}.mp4"} for name in ("cam02", "cam03")]
    (folder / "Calib.qca.txt").write_text(QUALISYS)
    if truth is not None:
        np.savez(folder / "truth.npz", **truth)
        described["truth"] = "truth.npz"
    (folder / "views.json").write_text(json.dumps({"fps": 30, "cameras": cameras, **described}))
    return folder


def test_joints_in_the_world_are_seen_by_every_camera(tmp_path: Path) -> None:
    world = np.random.default_rng(1).normal([0.0, 0.0, 1.0], 0.3, (4, 3, 3))
    found = read_views(folder_with(tmp_path, {"joints": JOINTS, "world_m": world}, calibration="Calib.qca.txt"))
    assert [view.name for view in found.views] == ["cam02", "cam03"]
    for view in found.views:
        truth, calibration = found.truth[view.name], view.calibration
        assert calibration is not None
        assert view.up_in_camera[1] < -0.9
        np.testing.assert_allclose(truth.camera_m, calibration.to_camera(world))
        np.testing.assert_allclose(truth.pixels, calibration.project(world))
        assert truth.frames(1 / 30, 5).tolist() == [1, 2, 3, 3, 3]


def clip_of(name: str, start_s: float, keypoints: np.ndarray) -> Clip:
    frames, boxes = len(keypoints), np.zeros((len(keypoints), 4), np.float32)
    video = Video(
        source=Source(id=name, uri=f"{name}.mp4"), sha256="", width=1088, height=1920, fps=30.0, duration_s=1.0, has_audio=False
    )  # fmt: skip
    shot = Shot(video=video, index=0, start_s=0.0, end_s=1.0)
    times_s = start_s + np.arange(frames) / 30
    models = {"detector": "projection"}
    track = Track(shot=shot, person=0, times_s=times_s, boxes=boxes, keypoints=keypoints, models=models)
    return Clip(track=track, start_s=start_s, end_s=start_s + frames / 30, boxes=boxes, keypoints=keypoints)


ONE_CAMERA = [{"name": "cam02", "video": "x.mp4"}]
WITHOUT_LENS = [{"name": "cam02", "video": "x.mp4", "intrinsics": [1.0], "up_in_camera": [0.0, -1.0, 0.0]}]
QCA = {"calibration": "Calib.qca.txt"}


@pytest.mark.parametrize(
    ("truth", "described", "said"),
    [
        (None, {}, "intrinsics"),
        (None, {**QCA, "cameras": ONE_CAMERA}, "without a truth"),
        (None, {**QCA, "cameras": [{"name": "left", "video": "x.mp4"}]}, "camera left is not in"),
        (None, {"calibration": "lost.toml"}, "lost.toml"),
        ({"joints": JOINTS, "world_m": np.zeros((4, 2, 3))}, QCA, "other frames or joints"),
        ({"joints": ["left_horn"], "world_m": np.zeros((4, 1, 3))}, QCA, "left_horn"),
        ({"joints": JOINTS, "world_m": np.zeros((4, 3, 3))}, {"cameras": WITHOUT_LENS}, "fx, fy, cx, cy"),
    ],
)
def test_what_a_folder_lacks_is_named(
    truth: dict[str, Any] | None, described: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        read_views(folder_with(tmp_path, truth, **described))


def test_joints_are_triangulated_from_the_keypoints_of_all_views(tmp_path: Path) -> None:
    found = read_views(folder_with(tmp_path, calibration="Calib.qca.txt"))
    cameras = read_calibrations([tmp_path / "Calib.qca.txt"])
    world = np.random.default_rng(2).normal([0.0, 0.0, 1.0], 0.3, (20, 17, 3))
    clips = {}
    for name, first in (("cam02", 0), ("cam03", 5)):  # one view's clip begins five frames later
        keypoints = np.concatenate([cameras[name].project(world), np.ones((20, 17, 1))], -1).astype(np.float32)[first:]
        if name == "cam03":
            keypoints[8 - first, keypoint("left_wrist"), 2] = 0.1
        clips[name] = clip_of(name, first / 30, keypoints)
    truth, error_px = bench_views._triangulated(found.views, clips)
    assert error_px < 0.5
    for name, true in truth.items():
        assert np.isnan(true.camera_m[:5]).all(), "seen by one camera alone"
        rest = np.isfinite(true.camera_m).all(-1)
        assert [(frame, true.joints[joint]) for frame, joint in np.argwhere(~rest[5:])] == [(3, keypoint("left_wrist"))]
        expected = cameras[name].to_camera(world[:, list(true.joints)])
        np.testing.assert_allclose(true.camera_m[rest], expected[rest], atol=3e-3)


@pytest.mark.shared
@pytest.mark.slow
def test_a_real_person_balances(tmp_path: Path) -> None:
    """Two of four calibrated cameras; bounds are looser than BENCHMARKS.md's figures, which they protect."""
    films, source = SHARED_DATA / "real" / "video", SHARED_DATA / "real" / "balance_truth.npz"
    if not source.is_file():
        pytest.skip(f"no real films at {films}")
    with np.load(source) as arrays:
        truth = dict(arrays)
    cameras = [
        {
            "name": name,
            "video": str(films / f"balance_{name}.mp4"),
            "intrinsics": truth[f"{name}_intrinsics"].tolist(),
            "up_in_camera": truth[f"{name}_up_in_camera"].tolist(),
        }
        for name in ("cam02", "cam03")
    ]
    report = bench_views.bench(folder_with(tmp_path, truth, fps=60, cameras=cameras))
    assert report["truth"] == "given"
    for row in report["views"].values():
        assert row["keypoints"] < 1.5
        assert row["mpjpe"] < 80
        assert row["pa_mpjpe"] < 58
        assert row["gravity"] < 12
    assert "right_arm:raise" in report["agreed"]
    assert "cam02 " in bench_views.bench_text(report)
