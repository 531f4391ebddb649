"""Clips of one video are encoded in one pass: the same bytes as separately, and a broken stretch affects only its clips."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from videos import noise_video

from schemas.records import Clip, Shot, Source, Track, Video
from stages import encode_clip
from stages.encode_clip import EncodeClip


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_video(tmp_path_factory.mktemp("encode") / "noise.mp4", frames=240, width=160, height=128)


def clip(uri: Path, start_s: float, end_s: float, box: tuple[float, float, float, float] = (20, 20, 80, 110)) -> Clip:
    source = Source(id=uri.stem, uri=str(uri))
    video = Video(
        source=source, sha256="0" * 64, width=160, height=128, fps=30.0, duration_s=8.0, has_audio=False
    )  # fmt: skip
    frames = round((end_s - start_s) * 30)
    boxes, keypoints = np.tile(np.array(box, np.float32), (frames, 1)), np.ones((frames, 17, 3), np.float32)
    times_s = start_s + np.arange(frames) / 30
    shot = Shot(video=video, index=0, start_s=0.0, end_s=8.0)
    track = Track(shot=shot, person=0, times_s=times_s, boxes=boxes, keypoints=keypoints, models={})
    return Clip(track=track, start_s=start_s, end_s=end_s, boxes=boxes, keypoints=keypoints)


def encoded(clips: list[Clip]) -> dict[int, bytes | str]:
    stage, contents = EncodeClip(), {}
    for group in encode_clip._decode_groups(dict(enumerate(clips))):
        contents |= stage._encode(group)
    return contents


def times_s(content: bytes) -> list[float]:
    with av.open(io.BytesIO(content)) as container:
        return [round(float(frame.time), 4) for frame in container.decode(video=0)]


def test_one_pass_gives_the_same_bytes_as_separate_passes(video: Path) -> None:
    spans = [(0.0, 2.0), (3.5, 6.5), (1.0, 4.0), (2.0, 2.5), (6.9, 8.0), (1.0, 4.0)]
    clips = [clip(video, *span, box=(10 * index, 5, 60 + 15 * index, 100)) for index, span in enumerate(spans)]
    contents = encoded(clips)
    assert contents == {index: encoded([one])[0] for index, one in enumerate(clips)}
    for index, (start_s, end_s) in enumerate(spans):
        frame_times_s = times_s(contents[index])
        assert (len(frame_times_s), frame_times_s[0]) == (round((end_s - start_s) * 30), 0.0)


def test_decode_groups_follow_the_clips_and_skip_gaps(video: Path) -> None:
    other = video.with_name("other.mp4")
    clips = [clip(video, 6.0, 7.0), clip(video, 0.0, 1.0), clip(other, 0.5, 2.0), clip(video, 2.0, 2.5)]
    assert [sorted(one) for one in encode_clip._decode_groups(dict(enumerate(clips)))] == [[1, 3], [0], [2]]
    assert list(encode_clip._decode_groups({})) == []


def test_a_clip_without_frames_is_empty(video: Path) -> None:
    assert encoded([clip(video, 7.0, 8.0), clip(video, 9.0, 10.0)])[1] == b""


def test_a_broken_stretch_affects_only_its_clips(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original_frames = encode_clip.frames

    def breaking(uri: str, **span: float):
        for frame in original_frames(uri, **span):
            if 3.0 < frame.time_s < 4.0:
                raise av.InvalidDataError(1, "broken here")
            yield frame

    clips = [clip(video, 0.0, 2.0), clip(video, 2.0, 3.5), clip(video, 4.5, 6.0)]
    expected = encoded(clips)
    monkeypatch.setattr(encode_clip, "frames", breaking)
    contents = encoded(clips)
    assert (contents[0], contents[2]) == (expected[0], expected[2])
    assert "broken here" in contents[1]
