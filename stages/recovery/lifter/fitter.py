"""Clips to bodies with the lifter: windows through the network, joint refinement, then placement in the world."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from schemas.body_model import BodyModel
from schemas.coverage import seen_contacts
from schemas.devices import supports_bf16
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.records import Camera, Clip, Track, Video
from schemas.rotations import axis_angle_to_matrix, heading_rad, matrix_from_6d, yaw_matrix
from schemas.skeleton import CONTACT_POINTS, joint
from stages.geometry.cameras import intrinsics_of, reprojection_error
from stages.geometry.feet import find_planted
from stages.geometry.keypoints import clean_keypoints, keypoint_depths
from stages.recovery.lifter.bodies import make_bodies, pelvis_in_camera
from stages.recovery.lifter.features import FOCAL_GUESSED, FOCAL_KNOWN, Boxes, find_boxes, make_features
from stages.recovery.lifter.focal_estimation import PelvisPath, estimate_focal_ratio
from stages.recovery.lifter.network import LifterOutput
from stages.recovery.lifter.refine import (
    Pose,
    RefineSettings,
    refine,
    smooth_pose,
    whole_body_rotation,
)
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.lifter.trajectory import TrajectorySettings
from stages.recovery.lifter.weights import SHIPPED_WEIGHTS, load_weights
from stages.recovery.lifter.world import ClipObservation, WorldMotion, camera_attitude, into_world
from stages.recovery.protocol import Fit

_PELVIS = joint("pelvis")
_FRAMES_PER_CALL = 20_000
"""Frames per network call on a GPU."""
_MAX_FOCAL_WINDOWS = 6
"""Largest number of windows of a track from which its focal length is estimated."""
_SHAPE_WINDOWS = 3
"""Windows that are refined to estimate its shape."""
_MAX_CACHED_TRACKS = 256
"""Tracks whose shape and focal length are cached."""
_Framed = TypeVar("_Framed", ClipObservation, LifterOutput, Boxes)


@dataclass(frozen=True)
class _TrackParameters:
    """Parameters shared by all clips of a track."""

    betas: Float[Tensor, "10"]
    ratio: float
    """Focal length over the given or assumed one."""
    focal_deviation: float
    """Standard deviation of its log."""


class LiftFitter:
    """The learned fitter: network, refinement, trajectory, planted feet.

    Each clip of a call is fitted as if it were alone. All clips of a track share one shape and, where the focal length is
    unknown, one estimate of it.
    """

    def __init__(
        self,
        body: BodyModel,
        *,
        weights: str | Path | None = None,
        mirror: bool = True,
        refinement: RefineSettings | None = RefineSettings(),  # noqa: B008
        device: torch.device | str = "cpu",
        trajectory: TrajectorySettings | None = None,
    ) -> None:
        """`mirror`: average with the output for the mirror image, which takes twice as long and has smaller errors.
        `refinement`: None keeps the network's pose, and feet may slide."""
        loaded = load_weights(weights)
        if loaded.body_model != body.id:
            raise HumoError(
                f"{weights or SHIPPED_WEIGHTS}: this lifter is for the body {loaded.body_model}, not {body.id}; use the fitter "
                f"optimise or imported with that body, or train a lifter on it"
            )
        if refinement is not None and loaded.precision is None:
            raise HumoError(
                f"{weights}: its training has not ended; run the command again to finish it, or use it without refinement"
            )
        self.model, self.window, self.version = loaded.model.to(device), loaded.window, loaded.version
        self.precision = torch.zeros(0) if loaded.precision is None else loaded.precision.to(device)
        self.device = torch.device(device)
        self.rigs = Rigs.of(body, device)
        self.rigs_on_cpu = Rigs.of(body)
        self.body = body
        self.mirror = mirror
        self.refinement = refinement
        self.trajectory = trajectory or TrajectorySettings()
        self._parameters: dict[str, _TrackParameters] = {}

    def fit(self, clips: Sequence[Clip]) -> list[Fit]:
        """One fit per clip, in order."""
        fits = []
        for group in _groups(clips, 1 if self.device.type == "cpu" else _FRAMES_PER_CALL):
            parameters = self._track_parameters([clip.track for clip in group])
            observations = [
                _clip_observation(clip).with_focal_ratio(track.ratio, track.focal_deviation)
                for clip, track in zip(group, parameters, strict=True)
            ]
            motions = self.lift(observations, [track.betas for track in parameters])
            fits += [
                self._to_fit(clip, motion, track.ratio)
                for clip, motion, track in zip(group, motions, parameters, strict=True)
            ]
        return fits

    def forget_tracks(self) -> None:
        """Estimate shapes and focal lengths anew, also of tracks that were there before."""
        self._parameters.clear()

    def _to_fit(self, clip: Clip, motion: WorldMotion, ratio: float) -> Fit:
        intrinsics = intrinsics_of(clip.track.shot.video)
        intrinsics[:2] *= ratio
        camera = Camera(
            rotation=motion.to_camera.numpy(), position=motion.camera_position.numpy(), intrinsics=intrinsics
        )
        rest = self.body.rest_joints(motion.betas)
        joints, global_rotations = forward_kinematics(motion.rotations, rest, motion.trans)
        points = self.rigs_on_cpu.keypoints.points(global_rotations, joints, motion.betas).numpy()
        return Fit(
            rotations=motion.rotations, trans=motion.trans, betas=motion.betas, camera=camera,
            reprojection=reprojection_error(points, camera, clip),
            contacts=find_planted(motion.contacts.numpy()).astype(np.uint8), ground_m=motion.ground_m,
            sigma_m=motion.sigma_m.numpy(),
        )  # fmt: skip

    def _track_parameters(self, tracks: Sequence[Track]) -> list[_TrackParameters]:
        """Focal length and shape of each track; those that are not cached are estimated together."""
        keys = [_track_key(track) for track in tracks]
        missing = {key: track for key, track in zip(keys, tracks, strict=True) if key not in self._parameters}
        if missing and len(self._parameters) + len(missing) > _MAX_CACHED_TRACKS:
            self._parameters.clear()
            missing = dict(zip(keys, tracks, strict=True))
        if missing:
            self._parameters |= zip(missing, self._estimate_parameters([*missing.values()]), strict=True)
        return [self._parameters[key] for key in keys]

    @torch.inference_mode()
    def _estimate_parameters(self, tracks: Sequence[Track]) -> list[_TrackParameters]:
        """From windows spread over each track. Some of them are refined together for the shape, with the known or estimated focal
        length."""
        observations: list[ClipObservation] = []
        windows_of = []
        for track in tracks:
            frames = len(track.times_s)
            windows = min(_MAX_FOCAL_WINDOWS, math.ceil(frames / self.window))
            starts = np.linspace(0, max(0, frames - self.window), windows).round().astype(int)
            windows_of.append(slice(len(observations), len(observations) + windows))
            observations += [_track_observation(track, slice(start, start + self.window)) for start in starts.tolist()]
        outputs, boxes = self._predict(observations, mirror=False)
        outputs_on_cpu, boxes_on_cpu = _on_cpu(outputs), _on_cpu(boxes)
        focal_lengths, shapes, selected = [], [], []
        for track, windows_slice in zip(tracks, windows_of, strict=True):
            ratio, focal_deviation = 1.0, FOCAL_KNOWN
            if track.shot.video.focal_px == 0:
                parts = (observations[windows_slice], outputs_on_cpu[windows_slice], boxes_on_cpu[windows_slice])
                paths = [_pelvis_path(*window) for window in zip(*parts, strict=True)]
                ratio, focal_deviation = estimate_focal_ratio(paths, len(track.times_s))
                for index in range(windows_slice.start, windows_slice.stop):
                    observations[index] = observations[index].with_focal_ratio(ratio, focal_deviation)
                    boxes[index] = Boxes(boxes[index].centre / ratio, boxes[index].size / ratio)
            focal_lengths.append((ratio, focal_deviation))
            shapes.append(torch.stack([output.betas[0, 0] for output in outputs[windows_slice]]).mean(0))
            last = windows_slice.stop - windows_slice.start - 1
            spread = sorted({*np.linspace(0, last, _SHAPE_WINDOWS).round().astype(int).tolist()})
            selected.append([windows_slice.start + index for index in spread])
        if self.refinement is not None:
            chosen = [index for indices in selected for index in indices]
            initial = [shape for shape, indices in zip(shapes, selected, strict=True) for _ in indices]
            refined = self._refine(
                [_every_other_frame(observations[index], 0) for index in chosen],
                [_every_other_frame(outputs[index], 1) for index in chosen],
                [_every_other_frame(boxes[index], 1) for index in chosen],
                initial,
                shapes=True,
            ).betas
            shapes = [betas.mean(0) for betas in refined.split([len(indices) for indices in selected])]
        return [_TrackParameters(shape, *focal) for shape, focal in zip(shapes, focal_lengths, strict=True)]

    @torch.inference_mode()
    def lift(
        self, observations: Sequence[ClipObservation], shapes: Sequence[Float[Tensor, "10"]] | None = None
    ) -> list[WorldMotion]:
        """Bodies from keypoints as rays. `shapes` are fixed betas; without them the shape of each clip is estimated."""
        outputs, boxes = self._predict(observations, mirror=self.mirror)
        betas = [output.betas[0, 0] for output in outputs]
        if shapes is not None:
            betas = [shape.to(self.device) for shape in shapes]
        pose = self._initial_pose(outputs, boxes, betas)
        body_rotation = torch.eye(3).expand(len(pose.rotations), 3, 3)
        if self.refinement is not None:
            initial, pose = pose, self._refine(observations, outputs, boxes, betas, shapes=shapes is None)
            body_rotation = whole_body_rotation(initial, pose, self.rigs).cpu()
        pose_on_cpu = Pose(**{field.name: getattr(pose, field.name).cpu() for field in fields(Pose)})
        outputs, boxes = _on_cpu(outputs), _on_cpu(boxes)
        motions = []
        for index, (observation, output, box) in enumerate(zip(observations, outputs, boxes, strict=True)):
            frames = pose_on_cpu.clip_index == index
            clip_pose = Pose(
                pose_on_cpu.rotations[frames],
                pose_on_cpu.pelvis[frames],
                pose_on_cpu.betas[index : index + 1],
                torch.zeros_like(pose_on_cpu.clip_index[frames]),
            )
            if self.refinement is not None:
                clip_pose = smooth_pose(clip_pose, float(output.log_noise.exp().median()), self.refinement)
            motion = into_world(
                observation, box.size[0], output, clip_pose, body_rotation[frames], self.rigs_on_cpu,
                self.trajectory, plant=self.refinement is not None,
            )  # fmt: skip
            motions.append(motion)
        return motions

    def _predict(self, clips: Sequence[ClipObservation], *, mirror: bool) -> tuple[list[LifterOutput], list[Boxes]]:
        """Output of the network for each clip, averaged with that for its mirror image if `mirror`."""
        observations = [clip.observation(self.device) for clip in clips]
        boxes = [find_boxes(observation) for observation in observations]
        outputs = self._run_network([make_features(*pair) for pair in zip(observations, boxes, strict=True)])
        if mirror:
            mirrored = [observation.mirrored() for observation in observations]
            features = [make_features(observation, find_boxes(observation)) for observation in mirrored]
            pairs = zip(outputs, self._run_network(features), strict=True)
            outputs = [output.averaged(other.mirrored()) for output, other in pairs]
        return outputs, boxes

    def _initial_pose(self, outputs: Sequence[LifterOutput], boxes: Sequence[Boxes], betas: Sequence[Tensor]) -> Pose:
        rotations, pelvis, clip_index = [], [], []
        for index, (output, box) in enumerate(zip(outputs, boxes, strict=True)):
            bodies = make_bodies(output, self.rigs)
            clip_rotations = bodies.rotations[0].clone()
            clip_rotations[:, _PELVIS] = bodies.root_camera[0]
            rotations.append(clip_rotations)
            pelvis.append(pelvis_in_camera(output.place, box.centre, box.size)[0])
            clip_index.append(torch.full((len(clip_rotations),), index, device=self.device))
        return Pose(torch.cat(rotations), torch.cat(pelvis), torch.stack(list(betas)), torch.cat(clip_index))

    def _refine(
        self,
        observations: Sequence[ClipObservation],
        outputs: Sequence[LifterOutput],
        boxes: Sequence[Boxes],
        betas: Sequence[Tensor],
        *,
        shapes: bool,
    ) -> Pose:
        assert self.refinement is not None
        rays, confidence = (
            torch.cat([getattr(clip, name) for clip in observations]).to(self.device) for name in ("rays", "confidence")
        )
        size = torch.cat([box.size[0] for box in boxes])
        noise = torch.cat([output.log_noise[0].exp() for output in outputs])
        # A shape converges in fewer steps than a pose.
        overrides = {"iterations": 2} if shapes else {"shape_sigma": 0.0, "size_sigma": 0.0}
        settings = replace(self.refinement, **overrides)
        pose = self._initial_pose(outputs, boxes, betas)
        return refine(pose, rays, confidence, size, noise, self.precision, self.rigs, settings)

    def _run_network(self, features: Sequence[Float[Tensor, "1 _ 133"]]) -> list[LifterOutput]:
        """The network over windows that overlap by half, blended; one shape per clip."""
        window = self.window
        starts = [_window_starts(clip.shape[1], window) for clip in features]
        windows = [
            clip[:, start : start + window]
            for clip, clip_starts in zip(features, starts, strict=True)
            for start in clip_starts
        ]
        lengths = [one_window.shape[1] for one_window in windows]
        longest = max(lengths)
        valid = torch.tensor([[frame < length for frame in range(longest)] for length in lengths], device=self.device)
        padding = [(0, 0, 0, longest - length) for length in lengths]
        padded = torch.cat([nn.functional.pad(*arguments) for arguments in zip(windows, padding, strict=True)])
        # In the precision of training where that is faster; the averaged output differs by less than 0.1 mm.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=supports_bf16(self.device)):
            output = self.model(padded, valid)
        values = {field.name: getattr(output, field.name) for field in fields(LifterOutput)}
        outputs, first = [], 0
        for clip, clip_starts in zip(features, starts, strict=True):
            end = first + len(clip_starts)
            clip_windows = LifterOutput(**{name: value[first:end] for name, value in values.items()})
            outputs.append(_blend(clip_windows, clip_starts, clip.shape[1], min(window, clip.shape[1])))
            first = end
        return outputs


def _window_starts(frames: int, window: int) -> list[int]:
    last = max(0, frames - window)
    return sorted({*range(0, max(1, frames - window), window // 2), last})


def _blend(windows: LifterOutput, starts: Sequence[int], frames: int, window: int) -> LifterOutput:
    """Merge the windows of a clip, each weighted most in its middle."""
    device = windows.pose.device
    ramp = torch.arange(window, device=device) + 0.5
    weight = torch.minimum(ramp, window - ramp)[:, None]
    total = torch.zeros(frames, 1, device=device)
    for start in starts:
        total[start : start + window] += weight

    def merge(value: Float[Tensor, "W S C"]) -> Float[Tensor, "1 T C"]:
        merged = torch.zeros(frames, value.shape[-1], device=device)
        for start, values in zip(starts, value, strict=True):
            merged[start : start + window] += values[:window] * weight
        return (merged / total)[None]

    merged_fields = {field.name: merge(getattr(windows, field.name)) for field in fields(LifterOutput)}
    merged_fields["betas"] = windows.betas[:, 0].mean(0).expand(1, frames, -1)
    return LifterOutput(**merged_fields)


def _on_cpu(records: list[_Framed]) -> list[_Framed]:
    """The records on the CPU, each field of all of them in one copy. Frames are along the second axis of every tensor."""
    if not records or next(iter(vars(records[0]).values())).device.type == "cpu":
        return records
    lengths = [next(iter(vars(record).values())).shape[1] for record in records]
    columns = {
        field.name: torch.cat([getattr(record, field.name) for record in records], dim=1).cpu().split(lengths, dim=1)
        for field in fields(records[0])
    }
    return [replace(record, **{name: parts[i] for name, parts in columns.items()}) for i, record in enumerate(records)]


def _track_key(track: Track) -> str:
    landmarks = b"" if track.landmarks_m is None else track.landmarks_m.tobytes()
    digest = hashlib.sha256(track.keypoints.tobytes() + landmarks).hexdigest()
    return f"{track.id} {digest} {track.shot.video.focal_px}"


def _every_other_frame(record: _Framed, axis: int) -> _Framed:
    """Every other frame, which is as informative about the shape. Frames are along `axis` of every tensor."""
    index = (slice(None),) * axis + (slice(None, None, 2),)
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    selected: dict[str, Any] = {name: item[index] for name, item in values.items() if isinstance(item, Tensor)}
    return replace(record, **selected)


def _pelvis_path(observation: ClipObservation, output: LifterOutput, box: Boxes) -> PelvisPath:
    """Position of a body in front of the camera, and its velocity along the line of sight by the network, in one window."""
    root_camera, root_level = matrix_from_6d(output.root_camera[0]).cpu(), matrix_from_6d(output.root_level[0]).cpu()
    to_camera = camera_attitude(root_camera, root_level, observation.camera_from_first)
    heading = yaw_matrix(heading_rad(to_camera.mT @ root_camera))
    velocity = (heading @ output.velocity[0].cpu()[..., None])[..., 0]
    position = pelvis_in_camera(output.place, box.centre, box.size)[0].cpu()
    depth_velocity = (to_camera[:, 2] * velocity).sum(-1)
    up = to_camera[:, :, 1]
    lateral_height = (up[:, :2] * position[:, :2]).sum(-1)
    moving_camera = observation.camera_from_first is not None
    return PelvisPath(position[:, 2], depth_velocity, velocity.norm(dim=-1), lateral_height, up[:, 2], moving_camera)


def _clip_observation(clip: Clip) -> ClipObservation:
    """A clip as input of the lifter."""
    observation = _observation(clip.keypoints, clip.track.shot.video, clip.camera_turn, clip.landmarks_m)
    if clip.seen.all():
        return observation
    contacts = np.ones((len(clip.seen), len(CONTACT_POINTS)), np.uint8)
    return replace(observation, feet_seen=torch.from_numpy(seen_contacts(contacts, clip.seen)).float())


def _track_observation(track: Track, frames: slice) -> ClipObservation:
    turn, metric = (None if value is None else value[frames] for value in (track.camera_turn, track.landmarks_m))
    return _observation(track.keypoints[frames], track.shot.video, turn, metric)


def _observation(
    keypoints_px: Float[np.ndarray, "T 17 3"],
    video: Video,
    camera_turn: Float[np.ndarray, "T 3"] | None,
    landmarks_m: Float[np.ndarray, "T 33 3"] | None,
) -> ClipObservation:
    intrinsics = intrinsics_of(video)
    keypoints = clean_keypoints(keypoints_px)
    rays = torch.from_numpy((keypoints[..., :2] - intrinsics[2:]) / intrinsics[:2]).float()
    camera_from_first = None
    if camera_turn is not None and bool(np.any(camera_turn != camera_turn[:1])):
        rotations = axis_angle_to_matrix(torch.from_numpy(camera_turn).float())
        camera_from_first = rotations @ rotations[0].mT
    depth_rays = None
    if landmarks_m is not None:
        depth_rays = torch.from_numpy(keypoint_depths(keypoints, landmarks_m) / intrinsics[0]).float()
    focal_deviation = FOCAL_KNOWN if video.focal_px > 0 else FOCAL_GUESSED
    confidence = torch.from_numpy(keypoints[..., 2]).float()
    return ClipObservation(rays, confidence, camera_from_first, depth_rays, focal_deviation)


def _groups(clips: Sequence[Clip], frames: int) -> Iterator[list[Clip]]:
    """Consecutive clips with up to `frames` frames in total, at least one clip."""
    group: list[Clip] = []
    count = 0
    for clip in clips:
        if group and count + len(clip.keypoints) > frames:
            yield group
            group, count = [], 0
        group.append(clip)
        count += len(clip.keypoints)
    if group:
        yield group
