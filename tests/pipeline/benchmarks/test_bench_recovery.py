"""The benchmark of recovery: who is followed, what is compared with what, and the whole of it on something small."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.benchmarks import recovery as bench_recovery
from pipeline.benchmarks import recovery_films as recovery_films
from pipeline.benchmarks.recovery import PLAIN, REFINED, RIVAL, SETTINGS, TOGETHER, bench, bench_text
from pipeline.benchmarks.recovery_films import (
    Film,
    Sighting,
    covered,
    identities,
    make_films,
    recover,
    true_figure,
    whose,
    with_true_keypoints,
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


class Knows:
    """A fitter that has been told the truth about each clip."""

    version = "knows"

    def __init__(self, truths: dict[int, BodyMotion]) -> None:
        self.truths = truths

    def fit(self, clips: Sequence[Clip]) -> list[Fit]:
        return [self._fit(clip, self.truths[id(clip)]) for clip in clips]

    def _fit(self, clip: Clip, truth: BodyMotion) -> Fit:
        camera = Camera(rotation=truth.to_camera, position=truth.eye, intrinsics=np.array([500, 500, 320, 240.0]))
        return Fit(
            rotations=truth.rotations, trans=truth.trans, betas=truth.betas, camera=camera,
            reprojection=np.zeros((len(truth.trans), 17)), contacts=truth.contacts.astype(np.uint8),
        )  # fmt: skip


def _footage(body: BodyModel, dataset: motion_dataset.MotionDataset) -> Footage:
    """Two people who walk apart, unfilmed."""
    frames = 90
    rotations, pelvis = (value[:frames] for value in dataset.motion(0))
    R = np.broadcast_to(np.diag([1.0, -1.0, -1.0]), (frames, 3, 3))
    t = np.broadcast_to([0.0, 1.0, 5.0], (frames, 3))
    people = []
    for place in (0, 1):
        x = 100 + 250 * place + np.arange(frames)
        boxes = np.stack([x, x * 0 + 50, x + 80, x * 0 + 300], -1).astype(float)
        people.append(
            FilmedPerson(
                rotations=rotations, trans=pelvis - body.rest_joints(torch.zeros(10))[0], betas=torch.zeros(10),
                keypoints=np.zeros((frames, 17, 2)), keypoints_3d=np.zeros((frames, 17, 3)), boxes=boxes,
                visibility=np.ones((frames, 17)), labels=(),
            )
        )  # fmt: skip
    return Footage(Path("none.mp4"), 640, 480, 30.0, tuple(people), np.eye(3), R, t)


def _track(footage: Footage, boxes: np.ndarray, first: int = 0) -> Track:
    video = Video(
        source=Source(id="one", uri="none.mp4"), sha256="0" * 64, width=640, height=480, fps=30.0, duration_s=3.0,
        has_audio=False,
    )  # fmt: skip
    shot = Shot(video=video, index=0, start_s=0.0, end_s=3.0)
    times_s = (first + np.arange(len(boxes))) / 30
    return Track(shot=shot, person=0, times_s=times_s, boxes=boxes, keypoints=np.ones((len(boxes), 17, 3)), models={})


def test_who_is_followed(body: BodyModel, dataset: motion_dataset.MotionDataset) -> None:
    footage = _footage(body, dataset)
    one, other = (person.boxes for person in footage.people)
    film = Film("one", "walk", "static", footage)
    crossed = np.concatenate([one[:40], other[40:]])
    assert whose(_track(footage, one[10:] + 3, first=10), footage).tolist() == [0] * 80
    assert whose(_track(footage, crossed), footage).tolist() == [0] * 40 + [1] * 50
    assert set(whose(_track(footage, one * 0 + [500, 400, 520, 440]), footage).tolist()) == {-1}

    def counted(*tracks: Track) -> dict[str, float]:
        return identities(Sighting(film, tracks, (), (), {}))

    fine = counted(_track(footage, one), _track(footage, other))
    assert fine == {"people": 2, "missed": 0, "switches": 0, "changes": 0, "strangers": 0}
    broken = counted(_track(footage, one[:50]), _track(footage, one[50:], first=50))
    assert (broken["missed"], broken["switches"]) == (1, 1)
    assert counted(_track(footage, crossed))["changes"] == 1


def test_the_truth_is_found_at_the_clips_own_times(body: BodyModel, dataset: motion_dataset.MotionDataset) -> None:
    footage = _footage(body, dataset)
    film = Film("one", "walk", "static", footage)
    first, count = 15, 60
    track = _track(footage, footage.people[1].boxes)
    clip = Clip(
        track=track, start_s=first / 30, end_s=(first + count) / 30, boxes=track.boxes[first : first + count],
        keypoints=np.ones((count, 17, 3), np.float32),
    )  # fmt: skip
    truth = true_figure(footage, 1, body, slice(first, first + count))
    stage = recovery_films.FitGiven(Knows({id(clip): truth}))
    stage.setup()
    outcome = recover(Sighting(film, (track,), (clip,), (), {}), clip, stage, body)
    assert (outcome.person, outcome.first) == (1, first)
    assert outcome.row is not None
    assert max(outcome.row[name] for name in ("mpjpe", "pve", "w_mpjpe100", "root_m", "tilt")) < 0.1
    assert summarise([outcome.row])["contact_f1"] == 1
    assert covered(film, [outcome]) == (count, 180)
    exact = with_true_keypoints(clip, footage)
    np.testing.assert_allclose(exact.boxes, footage.people[1].boxes[first : first + count])
    assert outcome.row["keypoints_off"] > 0
    assert recovery_films._keypoints_off(exact, footage, 1) == 0
    assert outcome.row["focal_off"] == pytest.approx(100 * abs(500 / footage.K[0, 0] - 1))


def test_whoever_knows_the_truth_makes_no_error(body: BodyModel, dataset: motion_dataset.MotionDataset) -> None:
    for shapes, noise in SETTINGS.values():
        cases = make_cases(dataset, Rigs.of(body), noise=noise, shape_spread=shapes)
        rows = evaluate(Knows({id(case.clip): case.truth for case in cases}), cases, body)
        assert max(row[name] for row in rows for name in ("pa_mpjpe", "mpjpe", "pve", "w_mpjpe100")) < 0.05
        assert all(bool(case.truth.betas.any()) == bool(shapes) for case in cases)


def test_motions_without_motion_capture_are_unseen_ones(body: BodyModel) -> None:
    made = bench_recovery._unseen("", 3, body)
    assert len(made.names) == 3
    assert all(int(name.rpartition("-")[2]) >= 20_000 for name in made.names)


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one clip or video"):
        bench(clips=0, videos=0)
    with pytest.raises(UsageError, match="holds no motion capture"):
        bench_recovery._unseen(str(tmp_path), 1, BodyModel.load())


def test_motions_too_short_for_a_film_are_left_out(
    body: BodyModel, dataset: motion_dataset.MotionDataset, tmp_path: Path
) -> None:
    rotations, pelvis = dataset.motion(0)
    short = motion_dataset.pack([("short", rotations[:60], pelvis[:60])])
    assert make_films(short, 2, tmp_path, body) == []


@pytest.mark.slow
def test_the_whole_of_it(
    body: BodyModel, dataset: motion_dataset.MotionDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = OptimiseFitter(body, coarse_steps=20, fine_steps=5)
    monkeypatch.setattr(bench_recovery, "_fitters", lambda body, weights: dict.fromkeys((REFINED, PLAIN, RIVAL), quick))
    monkeypatch.setattr(bench_recovery, "_unseen", lambda mocap, count, body: dataset)
    monkeypatch.setattr(bench_recovery, "SETTINGS", {"mean body, clean": (0.0, 0.0)})
    found = bench(clips=1, videos=1, optimise=1, page=str(tmp_path / "page"))
    json.dumps(found, allow_nan=False)
    assert set(found["keypoints"]) == {"mean body, clean"}
    together = found["films"][REFINED][TOGETHER]
    assert (together["films"], together["people"]) == (2, 2)
    assert together["coverage"] > 0.5
    assert found["films_same_clips"]["less_than_rival"][REFINED]["mpjpe"] == pytest.approx(0)
    assert "identity switches" in bench_text(found)
    page = (tmp_path / "page" / "index.html").read_text()
    pictures = {path.name for path in (tmp_path / "page").glob("*.jpg")}
    assert pictures
    assert all(f'src="{name}"' in page for name in pictures)
