"""The training loader: shards to features on the device."""

import tempfile
from functools import cache, partial
from pathlib import Path

from pipeline.benchmarks.device.measure import Measurement, Setting, rate
from pipeline.benchmarks.device.report import Figure

_WINDOW = 64
"""Feature rows of each motion, as the tokenizer trains on."""


def measurements(setting: Setting) -> list[Measurement]:
    """Samples a second by number of reading processes, over a dataset that is made for it."""
    samples, shards, workers = (24, 2, (0, 2)) if setting.small else (4096, 16, (0, 4, 12))
    batch = 8 if setting.small else 64
    dataset = cache(lambda: _make(samples, shards))

    def load(seconds: float, count: int) -> Figure:
        return _load(dataset().name, count, batch, seconds, setting.device)

    return [
        Measurement(f"batches of {batch}, {count} reading processes", partial(load, count=count)) for count in workers
    ]


def _make(samples: int, shards: int) -> "tempfile.TemporaryDirectory[str]":
    from pipeline.benchmarks.loader import make_dataset

    folder = tempfile.TemporaryDirectory()
    make_dataset(Path(folder.name), samples, shards, 0)
    return folder


def _load(dataset: str, workers: int, batch_size: int, seconds: float, device: str) -> Figure:
    """Reading, decoding and batching, features, and the copy to the device."""
    from model.data.loader import MotionLoader
    from model.data.samples import slice_frames
    from model.features.motions import motion_features
    from schemas.body_model import BodyModel

    body = BodyModel.load()
    batches = iter(MotionLoader(MotionLoader.Config(dataset=dataset, batch_size=batch_size, workers=workers)))

    def feed() -> int:
        batch = next(batches)
        windows = [slice_frames(sample.motion, 0, _WINDOW + 1) for sample in batch]
        motion_features(windows, body).to(device, non_blocking=True)
        return len(batch)

    return {"samples_per_s": rate(feed, seconds, device)}
