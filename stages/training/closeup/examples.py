"""Rendered pictures as the head is trained on them: cropped, turned, mirrored, recoloured, blurred, partly covered."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.utils.data import IterableDataset, get_worker_info

from schemas.errors import HumoError
from stages.perception.closeup.crops import into_crop, moved_by, square_about, warp
from stages.perception.closeup.network import CROP_PX, MIRROR
from stages.perception.closeup.trunk import Trunk, features
from stages.training.closeup.pictures import KEPT_PX, from_jpeg

_MIRROR = list(MIRROR)
_TURN_RAD = 0.15
"""Deviation of a crop's roll."""
_SHIFT, _STRETCH = 0.04, 0.1
"""Deviations of a crop's middle, in its sides, and of the log of its side."""
_COVERED = 0.25
"""Share of crops in which something is laid over a part."""


@dataclass(frozen=True)
class Pictures:
    """All that is known of N people in pictures."""

    jpegs: list[UInt8[np.ndarray, "_"]]
    scene: np.ndarray
    corner: Float[np.ndarray, "N 2"]
    side: Float[np.ndarray, "N"]
    box: Float[np.ndarray, "N 4"]
    keypoints: Float[np.ndarray, "N 17 2"]
    in_camera: Float[np.ndarray, "N 17 3"]
    focal: Float[np.ndarray, "N"]
    visibility: Float[np.ndarray, "N 17"]


def read_pictures(folders: Sequence[str | Path]) -> Pictures:
    """What `stages.training.closeup.pictures` wrote; raises HumoError where there is nothing."""
    paths = [path for folder in folders for path in sorted(Path(folder).glob("scenes-??????.npz"))]
    if not paths:
        raise HumoError(
            f"{', '.join(map(str, folders))}: holds no scenes-*.npz; make some with `python -m stages.training.closeup.pictures`"
        )
    jpegs: list[np.ndarray] = []
    parts: dict[str, list[np.ndarray]] = {name: [] for name in Pictures.__annotations__ if name != "jpegs"}
    for path in paths:
        with np.load(path) as archive:
            jpegs += np.split(archive["jpegs"], archive["sizes"].cumsum()[:-1])
            for name, part in parts.items():
                part.append(archive[name])
    return Pictures(jpegs=jpegs, **{name: np.concatenate(part) for name, part in parts.items()})


def truth_of(pictures: Pictures, place: int, matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "17 3"]:
    """Keypoints in half sides of the crop that `matrix` leads to; depths from the middle one, in the same unit."""
    flat = moved_by(matrix, pictures.keypoints[place].astype(np.float64)) / (CROP_PX / 2) - 1
    depth = pictures.in_camera[place, :, 2].astype(np.float64)
    middle = depth.mean()
    pixels = (depth - middle) / middle * pictures.focal[place]
    scale = float(np.hypot(*matrix[:, 0])) / (CROP_PX / 2)
    return np.concatenate([flat, (pixels * scale)[:, None]], 1).astype(np.float32)


def crop_of(pictures: Pictures, place: int, matrix: Float[np.ndarray, "2 3"]) -> UInt8[np.ndarray, "256 256 3"]:
    """What `matrix`, from the picture's pixels to the crop's, shows."""
    kept = from_jpeg(pictures.jpegs[place])
    grow = pictures.side[place] / KEPT_PX
    from_kept = np.concatenate([matrix[:, :2] * grow, moved_by(matrix, pictures.corner[place])[:, None]], 1)
    return warp(kept, from_kept)


def plain(pictures: Pictures, place: int) -> tuple[UInt8[np.ndarray, "256 256 3"], Float[np.ndarray, "17 3"]]:
    """A crop as it is made when nobody trains, and its truth."""
    matrix = into_crop(*square_about(pictures.box[place]))
    return crop_of(pictures, place, matrix), truth_of(pictures, place, matrix)


def varied(
    pictures: Pictures, place: int, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "256 256 3"], Float[np.ndarray, "17 3"]]:
    """A crop to train on, and its truth."""
    centre, drawn = square_about(pictures.box[place])
    side = drawn * math.exp(_STRETCH * _bounded(rng))
    centre = centre + _SHIFT * side * np.array([_bounded(rng), _bounded(rng)])
    matrix = into_crop(centre, side, _TURN_RAD * _bounded(rng))
    image, truth = crop_of(pictures, place, matrix), truth_of(pictures, place, matrix)
    if rng.random() < 0.5:
        image, truth = image[:, ::-1], truth[_MIRROR] * np.array([-1, 1, 1], np.float32)
    return np.ascontiguousarray(_covered(_recoloured(image, rng), rng)), truth


def _bounded(rng: np.random.Generator) -> float:
    """A normal number, cut off at two deviations."""
    return float(np.clip(rng.standard_normal(), -2, 2))


def _recoloured(image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Other light, colours, sharpness and grain."""
    values: np.ndarray = image.astype(np.float32)
    if rng.random() < 0.7:
        mix = np.eye(3) + 0.12 * rng.standard_normal((3, 3))
        if rng.random() < 0.15:
            mix = mix[rng.permutation(3)]
        if rng.random() < 0.15:
            mix = np.full((3, 3), 1 / 3)
        values = values @ mix.astype(np.float32)
    if rng.random() < 0.7:
        gain, lift = math.exp(0.25 * rng.standard_normal()), 20 * rng.standard_normal()
        values = (values - 114) * gain + 114 + lift
    if rng.random() < 0.4:
        width = float(rng.uniform(0.4, 2.0))
        values = cv2.GaussianBlur(values, (0, 0), width)
    elif rng.random() < 0.3:
        small = int(rng.integers(80, CROP_PX))
        values = cv2.resize(cv2.resize(values, (small, small), interpolation=cv2.INTER_AREA), (CROP_PX, CROP_PX))
    if rng.random() < 0.4:
        values = values + rng.uniform(1, 10) * rng.standard_normal(values.shape).astype(np.float32)
    return values.clip(0, 255).astype(np.uint8)


def _covered(image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Now and then a rectangle of one colour, or of another part of the picture, over some of it."""
    if rng.random() >= _COVERED:
        return image
    image = image.copy()
    height, width = (int(rng.integers(15, 90)) for _ in range(2))
    y, x = (int(rng.integers(0, CROP_PX - size)) for size in (height, width))
    if rng.random() < 0.5:
        image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    else:
        v, u = (int(rng.integers(0, CROP_PX - size)) for size in (height, width))
        image[y : y + height, x : x + width] = image[v : v + height, u : u + width].copy()
    return image


class Crops(IterableDataset):
    """Batches without end: crops (or the trunk's features of them) and their truth."""

    def __init__(self, pictures: Pictures, places: np.ndarray, batch: int, seed: int, trunk: Trunk | None) -> None:
        self.pictures, self.places, self.batch, self.seed, self.trunk = pictures, places, batch, seed, trunk

    def __iter__(self) -> Iterator[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        info = get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        order: list[int] = []
        while True:
            while len(order) < self.batch:
                order += rng.permutation(self.places).tolist()
            chosen, order = order[: self.batch], order[self.batch :]
            images, truths = zip(*(varied(self.pictures, place, rng) for place in chosen), strict=True)
            pixels = torch.from_numpy(np.stack(images))
            seen = (pixels,) if self.trunk is None else features(self.trunk, pixels)
            yield seen, torch.from_numpy(np.stack(truths))
