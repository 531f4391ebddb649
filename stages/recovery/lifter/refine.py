"""Refinement: the smallest change of the lifter's pose with which its keypoints project onto the detected ones.

Gauss-Newton over all frames of a clip. The unknowns are, in every frame, a small rotation of each joint (with its descendants)
about the camera's axes and the position of the pelvis, and one shape. The cost terms are:

- reprojection of keypoints, relative to the lifter's expected error of each, robust, weighted by confidence;
- deviations from the lifter's pose, weighted by the covariance of its errors, which are correlated (an error in pelvis pitch
  comes with a compensating one in the spine) and small perpendicular to the line of sight. It is measured once, by
  `error_precision`, and stored with the weights;
- changes of these deviations between frames, because errors change slowly: a first-order process with that covariance.

In camera axes, rotating joint j by w moves a point at lever r from it by w x r, so that all derivatives are products of levers
and rays, without automatic differentiation. The linear systems are solved by conjugate gradients with the blocks of the frames
as preconditioner: batched products only, on CPU and GPU alike.
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

REFINED_JOINTS = tuple(
    joint(name)
    for name in (
        "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "spine3", "neck", "left_collar",
        "right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    )
)  # fmt: skip
"""Joints whose rotation affects keypoints. No keypoints lie beyond ankles and wrists."""
NUM_ROTATION_PARAMETERS = 3 * len(REFINED_JOINTS)
_PARENTS = [SMPL_PARENTS[j] for j in REFINED_JOINTS[1:]]
_MIN_DEPTH_M = 0.2
_TINY = 1e-20
_FULL_SMOOTHING_NOISE = 0.015
"""Median keypoint noise from which smoothing has full strength, share of the box."""


@dataclass(frozen=True)
class RefineSettings:
    """Weights of the cost terms, tuned on motion capture that the lifter was not trained on."""

    iterations: int = 3
    """Gauss-Newton steps."""
    min_noise: float = 0.003
    """Smallest noise of a keypoint, share of the box."""
    first_step_noise: float = 0.008
    """Smallest noise in the first step."""
    noise_scale: float = 2.5
    """Factor on the part of the lifter's expected keypoint error above `min_noise`: the lifter has used the keypoints as input,
    and the errors that it expects are those that it could not correct."""
    correlated_count: float = 4.0
    """Errors of neighbouring frames are correlated: this many keypoints count as one."""
    outlier_threshold: float = 3.0
    """Number of standard deviations from which a keypoint loses weight (Geman-McClure)."""
    prior_weight: float = 0.08
    """Weight of deviations from the lifter's pose in each frame."""
    smoothness_weight: float = 3.0
    """Weight of their change between frames."""
    depth_sigma: float = 0.03
    """Standard deviation of the distance from the lifter's, share of it."""
    depth_step_sigma_m: float = 0.01
    """Standard deviation of the change of that deviation between frames, metres."""
    shape_sigma: float = 0.5
    """Standard deviation of the betas from the lifter's; 0 keeps them."""
    size_sigma: float = 0.05
    """The same for the first beta, the size of the body, which a single camera cannot separate from the distance."""
    solver_steps: int = 15
    """Conjugate gradient steps."""
    smoothing_frames: tuple[float, float] = (0.5, 1.2)
    """Standard deviation of the smoothing of the result, frames: for clean and for noisy keypoints."""


@dataclass(frozen=True)
class Pose:
    """Bodies of C clips in camera axes, concatenated to T frames."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local rotations; the root's is its orientation in camera axes."""
    pelvis: Float[Tensor, "T 3"]
    """Metres."""
    betas: Float[Tensor, "C 10"]
    clip_index: Int[Tensor, "T"]
    """Clip of each frame, ascending from 0."""


def whole_body_rotation(before: Pose, after: Pose, rigs: Rigs) -> Float[Tensor, "T 3 3"]:
    """Rotation of the whole body between two poses, per frame, in camera axes.

    Least squares over the joints relative to their mean, for small rotations: with lever r of a joint and its displacement d,
    sum(|r|^2 I - r r^T) w = sum(r x d).
    """
    centred = []
    for pose in (before, after):
        rest = rigs.body.rest_joints(pose.betas)[pose.clip_index]
        joints = forward_kinematics(pose.rotations, rest, torch.zeros_like(pose.pelvis))[0][:, :NUM_MEASURED]
        centred.append(joints - joints.mean(1, keepdim=True))
    lever, displacement = centred[0], centred[1] - centred[0]
    inertia = lever.square().sum((-1, -2))[:, None, None] * torch.eye(3, device=lever.device) - lever.mT @ lever
    vector = torch.linalg.solve(inertia, torch.linalg.cross(lever, displacement).sum(1))
    return axis_angle_to_matrix(vector)


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
    """A pose near the given one that agrees with the keypoints.

    `size` are the box sides over the focal length, `noise` the expected errors of the keypoints, share of the box, `precision`
    the inverse covariance of the lifter's errors (`error_precision`). Clips solved together do not influence each other.
    """
    frames, device, clips = len(rays), rays.device, len(pose.betas)
    n = NUM_ROTATION_PARAMETERS
    deviation = torch.zeros(frames, n + 3, device=device)
    optimised_betas = slice(0, 10 if settings.shape_sigma else 0)
    shape = torch.zeros(clips, 10, device=device)[:, optimised_betas]
    confidence_weight = confidence[..., None] ** 2 / settings.correlated_count
    prior = torch.zeros(n + 3, n + 3, device=device).repeat(frames, 1, 1)
    prior[:, :n, :n] = settings.prior_weight * precision
    # The error of the lifter's distance is a share of it; across the line of sight a weak prior is enough.
    ray = pose.pelvis / pose.pelvis.norm(dim=-1, keepdim=True)
    depth_weight = 1 / (settings.depth_sigma * pose.pelvis[:, 2:]).square() / settings.correlated_count
    prior[:, n:, n:] = depth_weight[..., None] * ray[:, :, None] * ray[:, None] + torch.eye(3, device=device)
    position_smoothness = torch.full((3,), settings.depth_step_sigma_m**-2, device=device)
    smoothness = torch.cat([settings.smoothness_weight * precision.diagonal(), position_smoothness])
    links = _TemporalLinks(smoothness * (pose.clip_index[1:] == pose.clip_index[:-1])[:, None], pose.clip_index, clips)
    shape_prior = torch.tensor([settings.size_sigma, *[settings.shape_sigma] * 9], device=device)[optimised_betas] ** -2
    shape_jacobian = torch.empty(0)
    min_noise = settings.min_noise
    expected_noise = min_noise + settings.noise_scale * (noise - min_noise).clamp(min=0)
    for iteration in range(settings.iterations):
        projected, jacobian, point_jacobian, global_rotations = _linearise(pose, rigs)
        if not iteration:
            # The derivatives by shape hardly change with the small rotations that follow.
            shape_jacobian = point_jacobian[..., :0]
            if settings.shape_sigma:
                shape_jacobian = point_jacobian @ _shape_jacobian(global_rotations, rigs)
        # The first step is long: keypoints with residuals above their noise are no outliers yet.
        sigma = expected_noise if iteration else expected_noise.clamp(min=settings.first_step_noise)
        sigma = (sigma * size[:, None])[..., None]
        residual = (projected - rays) / sigma
        squared_sigmas = residual.square().sum(-1, keepdim=True) / settings.outlier_threshold**2
        root_weight = (confidence_weight.sqrt() / (1 + squared_sigmas)).expand_as(residual)
        scale = (root_weight / sigma)[..., None]
        rows, columns = (jacobian * scale).flatten(1, 2), (shape_jacobian * scale).flatten(1, 2)
        weighted_residual = (residual * root_weight).flatten(1)
        gradient = (rows.mT @ weighted_residual[..., None])[..., 0] + (prior @ deviation[..., None])[..., 0]
        gradient = gradient + links.gradient_of(deviation)
        shape_gradient = links.sum_by_clip(torch.einsum("trs,tr->ts", columns, weighted_residual)) + shape_prior * shape
        shape_blocks = links.sum_by_clip(columns.mT @ columns) + shape_prior.diag()
        step, shape_step = _solve(
            rows.mT @ rows + prior, links, rows.mT @ columns, shape_blocks, -gradient, -shape_gradient,
            settings.solver_steps,
        )  # fmt: skip
        deviation, shape = deviation + step, shape + shape_step
        all_betas_step = nn.functional.pad(shape_step, (0, 10 - shape_step.shape[1]))
        pose = _apply_step(pose, global_rotations, step, all_betas_step)
    return pose


def smooth_pose(pose: Pose, noise: float, settings: RefineSettings) -> Pose:
    """Smooth one clip's pose over time: more for noisy keypoints and hardly at all for clean ones.

    Smoothing the keypoints instead attenuates fast limbs more (3 mm of aligned joint error on modelled noise).
    """
    min_noise = settings.min_noise
    strength = min(1.0, max(0.0, (noise - min_noise) / (_FULL_SMOOTHING_NOISE - min_noise)))
    sigma = settings.smoothing_frames[0] + strength * (settings.smoothing_frames[1] - settings.smoothing_frames[0])
    rotations_6d = torch.from_numpy(smooth(matrix_to_6d(pose.rotations).numpy(), sigma, padding="odd"))
    pelvis = torch.from_numpy(smooth(pose.pelvis.numpy(), sigma, padding="odd"))
    return Pose(matrix_from_6d(rotations_6d), pelvis, pose.betas, pose.clip_index)


def _linearise(
    pose: Pose, rigs: Rigs
) -> tuple[Float[Tensor, "T 17 2"], Float[Tensor, "T 17 2 51"], Float[Tensor, "T 17 2 3"], Float[Tensor, "T 24 3 3"]]:
    """Projected keypoints, their derivatives by rotations and position, and by the point itself; global rotations."""
    rest = rigs.body.rest_joints(pose.betas)[pose.clip_index]
    joints, global_rotations = forward_kinematics(pose.rotations, rest, pose.pelvis - rest[:, 0])
    contributions = rigs.keypoints.joint_contributions(global_rotations, joints, pose.betas[pose.clip_index])
    points = contributions.sum(2)
    depth = points[..., 2].clamp(min=_MIN_DEPTH_M)
    projected = points[..., :2] / depth[..., None]
    zero, one = torch.zeros_like(depth), torch.ones_like(depth)
    point_jacobian = torch.stack(
        [torch.stack([one, zero, -projected[..., 0]], -1), torch.stack([zero, one, -projected[..., 1]], -1)], -2
    )
    point_jacobian = point_jacobian / depth[..., None, None]
    descendants = _descendants(REFINED_JOINTS).to(contributions)
    weights = rigs.keypoints.joint_weights @ descendants.T
    levers = descendants @ contributions - weights[..., None] * joints[:, None, REFINED_JOINTS]
    rotation_jacobian = torch.linalg.cross(levers[:, :, None], point_jacobian[..., None, :], dim=-1).flatten(-2)
    return projected, torch.cat([rotation_jacobian, point_jacobian], dim=-1), point_jacobian, global_rotations


def _shape_jacobian(global_rotations: Float[Tensor, "T 24 3 3"], rigs: Rigs) -> Float[Tensor, "T 17 3 10"]:
    """Derivatives by the betas of keypoints relative to the pelvis. Keypoints are affine in the betas: differences are
    derivatives."""
    betas = torch.cat([torch.zeros(1, 10), torch.eye(10)]).to(global_rotations)
    rest = rigs.body.rest_joints(betas)
    bones = torch.cat([torch.zeros_like(rest[:, :1]), rest[:, 1:] - rest[:, SMPL_PARENTS[1:]]], dim=1)
    # A joint is at the sum of the bones that lead to it, each rotated with its parent.
    rotated = torch.einsum("tjab,sjb->tsja", global_rotations[:, [0, *SMPL_PARENTS[1:]]], bones)
    joints = _descendants(tuple(range(len(SMPL_JOINTS)))).T.to(global_rotations) @ rotated
    points = rigs.keypoints.points(
        global_rotations[:, None].expand(-1, 11, -1, -1, -1), joints, betas.expand(len(global_rotations), 11, 10)
    )
    return (points[:, 1:] - points[:, :1]).permute(0, 2, 3, 1)


def _apply_step(
    pose: Pose,
    global_rotations: Float[Tensor, "T 24 3 3"],
    step: Float[Tensor, "T 51"],
    shape_step: Float[Tensor, "C 10"],
) -> Pose:
    """The pose after a step of rotations, pelvis position and shape."""
    rotations, children = pose.rotations.clone(), list(REFINED_JOINTS[1:])
    increments = axis_angle_to_matrix(step[:, :NUM_ROTATION_PARAMETERS].unflatten(-1, (-1, 3)))
    rotations[:, 0] = increments[:, 0] @ rotations[:, 0]
    parents = global_rotations[:, _PARENTS]
    rotations[:, children] = parents.mT @ increments[:, 1:] @ parents @ rotations[:, children]
    return Pose(rotations, pose.pelvis + step[:, NUM_ROTATION_PARAMETERS:], pose.betas + shape_step, pose.clip_index)


@functools.cache
def _descendants(joints: tuple[int, ...]) -> Float[Tensor, "J 24"]:
    """1 where the second joint is the first or a descendant of it."""
    matrix = torch.zeros(len(joints), len(SMPL_JOINTS))
    for row, ancestor in enumerate(joints):
        for j in range(len(SMPL_JOINTS)):
            current = j
            while current > ancestor:
                current = SMPL_PARENTS[current]
            matrix[row, j] = float(current == ancestor)
    return matrix


class _TemporalLinks:
    """Links between neighbouring frames of a clip, and sums over clips."""

    def __init__(self, link: Float[Tensor, "L D"], clip_index: Int[Tensor, "T"], clips: int) -> None:
        self.link, self.clip_index, self.clips = link, clip_index, clips
        zero = torch.zeros(1, link.shape[1], device=link.device)
        self.diagonal = torch.cat([zero, link]) + torch.cat([link, zero])

    def gradient_of(self, values: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Gradient of half the weighted squared differences between neighbours."""
        return self.diagonal * values - self.neighbour_part(values)

    def neighbour_part(self, values: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Negative of the part of that gradient that comes from neighbours."""
        out = torch.zeros_like(values)
        out[1:] += values[:-1] * self.link
        out[:-1] += values[1:] * self.link
        return out

    def sum_by_clip(self, values: Float[Tensor, "T *D"]) -> Float[Tensor, "C *D"]:
        """Sum over the frames of each clip."""
        if self.clips == 1:
            return values.sum(0, keepdim=True)
        return values.new_zeros(self.clips, *values.shape[1:]).index_add(0, self.clip_index, values)


def _solve(
    blocks: Float[Tensor, "T D D"],
    links: _TemporalLinks,
    cross_blocks: Float[Tensor, "T D S"],
    shape_blocks: Float[Tensor, "C S S"],
    rhs: Float[Tensor, "T D"],
    shape_rhs: Float[Tensor, "C S"],
    steps: int,
) -> tuple[Float[Tensor, "T D"], Float[Tensor, "C S"]]:
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952) on the frames' blocks, links and shapes, each clip
    separately.

    The preconditioner M is a frame's block with its own share of the links, and M^-1 of the residual is known. Hence M times
    the search direction follows from the direction's own recurrence, without multiplying by the blocks (Eisenstat 1981).
    """
    clip_index = links.clip_index
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(blocks + torch.diag_embed(links.diagonal)))
    shape_inverse = torch.linalg.inv(shape_blocks)

    def multiply(matrices: Tensor, vectors: Tensor) -> Tensor:
        return (matrices @ vectors[..., None])[..., 0]

    def dot(x: Tensor, s: Tensor, y: Tensor, r: Tensor) -> Float[Tensor, "C"]:
        return links.sum_by_clip((x * y).sum(-1)) + (s * r).sum(-1)

    x, s = torch.zeros_like(rhs), torch.zeros_like(shape_rhs)
    residual, shape_residual = rhs, shape_rhs
    z, zs = multiply(inverse, residual), multiply(shape_inverse, shape_residual)
    direction, shape_direction, m_direction = z, zs, residual
    energy = dot(residual, shape_residual, z, zs)
    for _ in range(steps):
        product = m_direction - links.neighbour_part(direction) + multiply(cross_blocks, shape_direction[clip_index])
        shape_product = links.sum_by_clip(multiply(cross_blocks.mT, direction))
        shape_product = shape_product + multiply(shape_blocks, shape_direction)
        size = (energy / dot(direction, shape_direction, product, shape_product).clamp(min=_TINY))[:, None]
        x, s = x + size[clip_index] * direction, s + size * shape_direction
        residual, shape_residual = residual - size[clip_index] * product, shape_residual - size * shape_product
        z, zs = multiply(inverse, residual), multiply(shape_inverse, shape_residual)
        previous, energy = energy, dot(residual, shape_residual, z, zs)
        ratio = (energy / previous.clamp(min=_TINY))[:, None]
        direction, shape_direction = z + ratio[clip_index] * direction, zs + ratio * shape_direction
        m_direction = residual + ratio[clip_index] * m_direction
    return x, s


def rotation_errors(
    predicted: Float[Tensor, "*B 24 3 3"],
    target: Float[Tensor, "*B 24 3 3"],
    predicted_global: Float[Tensor, "*B 24 3 3"],
) -> Float[Tensor, "*B 48"]:
    """Rotation vectors, about the camera's axes, from the predicted to the target rotation of each refined joint."""
    difference = target[..., REFINED_JOINTS, :, :] @ predicted[..., REFINED_JOINTS, :, :].mT
    parents = predicted_global[..., _PARENTS, :, :]
    vectors = matrix_to_axis_angle(difference)
    children = (parents @ vectors[..., 1:, :, None])[..., 0]
    return torch.cat([vectors[..., :1, :], children], dim=-2).flatten(-2)
