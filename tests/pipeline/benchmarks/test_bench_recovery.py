"""The recovery benchmark: matching of people, the comparison with the ground truth, and a small whole run."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.benchmarks import recovery as bench_recovery
from pipeline.benchmarks import recovery_films
from pipeline.benchmarks.recovery import BASELINE, OVERALL, PLAIN, REFINED, SETTINGS, bench, bench_text
from pipeline.benchmarks.recovery_films import (
    Film,
    TrackedFilm,
    covered_frames,
    identity_counts,
    make_films,
    match_people,
    recover_clip,
    target_motion,
    with_target_keypoints,
)
from schemas.body_model import BodyModel
from schemas.errors import UsageError
from schemas.records import Camera, Clip, Shot, Source, Track, Video
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.optimise import OptimiseFitter
from stages.recovery.protocol import Fit
from stages.synthesis.film import FilmedPerson, Footage
from stages.synthesis.motions import generate
from stages.training.lifter import motion_dataset
from stages.training.lifter.evaluate import evaluate, make_cases
from stages.training.lifter.metrics import BodyMotion, summarise


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


@pytest.fixture(scope="module")
def dataset(body: BodyModel) -> motion_dataset.MotionDataset:
    motions = ((action, generate(action, 3.2, 5, body=body, betas=torch.zeros(10))) for action in ("walk", "wave_left"))
    rest = body.rest_joints(torch.zeros(10))[0]
    return motion_dataset.pack(
        (f"made/{action}-5", motion.rotations, motion.trans + rest) for action, motion in motions
    )


class OracleFitter:
    """A fitter that returns the ground truth of each clip."""

    version = "oracle"

    def __init__(self, targets: dict[int, BodyMotion]) -> None:
        self.targets = targets

    def fit(self, clips: Sequence[Clip]) -> list[Fit]:
        return [self._fit(clip, self.targets[id(clip)]) for clip in clips]

    def _fit(self, clip: Clip, target: BodyMotion) -> Fit:
        camera = Camera(rotation=target.to_camera, position=target.eye, intrinsics=np.array([500, 500, 320, 240.0]))
        return Fit(
            rotations=target.rotations, trans=target.trans, betas=target.betas, camera=camera,
            reprojection=np.zeros((len(target.trans), 17)), contacts=target.contacts.astype(np.uint8),
        )  # fmt: skip


def _footage(body: BodyModel, dataset: motion_dataset.MotionDataset) -> Footage:
    """Two people who move apart, without a video file."""
    frames = 90
    rotations, pelvis = (value[:frames] for value in dataset.motion(0))
    R = np.broadcast_to(np.diag([1.0, -1.0, -1.0]), (frames, 3, 3))
    t = np.broadcast_to([0.0, 1.0, 5.0], (frames, 3))
    people = []
    for index in (0, 1):
        x = 100 + 250 * index + np.arange(frames)
        boxes = np.stack([x, x * 0 + 50, x + 80, x * 0 + 300], -1).astype(float)
        people.append(
            FilmedPerson(
                rotations=rotations, trans=pelvis - body.rest_joints(torch.zeros(10))[0], betas=torch.zeros(10),
                keypoints=np.zeros((frames, 17, 2)), keypoints_3d=np.zeros((frames, 17, 3)), boxes=boxes,
                visibility=np.ones((frames, 17)), labels=(),
            )
        )  # fmt: skip
    return Footage(Path("none.mp4"), 640, 480, 30.0, tuple(people), np.eye(3), R, t)


def _track(footage: Footage, boxes: np.ndarray, first_frame: int = 0) -> Track:
    video = Video(
        source=Source(id="one", uri="none.mp4"), sha256="0" * 64, width=640, height=480, fps=30.0, duration_s=3.0,
        has_audio=False,
    )  # fmt: skip
    shot = Shot(video=video, index=0, start_s=0.0, end_s=3.0)
    times_s = (first_frame + np.arange(len(boxes))) / 30
    return Track(shot=shot, person=0, times_s=times_s, boxes=boxes, keypoints=np.ones((len(boxes), 17, 3)), models={})


def test_matching_of_people_to_tracks(body: BodyModel, dataset: motion_dataset.MotionDataset) -> None:
    footage = _footage(body, dataset)
    first_boxes, second_boxes = (person.boxes for person in footage.people)
    film = Film("one", "walk", "static", footage)
    crossed = np.concatenate([first_boxes[:40], second_boxes[40:]])
    assert match_people(_track(footage, first_boxes[10:] + 3, first_frame=10), footage).tolist() == [0] * 80
    assert match_people(_track(footage, crossed), footage).tolist() == [0] * 40 + [1] * 50
    assert set(match_people(_track(footage, first_boxes * 0 + [500, 400, 520, 440]), footage).tolist()) == {-1}

    def counted(*tracks: Track) -> dict[str, float]:
        return identity_counts(TrackedFilm(film, tracks, (), (), {}))

    separate = counted(_track(footage, first_boxes), _track(footage, second_boxes))
    assert separate == {"people": 2, "missed": 0, "switches": 0, "changes": 0, "strangers": 0}
    split = counted(_track(footage, first_boxes[:50]), _track(footage, first_boxes[50:], first_frame=50))
    assert (split["missed"], split["switches"]) == (1, 1)
    assert counted(_track(footage, crossed))["changes"] == 1


def test_the_target_has_the_times_of_the_clip(body: BodyModel, dataset: motion_dataset.MotionDataset) -> None:
    footage = _footage(body, dataset)
    film = Film("one", "walk", "static", footage)
    first_frame, count = 15, 60
    track = _track(footage, footage.people[1].boxes)
    clip = Clip(
        track=track, start_s=first_frame / 30, end_s=(first_frame + count) / 30,
        boxes=track.boxes[first_frame : first_frame + count], keypoints=np.ones((count, 17, 3), np.float32),
    )  # fmt: skip
    target = target_motion(footage, 1, body, slice(first_frame, first_frame + count))
    stage = recovery_films.FitWithFitter(OracleFitter({id(clip): target}))
    stage.setup()
    result = recover_clip(TrackedFilm(film, (track,), (clip,), (), {}), clip, stage, body)
    assert (result.person, result.first_frame) == (1, first_frame)
    assert result.row is not None
    assert max(result.row[name] for name in ("mpjpe", "pve", "w_mpjpe100", "root_m", "tilt")) < 0.1
    assert summarise([result.row])["contact_f1"] == 1
    assert covered_frames(film, [result]) == (count, 180)
    exact = with_target_keypoints(clip, footage)
    np.testing.assert_allclose(exact.boxes, footage.people[1].boxes[first_frame : first_frame + count])
    assert result.row["keypoints_off"] > 0
    assert recovery_films._keypoint_error(exact, footage, 1) == 0
    assert result.row["focal_off"] == pytest.approx(100 * abs(500 / footage.K[0, 0] - 1))


def test_an_oracle_has_no_error(body: BodyModel, dataset: motion_dataset.MotionDataset) -> None:
    for shape_spread, noise in SETTINGS.values():
        cases = make_cases(dataset, Rigs.of(body), noise=noise, shape_spread=shape_spread)
        rows = evaluate(OracleFitter({id(case.clip): case.target for case in cases}), cases, body)
        assert max(row[name] for row in rows for name in ("pa_mpjpe", "mpjpe", "pve", "w_mpjpe100")) < 0.05
        assert all(bool(case.target.betas.any()) == bool(shape_spread) for case in cases)


def test_synthetic_motions_are_held_out(body: BodyModel) -> None:
    dataset = bench_recovery._held_out_motions("", 3, body)
    assert len(dataset.names) == 3
    assert all(int(name.rpartition("-")[2]) >= 20_000 for name in dataset.names)


def test_invalid_arguments_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one clip or video"):
        bench(clips=0, videos=0)
    with pytest.raises(UsageError, match="holds no motion capture"):
        bench_recovery._held_out_motions(str(tmp_path), 1, BodyModel.load())


def test_motions_too_short_for_a_film_are_skipped(
    body: BodyModel, dataset: motion_dataset.MotionDataset, tmp_path: Path
) -> None:
    rotations, pelvis = dataset.motion(0)
    short = motion_dataset.pack([("short", rotations[:60], pelvis[:60])])
    assert make_films(short, 2, tmp_path, body) == []


@pytest.mark.slow
def test_a_whole_run(
    body: BodyModel, dataset: motion_dataset.MotionDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast_fitter = OptimiseFitter(body, coarse_steps=20, fine_steps=5)
    monkeypatch.setattr(
        bench_recovery, "_fitters", lambda body, weights: dict.fromkeys((REFINED, PLAIN, BASELINE), fast_fitter)
    )
    monkeypatch.setattr(bench_recovery, "_held_out_motions", lambda mocap, count, body: dataset)
    monkeypatch.setattr(bench_recovery, "SETTINGS", {"mean body, clean": (0.0, 0.0)})
    report = bench(clips=1, videos=1, optimise=1, page=str(tmp_path / "page"))
    json.dumps(report, allow_nan=False)
    assert set(report["keypoints"]) == {"mean body, clean"}
    overall = report["films"][REFINED][OVERALL]
    assert (overall["films"], overall["people"]) == (2, 2)
    assert overall["coverage"] > 0.5
    assert report["films_same_clips"]["less_than_rival"][REFINED]["mpjpe"] == pytest.approx(0)
    assert "identity switches" in bench_text(report)
    page = (tmp_path / "page" / "index.html").read_text()
    images = {path.name for path in (tmp_path / "page").glob("*.jpg")}
    assert images
    assert all(f'src="{name}"' in page for name in images)
