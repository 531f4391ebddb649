"""Small people in large pictures: the size of the picture in which they are searched."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from shared_data import SHARED_DATA

from schemas.records import Rejection, Shot, Source
from stages.media.decoding import frames
from stages.media.encoding import VideoWriter
from stages.perception.detector import PoseDetector
from stages.perception.picture_size import CLEAR_PX, ENOUGH_PX, needed_px
from stages.read_videos import ReadVideos
from stages.track_people import TrackPeople

STREET = SHARED_DATA / "real" / "video" / "openpose_street_mp4_named.avi"


@pytest.mark.parametrize("longer_px", [320, 812, 1280, 1920, 3840])
@pytest.mark.parametrize("height_px", [20.0, 80.0, 200.0])
def test_people_are_clear_or_the_picture_is_as_large_as_it_gets(longer_px: int, height_px: float) -> None:
    size = needed_px([500.0, height_px], longer_px, least_px=640, most_px=1920)
    assert 640 <= size <= 1920
    shown_px = height_px * size / longer_px
    assert shown_px >= (ENOUGH_PX if size == 640 else CLEAR_PX) or size == 1920 or size >= longer_px
    assert size == 640 or height_px * (size - 320) / longer_px < CLEAR_PX, "no larger than needed"
    assert needed_px([], longer_px, least_px=640, most_px=1920) == 640


@pytest.mark.skipif(not STREET.exists(), reason="no shared test data: nobody in a street")
def test_a_crowd_of_small_people_is_found(tmp_path: Path) -> None:
    """Film of a street, shrunk and tiled: more than thirty people of about 84 pixels in a picture of 1920x1080."""
    detector = PoseDetector(device="cpu", threads=1)
    canvas, people = np.full((1080, 1920, 3), 90, np.uint8), []
    tiles = []
    for number, frame in enumerate(frames(str(STREET))):
        if number % 30 == 5:
            (found,) = detector.detect([frame.image])
            boxes = found.boxes[(found.scores > 0.5) & (found.boxes[:, 3] - found.boxes[:, 1] > 180)]
            scale = 84 / float(np.median(boxes[:, 3] - boxes[:, 1]))
            tiles.append(
                (cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), boxes * scale)
            )
    height, width = (max(tile.shape[axis] for tile, _ in tiles) for axis in (0, 1))
    for number in range((1080 // height) * (1920 // width)):
        tile, boxes = tiles[number % len(tiles)]
        y, x = height * (number // (1920 // width)), width * (number % (1920 // width))
        canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        people += [box + np.array([x, y, x, y]) for box in boxes if box[3] - box[1] >= 80]
    assert len(people) > 30
    with VideoWriter(tmp_path / "crowd.mp4", 1920, 1080, 13) as writer:
        for _ in range(14):
            writer.write(canvas)
    (video,) = ReadVideos().run(Source(id="crowd", uri=str(tmp_path / "crowd.mp4")))
    assert not isinstance(video, Rejection)
    shot = Shot(video=video, index=0, start_s=0.0, end_s=video.duration_s)

    def share_found(**settings: float) -> float:
        stage = TrackPeople(TrackPeople.Config(device="cpu", threads=1, landmarks="never", min_s=0.1, **settings))
        stage.setup()
        boxes = [track.boxes[-1] for track in stage.run(shot) if not isinstance(track, Rejection)]
        return float(np.mean([max((overlap(person, box) for box in boxes), default=0.0) > 0.4 for person in people]))

    assert share_found(far_person_px=1000.0) < 0.2, "at 640 pixels"
    assert share_found() >= 0.95


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = (np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0)
    areas = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()
    return float(sides.prod() / (areas - sides.prod()))
