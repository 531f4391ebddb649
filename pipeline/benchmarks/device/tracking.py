"""Decoding, detection in batches, and the whole tracking stage, on a rendered video of two people, 640 pixels wide."""

import tempfile
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.benchmarks.device.measure import Measurement, Setting, Work, peak, rate, rate_of_workers, worker_count
from pipeline.benchmarks.device.report import Figure


def measurements(setting: Setting) -> list[Measurement]:
    """Batches of frames through the detector; the stage with and without landmarks; workers that share the device."""
    device = setting.device
    workers, batches = worker_count(setting), [16] if setting.small else [16, 64, 256]
    video = cache(lambda: _Video(1.2 if setting.small else 10.0))

    def detect(seconds: float, batch: int) -> Figure:
        return {"frames_per_s": rate(_detect(video().path, batch, device), seconds, device), **peak(device)}

    def stage(seconds: float, landmarks: str) -> Figure:
        return {"frames_per_s": rate(track(video().path, device, landmarks), seconds, device), **peak(device)}

    def decode(seconds: float) -> Figure:
        return {"frames_per_s": rate(lambda: _decode(video().path), seconds, "cpu")}

    def shared(seconds: float) -> Figure:
        return {"frames_per_s": rate_of_workers(workers, track, (video().path, device, "never"), seconds, device)}

    return [
        *(Measurement(f"detection, batches of {batch}", partial(detect, batch=batch)) for batch in batches),
        Measurement("tracking stage", partial(stage, landmarks="never"), weight=2.0),
        Measurement("tracking stage, with landmarks", partial(stage, landmarks="always"), weight=2.0),
        Measurement("decoding", decode),
        Measurement(f"tracking stage, {workers} workers", shared, weight=3.0),
    ]


class _Video:
    """A rendered video, there for as long as this object is."""

    def __init__(self, seconds: float) -> None:
        from schemas.body_model import BodyModel
        from stages.synthesis.film import film
        from stages.synthesis.motions import generate
        from stages.synthesis.outfit import Outfit
        from stages.synthesis.renderer import Person

        self._folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self._folder.name) / "two_people.mp4")
        body = BodyModel.load()
        people = [
            Person(
                motion=generate(action, seconds, 0, body=body), outfit=Outfit.draw(number), offset=(1.4 * number, 0.0)
            )
            for number, action in enumerate(("raise_right", "stand"))
        ]
        film(people, self.path, width=640, height=480, seed=0, body=body)


def _decode(path: str) -> int:
    from stages.media.decoding import frames

    return sum(1 for _ in frames(path))


def _detect(path: str, batch: int, device: Any) -> Work:
    """The detector on frames in memory, a whole number of batches on an accelerator."""
    from stages.media.decoding import frames
    from stages.perception.detector import PoseDetector

    images = [frame.image for frame in islice(frames(path), 256)]
    images = (images * (-(-batch // len(images))))[: max(batch, len(images))]
    detector = PoseDetector(device=device, batch=batch)
    return lambda: sum(1 for _ in detector.detect(images))


def track(path: str, device: str, landmarks: str) -> Work:
    """The tracking stage over the whole video; counts its frames."""
    from pipeline.benchmarks.track import run_stage, whole_shot
    from stages.track_people import TrackPeople

    shot = whole_shot(path)
    stage = TrackPeople(TrackPeople.Config.model_validate({"landmarks": landmarks, "device": device}))
    stage.setup()
    frames = round(shot.video.duration_s * shot.video.fps)

    def run() -> int:
        run_stage(stage, shot)
        return frames

    return run
