"""Landmarks of tracked people: a crop of the source's pixels for every person and frame, placed by the detector's keypoints, and a
second one where the network places the person elsewhere.

A result depends on its frame alone, so frames and people run side by side and the number of threads changes nothing. In a video the
frames of a person are looked at as they are and mirrored in turns, and `without_mirror_error` takes out what alternates: as good
as looking at both each time, for half the price.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.ndimage import uniform_filter1d

from stages.media.patches import FramePatches
from stages.perception.landmarks.crops import Crop, crop_of_circle, crop_of_keypoints, invert, warp
from stages.perception.landmarks.network import NUM_LANDMARKS, CropLandmarks, LandmarkNetwork, average

_HIPS, _TOP = NUM_LANDMARKS, NUM_LANDMARKS + 1
"""Points of the network that place the next crop: middle of the hips, and a point above it on the circle around the body."""
_PATCH_PX = 448
"""Longest side of the part of a frame that is kept for a person until its landmarks are known."""
_REACH = 1.25
"""Side of that part over the side of the crop: room for a second crop."""
_MAX_LOOKS = 2


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Landmarks of one person in one frame."""

    points: Float[np.ndarray, "33 4"]
    """x, y in source pixels, visibility, presence."""
    metric: Float[np.ndarray, "33 3"]
    """Metres about the middle of the hips, camera axes (x right, y down, z away from the camera)."""
    person: float
    """Probability that a person was seen."""


@dataclass(eq=False)
class _Pending:
    image: np.ndarray
    to_image: Float[np.ndarray, "2 3"]
    """Frame's pixels to those of `image`."""
    crop: Crop
    matrix: Float[np.ndarray, "2 3"]
    """Pixels of `image` to those of the crop."""
    mirrored: tuple[bool, ...]
    """The crop as it is, its mirror image, or both."""
    looks: int = 1
    outputs: list[CropLandmarks] = field(default_factory=list)


class LandmarkLooks:
    """`begin` takes a person in a frame, `finish` returns the landmarks of all of them, in order."""

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        device: str = "cpu",
        backend: Literal["openvino", "torch"] = "openvino",
        threads: int = 1,
    ) -> None:
        self.network = LandmarkNetwork(weights, device=device, backend=backend, threads=threads)
        self.version = self.network.version
        self.looks = 0
        """Crops that were run since the start, second ones and mirror images included."""
        self._pending: dict[int, _Pending] = {}
        self._done: dict[int, Landmarks] = {}
        self._count = 0

    def begin(
        self,
        frame: FramePatches,
        box: Float[np.ndarray, "4"],
        keypoints: Float[np.ndarray, "17 3"],
        *,
        mirrored: bool | None = None,
    ) -> None:
        """A person in a frame, by the detector's box and keypoints (x, y, confidence), source pixels. The part of the frame that
        is needed is copied at once. `mirrored`: whether the mirror image is looked at; None: both, and their mean is taken."""
        crop = crop_of_keypoints(keypoints, box)
        x0, y0, x1, y1 = crop.bounds()
        room = (_REACH - 1) / 2 * np.array([x0 - x1, y0 - y1, x1 - x0, y1 - y0])
        shown = (x1 - x0) * _REACH
        visible = max(
            min(x1 + room[2], frame.width) - max(x0 + room[0], 0),
            min(y1 + room[3], frame.height) - max(y0 + room[1], 0),
            1,
        )
        image, to_image = frame.patch(np.array([x0, y0, x1, y1]) + room, max(2, round(_PATCH_PX * visible / shown)))
        pending = _Pending(image, to_image, crop, np.zeros((2, 3)), (False, True) if mirrored is None else (mirrored,))
        number, self._count = self._count, self._count + 1
        self._pending[number] = pending
        self._start(number, pending)
        self._settle(self.network.take())

    def finish(self) -> list[Landmarks]:
        """Landmarks for all calls of `begin` since the last `finish`."""
        while self._pending:
            self._settle(self.network.take(wait=True))
        found = [self._done[number] for number in range(self._count)]
        self._done, self._count = {}, 0
        return found

    def _start(self, number: int, pending: _Pending) -> None:
        pending.matrix = _compose(pending.crop.matrix(), _inverse(pending.to_image))
        pixels = warp(pending.image, pending.matrix)
        for mirrored in pending.mirrored:
            self.looks += 1
            self.network.start(2 * number + mirrored, pixels, mirrored=mirrored)

    def _settle(self, outputs: dict[int, CropLandmarks]) -> None:
        for crop_number, one in outputs.items():
            number = crop_number // 2
            pending = self._pending[number]
            pending.outputs.append(one)
            if len(pending.outputs) < len(pending.mirrored):
                continue
            output, pending.outputs = average(pending.outputs), []
            points = invert(pending.to_image, invert(pending.matrix, output.points))
            better = crop_of_circle(points[_HIPS], points[_TOP])
            if pending.looks < _MAX_LOOKS and not pending.crop.is_near(better):
                pending.crop, pending.looks = better, pending.looks + 1
                self._start(number, pending)
                continue
            cos, sin = np.cos(pending.crop.roll_rad), np.sin(pending.crop.roll_rad)
            upright = output.metric @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
            seen = np.stack([output.visibility, output.presence], 1)
            self._done[number] = Landmarks(
                np.concatenate([points[:NUM_LANDMARKS], seen], 1).astype(np.float32),
                upright.astype(np.float32),
                output.person,
            )
            del self._pending[number]


def _compose(after: Float[np.ndarray, "2 3"], before: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The affine map that does `before` and then `after`."""
    return np.concatenate([after[:, :2] @ before[:, :2], (after[:, :2] @ before[:, 2] + after[:, 2])[:, None]], 1)


def _inverse(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -(linear @ matrix[:, 2])[:, None]], 1)


def without_mirror_error(values: Float[np.ndarray, "N *D"]) -> Float[np.ndarray, "N *D"]:
    """Results of consecutive frames that were looked at as they are and mirrored in turns, without the difference that this
    makes. The difference alternates from frame to frame; motion does not. It is estimated from each frame and its neighbours,
    and averaged over three frames; less than three are returned as they are."""
    if len(values) < 3:
        return values
    sign = (-1.0) ** np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    differences = sign[1:-1] * (values[1:-1] - (values[:-2] + values[2:]) / 2) / 2
    # The first and the last frame have no two neighbours: they take the estimates of the next ones.
    differences = np.concatenate([differences[:1], differences, differences[-1:]])
    return (values - sign * uniform_filter1d(differences, 3, axis=0, mode="nearest")).astype(values.dtype)
