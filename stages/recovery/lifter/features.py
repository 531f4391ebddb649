"""What the lifter is shown: keypoints as rays of a calibrated camera, and the numbers that the network reads.

A ray is K^-1 (x, y, 1) without its last number, so a focal length of one; sizes of boxes are in the same unit (size over
focal length). The box is made from the keypoints themselves, smoothed over time, so that a detector's box is not needed
and one bad keypoint moves it little.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.rotations import axis_angle_to_matrix, matrix_to_6d, matrix_to_axis_angle
from schemas.skeleton import COCO_KEYPOINTS, mirror_order

NUM_FEATURES = 17 * 4 + 3 + 3 + 6 + 17 * 3 + 1 + 1
SEEN_CONFIDENCE = 0.3
"""From here on a keypoint counts for the box."""
_IGNORED_CONFIDENCE = 0.05
"""Below, a keypoint's place is withheld from the network."""
_MIN_SIZE = 1e-3
_SURE = 1e-3
"""Confidences are told apart up to this near to 0 and 1."""
_SMOOTH_FRAMES = 1.5
FOCAL_KNOWN, FOCAL_GUESSED = 0.02, 0.31
"""Deviation of the log of a focal length that is told, and of one that is taken to be the image's diagonal: lenses of 24 to
70 mm spread so much."""
_FOCAL_USUALLY_OFF = 0.1
_USUALLY_OFF = 0.02
"""Box sides that a closer look is ordinarily off."""
_KEYPOINT_MIRROR = mirror_order(COCO_KEYPOINTS)


@dataclass(frozen=True)
class Observation:
    """N people over T frames, as seen."""

    rays: Float[Tensor, "N T 17 2"]
    confidence: Float[Tensor, "N T 17"]
    """0 to 1; 0 where nothing was seen."""
    turn: Float[Tensor, "N T 3 3"]
    """Rotation of the camera from the frame before to this one, in camera axes; the identity while it stands still."""
    valid: Bool[Tensor, "N T"]
    """False in frames that only fill up a window."""
    closeup: Float[Tensor, "N T 17 3"]
    """What a closer look told, in the unit of the rays: depth from the middle of all keypoints, and how far place and depth
    are expected to be off; all 0 where nobody looked closer."""
    focal_off: Float[Tensor, "N"]
    """Expected deviation of the log of the focal length by which the rays were made from the true one."""

    def mirrored(self) -> "Observation":
        """As a mirror would show it: x turned round, left and right keypoints exchanged."""
        order = list(_KEYPOINT_MIRROR)
        flip = self.rays.new_tensor([-1.0, 1.0])
        matrix = torch.diag(self.rays.new_tensor([-1.0, 1.0, 1.0]))
        return Observation(
            self.rays[:, :, order] * flip, self.confidence[:, :, order], matrix @ self.turn @ matrix, self.valid,
            self.closeup[:, :, order], self.focal_off,
        )  # fmt: skip


def with_focal_length(turn: Float[Tensor, "N T 3 3"], ratio: Float[Tensor, "N 1"]) -> Float[Tensor, "N T 3 3"]:
    """The small turns of a camera as they look when another focal length is assumed; `ratio` is the one by which they are
    right over the other. Pans and tilts grow with it, rolls do not."""
    about = matrix_to_axis_angle(turn)
    return axis_angle_to_matrix(torch.cat([about[..., :2] * ratio[..., None], about[..., 2:]], dim=-1))


@dataclass(frozen=True)
class Boxes:
    """A square about each person: its centre's ray and its side over the focal length."""

    centre: Float[Tensor, "N T 2"]
    size: Float[Tensor, "N T"]


def find_boxes(seen: Observation) -> Boxes:
    """The extent of the keypoints that are seen, smoothed over about five frames and filled where nobody is seen."""
    known = (seen.confidence >= SEEN_CONFIDENCE)[..., None]
    low = torch.where(known, seen.rays, torch.inf).amin(-2)
    high = torch.where(known, seen.rays, -torch.inf).amax(-2)
    certain = seen.valid & (known[..., 0].sum(-1) >= 3)
    low = torch.where(certain[..., None], low, 0.0)
    high = torch.where(certain[..., None], high, 0.0)
    size = (high - low).amax(-1).clamp(min=_MIN_SIZE)
    values = torch.cat([(low + high) / 2, size.log()[..., None]], dim=-1)
    frames = torch.arange(size.shape[1], device=size.device, dtype=size.dtype)
    apart = (frames[:, None] - frames).abs()
    # The wide tail counts only where the narrow kernel finds no frame with a person.
    kernel = torch.exp(-0.5 * (apart / _SMOOTH_FRAMES) ** 2) + 1e-6 * torch.exp(-apart / 10) + 1e-12
    weight = kernel * certain[:, None, :].to(kernel)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-20)
    smooth = weight @ values
    return Boxes(centre=smooth[..., :2], size=smooth[..., 2].exp())


def make_features(seen: Observation, boxes: Boxes) -> Float[Tensor, "N T 133"]:
    """Numbers of about unit size: keypoints in their box, confidence, the box's ray, size and motion, the camera's turn,
    what a closer look told, and how well the focal length is known.

    Confidence comes as it is and as a logit: a detector that guesses a hidden limb may say 0.97 where it else says 0.995.
    """
    half = (boxes.size / 2)[..., None]
    place = (seen.rays - boxes.centre[:, :, None]) / half[..., None]
    shown = (seen.confidence > _IGNORED_CONFIDENCE)[..., None]
    place = torch.where(shown, place, 0.0).clamp(-3, 3).flatten(-2)
    box = torch.cat([boxes.centre, boxes.size[..., None].log() + 1], dim=-1)
    moved = torch.cat([boxes.centre, boxes.size[..., None]], dim=-1)
    step = torch.zeros_like(moved)
    step[:, 1:] = (moved[:, 1:] - moved[:, :-1]) / boxes.size[:, 1:, None]
    turn = matrix_to_6d(seen.turn) - seen.turn.new_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    logit = torch.logit(seen.confidence, eps=_SURE) / 4
    looked = seen.closeup[..., 1:].amin(-1) > 0
    depth = (seen.closeup[..., 0] / half * looked).clamp(-3, 3)
    off = (seen.closeup[..., 1:] / boxes.size[..., None, None] / _USUALLY_OFF).clamp(min=1e-2).log() / 2
    off = (off.clamp(-2, 2) * looked[..., None]).flatten(-2)
    closeup = torch.cat([depth, off, looked.any(-1, keepdim=True).to(depth)], dim=-1)
    focal = (seen.focal_off / _FOCAL_USUALLY_OFF).log()[:, None, None].expand(*seen.valid.shape, 1)
    parts = [place, seen.confidence * 2 - 1, box * 2, step.clamp(-0.3, 0.3) * 15, turn * 30, logit, closeup, focal]
    features = torch.cat(parts, dim=-1)
    return features * seen.valid[..., None]
