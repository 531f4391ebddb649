"""Tracking on rendered people with known keypoints, and on the development videos."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.records import Clip, Rejection, Shot, Source, Track
from schemas.skeleton import LANDMARK_OF_KEYPOINT
from schemas.torchvision_ops import _nms
from stages.base import apply
from stages.cut_clips import CutClips
from stages.media.decoding import frames
from stages.perception.detector import Letterbox, PoseDetector, export_openvino
from stages.read_videos import ReadVideos
from stages.split_shots import SplitShots
from stages.synthesis.film import film
from stages.synthesis.motions import generate
from stages.synthesis.outfit import Outfit
from stages.synthesis.renderer import Camera, Person
from stages.track_people import TrackPeople


@pytest.fixture(scope="module")
def stage() -> TrackPeople:
    stage = TrackPeople()
    stage.setup()
    return stage


def shots(path: Path) -> list[Shot]:
    videos, rejected = apply(ReadVideos(), [Source(id="v", uri=str(path))])
    assert not rejected
    return apply(SplitShots(), videos)[0]


def tracks(stage: TrackPeople, path: Path) -> list[Track]:
    return apply(stage, shots(path))[0]


def test_two_rendered_people_are_two_tracks(stage: TrackPeople, films: Path) -> None:
    pair = tracks(stage, films / "pair.mp4")
    assert [len(track.times_s) for track in pair] == [90, 90]
    assert all(track.keypoints[..., 2].mean() > 0.8 for track in pair)
    assert all(track.camera_seen == 1 and not track.camera_turn.any() for track in pair)
    centres = [track.boxes[:, [0, 2]].mean() for track in pair]
    assert abs(centres[0] - centres[1]) > 40


def test_results_do_not_depend_on_the_number_of_threads(stage: TrackPeople, films: Path) -> None:
    (one,) = tracks(stage, films / "wave.mp4")
    other_stage = TrackPeople(TrackPeople.Config(threads=3))
    other_stage.setup()
    (other,) = tracks(other_stage, films / "wave.mp4")
    np.testing.assert_array_equal(one.keypoints, other.keypoints)
    np.testing.assert_array_equal(one.camera_turn, other.camera_turn)


def test_openvino_and_torch_agree(films: Path) -> None:
    found = []
    for backend in ("openvino", "torch"):
        stage = TrackPeople(TrackPeople.Config(backend=backend, tracker="botsort", max_fps=6.0))
        stage.setup()
        found += tracks(stage, films / "wave.mp4")
    one, other = found
    height = np.median(one.boxes[:, 3] - one.boxes[:, 1])
    confident = (one.keypoints[..., 2] > 0.5) & (other.keypoints[..., 2] > 0.5)
    distance = np.linalg.norm(one.keypoints[..., :2] - other.keypoints[..., :2], axis=-1)[confident]
    assert confident.mean() > 0.8
    assert distance.mean() / height < 0.01
    assert one.landmarks_m is not None
    assert other.landmarks_m is not None
    assert np.abs(one.landmarks_m - other.landmarks_m).mean() < 0.01


def test_landmarks_refine_the_keypoints(stage: TrackPeople, films: Path) -> None:
    (track,) = tracks(stage, films / "wave.mp4")
    detector_alone = TrackPeople(TrackPeople.Config(landmarks="never"))
    detector_alone.setup()
    (without,) = tracks(detector_alone, films / "wave.mp4")
    assert without.landmarks is None
    assert without.landmarks_m is None
    assert track.landmarks is not None
    assert track.landmarks_m is not None
    assert track.landmarks.shape == (len(track.times_s), 33, 4)
    assert track.landmarks_m.shape == (len(track.times_s), 33, 3)
    np.testing.assert_array_equal(track.boxes, without.boxes)
    np.testing.assert_array_equal(track.keypoints, track.landmarks[:, list(LANDMARK_OF_KEYPOINT), :3])
    height = np.median(track.boxes[:, 3] - track.boxes[:, 1])
    confident = (without.keypoints[..., 2] > 0.9) & (track.keypoints[..., 2] > 0.9)
    distance = np.linalg.norm(track.keypoints[..., :2] - without.keypoints[..., :2], axis=-1)[confident] / height
    assert 0 < np.median(distance) < 0.03
    stature_m = np.ptp(track.landmarks_m[..., 1], axis=1)
    assert ((stature_m > 1.2) & (stature_m < 2.2)).all()
    assert "pose_landmark_heavy" in track.models["detector"]
    assert "pose_landmark" not in without.models["detector"]


def test_people_too_small_for_landmarks_keep_the_detectors_keypoints(stage: TrackPeople, films: Path) -> None:
    (seen,) = tracks(stage, films / "wave.mp4")
    tall = TrackPeople(TrackPeople.Config(min_landmarks_px=1000.0))
    tall.setup()
    (track,) = tracks(tall, films / "wave.mp4")
    assert track.landmarks is not None
    assert not track.landmarks.any()
    assert not np.array_equal(track.keypoints, seen.keypoints)
    assert track.keypoints[..., 2].mean() > 0.8


def test_a_track_that_the_landmark_network_takes_for_no_person_is_rejected(films: Path) -> None:
    strict = TrackPeople(TrackPeople.Config(min_person=1.01))
    strict.setup()
    accepted, rejected = apply(strict, shots(films / "wave.mp4"))
    assert not accepted
    assert [rejection.reason for rejection in rejected] == ["not_a_person"]
    assert rejected[0].measured is not None
    assert 0.9 < rejected[0].measured <= 1


def test_the_camera_rotation_is_estimated_from_the_background(stage: TrackPeople, tmp_path: Path) -> None:
    body = BodyModel.load()
    people = [Person(motion=generate("walk", 3.0, 1, body=body), outfit=Outfit.draw(1))]
    eye = np.array([0.3, 1.5, 4.5])
    cameras = [
        Camera.look_at(eye, np.array([1.5 * np.sin(2 * time_s), 0.9 + 0.2 * np.sin(7 * time_s), 0.5]), 500.0, 480, 360)
        for time_s in np.arange(90) / 30
    ]
    footage = film(people, tmp_path / "rotating.mp4", width=480, height=360, body=body, cameras=cameras)
    (shot,) = shots(footage.path)
    shot = replace(shot, video=replace(shot.video, focal_px=500.0))
    track = max(apply(stage, [shot])[0], key=lambda track: len(track.times_s))
    rotations = Rotation.from_matrix(footage.R[np.round(track.times_s * 30).astype(int)])
    target = rotations * rotations[0].inv()
    assert np.degrees(target.magnitude().max()) > 15
    assert track.camera_seen == 1
    assert np.degrees((Rotation.from_rotvec(track.camera_turn) * target.inv()).magnitude()).max() < 0.5


def test_missing_weights_and_devices_are_reported(tmp_path: Path) -> None:
    with pytest.raises(HumoError, match=r"gone\.pt does not exist"):
        PoseDetector(str(tmp_path / "gone.pt"))
    if not torch.cuda.is_available():
        with pytest.raises(HumoError, match="cuda is not available"):
            PoseDetector(device="cuda")


def test_the_export_is_cached(stage: TrackPeople, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HUMO_CACHE", str(tmp_path))
    first = export_openvino(stage.detector.weights)
    stamp = first.stat().st_mtime_ns
    assert export_openvino(stage.detector.weights) == first
    assert first.stat().st_mtime_ns == stamp
    assert [path.name for path in (tmp_path / "openvino").iterdir()] == [first.parent.name]


@pytest.mark.parametrize(("height", "width"), [(720, 812), (1080, 1920), (640, 362), (101, 53)])
def test_letterbox_round_trip(height: int, width: int) -> None:
    letterbox = Letterbox(height, width, 640)
    assert all(side % 32 == 0 for side in letterbox.shape)
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 4, width // 3] = 255
    boxed = letterbox.apply(np.repeat(np.repeat(image, 1, 0), 1, 1))
    assert boxed.shape == (*letterbox.shape, 3)
    points = np.array([[0.0, 0.0], [width, height], [width / 3, height / 4]], np.float32)
    inside = points * letterbox.scale + np.array([letterbox.left, letterbox.top])
    np.testing.assert_allclose(letterbox.undo(inside.astype(np.float32)), points, atol=1e-2)


def test_suppression_keeps_the_best_overlapping_box() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60], [0, 0, 10, 10.0]])
    assert _nms(boxes, torch.tensor([0.5, 0.9, 0.3, 0.2]), 0.5).tolist() == [1, 2]


@pytest.mark.parametrize("count", range(9))
def test_postprocessing_takes_any_number_of_candidates(stage: TrackPeople, count: int) -> None:
    rows = np.zeros((count, 56), np.float32)
    rows[:, 0] = 100 * np.arange(count)
    rows[:, 1:5] = 50, 40, 90, 0.9
    rows[:, 5:] = np.arange(51)
    detections = stage.detector._postprocess(rows, Letterbox(640, 1000, 1000))
    assert detections.boxes.shape == (count, 4)
    assert detections.keypoints.shape == (count, 17, 3)


@pytest.mark.shared
class TestDevelopmentVideos:
    def clips(self, stage: TrackPeople, path: Path) -> tuple[list[Track], list[Clip], list[Rejection]]:
        tracked = tracks(stage, path)
        return (tracked, *apply(CutClips(), tracked))

    def test_tennis(self, stage: TrackPeople, shared_videos: Path) -> None:
        tracked, clips, _ = self.clips(stage, shared_videos / "tennis.mp4")
        player = max(tracked, key=lambda track: np.median(track.boxes[:, 3] - track.boxes[:, 1]))
        assert len(player.times_s) / 30 >= 9
        assert sum(clip.end_s - clip.start_s for clip in clips if clip.track is player) >= 8
        assert player.camera_seen == 1
        sway = np.degrees(np.ptp(player.camera_turn, axis=0))
        assert 0.5 < sway[1] < 1.5, "hand-held: template matching gives a shift of the stands of some 14 pixels, too"
        assert max(sway[0], sway[2]) < 0.6

    def test_two_people(self, stage: TrackPeople, shared_videos: Path) -> None:
        tracked, clips, _ = self.clips(stage, shared_videos / "two_people_indoor.mp4")
        assert [len(track.times_s) for track in tracked] == [72, 72]
        assert len(clips) == 2
        steps = [np.abs(np.diff(track.boxes[:, [0, 2]].mean(axis=1))).max() for track in tracked]
        assert max(steps) < 60, "a box that jumps has switched to another person"
        assert all(track.camera_seen == 1 and not track.camera_turn.any() for track in tracked)

    def test_nobody(self, stage: TrackPeople, shared_videos: Path) -> None:
        _, clips, _ = self.clips(stage, shared_videos / "no_people_speech.mp4")
        assert not clips


def test_batches_give_the_detections_of_single_frames(films: Path) -> None:
    """As on CUDA: batches of three, the last one of two."""
    images = [frame.image for frame in islice(frames(str(films / "pair.mp4"), scale_to=320), 8)]
    detector = PoseDetector(device="cpu", backend="torch", picture_px=320)
    single = list(detector.detect(images))
    detector.batch = 3
    batched = list(detector.detect(images))
    assert len(batched) == len(single) == 8
    for one, other in zip(single, batched, strict=True):
        assert len(one.boxes) >= 2
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=0.05)
    assert list(detector.detect([])) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tracks_on_cuda_are_those_of_the_cpu(films: Path) -> None:
    on_cpu, on_cuda = (TrackPeople(TrackPeople.Config(device=device)) for device in ("cpu", "cuda"))
    found = []
    for stage in (on_cpu, on_cuda):
        stage.setup()
        found.append(tracks(stage, films / "pair.mp4"))
    assert len(found[0]) == len(found[1]) == 2
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.keypoints[..., :2], other.keypoints[..., :2], atol=4.0)
