"""Refinement: the lifter's body moved as little as need be for its keypoints to fall where they were seen.

All frames of a clip at once, by Gauss-Newton. Unknown are, in every frame, a small rotation of each joint (with all that
hangs on it) about the camera's axes and the pelvis' place, and one shape. What holds them:

- keypoints, over what the lifter expects each to be off, robust, by confidence;
- the lifter's word: deviations from it cost as its own errors say, which are correlated (a pelvis that is pitched too much
  comes with a spine that makes up for it) and small across the line of sight. Their covariance is measured once, by
  `measure_errors`, and travels with the weights;
- errors change slowly, so deviations do: a first-order process of that covariance.

In camera axes turning joint j by w moves a point at lever r from it by w x r, so all derivatives are products of levers and
rays, without automatic differentiation. The linear systems are solved by conjugate gradients with each frame's own block
as preconditioner: nothing but batched products, on a CPU as on a GPU.
"""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from schemas.curves import smooth
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, matrix_from_6d, matrix_to_6d, matrix_to_axis_angle
from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS, joint
from stages.recovery.lifter.bodies import NUM_MEASURED
from stages.recovery.lifter.rigs import Rigs

TURNED = tuple(
    joint(name)
    for name in (
        "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "spine3", "neck", "left_collar",
        "right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    )
)  # fmt: skip
"""Joints that keypoints tell about. Ankles and wrists end where the keypoints do."""
NUM_TURNS = 3 * len(TURNED)
_PARENTS = [SMPL_PARENTS[j] for j in TURNED[1:]]
_MIN_DEPTH_M = 0.2
_TINY = 1e-20
_NOISY = 0.015
"""Median noise of keypoints from which on all of the smoothing is done, share of the box."""


@dataclass(frozen=True)
class RefineSettings:
    """How much each kind of evidence is trusted; tuned on motion capture that the lifter had not seen."""

    iterations: int = 3
    least_noise: float = 0.003
    """Every keypoint is taken to be off by so much, share of the box."""
    first_noise: float = 0.008
    """In the first step at least by so much."""
    doubt: float = 2.5
    """Factor on what the lifter expects keypoints to be off more than that: it has seen them already, and errors that it
    expects are those that it could not tell."""
    shared: float = 4.0
    """Keypoints of neighbouring frames err alike: so many sightings count as one."""
    robust: float = 3.0
    """Beyond so many deviations a keypoint counts less and less (Geman-McClure)."""
    held: float = 0.08
    """Weight of the lifter's word in each frame."""
    slow: float = 3.0
    """Weight of its change from frame to frame."""
    depth: float = 0.03
    """Deviation of the distance from the lifter's, share of it."""
    step_m: float = 0.01
    """Of the change of that deviation from frame to frame, metres."""
    shape: float = 0.5
    """Of the betas from the lifter's; 0 keeps them as they are."""
    build: float = 0.05
    """Of the first of them, the size of the body, which no picture tells from the distance."""
    solver_steps: int = 15
    smooth: tuple[float, float] = (0.5, 1.2)
    """Smoothing of what comes out, frames: with clean keypoints and with noisy ones."""


@dataclass(frozen=True)
class Pose:
    """Bodies of C clips in camera axes, T frames in all, one clip after another."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local; the root's is its orientation in camera axes."""
    pelvis: Float[Tensor, "T 3"]
    """Metres."""
    betas: Float[Tensor, "C 10"]
    owner: Int[Tensor, "T"]
    """The clip of each frame, ascending from 0."""


def whole_body_rotation(before: Pose, after: Pose, rigs: Rigs) -> Float[Tensor, "T 3 3"]:
    """How each frame's body is turned as a whole, in camera axes, by which it goes from one pose to the other.

    Least squares over its joints relative to their middle, for turns that are small: with lever r of a joint and its move d,
    sum(|r|^2 I - r r^T) w = sum(r x d).
    """
    places = []
    for pose in (before, after):
        rest = rigs.body.rest_joints(pose.betas)[pose.owner]
        joints = forward_kinematics(pose.rotations, rest, torch.zeros_like(pose.pelvis))[0][:, :NUM_MEASURED]
        places.append(joints - joints.mean(1, keepdim=True))
    lever, move = places[0], places[1] - places[0]
    inertia = lever.square().sum((-1, -2))[:, None, None] * torch.eye(3, device=lever.device) - lever.mT @ lever
    turn = torch.linalg.solve(inertia, torch.linalg.cross(lever, move).sum(1))
    return axis_angle_to_matrix(turn)


def refine(
    pose: Pose,
    rays: Float[Tensor, "T 17 2"],
    confidence: Float[Tensor, "T 17"],
    size: Float[Tensor, "T"],
    noise: Float[Tensor, "T 17"],
    precision: Float[Tensor, "48 48"],
    rigs: Rigs,
    settings: RefineSettings,
) -> Pose:
    """A pose near the given one that the keypoints agree with.

    `size` are the boxes' sides over the focal length, `noise` how far keypoints are expected to be off, share of the box,
    `precision` the inverse covariance of the lifter's errors (`measure_errors`). Clips do not influence one another,
    whatever they are solved with.
    """
    frames, device, clips = len(rays), rays.device, len(pose.betas)
    deviation = torch.zeros(frames, NUM_TURNS + 3, device=device)
    free = slice(0, 10 if settings.shape else 0)  # which betas move
    shape = torch.zeros(clips, 10, device=device)[:, free]
    trust = confidence[..., None] ** 2 / settings.shared
    prior = torch.zeros(NUM_TURNS + 3, NUM_TURNS + 3, device=device).repeat(frames, 1, 1)
    prior[:, :NUM_TURNS, :NUM_TURNS] = settings.held * precision
    # The lifter's distance is known to a share of it; its place across the line of sight hardly needs a word.
    ray = pose.pelvis / pose.pelvis.norm(dim=-1, keepdim=True)
    along = 1 / (settings.depth * pose.pelvis[:, 2:]).square() / settings.shared
    prior[:, NUM_TURNS:, NUM_TURNS:] = along[..., None] * ray[:, :, None] * ray[:, None] + torch.eye(3, device=device)
    slow = torch.cat([settings.slow * precision.diagonal(), torch.full((3,), settings.step_m**-2, device=device)])
    chain = _Chain(slow * (pose.owner[1:] == pose.owner[:-1])[:, None], pose.owner, clips)
    shape_prior = torch.tensor([settings.build, *[settings.shape] * 9], device=device)[free] ** -2
    by_shape = torch.empty(0)
    least = settings.least_noise
    expected = least + settings.doubt * (noise - least).clamp(min=0)
    for iteration in range(settings.iterations):
        seen, jacobian, lines, turns = _linearise(pose, rigs)
        if not iteration:
            # How the shape moves keypoints hardly changes with the small turns that follow.
            by_shape = lines @ _by_betas(turns, rigs) if settings.shape else lines[..., :0]
        # The first step is long: what is farther off than the noise is no outlier yet.
        unit = ((expected if iteration else expected.clamp(min=settings.first_noise)) * size[:, None])[..., None]
        residual = (seen - rays) / unit
        far = residual.square().sum(-1, keepdim=True) / settings.robust**2
        root = (trust.sqrt() / (1 + far)).expand_as(residual)
        scale = (root / unit)[..., None]
        rows, columns = (jacobian * scale).flatten(1, 2), (by_shape * scale).flatten(1, 2)
        wrong = (residual * root).flatten(1)
        gradient = (rows.mT @ wrong[..., None])[..., 0] + (prior @ deviation[..., None])[..., 0] + chain.pull(deviation)
        shape_gradient = chain.add(torch.einsum("trs,tr->ts", columns, wrong)) + shape_prior * shape
        shape_blocks = chain.add(columns.mT @ columns) + shape_prior.diag()
        step, shape_step = _solve(
            rows.mT @ rows + prior, chain, rows.mT @ columns, shape_blocks, -gradient, -shape_gradient,
            settings.solver_steps,
        )  # fmt: skip
        deviation, shape = deviation + step, shape + shape_step
        pose = _moved(pose, turns, step, nn.functional.pad(shape_step, (0, 10 - shape_step.shape[1])))
    return pose


def smooth_pose(pose: Pose, noise: float, settings: RefineSettings) -> Pose:
    """One clip's body smoothed over time, the more the noisier its keypoints are; hardly at all where they are clean.

    Smoothing the keypoints themselves takes more away from fast limbs (3 mm of aligned joint error on modelled noise).
    """
    least = settings.least_noise
    share = min(1.0, max(0.0, (noise - least) / (_NOISY - least)))
    sigma = settings.smooth[0] + share * (settings.smooth[1] - settings.smooth[0])
    six = torch.from_numpy(smooth(matrix_to_6d(pose.rotations).numpy(), sigma, ends="continued"))
    pelvis = torch.from_numpy(smooth(pose.pelvis.numpy(), sigma, ends="continued"))
    return Pose(matrix_from_6d(six), pelvis, pose.betas, pose.owner)


def _linearise(
    pose: Pose, rigs: Rigs
) -> tuple[Float[Tensor, "T 17 2"], Float[Tensor, "T 17 2 51"], Float[Tensor, "T 17 2 3"], Float[Tensor, "T 24 3 3"]]:
    """Projected keypoints, their derivatives by turns and place, and by the point itself; global rotations."""
    rest = rigs.body.rest_joints(pose.betas)[pose.owner]
    joints, turns = forward_kinematics(pose.rotations, rest, pose.pelvis - rest[:, 0])
    parts = rigs.keypoints.parts(turns, joints, pose.betas[pose.owner])
    points = parts.sum(2)
    depth = points[..., 2].clamp(min=_MIN_DEPTH_M)
    seen = points[..., :2] / depth[..., None]
    zero, one = torch.zeros_like(depth), torch.ones_like(depth)
    lines = torch.stack([torch.stack([one, zero, -seen[..., 0]], -1), torch.stack([zero, one, -seen[..., 1]], -1)], -2)
    lines = lines / depth[..., None, None]
    below = _below(TURNED).to(parts)
    levers = below @ parts - (rigs.keypoints.bone_shares @ below.T)[..., None] * joints[:, None, TURNED]
    by_turn = torch.linalg.cross(levers[:, :, None], lines[..., None, :], dim=-1).flatten(-2)
    return seen, torch.cat([by_turn, lines], dim=-1), lines, turns


def _by_betas(turns: Float[Tensor, "T 24 3 3"], rigs: Rigs) -> Float[Tensor, "T 17 3 10"]:
    """How keypoints relative to the pelvis move with the betas, in which they are affine: differences are derivatives."""
    betas = torch.cat([torch.zeros(1, 10), torch.eye(10)]).to(turns)
    rest = rigs.body.rest_joints(betas)
    bones = torch.cat([torch.zeros_like(rest[:, :1]), rest[:, 1:] - rest[:, SMPL_PARENTS[1:]]], dim=1)
    # A joint lies at the sum of the bones that lead to it, each turned with its parent.
    turned = torch.einsum("tjab,sjb->tsja", turns[:, [0, *SMPL_PARENTS[1:]]], bones)
    joints = _below(tuple(range(len(SMPL_JOINTS)))).T.to(turns) @ turned
    points = rigs.keypoints.points(turns[:, None].expand(-1, 11, -1, -1, -1), joints, betas.expand(len(turns), 11, 10))
    return (points[:, 1:] - points[:, :1]).permute(0, 2, 3, 1)


def _moved(
    pose: Pose, turns: Float[Tensor, "T 24 3 3"], step: Float[Tensor, "T 51"], shape_step: Float[Tensor, "C 10"]
) -> Pose:
    rotations, others = pose.rotations.clone(), list(TURNED[1:])
    small = axis_angle_to_matrix(step[:, :NUM_TURNS].unflatten(-1, (-1, 3)))
    rotations[:, 0] = small[:, 0] @ rotations[:, 0]
    rotations[:, others] = turns[:, _PARENTS].mT @ small[:, 1:] @ turns[:, _PARENTS] @ rotations[:, others]
    return Pose(rotations, pose.pelvis + step[:, NUM_TURNS:], pose.betas + shape_step, pose.owner)


@functools.cache
def _below(joints: tuple[int, ...]) -> Float[Tensor, "J 24"]:
    """1 where the second joint moves with the first."""
    below = torch.zeros(len(joints), len(SMPL_JOINTS))
    for row, top in enumerate(joints):
        for j in range(len(SMPL_JOINTS)):
            up = j
            while up > top:
                up = SMPL_PARENTS[up]
            below[row, j] = float(up == top)
    return below


class _Chain:
    """Links between neighbouring frames of a clip, and sums over clips."""

    def __init__(self, link: Float[Tensor, "L D"], owner: Int[Tensor, "T"], clips: int) -> None:
        self.link, self.owner, self.clips = link, owner, clips
        none = torch.zeros(1, link.shape[1], device=link.device)
        self.diagonal = torch.cat([none, link]) + torch.cat([link, none])

    def pull(self, values: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Gradient of half the weighted squared differences of neighbours."""
        return self.diagonal * values - self.beside(values)

    def beside(self, values: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """The part of that gradient that comes from neighbours, turned round."""
        out = torch.zeros_like(values)
        out[1:] += values[:-1] * self.link
        out[:-1] += values[1:] * self.link
        return out

    def add(self, values: Float[Tensor, "T *D"]) -> Float[Tensor, "C *D"]:
        """Sum of a clip's frames."""
        if self.clips == 1:
            return values.sum(0, keepdim=True)
        return values.new_zeros(self.clips, *values.shape[1:]).index_add(0, self.owner, values)


def _solve(
    blocks: Float[Tensor, "T D D"],
    chain: _Chain,
    between: Float[Tensor, "T D S"],
    shape_blocks: Float[Tensor, "C S S"],
    right: Float[Tensor, "T D"],
    shape_right: Float[Tensor, "C S"],
    steps: int,
) -> tuple[Float[Tensor, "T D"], Float[Tensor, "C S"]]:
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952) on frames' blocks, links and shapes, a clip by itself.

    The preconditioner M is a frame's block with its own share of the links, and M^-1 of what is left is at hand: so M times
    the way follows by the way's own recurrence, and the blocks themselves are never multiplied with (Eisenstat 1981).
    """
    owner = chain.owner
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(blocks + torch.diag_embed(chain.diagonal)))
    shape_inverse = torch.linalg.inv(shape_blocks)

    def times(matrices: Tensor, vectors: Tensor) -> Tensor:
        return (matrices @ vectors[..., None])[..., 0]

    def dot(x: Tensor, s: Tensor, y: Tensor, r: Tensor) -> Float[Tensor, "C"]:
        return chain.add((x * y).sum(-1)) + (s * r).sum(-1)

    x, s = torch.zeros_like(right), torch.zeros_like(shape_right)
    left, shape_left = right, shape_right
    z, zs = times(inverse, left), times(shape_inverse, shape_left)
    way, shape_way, through = z, zs, left
    energy = dot(left, shape_left, z, zs)
    for _ in range(steps):
        image = through - chain.beside(way) + times(between, shape_way[owner])
        shape_image = chain.add(times(between.mT, way)) + times(shape_blocks, shape_way)
        size = (energy / dot(way, shape_way, image, shape_image).clamp(min=_TINY))[:, None]
        x, s = x + size[owner] * way, s + size * shape_way
        left, shape_left = left - size[owner] * image, shape_left - size * shape_image
        z, zs = times(inverse, left), times(shape_inverse, shape_left)
        before, energy = energy, dot(left, shape_left, z, zs)
        ratio = (energy / before.clamp(min=_TINY))[:, None]
        way, shape_way = z + ratio[owner] * way, zs + ratio * shape_way
        through = left + ratio[owner] * through
    return x, s


def rotation_errors(
    said: Float[Tensor, "*B 24 3 3"], truth: Float[Tensor, "*B 24 3 3"], said_global: Float[Tensor, "*B 24 3 3"]
) -> Float[Tensor, "*B 48"]:
    """Rotation vectors, about the camera's axes, that take each turned joint of one pose to that of another."""
    apart = truth[..., TURNED, :, :] @ said[..., TURNED, :, :].mT
    parents = said_global[..., _PARENTS, :, :]
    vectors = matrix_to_axis_angle(apart)
    others = (parents @ vectors[..., 1:, :, None])[..., 0]
    return torch.cat([vectors[..., :1, :], others], dim=-2).flatten(-2)
