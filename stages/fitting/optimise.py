"""Fitting by optimisation alone: find the pose whose keypoints fall where they were seen and which a body would take.

One clip at a time, so that a clip's fit depends on nothing else; its hypotheses about facing are optimised side by side
on every third frame, the best one then on all frames. Everything runs on one thread with fixed steps: the same clip gives
the same bits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import BodyModel, PointRig
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Camera, Clip
from schemas.rotations import axis_angle_to_matrix, yaw_matrix
from schemas.skeleton import joint, keypoint
from stages.fitting import facing, priors
from stages.fitting.cameras import MIN_DEPTH_M, guess_intrinsics, level_to_camera, project
from stages.fitting.fit import Fit

PITCH_MEAN_RAD, PITCH_SPREAD_RAD = 0.09, 0.26
"""People are filmed from slightly above: 5 degrees down, give or take 15."""

_LONG_BONES = tuple(
    (keypoint(f"{side}_{a}"), keypoint(f"{side}_{b}"))
    for side in ("left", "right")
    for a, b in (("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"))
)
_ANKLES = [keypoint("left_ankle"), keypoint("right_ankle")]


@dataclass(frozen=True)
class Weights:
    """How much each part of the cost counts, per frame."""

    pose: float = 0.02
    tilt: float = 0.6
    shape: float = 0.05
    pitch: float = 0.5
    acceleration: float = 2e-4
    """Mean over joints of (m/s^2)^2; along the line of sight ten times that."""
    usual_mps2: float = 15.0
    """Beyond this an acceleration costs in proportion: legs that run are not to be slowed down."""
    turning: float = 1e-4
    """Angular acceleration, (rad/s^2)^2 summed over joints / 24."""
    slide: float = 1.0
    height: float = 1.0
    sink: float = 20.0


@dataclass(frozen=True)
class Seen:
    """A clip as the optimiser wants it: image rays, weights and scales; T frames at `fps`."""

    rays: Float[Tensor, "T 17 2"]
    weight: Float[Tensor, "T 17"]
    scale: Float[Tensor, "T 1"]
    """Turns a distance of rays into box sizes."""
    planted: Float[Tensor, "T 2"]
    """How likely the left and the right foot stand still, from the image."""
    fps: float

    def every(self, stride: int) -> "Seen":
        """Each `stride`-th frame."""
        return Seen(
            self.rays[::stride], self.weight[::stride], self.scale[::stride], self.planted[::stride], self.fps / stride
        )


@dataclass
class Unknowns:
    """What is solved for, H hypotheses side by side."""

    yaw: Float[Tensor, "H T"]
    tilt: Float[Tensor, "H T 2"]
    """Rotation vector of the pelvis after its yaw, about x (forwards) and z (to the right)."""
    pose: Float[Tensor, "H T 23 3"]
    place: Float[Tensor, "H T 3"]
    """Pelvis: ray x, ray y and logarithm of depth, in the camera."""
    betas: Float[Tensor, "H 10"]
    pitch: Float[Tensor, "H"]
    drop: Float[Tensor, "H"]
    """The ground passes below the camera's axis at `depth_m` by this share of it: image row and depth of where people
    stand are known well, while its height hangs on the pitch."""
    depth_m: Float[Tensor, "H"]
    """Held fixed: how far away the person is, about."""

    def each(self) -> list[Tensor]:
        return [self.yaw, self.tilt, self.pose, self.place, self.betas, self.pitch, self.drop]

    def pick(self, hypothesis: int) -> "Unknowns":
        values = [*self.each(), self.depth_m]
        return Unknowns(*(value.detach()[hypothesis : hypothesis + 1].clone() for value in values))

    def resample(self, stride: int, frames: int) -> "Unknowns":
        """From every `stride`-th frame to all, linearly."""
        at = torch.arange(frames) / stride
        low = at.long().clamp(max=self.yaw.shape[1] - 1)
        high = (low + 1).clamp(max=self.yaw.shape[1] - 1)
        part = at - low

        def between(value: Tensor) -> Tensor:
            w = part.reshape(-1, *[1] * (value.ndim - 2))
            return value[:, low] * (1 - w) + value[:, high] * w

        moving = [between(value) for value in (self.yaw, self.tilt, self.pose, self.place)]
        return Unknowns(*moving, self.betas.clone(), self.pitch.clone(), self.drop.clone(), self.depth_m)

    def ground(self) -> Float[Tensor, "H"]:
        """Height of the ground in the level world, metres."""
        return -self.depth_m * (self.drop * torch.cos(self.pitch) + torch.sin(self.pitch))


@dataclass(frozen=True)
class Posed:
    """The unknowns made into a body in the level world."""

    rotations: Float[Tensor, "H T 24 3 3"]
    joints: Float[Tensor, "H T 24 3"]
    points: Float[Tensor, "H T 21 3"]
    """17 keypoints, then the 4 contact points."""
    in_camera: Float[Tensor, "H T 17 3"]


class OptimiseFitter:
    """SMPLify's idea (Bogo et al. 2016) over time, with facing from evidence and a ground to stand on."""

    version = "optimise 1"
    stride = 3

    def __init__(self, body: BodyModel, *, coarse_steps: int = 150, fine_steps: int = 120) -> None:
        self.body = body
        self.coarse_steps, self.fine_steps = coarse_steps, fine_steps
        self.rig = PointRig(body, torch.cat([body.keypoint_regressor, body.contact_regressor]))
        self.weights = Weights()

    def fit(self, clips: Sequence[Clip]) -> list[Fit]:
        """One fit a clip; each is solved alone, so its bits do not depend on the others."""
        with _one_thread():
            return [self._fit_one(clip) for clip in clips]

    def _fit_one(self, clip: Clip) -> Fit:
        video = clip.track.shot.video
        intrinsics = guess_intrinsics(video.width, video.height)
        seen = _prepare(clip, intrinsics)
        coarse = seen.every(self.stride)
        unknowns = self._start(clip, coarse)
        costs = self._solve(unknowns, coarse, self.coarse_steps, sharpness=(0.25, 0.05), late_ground=True)
        best = unknowns.pick(int(costs.argmin())).resample(self.stride, len(seen.rays))
        self._solve(best, seen, self.fine_steps, sharpness=(0.05, 0.04), pace=0.4)
        return self._finish(clip, best, intrinsics)

    def _start(self, clip: Clip, seen: Seen) -> Unknowns:
        """Standing people that face as the evidence says, or its mirror image in depth, put where they were seen."""
        path = facing.best_path(facing.yaw_evidence(clip.keypoints))
        # The mirror image explains the same widths: only nose, ears and knees tell them apart, often barely.
        paths = np.stack([path, -path])
        yaw = torch.from_numpy(paths).float()[:, :: self.stride].contiguous()
        hypotheses, frames = yaw.shape
        unknowns = Unknowns(
            yaw=yaw,
            tilt=torch.zeros(hypotheses, frames, 2),
            pose=priors.MEAN.expand(hypotheses, frames, -1, -1).clone(),
            place=torch.zeros(hypotheses, frames, 3),
            betas=torch.zeros(hypotheses, 10),
            pitch=torch.full((hypotheses,), PITCH_MEAN_RAD),
            drop=torch.zeros(hypotheses),
            depth_m=torch.ones(hypotheses),
        )
        with torch.no_grad():
            # With the pelvis one metre ahead, what is relative to it is what remains without that metre.
            relative = self._pose(unknowns).in_camera - torch.tensor([0.0, 0.0, 1.0])
            unknowns.place = _closed_form_place(relative, _bone_depth(self._template_keypoints(), seen), seen)
            depth = self._pose(unknowns).in_camera[..., _ANKLES, 2]
            unknowns.pitch, unknowns.drop, unknowns.depth_m = _ground_line(depth, seen)
        return unknowns

    def _template_keypoints(self) -> Float[Tensor, "17 3"]:
        return self.body.keypoint_regressor @ self.body.template

    def _pose(self, unknowns: Unknowns) -> Posed:
        tilt = torch.cat([unknowns.tilt[..., :1], torch.zeros_like(unknowns.yaw)[..., None], unknowns.tilt[..., 1:]], -1)
        root = yaw_matrix(unknowns.yaw) @ axis_angle_to_matrix(tilt)
        local = priors.HANGING @ axis_angle_to_matrix(unknowns.pose)
        rotations = torch.cat([root[..., None, :, :], local], dim=-3)
        depth = unknowns.place[..., 2:].exp()
        pelvis_in_camera = torch.cat([unknowns.place[..., :2] * depth, depth], dim=-1)
        to_camera = level_to_camera(unknowns.pitch)[:, None]
        pelvis = pelvis_in_camera @ to_camera[:, 0]
        rest = self.body.rest_joints(unknowns.betas)[:, None]
        joints, turns = forward_kinematics(rotations, rest, pelvis - rest[..., 0, :])
        points = self.rig.points(turns, joints, unknowns.betas[:, None])
        in_camera = points[..., :17, :] @ to_camera.transpose(-1, -2)
        return Posed(rotations, joints, points, in_camera)

    def _solve(
        self,
        unknowns: Unknowns,
        seen: Seen,
        steps: int,
        *,
        sharpness: tuple[float, float],
        pace: float = 1.0,
        late_ground: bool = False,
    ) -> Float[Tensor, "H"]:
        """Adam on all unknowns at once, in place; the final cost of each hypothesis.

        sharpness: where the robust reprojection lets go, in box sizes, at the first and from the middle step on.
        late_ground: whether the ground comes in only on the way; stiff against legs that are still straight, it would keep
        them from bending.
        """
        rates = (0.03, 0.03, 0.04, 0.01, 0.02, 0.01, 0.02)
        groups = [
            {"params": [value.requires_grad_(True)], "lr": rate * pace}
            for value, rate in zip(unknowns.each(), rates, strict=True)
        ]
        optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), foreach=False)
        for step in range(steps):
            progress = step / steps
            sigma = sharpness[0] * (sharpness[1] / sharpness[0]) ** min(1.0, 2 * progress)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * pace * (0.02 + 0.98 * np.cos(np.pi / 2 * progress) ** 2)
            optimiser.zero_grad(set_to_none=True)
            self._cost(unknowns, seen, sigma, _ramp(progress) if late_ground else 1.0).sum().backward()
            optimiser.step()
        for value in unknowns.each():
            value.requires_grad_(False)
        with torch.no_grad():
            return self._cost(unknowns, seen, sharpness[1])

    def _cost(self, unknowns: Unknowns, seen: Seen, sigma: float, ground: float = 1.0) -> Float[Tensor, "H"]:
        w = self.weights
        posed = self._pose(unknowns)
        depth = posed.in_camera[..., 2:].clamp(min=MIN_DEPTH_M)
        apart = (posed.in_camera[..., :2] / depth - seen.rays).square().sum(-1) * (seen.scale / sigma) ** 2
        # Geman and McClure's: a keypoint that lies far off counts 1 however far it lies.
        total = (seen.weight * apart / (1 + apart)).sum(-1).mean(-1)

        total = total + w.pose * priors.pose_cost(unknowns.pose).mean(-1)
        total = total + w.tilt * _gentle(unknowns.tilt / 0.35).sum(-1).mean(-1)
        total = total + w.shape * unknowns.betas.square().sum(-1)
        total = total + w.pitch * ((unknowns.pitch - PITCH_MEAN_RAD) / PITCH_SPREAD_RAD) ** 2

        if posed.joints.shape[1] > 2:
            joints = posed.joints
            acceleration = (joints[:, 2:] - 2 * joints[:, 1:-1] + joints[:, :-2]) * seen.fps**2
            axis = torch.tensor([1.0, 1.0, 10.0])
            total = total + w.acceleration * _beyond((acceleration.square() * axis).sum(-1), w.usual_mps2).mean((-1, -2))
            turning = _second(unknowns.pose, seen.fps).sum(-1) + _second(unknowns.tilt, seen.fps)
            turning = turning + _second(unknowns.yaw[..., None], seen.fps)
            total = total + w.turning * turning.mean(-1) / 24

        feet = posed.points[..., 17:, :].unflatten(-2, (2, 2))
        above = feet[..., 1] - unknowns.ground()[:, None, None, None]
        total = total + ground * w.height * (seen.planted * _gentle(above / 0.05).mean(-1)).sum(-1).mean(-1) / 2
        total = total + ground * w.sink * torch.relu(-above).square().sum((-1, -2)).mean(-1) * 25
        slide = (feet[:, 1:] - feet[:, :-1]).square().sum(-1).mean(-1) * seen.fps**2
        both = torch.minimum(seen.planted[1:], seen.planted[:-1])
        return total + ground * w.slide * (both * slide / (0.09 + slide)).sum(-1).sum(-1) / len(seen.rays)

    def _finish(self, clip: Clip, unknowns: Unknowns, intrinsics: Float[np.ndarray, "4"]) -> Fit:
        with torch.no_grad():
            posed = self._pose(unknowns)
            to_camera = level_to_camera(unknowns.pitch)[0]
            rest = self.body.rest_joints(unknowns.betas[0])
        frames = len(clip.keypoints)
        camera = Camera(
            rotation=np.repeat(to_camera.numpy()[None], frames, 0),
            position=np.zeros((frames, 3), np.float32),
            intrinsics=intrinsics,
        )
        pixels = project(posed.points[0, :, :17].numpy(), camera)
        heights = np.maximum(clip.boxes[:, 3] - clip.boxes[:, 1], 1.0)
        apart = np.linalg.norm(pixels - np.nan_to_num(clip.keypoints[..., :2]), axis=-1) / heights[:, None]
        return Fit(
            rotations=posed.rotations[0],
            trans=posed.joints[0, :, joint("pelvis")] - rest[joint("pelvis")],
            betas=unknowns.betas[0],
            camera=camera,
            reprojection=apart,
        )


def _prepare(clip: Clip, intrinsics: Float[np.ndarray, "4"]) -> Seen:
    keypoints = np.nan_to_num(clip.keypoints.astype(np.float64))
    rays = (keypoints[..., :2] - intrinsics[2:]) / intrinsics[:2]
    sizes = np.maximum(np.maximum(clip.boxes[:, 2] - clip.boxes[:, 0], clip.boxes[:, 3] - clip.boxes[:, 1]), 8.0)
    return Seen(
        rays=torch.from_numpy(rays).float(),
        weight=torch.from_numpy(np.clip(keypoints[..., 2], 0, 1) ** 2).float(),
        scale=torch.from_numpy(intrinsics[0] / sizes[:, None]).float(),
        planted=torch.from_numpy(_planted_in_image(keypoints, sizes)).float(),
        fps=FPS,
    )


def _planted_in_image(keypoints: Float[np.ndarray, "T 17 3"], sizes: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T 2"]:
    """How likely each foot stands: its ankle is seen, hardly moves, and is not far above the other."""
    ankles = facing.smooth(keypoints[:, _ANKLES, :2].reshape(len(keypoints), 4), 1.5).reshape(-1, 2, 2)
    if len(ankles) < 2:
        return np.zeros((len(ankles), 2))
    speed = np.linalg.norm(np.gradient(ankles, axis=0), axis=-1) * FPS / sizes[:, None]
    lifted = (ankles[..., 1].max(-1, keepdims=True) - ankles[..., 1]) / sizes[:, None]
    slow = 1 / (1 + np.exp(np.clip((speed - 0.25) / 0.05, -30, 30)))
    low = 1 / (1 + np.exp(np.clip((lifted - 0.12) / 0.02, -30, 30)))
    return keypoints[:, _ANKLES, 2].clip(0, 1) * slow * low


def _bone_depth(template: Float[Tensor, "17 3"], seen: Seen) -> Float[Tensor, "T"]:
    """How far away a body of the template's size is, from the bones that lie across the line of sight, metres.

    A bone of length L seen under an angle l is at most L / l away, less when it is foreshortened; so the least such
    distances of a frame tell, and a crouching person is not taken for a distant one.
    """
    ends = torch.tensor(_LONG_BONES)
    length = (template[ends[:, 0]] - template[ends[:, 1]]).norm(dim=-1)
    angle = (seen.rays[:, ends[:, 0]] - seen.rays[:, ends[:, 1]]).norm(dim=-1)
    sure = torch.minimum(seen.weight[:, ends[:, 0]], seen.weight[:, ends[:, 1]])
    nearness = torch.where(sure > 0.1, angle / length, torch.zeros_like(angle))
    most = nearness.topk(3, dim=-1).values.mean(-1)
    known = (sure > 0.1).sum(-1) >= 3
    depth = _filled((1 / most.clamp(min=1e-3)).expand(1, -1), known)[0]
    return torch.from_numpy(facing.smooth(depth.numpy()[:, None], 0.2 * seen.fps)[:, 0]).float().clamp(min=0.3)


def _closed_form_place(
    relative: Float[Tensor, "H T 17 3"], depth: Float[Tensor, "T"], seen: Seen
) -> Float[Tensor, "H T 3"]:
    """Where the pelvis must be for points relative to it to fall on their rays: ray x, ray y, log depth.

    A point p + t seen along (u, v) obeys t_x - u t_z = u p_z - p_x and t_y - v t_z = v p_z - p_y: two linear equations a
    keypoint, each good to 15 cm as the pose is not known yet, and one for the depth, good to 4%. Solved by weighted least
    squares, and again with weights by residual as some keypoints are far off.
    """
    u, v = seen.rays[..., 0].expand(relative.shape[:-1]), seen.rays[..., 1].expand(relative.shape[:-1])
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    matrix = torch.cat([torch.stack([one, zero, -u], -1), torch.stack([zero, one, -v], -1)], dim=-2)
    target = torch.cat([u * relative[..., 2] - relative[..., 0], v * relative[..., 2] - relative[..., 1]], dim=-1)
    base = (seen.weight + 1e-4).repeat(1, 2).expand(target.shape) / 0.15**2
    from_bones = torch.zeros(len(depth), 3, 3)
    from_bones[:, 2, 2] = 1 / (0.04 * depth) ** 2
    weight, solution = base, torch.zeros(*relative.shape[:2], 3)
    for _ in range(3):
        weighted = matrix * weight[..., None]
        normal = weighted.transpose(-1, -2) @ matrix + from_bones
        right = (weighted * target[..., None]).sum(-2) + from_bones[:, 2] * depth[:, None]
        solution = torch.linalg.solve(normal, right)
        apart = (matrix @ solution[..., None])[..., 0] - target
        weight = base / (1 + (apart / 0.15) ** 2)
    known = seen.weight.sum(-1) > 2
    rays = [_filled(solution[..., axis] / solution[..., 2].clamp(min=0.3), known) for axis in (0, 1)]
    return torch.stack([*rays, _filled(solution[..., 2].clamp(min=0.3), known).log()], dim=-1)


def _ground_line(
    depth: Float[Tensor, "H T 2"], seen: Seen
) -> tuple[Float[Tensor, "H"], Float[Tensor, "H"], Float[Tensor, "H"]]:
    """Pitch, drop and depth (see `Unknowns`) of a level ground through the ankles that stand on it.

    A point at depth z and image ray v lies y = v z below the axis; on level ground y = a - z tan(pitch). Weighted least
    squares for a and the pitch, with the prior on pitch as one more equation: it decides where depth does not change.
    """
    weight = (seen.planted * seen.weight[:, _ANKLES] + 1e-4).expand(depth.shape).flatten(1)
    below = (seen.rays[:, _ANKLES, 1] * depth).flatten(1)
    depth = depth.flatten(1)
    weight = weight / weight.sum(1, keepdim=True)
    depth_m, below_m = (weight * depth).sum(1), (weight * below).sum(1)
    along, down = depth - depth_m[:, None], below - below_m[:, None]
    # Ten independent sightings at most, each 10 cm uncertain.
    certain = 10 / 0.1**2
    slope = (certain * (weight * along * down).sum(1) - PITCH_MEAN_RAD / PITCH_SPREAD_RAD**2) / (
        certain * (weight * along**2).sum(1) + 1 / PITCH_SPREAD_RAD**2
    )
    return torch.atan(-slope).clamp(-0.6, 0.9), below_m / depth_m, depth_m


def _filled(values: Float[Tensor, "H T"], known: Tensor) -> Float[Tensor, "H T"]:
    if bool(known.all()) or not bool(known.any()):
        return values
    frames = np.arange(values.shape[1])
    at = frames[known.numpy()]
    rows = [np.interp(frames, at, row[known].numpy()) for row in values]
    return torch.from_numpy(np.stack(rows)).float()


def _second(values: Float[Tensor, "H T *C"], fps: float) -> Float[Tensor, "H T-2 *c"]:
    """Squared second derivative over time, summed over the last axis."""
    return ((values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]) * fps**2).square().sum(-1)


def _beyond(squared: Tensor, usual: float) -> Tensor:
    """A square that becomes linear beyond `usual` (pseudo-Huber)."""
    return 2 * usual**2 * ((1 + squared / usual**2).sqrt() - 1)


def _ramp(progress: float) -> float:
    """0 for the first third of the way, 1 for the last."""
    return min(1.0, max(0.0, 3 * progress - 1))


def _gentle(apart: Tensor) -> Tensor:
    """Quadratic near zero, linear beyond one (Huber)."""
    size = apart.abs()
    return torch.where(size < 1, apart**2, 2 * size - 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
