"""Augmentation of motion windows: playback speed, mirroring, upper bodies recombined with other legs, synthetic arm and leg
motion, leaning, small pose changes, bent and straight backs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.rotations import axis_angle_to_matrix, matrix_from_6d, matrix_to_6d
from schemas.skeleton import SMPL_JOINTS, joint, mirror_order
from stages.training.lifter.motion_dataset import MotionDataset
from stages.training.lifter.pelvis import pelvic_pitch_residual, pitch_pelvis, rotation_about_x
from stages.training.lifter.random_curves import bernoulli, normal, smooth_curves, uniform

_MIRROR = list(mirror_order(SMPL_JOINTS))
_PERTURBATION_RAD = {"neck": 0.15, "head": 0.18, "collar": 0.08, "shoulder": 0.22, "elbow": 0.22, "wrist": 0.2,
                     "spine1": 0.06, "spine2": 0.06, "spine3": 0.08, "hip": 0.07, "knee": 0.07, "ankle": 0.06,
                     "foot": 0.06, "pelvis": 0.0, "hand": 0.0}  # fmt: skip
"""Standard deviation of the added rotation, radians."""
_KEY_POSES = 4
_ARM = tuple(joint(f"left_{name}") for name in ("shoulder", "elbow", "wrist"))
_LEG = tuple(joint(f"left_{name}") for name in ("hip", "knee", "ankle"))
_LEGS = {"pelvis", "hip", "knee", "ankle", "foot"}
_UPPER = [index for index, name in enumerate(SMPL_JOINTS) if name.split("_")[-1] not in _LEGS]
_LEAN_RAD = 0.1
"""Standard deviation of a lean of the whole body."""
_BACK_RAD = 0.26
"""Standard deviation of a back's constant bend."""
_BACK = {"spine1": 0.3, "spine2": 0.35, "spine3": 0.35}
"""Share of each joint in it."""
_BACK_PITCH, _BACK_PITCH_RAD = 0.3, 0.035
"""Pelvic pitch per bend of the back, smaller than that of a movement, and the standard deviation from it."""


@dataclass(frozen=True)
class Shares:
    """Shares of the windows that each augmentation changes."""

    gestures: float = 0.0
    """Synthetic arm motion."""
    kicks: float = 0.0
    """Synthetic motion of a leg."""
    recombined: float = 0.0
    """The upper body of another window."""
    perturbed: float = 0.0
    """All joints rotated slightly and smoothly, and a lean of the whole body."""
    backs: float = 0.0
    """The back more bent or straighter throughout."""


@dataclass(frozen=True)
class Windows:
    """N windows of T frames at 30 frames per second."""

    rotations: Float[Tensor, "N T 24 3 3"]
    pelvis: Float[Tensor, "N T 3"]
    valid: Bool[Tensor, "N T"]


def draw_windows(
    dataset: MotionDataset, count: int, frames: int, speeds: tuple[float, float], generator: torch.Generator
) -> Windows:
    """Windows of motions played at a speed between the two; a motion that is too short repeats its last frame."""
    index = torch.multinomial(dataset.probabilities(), count, replacement=True, generator=generator)
    start, length = dataset.starts[index], dataset.lengths[index]
    speed = speeds[0] * (speeds[1] / speeds[0]) ** uniform(0.0, 1.0, (count,), generator)
    spare = (length - 1 - speed * (frames - 1)).clamp(min=0)
    begin = spare * uniform(0.0, 1.0, (count,), generator)
    time = begin[:, None] + speed[:, None] * torch.arange(frames, device=dataset.pelvis.device)
    valid = time <= (length - 1)[:, None]
    time = torch.minimum(time, (length - 1)[:, None].to(time.dtype))
    low = time.floor().long()
    high = torch.minimum(low + 1, (length - 1)[:, None])
    weight = time - low
    low, high = low + start[:, None], high + start[:, None]
    # Neighbouring frames differ little: orthonormalised linear interpolation of matrices is as good as slerp.
    six_d = torch.lerp(
        matrix_to_6d(dataset.rotations[low]), matrix_to_6d(dataset.rotations[high]), weight[..., None, None]
    )
    pelvis = torch.lerp(dataset.pelvis[low], dataset.pelvis[high], weight[..., None])
    return Windows(matrix_from_6d(six_d), pelvis, valid)


def mirror(windows: Windows, selected: Bool[Tensor, "N"]) -> Windows:
    """Mirror the selected windows."""
    flip = windows.pelvis.new_tensor([-1.0, 1.0, 1.0])
    matrix = torch.diag(flip)
    rotations = torch.where(
        selected[:, None, None, None, None], matrix @ windows.rotations[:, :, _MIRROR] @ matrix, windows.rotations
    )
    return Windows(
        rotations, torch.where(selected[:, None, None], windows.pelvis * flip, windows.pelvis), windows.valid
    )


def augment(windows: Windows, shares: Shares, generator: torch.Generator) -> Windows:
    """Recombine, replace and perturb limbs in the given shares of the windows.

    The pitch of the pelvis follows these changes.
    """
    n, frames = windows.pelvis.shape[:2]
    rotations = windows.rotations.clone()
    residual, validity = pelvic_pitch_residual(rotations)
    recombined = bernoulli(shares.recombined, (n,), generator)[:, None, None, None, None]
    order = torch.randperm(n, generator=generator, device=rotations.device)
    rotations[:, :, _UPPER] = torch.where(recombined, rotations[order][:, :, _UPPER], rotations[:, :, _UPPER])
    rotations = _replace_limbs(rotations, shares.gestures, _ARM, _arm_motion, 0.6, generator)
    rotations = _replace_limbs(rotations, shares.kicks, _LEG, _leg_motion, 0.0, generator)
    deviation = torch.tensor([_PERTURBATION_RAD[name.split("_")[-1]] for name in SMPL_JOINTS], device=rotations.device)
    perturbed = bernoulli(shares.perturbed, (n,), generator)
    amount = perturbed * uniform(0.2, 1.3, (n,), generator)
    perturbation = smooth_curves((n, 24, 3), frames, 5, generator).permute(0, 3, 1, 2)
    perturbation = perturbation * deviation[:, None] * amount[:, None, None, None]
    rotations = rotations @ axis_angle_to_matrix(perturbation)
    lean = (
        smooth_curves((n, 3), frames, 3, generator).transpose(1, 2)
        * rotations.new_tensor([_LEAN_RAD, 0.0, _LEAN_RAD])
        * perturbed[:, None, None]
    )
    rotations[:, :, 0] = axis_angle_to_matrix(lean) @ rotations[:, :, 0]
    new_residual, new_validity = pelvic_pitch_residual(rotations)
    rotations = pitch_pelvis(rotations, validity * new_validity * (residual - new_residual))
    rotations = _bend_backs(rotations, bernoulli(shares.backs, (n,), generator), generator)
    return Windows(rotations, windows.pelvis, windows.valid)


def _bend_backs(
    rotations: Float[Tensor, "N T 24 3 3"], selected: Bool[Tensor, "N"], generator: torch.Generator
) -> Float[Tensor, "N T 24 3 3"]:
    """Bend or straighten the backs of the selected windows; neck and shoulders compensate for part of it."""
    n = len(rotations)
    bend = _BACK_RAD * normal((n,), generator).clamp(-2, 2) * selected
    pelvic_pitch = _BACK_PITCH * bend + _BACK_PITCH_RAD * normal((n,), generator) * selected
    rotations = pitch_pelvis(rotations, pelvic_pitch[:, None])
    neck_share, shoulder_share = uniform(0.0, 0.5, (n,), generator), uniform(0.0, 1.0, (n,), generator)
    angles = {name: share * bend for name, share in _BACK.items()}
    angles |= dict.fromkeys(("neck", "head"), -neck_share * bend)
    angles |= dict.fromkeys(("left_shoulder", "right_shoulder"), -shoulder_share * bend)
    for name, angle in angles.items():
        index = joint(name)
        rotations[:, :, index] = rotation_about_x(angle)[:, None] @ rotations[:, :, index]
    return rotations


def _replace_limbs(
    rotations: Float[Tensor, "N T 24 3 3"],
    share: float,
    limb: tuple[int, ...],
    draw_motion: Callable[[int, int, torch.Generator], Tensor],
    both_share: float,
    generator: torch.Generator,
) -> Float[Tensor, "N T 24 3 3"]:
    """Give one or both limbs synthetic motion, symmetric or not, in a share of the windows, blended with the recording's."""
    n, frames = rotations.shape[:2]
    flip = torch.diag(rotations.new_tensor([-1.0, 1.0, 1.0]))
    left, right = draw_motion(n, frames, generator), draw_motion(n, frames, generator)
    symmetric = bernoulli(0.35, (n,), generator)[:, None, None, None, None]
    right = torch.where(symmetric, left, right)
    selected = bernoulli(share, (n,), generator)
    both = bernoulli(both_share, (n,), generator)
    left_side = bernoulli(0.5, (n,), generator)
    entire = bernoulli(0.5, (n, 1), generator)
    rotations = rotations.clone()
    for motion, mirrored, active in ((left, False, both | left_side), (right, True, both | ~left_side)):
        joints = [joint(SMPL_JOINTS[j].replace("left", "right")) if mirrored else j for j in limb]
        motion = flip @ motion @ flip if mirrored else motion
        envelope = (smooth_curves((n,), frames, 4, generator) * 4 + 1.5).sigmoid()
        envelope = torch.where(entire, 1.0, envelope) * (selected & active)[:, None]
        blended = torch.lerp(
            matrix_to_6d(rotations[:, :, joints]), matrix_to_6d(motion), envelope[..., None, None].expand(-1, -1, 3, 6)
        )
        rotations[:, :, joints] = matrix_from_6d(blended)
    return rotations


def _leg_motion(n: int, frames: int, generator: torch.Generator) -> Float[Tensor, "N T 3 3 3"]:
    """Local rotations of a left hip, knee and ankle: the leg is lifted, kicked forwards, sideways or back, held, put down.

    In the rest pose the leg points down; a negative angle about X swings it to the front, a positive one about Z outwards, and
    a positive one about X bends the knee.
    """
    shape = (n, _KEY_POSES)
    low = bernoulli(0.4, shape, generator)
    forward = torch.where(low, uniform(-0.3, 0.4, shape, generator), uniform(-0.7, 1.8, shape, generator))
    outward = torch.where(low, uniform(-0.05, 0.2, shape, generator), uniform(-0.2, 0.9, shape, generator))
    twist = 0.35 * normal(shape, generator)
    bend = torch.where(low, 0.4, 2.2) * uniform(0.0, 1.0, shape, generator) ** 1.5
    forward, outward, twist, bend = _ease_between(torch.stack([forward, outward, twist, bend], -1), frames).unbind(-1)
    zero = torch.zeros_like(bend)
    about_x = axis_angle_to_matrix(torch.stack([-forward, zero, zero], -1))
    about_z = axis_angle_to_matrix(torch.stack([zero, zero, outward], -1))
    about_y = axis_angle_to_matrix(torch.stack([zero, twist, zero], -1))
    knee = axis_angle_to_matrix(torch.stack([bend, zero, zero], -1))
    ankle = smooth_curves((n, 3), frames, 4, generator).transpose(1, 2) * 0.2
    return torch.stack([about_z @ about_x @ about_y, knee, axis_angle_to_matrix(ankle)], 2)


def _ease_between(values: Float[Tensor, "N P C"], frames: int) -> Float[Tensor, "N T C"]:
    """Interpolate between evenly spaced keys with zero velocity at each key (smoothstep)."""
    t = torch.linspace(0, values.shape[1] - 1, frames, device=values.device)
    low = t.floor().long().clamp(max=values.shape[1] - 2)
    ease = t - low
    ease = (ease * ease * (3 - 2 * ease))[:, None]
    return torch.lerp(values[:, low], values[:, low + 1], ease)


def _arm_motion(n: int, frames: int, generator: torch.Generator) -> Float[Tensor, "N T 3 3 3"]:
    """Local rotations of a left shoulder, elbow and wrist through a few random poses, in half of them with a wave on top.

    In the rest pose the arm lies along +X; bending the elbow rotates the forearm from there to the front (+Z).
    """
    shape = (n, _KEY_POSES)
    height = uniform(-1.5, 1.5, shape, generator)
    across = uniform(-0.4, 1.9, shape, generator)
    twist = 0.3 + 0.6 * normal(shape, generator)
    bend = 2.4 * uniform(0.0, 1.0, shape, generator) ** 1.3
    values = torch.stack([height, across, twist, bend], -1)
    # Some poses are held, so that arms also rest in unusual positions.
    hold = bernoulli(0.35, (n, _KEY_POSES - 1), generator)
    keys = [values[:, 0]]
    for i in range(1, _KEY_POSES):
        keys.append(torch.where(hold[:, i - 1, None], keys[-1], values[:, i]))
    values = torch.stack(keys, 1)
    angles = _ease_between(values, frames)

    rate = uniform(0.8, 3.0, (n, 1, 1), generator)
    seconds = torch.arange(frames, device=values.device)[None, :, None] / 30
    phase = uniform(0.0, 6.28, (n, 1, 4), generator)
    amplitude = bernoulli(0.5, (n, 1, 1), generator) * uniform(0.05, 0.5, (n, 1, 4), generator)
    angles = angles + amplitude * torch.sin(6.2832 * rate * seconds + phase)
    height, across, twist, bend = angles.unbind(-1)
    zero = torch.zeros_like(bend)
    about_z = axis_angle_to_matrix(torch.stack([zero, zero, height], -1))
    about_y = axis_angle_to_matrix(torch.stack([zero, -across, zero], -1))
    about_x = axis_angle_to_matrix(torch.stack([twist, zero, zero], -1))
    elbow = axis_angle_to_matrix(torch.stack([zero, -bend.clamp(0.02, 2.5), zero], -1))
    wrist = smooth_curves((n, 3), frames, 4, generator).transpose(1, 2) * 0.25
    return torch.stack([about_y @ about_z @ about_x, elbow, axis_angle_to_matrix(wrist)], 2)
