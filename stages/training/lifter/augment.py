"""Windows of motion, made more varied than the recordings: other speeds, mirror images, upper bodies on other legs, other
arms, kicks, leaning, small changes of pose, bent and straight backs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.rotations import axis_angle_to_matrix, matrix_from_6d, matrix_to_6d
from schemas.skeleton import SMPL_JOINTS, joint, mirror_order
from stages.training.lifter.motion_dataset import MotionDataset
from stages.training.lifter.pelvis import about_x, off_rhythm, pitch
from stages.training.lifter.random_curves import chance, normal, smooth_curves, uniform

_MIRROR = list(mirror_order(SMPL_JOINTS))
_SHAKE = {"neck": 0.15, "head": 0.18, "collar": 0.08, "shoulder": 0.22, "elbow": 0.22, "wrist": 0.2, "spine1": 0.06,
          "spine2": 0.06, "spine3": 0.08, "hip": 0.07, "knee": 0.07, "ankle": 0.06, "foot": 0.06, "pelvis": 0.0,
          "hand": 0.0}  # fmt: skip
"""Deviation of the added rotation, radians."""
_KEY_POSES = 4
_ARM = tuple(joint(f"left_{name}") for name in ("shoulder", "elbow", "wrist"))
_LEG = tuple(joint(f"left_{name}") for name in ("hip", "knee", "ankle"))
_LEGS = {"pelvis", "hip", "knee", "ankle", "foot"}
_UPPER = [place for place, name in enumerate(SMPL_JOINTS) if name.split("_")[-1] not in _LEGS]
_LEAN_RAD = 0.1
"""Deviation of a lean of the whole body."""
_BACK_RAD = 0.26
"""Deviation of how bent a back is for good."""
_BACK = {"spine1": 0.3, "spine2": 0.35, "spine3": 0.35}
"""What each joint takes of it."""
_BACK_PITCH, _BACK_PITCH_RAD = 0.3, 0.035
"""What the pelvis takes of it, less than of a movement, and the deviation from that."""


@dataclass(frozen=True)
class Shares:
    """Of the windows in which something is changed."""

    gestures: float = 0.0
    """The arms do something made up."""
    kicks: float = 0.0
    """A leg does."""
    recombined: float = 0.0
    """The upper body is another window's."""
    perturbed: float = 0.0
    """All joints are turned a little, smoothly, and the whole leans."""
    backs: float = 0.0
    """The back is more bent or straighter throughout."""


@dataclass(frozen=True)
class Windows:
    """N stretches of T frames at 30 frames a second."""

    rotations: Float[Tensor, "N T 24 3 3"]
    pelvis: Float[Tensor, "N T 3"]
    valid: Bool[Tensor, "N T"]


def draw_windows(
    dataset: MotionDataset, count: int, frames: int, speeds: tuple[float, float], generator: torch.Generator
) -> Windows:
    """Stretches of motions played at a speed between the two; where a motion is too short its last frame stands."""
    which = torch.multinomial(dataset.chances(), count, replacement=True, generator=generator)
    start, length = dataset.starts[which], dataset.lengths[which]
    ratio = speeds[0] * (speeds[1] / speeds[0]) ** uniform(0.0, 1.0, (count,), generator)
    spare = (length - 1 - ratio * (frames - 1)).clamp(min=0)
    begin = spare * uniform(0.0, 1.0, (count,), generator)
    time = begin[:, None] + ratio[:, None] * torch.arange(frames, device=dataset.pelvis.device)
    valid = time <= (length - 1)[:, None]
    time = torch.minimum(time, (length - 1)[:, None].to(time.dtype))
    low = time.floor().long()
    high = torch.minimum(low + 1, (length - 1)[:, None])
    share = time - low
    low, high = low + start[:, None], high + start[:, None]
    # Neighbouring frames differ by little: the straight line between matrices, made orthonormal, is as good as the arc.
    six = torch.lerp(
        matrix_to_6d(dataset.rotations[low]), matrix_to_6d(dataset.rotations[high]), share[..., None, None]
    )
    return Windows(matrix_from_6d(six), torch.lerp(dataset.pelvis[low], dataset.pelvis[high], share[..., None]), valid)


def mirror(windows: Windows, which: Bool[Tensor, "N"]) -> Windows:
    """The chosen windows as in a mirror."""
    flip = windows.pelvis.new_tensor([-1.0, 1.0, 1.0])
    matrix = torch.diag(flip)
    rotations = torch.where(
        which[:, None, None, None, None], matrix @ windows.rotations[:, :, _MIRROR] @ matrix, windows.rotations
    )
    return Windows(rotations, torch.where(which[:, None, None], windows.pelvis * flip, windows.pelvis), windows.valid)


def vary(windows: Windows, shares: Shares, generator: torch.Generator) -> Windows:
    """In some windows the upper body of another, arms or a leg that do something else; in some every joint turned a little.

    The pelvis takes its part in all that.
    """
    n, frames = windows.pelvis.shape[:2]
    rotations = windows.rotations.clone()
    off, sure = off_rhythm(rotations)
    other = chance(shares.recombined, (n,), generator)[:, None, None, None, None]
    order = torch.randperm(n, generator=generator, device=rotations.device)
    rotations[:, :, _UPPER] = torch.where(other, rotations[order][:, :, _UPPER], rotations[:, :, _UPPER])
    rotations = _with_limbs(rotations, shares.gestures, _ARM, _arm_path, 0.6, generator)
    rotations = _with_limbs(rotations, shares.kicks, _LEG, _leg_path, 0.0, generator)
    deviation = torch.tensor([_SHAKE[name.split("_")[-1]] for name in SMPL_JOINTS], device=rotations.device)
    shaken = chance(shares.perturbed, (n,), generator)
    amount = shaken * uniform(0.2, 1.3, (n,), generator)
    turns = smooth_curves((n, 24, 3), frames, 5, generator).permute(0, 3, 1, 2)
    turns = turns * deviation[:, None] * amount[:, None, None, None]
    rotations = rotations @ axis_angle_to_matrix(turns)
    lean = (
        smooth_curves((n, 3), frames, 3, generator).transpose(1, 2)
        * rotations.new_tensor([_LEAN_RAD, 0.0, _LEAN_RAD])
        * shaken[:, None, None]
    )
    rotations[:, :, 0] = axis_angle_to_matrix(lean) @ rotations[:, :, 0]
    now_off, now_sure = off_rhythm(rotations)
    rotations = pitch(rotations, sure * now_sure * (off - now_off))
    rotations = _with_back(rotations, chance(shares.backs, (n,), generator), generator)
    return Windows(rotations, windows.pelvis, windows.valid)


def _with_back(
    rotations: Float[Tensor, "N T 24 3 3"], chosen: Bool[Tensor, "N"], generator: torch.Generator
) -> Float[Tensor, "N T 24 3 3"]:
    """Bent or straight backs in the chosen windows; neck and shoulders make up for some of it."""
    n = len(rotations)
    bend = _BACK_RAD * normal((n,), generator).clamp(-2, 2) * chosen
    tipped = _BACK_PITCH * bend + _BACK_PITCH_RAD * normal((n,), generator) * chosen
    rotations = pitch(rotations, tipped[:, None])
    lifted, hanging = uniform(0.0, 0.5, (n,), generator), uniform(0.0, 1.0, (n,), generator)
    turns = {name: share * bend for name, share in _BACK.items()}
    turns |= dict.fromkeys(("neck", "head"), -lifted * bend)
    turns |= dict.fromkeys(("left_shoulder", "right_shoulder"), -hanging * bend)
    for name, angle in turns.items():
        place = joint(name)
        rotations[:, :, place] = about_x(angle)[:, None] @ rotations[:, :, place]
    return rotations


def _with_limbs(
    rotations: Float[Tensor, "N T 24 3 3"],
    share: float,
    limb: tuple[int, ...],
    draw_path: Callable[[int, int, torch.Generator], Tensor],
    both_share: float,
    generator: torch.Generator,
) -> Float[Tensor, "N T 24 3 3"]:
    """Limbs that go their own way, one or both, both alike or not; blended in and out where the recording has its own."""
    n, frames = rotations.shape[:2]
    flip = torch.diag(rotations.new_tensor([-1.0, 1.0, 1.0]))
    left, right = draw_path(n, frames, generator), draw_path(n, frames, generator)
    alike = chance(0.35, (n,), generator)[:, None, None, None, None]
    right = torch.where(alike, left, right)
    chosen = chance(share, (n,), generator)
    both = chance(both_share, (n,), generator)
    leftwards = chance(0.5, (n,), generator)
    whole = chance(0.5, (n, 1), generator)
    rotations = rotations.clone()
    for path, mirrored, acts in ((left, False, both | leftwards), (right, True, both | ~leftwards)):
        places = [joint(SMPL_JOINTS[j].replace("left", "right")) if mirrored else j for j in limb]
        path = flip @ path @ flip if mirrored else path
        envelope = (smooth_curves((n,), frames, 4, generator) * 4 + 1.5).sigmoid()
        envelope = torch.where(whole, 1.0, envelope) * (chosen & acts)[:, None]
        mixed = torch.lerp(
            matrix_to_6d(rotations[:, :, places]), matrix_to_6d(path), envelope[..., None, None].expand(-1, -1, 3, 6)
        )
        rotations[:, :, places] = matrix_from_6d(mixed)
    return rotations


def _leg_path(n: int, frames: int, generator: torch.Generator) -> Float[Tensor, "N T 3 3 3"]:
    """Local rotations of a left hip, knee and ankle: lifted, kicked forwards, sideways or back, held, put down.

    In the rest pose the leg points down; turning it by a negative angle about X brings it to the front, by a positive one
    about Z outwards, and a positive one about X bends the knee.
    """
    shape = (n, _KEY_POSES)
    low = chance(0.4, shape, generator)
    forward = torch.where(low, uniform(-0.3, 0.4, shape, generator), uniform(-0.7, 1.8, shape, generator))
    outward = torch.where(low, uniform(-0.05, 0.2, shape, generator), uniform(-0.2, 0.9, shape, generator))
    twist = 0.35 * normal(shape, generator)
    bend = torch.where(low, 0.4, 2.2) * uniform(0.0, 1.0, shape, generator) ** 1.5
    forward, outward, twist, bend = _between(torch.stack([forward, outward, twist, bend], -1), frames).unbind(-1)
    zero = torch.zeros_like(bend)
    about_x = axis_angle_to_matrix(torch.stack([-forward, zero, zero], -1))
    about_z = axis_angle_to_matrix(torch.stack([zero, zero, outward], -1))
    about_y = axis_angle_to_matrix(torch.stack([zero, twist, zero], -1))
    knee = axis_angle_to_matrix(torch.stack([bend, zero, zero], -1))
    ankle = smooth_curves((n, 3), frames, 4, generator).transpose(1, 2) * 0.2
    return torch.stack([about_z @ about_x @ about_y, knee, axis_angle_to_matrix(ankle)], 2)


def _between(values: Float[Tensor, "N P C"], frames: int) -> Float[Tensor, "N T C"]:
    """From one key to the next with rests at the keys."""
    t = torch.linspace(0, values.shape[1] - 1, frames, device=values.device)
    low = t.floor().long().clamp(max=values.shape[1] - 2)
    ease = t - low
    ease = (ease * ease * (3 - 2 * ease))[:, None]
    return torch.lerp(values[:, low], values[:, low + 1], ease)


def _arm_path(n: int, frames: int, generator: torch.Generator) -> Float[Tensor, "N T 3 3 3"]:
    """Local rotations of a left shoulder, elbow and wrist through a few random poses, in half of them with a wave on top.

    In the rest pose the arm lies along +X; bending the elbow turns the forearm from there to the front (+Z).
    """
    shape = (n, _KEY_POSES)
    height = uniform(-1.5, 1.5, shape, generator)
    across = uniform(-0.4, 1.9, shape, generator)
    twist = 0.3 + 0.6 * normal(shape, generator)
    bend = 2.4 * uniform(0.0, 1.0, shape, generator) ** 1.3
    values = torch.stack([height, across, twist, bend], -1)
    # Some poses are held, so that arms also rest somewhere unusual.
    hold = chance(0.35, (n, _KEY_POSES - 1), generator)
    held = [values[:, 0]]
    for i in range(1, _KEY_POSES):
        held.append(torch.where(hold[:, i - 1, None], held[-1], values[:, i]))
    values = torch.stack(held, 1)
    path = _between(values, frames)

    rate = uniform(0.8, 3.0, (n, 1, 1), generator)
    seconds = torch.arange(frames, device=values.device)[None, :, None] / 30
    phase = uniform(0.0, 6.28, (n, 1, 4), generator)
    size = chance(0.5, (n, 1, 1), generator) * uniform(0.05, 0.5, (n, 1, 4), generator)
    path = path + size * torch.sin(6.2832 * rate * seconds + phase)
    height, across, twist, bend = path.unbind(-1)
    zero = torch.zeros_like(bend)
    about_z = axis_angle_to_matrix(torch.stack([zero, zero, height], -1))
    about_y = axis_angle_to_matrix(torch.stack([zero, -across, zero], -1))
    about_x = axis_angle_to_matrix(torch.stack([twist, zero, zero], -1))
    elbow = axis_angle_to_matrix(torch.stack([zero, -bend.clamp(0.02, 2.5), zero], -1))
    wrist = smooth_curves((n, 3), frames, 4, generator).transpose(1, 2) * 0.25
    return torch.stack([about_y @ about_z @ about_x, elbow, axis_angle_to_matrix(wrist)], 2)
