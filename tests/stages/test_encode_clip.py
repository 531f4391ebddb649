"""Clips of one video are encoded in a single pass: the same bytes as one by one, and a break costs only what lies in it."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from videos import noise

from schemas.records import Clip, Shot, Source, Track, Video
from stages import encode_clip
from stages.encode_clip import EncodeClip


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise(tmp_path_factory.mktemp("encode") / "noise.mp4", frames=240, width=160, height=128)


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
    stage, found = EncodeClip(), {}
    for stretch in encode_clip._stretches(dict(enumerate(clips))):
        found |= stage._encode(stretch)
    return found


def times_s(content: bytes) -> list[float]:
    with av.open(io.BytesIO(content)) as container:
        return [round(float(frame.time), 4) for frame in container.decode(video=0)]


def test_together_gives_the_bytes_of_one_by_one(video: Path) -> None:
    spans = [(0.0, 2.0), (3.5, 6.5), (1.0, 4.0), (2.0, 2.5), (6.9, 8.0), (1.0, 4.0)]
    clips = [clip(video, *span, box=(10 * place, 5, 60 + 15 * place, 100)) for place, span in enumerate(spans)]
    together = encoded(clips)
    assert together == {place: encoded([one])[0] for place, one in enumerate(clips)}
    for place, (start_s, end_s) in enumerate(spans):
        shown = times_s(together[place])
        assert (len(shown), shown[0]) == (round((end_s - start_s) * 30), 0.0)


def test_stretches_follow_the_clips_and_leave_gaps_out(video: Path) -> None:
    other = video.with_name("other.mp4")
    clips = [clip(video, 6.0, 7.0), clip(video, 0.0, 1.0), clip(other, 0.5, 2.0), clip(video, 2.0, 2.5)]
    assert [sorted(one) for one in encode_clip._stretches(dict(enumerate(clips)))] == [[1, 3], [0], [2]]
    assert list(encode_clip._stretches({})) == []


def test_a_clip_without_frames_is_empty(video: Path) -> None:
    assert encoded([clip(video, 7.0, 8.0), clip(video, 9.0, 10.0)])[1] == b""


def test_a_break_costs_only_the_clips_in_it(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true_frames = encode_clip.frames

    def breaking(uri: str, **span: float):
        for frame in true_frames(uri, **span):
            if 3.0 < frame.time_s < 4.0:
                raise av.InvalidDataError(1, "broken here")
            yield frame

    clips = [clip(video, 0.0, 2.0), clip(video, 2.0, 3.5), clip(video, 4.5, 6.0)]
    whole = encoded(clips)
    monkeypatch.setattr(encode_clip, "frames", breaking)
    found = encoded(clips)
    assert (found[0], found[2]) == (whole[0], whole[2])
    assert "broken here" in found[1]
