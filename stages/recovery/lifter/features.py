"""Input of the lifter: keypoints as rays of a calibrated camera, and the features that the network reads.

A ray is K^-1 (x, y, 1) without its last component, i.e. for a focal length of one; box sizes are in the same unit (size over
focal length). Boxes are computed from the keypoints, smoothed over time, so that no detector box is needed and a single bad
keypoint has little effect.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.rotations import axis_angle_to_matrix, matrix_to_6d, matrix_to_axis_angle
from schemas.skeleton import COCO_KEYPOINTS, mirror_order

NUM_FEATURES = 17 * 4 + 3 + 3 + 6 + 17 * 3 + 1 + 1
SEEN_CONFIDENCE = 0.3
"""Lowest confidence of a keypoint that counts for the box."""
_IGNORED_CONFIDENCE = 0.05
"""The network gets no position for keypoints below this confidence."""
_MIN_SIZE = 1e-3
_LOGIT_EPS = 1e-3
"""Confidences are clipped to this distance from 0 and 1 before the logit."""
_SMOOTH_SIGMA_FRAMES = 1.5
FOCAL_KNOWN, FOCAL_GUESSED = 0.02, 0.31
"""Standard deviation of the log of a focal length from metadata, and of one assumed to be the image diagonal: that is the
spread of lenses of 24 to 70 mm."""
_TYPICAL_FOCAL_DEVIATION = 0.1
_TYPICAL_ERROR = 0.02
"""Typical error of the landmark network, box sides."""
_KEYPOINT_MIRROR = mirror_order(COCO_KEYPOINTS)


@dataclass(frozen=True)
class Observation:
    """Observations of N people over T frames."""

    rays: Float[Tensor, "N T 17 2"]
    confidence: Float[Tensor, "N T 17"]
    """0 to 1; 0 where there is no detection."""
    camera_rotation: Float[Tensor, "N T 3 3"]
    """Rotation of the camera from the previous frame to this one, in camera axes; the identity while it is static."""
    valid: Bool[Tensor, "N T"]
    """False in the padding frames of a window."""
    depths: Float[Tensor, "N T 17 3"]
    """Output of the landmark network, in the unit of the rays: depth relative to the mean of all keypoints, and the expected errors
    of position and depth; all 0 where no landmark network was taken."""
    focal_deviation: Float[Tensor, "N"]
    """Standard deviation of the log of the focal length used for the rays."""

    def mirrored(self) -> "Observation":
        """The mirror image: x negated, left and right keypoints swapped."""
        order = list(_KEYPOINT_MIRROR)
        flip = self.rays.new_tensor([-1.0, 1.0])
        matrix = torch.diag(self.rays.new_tensor([-1.0, 1.0, 1.0]))
        return Observation(
            self.rays[:, :, order] * flip, self.confidence[:, :, order], matrix @ self.camera_rotation @ matrix, self.valid,
            self.depths[:, :, order], self.focal_deviation,
        )  # fmt: skip


def with_focal_length(rotation: Float[Tensor, "N T 3 3"], ratio: Float[Tensor, "N 1"]) -> Float[Tensor, "N T 3 3"]:
    """Small camera rotations as they appear under another assumed focal length. `ratio` is the true focal length over the
    assumed one. Pan and tilt scale with it, roll does not."""
    vector = matrix_to_axis_angle(rotation)
    return axis_angle_to_matrix(torch.cat([vector[..., :2] * ratio[..., None], vector[..., 2:]], dim=-1))


@dataclass(frozen=True)
class Boxes:
    """A square around each person: the ray of its centre and its side over the focal length."""

    centre: Float[Tensor, "N T 2"]
    size: Float[Tensor, "N T"]


def find_boxes(observation: Observation) -> Boxes:
    """Extent of the visible keypoints, smoothed over about five frames and filled where nobody is visible."""
    visible = (observation.confidence >= SEEN_CONFIDENCE)[..., None]
    low = torch.where(visible, observation.rays, torch.inf).amin(-2)
    high = torch.where(visible, observation.rays, -torch.inf).amax(-2)
    reliable = observation.valid & (visible[..., 0].sum(-1) >= 3)
    low = torch.where(reliable[..., None], low, 0.0)
    high = torch.where(reliable[..., None], high, 0.0)
    size = (high - low).amax(-1).clamp(min=_MIN_SIZE)
    values = torch.cat([(low + high) / 2, size.log()[..., None]], dim=-1)
    frames = torch.arange(size.shape[1], device=size.device, dtype=size.dtype)
    distance = (frames[:, None] - frames).abs()
    # The wide tail matters only where the narrow kernel covers no frame with a person.
    kernel = torch.exp(-0.5 * (distance / _SMOOTH_SIGMA_FRAMES) ** 2) + 1e-6 * torch.exp(-distance / 10) + 1e-12
    weight = kernel * reliable[:, None, :].to(kernel)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-20)
    smooth = weight @ values
    return Boxes(centre=smooth[..., :2], size=smooth[..., 2].exp())


def make_features(observation: Observation, boxes: Boxes) -> Float[Tensor, "N T 133"]:
    """Features of about unit scale: keypoints relative to their box, confidence, the box's ray, size and motion, the camera
    rotation, the output of the landmark network, and the uncertainty of the focal length.

    Confidence is given both as it is and as a logit: a detector that guesses a hidden limb may give 0.97 instead of its usual
    0.995.
    """
    half = (boxes.size / 2)[..., None]
    positions = (observation.rays - boxes.centre[:, :, None]) / half[..., None]
    visible = (observation.confidence > _IGNORED_CONFIDENCE)[..., None]
    positions = torch.where(visible, positions, 0.0).clamp(-3, 3).flatten(-2)
    box_features = torch.cat([boxes.centre, boxes.size[..., None].log() + 1], dim=-1)
    box_values = torch.cat([boxes.centre, boxes.size[..., None]], dim=-1)
    box_velocity = torch.zeros_like(box_values)
    box_velocity[:, 1:] = (box_values[:, 1:] - box_values[:, :-1]) / boxes.size[:, 1:, None]
    identity_6d = observation.camera_rotation.new_tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    rotation = matrix_to_6d(observation.camera_rotation) - identity_6d
    logit = torch.logit(observation.confidence, eps=_LOGIT_EPS) / 4
    depth, errors = observation.depths[..., 0], observation.depths[..., 1:]
    has_depths = errors.amin(-1) > 0
    depth = (depth / half * has_depths).clamp(-3, 3)
    errors = (errors / boxes.size[..., None, None] / _TYPICAL_ERROR).clamp(min=1e-2).log() / 2
    errors = (errors.clamp(-2, 2) * has_depths[..., None]).flatten(-2)
    depths = torch.cat([depth, errors, has_depths.any(-1, keepdim=True).to(depth)], dim=-1)
    focal = (observation.focal_deviation / _TYPICAL_FOCAL_DEVIATION).log()
    focal = focal[:, None, None].expand(*observation.valid.shape, 1)
    confidence, motion = observation.confidence * 2 - 1, box_velocity.clamp(-0.3, 0.3) * 15
    parts = [positions, confidence, box_features * 2, motion, rotation * 30, logit, depths, focal]
    features = torch.cat(parts, dim=-1)
    return features * observation.valid[..., None]
