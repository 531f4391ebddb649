"""Members of samples: what is stored, and what is found wrong."""

import json
from typing import Any

import audit_helpers
import numpy as np
import pytest

from pipeline.rendering.overlay import RecoveredSample, _read_sample
from schemas.body_model import BodyModel
from schemas.picture import Picture
from schemas.records import Sample, Video
from schemas.sample import decode_npz, encode_json, encode_npz, sample_problems


@pytest.fixture(scope="module")
def sample() -> Sample:
    return audit_helpers.make_sample("video", 0)


def changed(sample: Sample, member: str, **arrays: Any) -> dict[str, bytes]:
    """The members with other arrays in one of them; None removes an array."""
    content = {**decode_npz(sample.members[member]), **arrays}
    return {**sample.members, member: encode_npz({key: array for key, array in content.items() if array is not None})}


def test_a_sample_of_the_studio_has_no_problems(sample: Sample) -> None:
    assert sample_problems(sample.key, sample.members, "video") == []
    shot = json.loads(sample.members["meta.json"])["shot"]
    assert shot == {"id": "video-source-0/shot-0000", "start_s": 0.0, "end_s": 2.0}
    mocap = audit_helpers.make_sample("mocap", 0)
    assert json.loads(mocap.members["meta.json"])["shot"] == {"id": "", "start_s": 0.0, "end_s": 0.0}


def test_samples_hold_pixels_of_the_whole_picture(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are shown without the source's black borders; whoever opens the source sees them."""
    left, top, right, bottom = borders = (72, 10, 70, 8)
    video = audit_helpers.Video

    def bordered(**fields: Any) -> Video:
        return video(
            **fields, picture=Picture(stream=0, width=fields["width"], height=fields["height"], borders=borders)
        )

    monkeypatch.setattr(audit_helpers, "Video", bordered)
    shifted = audit_helpers.make_sample("video", 0)
    assert sample_problems(shifted.key, shifted.members, "video") == []
    before, after = (decode_npz(one.members["keypoints.npz"]) for one in (sample, shifted))
    assert after["boxes"] - before["boxes"] == pytest.approx(np.tile([left, top, left, top], (60, 1)), abs=1e-4)
    assert after["keypoints"] - before["keypoints"] == pytest.approx(np.tile([left, top, 0], (60, 17, 1)), abs=1e-4)
    assert after["intrinsics"] - before["intrinsics"] == pytest.approx(np.tile([0, 0, left, top], (60, 1)), abs=1e-4)
    metas = [json.loads(one.members["meta.json"]) for one in (sample, shifted)]
    assert [metas[1][side] - metas[0][side] for side in ("width", "height")] == [left + right, top + bottom]
    assert np.subtract(metas[1]["crop"], metas[0]["crop"]).tolist() == [left, top, left, top]
    body = BodyModel.load()
    drawn = [_read_sample(one.key, one.members, body).joints_2d for one in (sample, shifted)]
    assert drawn[1] - drawn[0] == pytest.approx(np.tile([left, top], (60, 24, 1)), abs=0.01)


def test_landmarks_are_rounded_far_below_their_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(0, 320, (60, 33, 2)), rng.uniform(0, 1, (60, 33, 2))], -1).astype(np.float32)
    metric = rng.normal(0, 0.5, (60, 33, 3)).astype(np.float32)
    clip = audit_helpers.Clip
    monkeypatch.setattr(audit_helpers, "Clip", lambda **fields: clip(**fields, landmarks=points, landmarks_m=metric))
    sample = audit_helpers.make_sample("video", 0)
    assert sample_problems(sample.key, sample.members, "video") == []
    stored = decode_npz(sample.members["keypoints.npz"])
    assert np.abs(stored["landmarks"] - points)[..., :2].max() <= 1 / 64
    assert np.abs(stored["landmarks"] - points)[..., 2:].max() <= 1 / 512
    assert np.abs(stored["landmarks_m"] - metric).max() <= 1 / 8192 + 1e-7


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"landmarks": None}, "landmarks is missing"),
        ({"landmarks_m": np.zeros((59, 33, 3), np.float32)}, "disagree on the number of frames"),
        ({"intrinsics": np.zeros(4, np.float32)}, "intrinsics is float32 (4,)"),
    ],
)
def test_what_is_missing_or_misshapen_is_named(sample: Sample, arrays: dict[str, Any], problem: str) -> None:
    assert problem in sample_problems(sample.key, changed(sample, "keypoints.npz", **arrays), "video")[0]


def test_samples_of_version_1_are_read(sample: Sample) -> None:
    intrinsics = decode_npz(sample.members["keypoints.npz"])["intrinsics"]
    members = changed(sample, "keypoints.npz", landmarks=None, landmarks_m=None, intrinsics=intrinsics[0])
    meta = json.loads(members["meta.json"])
    del meta["version"], meta["coverage"], meta["shot"]
    members |= changed(sample, "motion.npz", seen=None) | {
        "keypoints.npz": members["keypoints.npz"],
        "meta.json": encode_json(meta),
    }
    assert sample_problems(sample.key, members, "video") == []
    drawn: list[RecoveredSample] = [
        _read_sample(sample.key, one, BodyModel.load()) for one in (members, sample.members)
    ]
    np.testing.assert_array_equal(drawn[0].joints_2d, drawn[1].joints_2d)
