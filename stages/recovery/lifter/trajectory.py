"""Where the body is in the world, from the whole clip at once.

The pose and orientation of every frame known, three kinds of sightings are linear in the pelvis' places p_t: a keypoint c
metres from it that is seen along the ray (u, v) asks that p + c lie on that ray (two equations); the network's velocity
says p_{t+1} - p_t; and a foot that stands says that it moves by what the foot moves the other way relative to the pelvis.
Where the camera may have been carried its places are unknown too: rays then begin at them, and they move little, as far as
nothing else says so. Solved by reweighted least squares in the axes of a level world.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool1d

from schemas.records import FPS

_ANCHOR = 0.01
"""Weight of the first guess itself: 10 m of deviation."""
_FIXED = 1e6
"""Weight of the camera's first place: a millimetre."""
_SEEN = 0.3
"""From this confidence on a keypoint tells how noisy they are."""
_ROUNDS, _ROUNDS_CARRIED = 3, 6
"""Of reweighting."""
_GLIDE_FRAMES = 15
_LEAST_BELIEF = 0.1
_TRUSTED = 3
"""Rounds in which feet are believed all that is said of them, under a camera that may be carried."""


@dataclass(frozen=True)
class Certainty:
    """How good each kind of sighting is taken to be."""

    keypoint: tuple[float, float] = (0.005, 0.03)
    """Distance of a keypoint from its ray, share of the box: at least and at most. Between them it is the median distance of
    those that are seen from where the body was guessed: clean keypoints count more against the velocity than noisy ones."""
    shared: float = 6.0
    """Keypoints of a frame err together, and frames like their neighbours: so many of them count as one."""
    depth: float = 0.05
    """The network's depth, share of it."""
    velocity_mps: float = 0.25
    """The network's velocity, where the camera stands still."""
    velocity_carried_mps: float = 0.12
    """The same under a camera that may be carried: rays then say less of the way, and what they say wrongly of it, because the
    camera's turns are a little off, must not be believed."""
    slip_mps: float = 0.06
    """Of a foot that stands."""
    glide_mps: float = 0.25
    """A foot that is said to stand, and glides faster than this without being held, did not stand."""
    camera_mps: float = 0.2
    """Of a camera that may be carried."""
    robust: float = 2.0
    """Beyond so many deviations a sighting counts in proportion to its distance, no longer to the square."""


def solve_path(
    points: Float[Tensor, "T K 3"],
    rays: Float[Tensor, "T K 2"],
    confidence: Float[Tensor, "T K"],
    size: Float[Tensor, "T"],
    first_guess: Float[Tensor, "T 3"],
    to_camera: Float[Tensor, "T 3 3"],
    steps: Float[Tensor, "T 3"],
    feet: Float[Tensor, "T C 3"],
    planted: Float[Tensor, "T C"],
    certainty: Certainty,
    *,
    carried: bool = False,
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3"]]:
    """Places of the pelvis and of the camera, metres, in a level world whose origin is the camera of the first frame.

    `points` and `feet` are relative to the pelvis in the level world's axes, `first_guess` is the pelvis relative to the
    camera, `size` the boxes' sides over the focal length, `steps` the velocity in metres a second, `planted` the chance that a
    foot stands. A camera that is not `carried` stays at the origin.
    """
    frames = len(points)
    dtype = torch.float64
    points, rays, confidence, size, guess, to_camera, steps, feet, planted = (
        value.to(dtype) for value in (points, rays, confidence, size, first_guess, to_camera, steps, feet, planted)
    )
    unknown = 6 if carried else 3
    # What is seen is the pelvis' place less the camera's.
    seen = torch.cat([torch.eye(3, dtype=dtype), -torch.eye(3, dtype=dtype)], dim=1)[:, :unknown]
    # Rows of K of [1, 0, -u] and [0, 1, -v] in camera axes, turned to the level world.
    zero, one = torch.zeros_like(rays[..., 0]), torch.ones_like(rays[..., 0])
    lines = torch.stack(
        [torch.stack([one, zero, -rays[..., 0]], -1), torch.stack([zero, one, -rays[..., 1]], -1)], dim=-2
    )
    lines = lines @ to_camera[:, None]
    target = -(lines @ points[..., None])[..., 0]
    depth_axis = to_camera[:, 2]
    depth = (depth_axis * guess).sum(-1).clamp(min=0.3)
    off = ((lines @ guess[:, None, :, None])[..., 0] - target).norm(dim=-1) / (size * depth)[:, None]
    seen_off = off[confidence > _SEEN]
    least, most = certainty.keypoint
    noise = float(seen_off.median().clamp(least, most)) if len(seen_off) else most
    unit = noise * size * depth
    weight_rays = (confidence**2 / certainty.shared)[..., None] / unit[:, None, None] ** 2
    weight_depth = 1 / (certainty.depth * depth) ** 2 / certainty.shared

    moved = -(feet[1:] - feet[:-1])
    held = (planted[1:] * planted[:-1]) ** 2
    weight_slip = held / (certainty.slip_mps / FPS) ** 2
    velocity_mps = certainty.velocity_carried_mps if carried else certainty.velocity_mps
    weight_step = torch.full((frames - 1,), 1 / (velocity_mps / FPS) ** 2, dtype=dtype)
    weight_camera = torch.full((frames - 1,), 1 / (certainty.camera_mps / FPS) ** 2, dtype=dtype)
    path, camera = guess, torch.zeros_like(guess)
    belief: Tensor | float
    for number in range(_ROUNDS_CARRIED if carried else _ROUNDS):
        apart = ((lines @ (path - camera)[:, None, :, None])[..., 0] - target).norm(dim=-1, keepdim=True)
        rays_now = weight_rays * _huber(apart / unit[:, None, None], certainty.robust)
        slip = (path[1:] - path[:-1])[:, None] - moved
        slip_now = weight_slip * _huber(slip.norm(dim=-1) * FPS / certainty.slip_mps, certainty.robust)
        if carried and number < _TRUSTED:
            belief = 1.0  # nothing else tells a camera that is carried from a body that walks
        elif number == 0:
            belief = 0.0  # those that now glide along did not stand, and would hold the body back
        else:
            belief = _stands(slip, certainty.glide_mps)
        slip_now = slip_now * belief
        blocks = torch.einsum("tkra,tkr,tkrb->tab", lines, rays_now, lines)
        right = torch.einsum("tkra,tkr,tkr->ta", lines, rays_now, target)
        blocks = blocks + weight_depth[:, None, None] * depth_axis[:, :, None] * depth_axis[:, None]
        right = right + (weight_depth * depth)[:, None] * depth_axis
        # Where nothing is seen for long, the network's guess still says something.
        blocks, right = blocks + _ANCHOR * torch.eye(3, dtype=dtype), right + _ANCHOR * guess
        blocks, right = seen.T @ blocks @ seen, right @ seen
        link = (weight_step + slip_now.sum(1))[:, None].expand(-1, 3)
        pull = weight_step[:, None] * steps[:-1] / FPS + (slip_now[..., None] * moved).sum(1)
        if carried:
            speed = (camera[1:] - camera[:-1]).norm(dim=-1) * FPS
            camera_now = weight_camera * _huber(speed / certainty.camera_mps, 1.0)
            link = torch.cat([link, camera_now[:, None].expand(-1, 3)], dim=1)
            pull = torch.cat([pull, torch.zeros_like(pull)], dim=1)
            blocks[0, 3:, 3:] += _FIXED * torch.eye(3, dtype=dtype)
        blocks[1:] += torch.diag_embed(link)
        blocks[:-1] += torch.diag_embed(link)
        right[1:] += pull
        right[:-1] -= pull
        solved = _solve_chain(blocks, link, right)
        path = solved[:, :3]
        if carried:
            camera = solved[:, 3:]
    return path.to(first_guess.dtype), camera.to(first_guess.dtype)


def _stands(slip: Float[Tensor, "S C 3"], glide_mps: float) -> Float[Tensor, "S C"]:
    """How far to believe that feet stand which slip so much from frame to frame, metres: a Geman-McClure weight of their mean
    velocity over half a second. What a noisy path trembles is no gliding."""
    mean = avg_pool1d(slip.permute(1, 2, 0), _GLIDE_FRAMES, 1, _GLIDE_FRAMES // 2, count_include_pad=False)
    speed_mps = mean.permute(2, 0, 1).norm(dim=-1) * FPS
    return (1 + (speed_mps / glide_mps) ** 2).pow(-2).clamp(min=_LEAST_BELIEF)


def _huber(deviations: Tensor, bend: float) -> Tensor:
    return bend / deviations.clamp(min=bend)


def _solve_chain(
    blocks: Float[Tensor, "T D D"], link: Float[Tensor, "L D"], right: Float[Tensor, "T D"]
) -> Float[Tensor, "T D"]:
    """A symmetric system of blocks on the diagonal and diagonal blocks of -link beside it, by elimination."""
    diagonal, sides, b = blocks.numpy().copy(), link.numpy(), right.numpy().copy()
    inverses = np.empty_like(diagonal)
    for t in range(len(b)):
        if t:
            side = sides[t - 1]
            diagonal[t] -= side[:, None] * inverses[t - 1] * side
            b[t] += side * (inverses[t - 1] @ b[t - 1])
        inverses[t] = np.linalg.inv(diagonal[t])
    x = np.empty_like(b)
    x[-1] = inverses[-1] @ b[-1]
    for t in range(len(b) - 2, -1, -1):
        x[t] = inverses[t] @ (b[t] + sides[t] * x[t + 1])
    return torch.from_numpy(x)
