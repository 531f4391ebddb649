"""Clips to bodies by the lifter: windows through the network, refined together, then placed in the world."""

import hashlib
import json
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
from schemas.devices import computes_bf16
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from schemas.records import Camera, Clip, Track, Video
from schemas.rotations import axis_angle_to_matrix, heading_rad, matrix_from_6d, yaw_matrix
from schemas.skeleton import joint
from stages.geometry.cameras import intrinsics_of, reprojection_error
from stages.geometry.feet import find_planted
from stages.geometry.keypoints import clean_keypoints
from stages.module_commands import command
from stages.recovery.lifter.bodies import make_bodies, pelvis_in_camera
from stages.recovery.lifter.features import FOCAL_GUESSED, FOCAL_KNOWN, Boxes, find_boxes, make_features
from stages.recovery.lifter.focal_estimation import Way, find_ratio
from stages.recovery.lifter.network import Lifter, LifterOutput, NetworkConfig, with_all_features
from stages.recovery.lifter.refine import NUM_TURNS, Pose, RefineSettings, refine, smooth_pose, whole_body_rotation
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.lifter.trajectory import Certainty
from stages.recovery.lifter.world import ClipObservation, WorldMotion, camera_attitude, into_world
from stages.recovery.protocol import Fit

SHIPPED_WEIGHTS = Path(__file__).parent / "data" / "lifter.safetensors"
_PELVIS = joint("pelvis")
_PRECISION = "errors.precision"
_FRAMES_TOGETHER = 20_000
"""Frames of one call on a GPU."""
_MOST_WINDOWS = 6
"""Of a track that are looked at for its lens."""
_SHAPE_WINDOWS = 3
"""Of those that are refined for its shape."""
_TRACKS_KEPT = 256
"""Tracks whose shape and lens are remembered."""
_Framed = TypeVar("_Framed", ClipObservation, LifterOutput, Boxes)


@dataclass(frozen=True)
class _Known:
    """What is the same in all of a track."""

    betas: Float[Tensor, "10"]
    ratio: float
    """Focal length over the one that was told or guessed."""
    focal_off: float
    """Expected deviation of its log."""


@dataclass(frozen=True)
class Weights:
    """A trained lifter."""

    model: Lifter
    window: int
    """Frames that it looks at together."""
    precision: Float[Tensor, "48 48"] | None
    """Inverse covariance of its errors (`stages.recovery.lifter.refine`); a training writes it at its end."""
    body_model: str
    """Id of the body whose rotations and shapes it speaks of."""
    version: str


def load_weights(path: str | Path | None = None) -> Weights:
    """From exported weights (.safetensors), a training's checkpoint (.pt), or the shipped ones.

    Raises HumoError for a file that is missing or holds something else.
    """
    path = Path(path) if path else SHIPPED_WEIGHTS
    if not path.is_file():
        raise HumoError(
            f"{path}: there are no lifter weights; train some with `python -m stages.training.lifter.train`"
        )
    try:
        if path.suffix == ".pt":
            state = torch.load(path, map_location="cpu", weights_only=True)
            shape, window, weights = state["network"], state["window"], state["average"]
            precision, body_id = state.get("precision"), str(state["body_model"])
        else:
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["about"])
                weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            shape, window, precision = about["network"], about["window"], weights.pop(_PRECISION)
            body_id = str(about["body_model"])
        model = Lifter(NetworkConfig.model_validate(shape))
        model.load_state_dict(with_all_features(weights))
        numbers = [*weights.values(), *([] if precision is None else [precision])]
        if not all(bool(value.isfinite().all()) for value in numbers):
            raise ValueError("some weights are not finite")
        if precision is not None and precision.shape != (NUM_TURNS, NUM_TURNS):
            raise ValueError(f"its errors' precision is {tuple(precision.shape)}, not {NUM_TURNS} by {NUM_TURNS}")
    except Exception as error:
        raise HumoError(
            f"{path}: holds no lifter ({type(error).__name__}: {error}); train it again, or leave it out for the shipped one"
        ) from error
    return Weights(
        model.eval(), int(window), precision, body_id, f"lifter {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    )


def export(checkpoint: str | Path, path: str | Path = SHIPPED_WEIGHTS, share: float = 1.0) -> None:
    """The averaged weights of a finished training in half precision, with the shape of the network, the config of the
    training and the precision of its errors.

    With a `share` below 1 the weights lie only so far on the way from those that the training began with to those that it
    found: fine-tuned weights err less so, on what neither was trained on (Wortsman et al. 2022, Robust fine-tuning of
    zero-shot models).
    """
    from safetensors.torch import save_file

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if "precision" not in state:
        raise HumoError(f"{checkpoint}: its training has not ended; run the command again, it goes on where it stopped")
    found, precision = state["average"], state["precision"]
    if share != 1:
        if not 0 <= share < 1 or not state["config"]["start"]:
            raise UsageError(
                f"share is {share}: give a number from 0 to 1, of a training that began with another's weights (`start`)"
            )
        began = load_weights(state["config"]["start"])
        if began.precision is None:
            raise HumoError(f"{state['config']['start']}: its training has not ended; export it first")
        found = {name: torch.lerp(value, found[name], share) for name, value in began.model.state_dict().items()}
        precision = torch.lerp(began.precision, precision, share)
    config = {name: value for name, value in state["config"].items() if name not in ("output", "cache")}
    config |= {"mocap": [Path(folder).name for folder in config["mocap"]], "start": Path(config["start"]).name}
    about: dict[str, Any] = {
        "network": state["network"], "window": state["window"], "steps": state["step"], "training": config,
        "body_model": state["body_model"], "share": share,
    }  # fmt: skip
    weights = {name: value.half().contiguous() for name, value in found.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({**weights, _PRECISION: precision.contiguous()}, path, {"about": json.dumps(about, sort_keys=True)})


class LiftFitter:
    """The learned fitter: network, refinement, path over the ground, planted feet.

    Each clip of a call is fitted as if it were alone. All clips of a track get one shape and, where nobody
    told it, one focal length, from the track.
    """

    def __init__(
        self,
        body: BodyModel,
        *,
        weights: str | Path | None = None,
        mirror: bool = True,
        refinement: RefineSettings | None = RefineSettings(),  # noqa: B008
        device: torch.device | str = "cpu",
        certainty: Certainty | None = None,
    ) -> None:
        """`mirror`: also look at the mirror image and average, which takes twice as long and errs less. `refinement`: None
        leaves the body as the network has it and feet where they slide."""
        loaded = load_weights(weights)
        if loaded.body_model != body.id:
            raise HumoError(
                f"{weights or SHIPPED_WEIGHTS}: this lifter speaks of the body {loaded.body_model}, not of {body.id}; use the "
                f"fitter optimise or imported with that body, or train a lifter on it"
            )
        if refinement is not None and loaded.precision is None:
            raise HumoError(
                f"{weights}: a training that has not ended; run its command again to end it, or use it without refinement"
            )
        self.model, self.window, self.version = loaded.model.to(device), loaded.window, loaded.version
        self.precision = torch.zeros(0) if loaded.precision is None else loaded.precision.to(device)
        self.device = torch.device(device)
        self.rigs = Rigs.of(body, device)
        self.on_cpu = Rigs.of(body)
        self.body = body
        self.mirror = mirror
        self.refinement = refinement
        self.certainty = certainty or Certainty()
        self._known: dict[str, _Known] = {}

    def fit(self, clips: Sequence[Clip]) -> list[Fit]:
        """One fit a clip, in order."""
        fits = []
        for group in _groups(clips, 1 if self.device.type == "cpu" else _FRAMES_TOGETHER):
            known = [self._known_of(clip.track) for clip in group]
            sights = [_sight(clip).through(one.ratio, one.focal_off) for clip, one in zip(group, known, strict=True)]
            lifts = self.lift(sights, [one.betas for one in known])
            fits += [self._to_fit(clip, lift, one.ratio) for clip, lift, one in zip(group, lifts, known, strict=True)]
        return fits

    def _to_fit(self, clip: Clip, lift: WorldMotion, ratio: float) -> Fit:
        intrinsics = intrinsics_of(clip.track.shot.video)
        intrinsics[:2] *= ratio
        camera = Camera(rotation=lift.to_camera.numpy(), position=lift.camera.numpy(), intrinsics=intrinsics)
        joints, turns = forward_kinematics(lift.rotations, self.body.rest_joints(lift.betas), lift.trans)
        points = self.on_cpu.keypoints.points(turns, joints, lift.betas).numpy()
        return Fit(
            rotations=lift.rotations, trans=lift.trans, betas=lift.betas, camera=camera,
            reprojection=reprojection_error(points, camera, clip),
            contacts=find_planted(lift.contacts.numpy()).astype(np.uint8), ground_m=lift.ground_m,
            sigma_m=lift.sigma_m.numpy(),
        )  # fmt: skip

    @torch.inference_mode()
    def _known_of(self, track: Track) -> _Known:
        """Lens and shape of a track: windows of it, spread over it, through the network; some of them then refined together for
        the shape, through the lens that was told or found."""
        looked = b"" if track.closeup is None else track.closeup.tobytes()
        key = f"{track.id} {hashlib.sha256(track.keypoints.tobytes() + looked).hexdigest()} {track.shot.video.focal_px}"
        if key not in self._known:
            if len(self._known) >= _TRACKS_KEPT:
                self._known.clear()
            count = len(track.times_s)
            windows = min(_MOST_WINDOWS, math.ceil(count / self.window))
            starts = np.linspace(0, max(0, count - self.window), windows).round().astype(int)
            sights = [_sight_of(track, slice(start, start + self.window)) for start in starts.tolist()]
            lifted, boxes = self._look(sights, mirror=False)
            ratio, focal_off = 1.0, FOCAL_KNOWN
            if track.shot.video.focal_px == 0:
                ways = [_way(*window) for window in zip(sights, lifted, boxes, strict=True)]
                ratio, focal_off = find_ratio(ways, count)
                sights = [sight.through(ratio, focal_off) for sight in sights]
                boxes = [Boxes(box.centre / ratio, box.size / ratio) for box in boxes]
            betas = torch.stack([one.betas[0, 0] for one in lifted]).mean(0)
            if self.refinement is not None:
                some = sorted({*np.linspace(0, len(sights) - 1, _SHAPE_WINDOWS).round().astype(int).tolist()})
                sights = [_thinned(sights[place], 0) for place in some]
                lifted, boxes = ([_thinned(said[place], 1) for place in some] for said in (lifted, boxes))
                betas = self._refined(sights, lifted, boxes, [betas] * len(some), shapes=True).betas.mean(0)
            self._known[key] = _Known(betas, ratio, focal_off)
        return self._known[key]

    @torch.inference_mode()
    def lift(
        self, sights: Sequence[ClipObservation], shapes: Sequence[Float[Tensor, "10"]] | None = None
    ) -> list[WorldMotion]:
        """Bodies from keypoints as rays. `shapes` are betas to be kept; without them each clip gets what it looks like."""
        lifted, boxes = self._look(sights, mirror=self.mirror)
        betas = [one.betas[0, 0] for one in lifted] if shapes is None else [shape.to(self.device) for shape in shapes]
        pose = self._first_pose(lifted, boxes, betas)
        turned = torch.eye(3).expand(len(pose.rotations), 3, 3)
        if self.refinement is not None:
            first, pose = pose, self._refined(sights, lifted, boxes, betas, shapes=shapes is None)
            turned = whole_body_rotation(first, pose, self.rigs).cpu()
        on_cpu = Pose(**{field.name: getattr(pose, field.name).cpu() for field in fields(Pose)})
        out = []
        for place, (sight, one, box) in enumerate(zip(sights, lifted, boxes, strict=True)):
            mine = on_cpu.owner == place
            theirs = Pose(
                on_cpu.rotations[mine],
                on_cpu.pelvis[mine],
                on_cpu.betas[place : place + 1],
                torch.zeros_like(on_cpu.owner[mine]),
            )
            if self.refinement is not None:
                theirs = smooth_pose(theirs, float(one.log_noise.exp().median()), self.refinement)
            out.append(
                into_world(
                    sight,
                    box.size[0].cpu(),
                    one,
                    theirs,
                    turned[mine],
                    self.on_cpu,
                    self.certainty,
                    planted=self.refinement is not None,
                )
            )
        return out

    def _look(self, sights: Sequence[ClipObservation], *, mirror: bool) -> tuple[list[LifterOutput], list[Boxes]]:
        """What the network says of each clip, averaged, if wanted, with what it says of its mirror image."""
        seen = [sight.observation(self.device) for sight in sights]
        boxes = [find_boxes(one) for one in seen]
        lifted = self._run([make_features(one, box) for one, box in zip(seen, boxes, strict=True)])
        if mirror:
            flipped = [one.mirrored() for one in seen]
            others = self._run([make_features(one, find_boxes(one)) for one in flipped])
            lifted = [one.averaged(other.mirrored()) for one, other in zip(lifted, others, strict=True)]
        return lifted, boxes

    def _first_pose(self, lifted: Sequence[LifterOutput], boxes: Sequence[Boxes], betas: Sequence[Tensor]) -> Pose:
        rotations, places, owners = [], [], []
        for number, (one, box) in enumerate(zip(lifted, boxes, strict=True)):
            said = make_bodies(one, self.rigs)
            turned = said.rotations[0].clone()
            turned[:, _PELVIS] = said.root_camera[0]
            rotations.append(turned)
            places.append(pelvis_in_camera(one.place, box.centre, box.size)[0])
            owners.append(torch.full((len(turned),), number, device=self.device))
        return Pose(torch.cat(rotations), torch.cat(places), torch.stack(list(betas)), torch.cat(owners))

    def _refined(
        self,
        sights: Sequence[ClipObservation],
        lifted: Sequence[LifterOutput],
        boxes: Sequence[Boxes],
        betas: Sequence[Tensor],
        *,
        shapes: bool,
    ) -> Pose:
        assert self.refinement is not None
        rays, confidence = (
            torch.cat([getattr(sight, name) for sight in sights]).to(self.device) for name in ("rays", "confidence")
        )
        size = torch.cat([box.size[0] for box in boxes])
        noise = torch.cat([one.log_noise[0].exp() for one in lifted])
        # A shape is found in fewer steps than a pose.
        changes = {"iterations": 2} if shapes else {"shape": 0.0, "build": 0.0}
        settings = replace(self.refinement, **changes)
        pose = self._first_pose(lifted, boxes, betas)
        return refine(pose, rays, confidence, size, noise, self.precision, self.rigs, settings)

    def _run(self, features: Sequence[Float[Tensor, "1 _ 133"]]) -> list[LifterOutput]:
        """The network over windows that overlap by half, blended where they do; one shape for all of a clip's."""
        window = self.window
        starts = [
            [*range(0, max(1, one.shape[1] - window), window // 2), max(0, one.shape[1] - window)] for one in features
        ]
        starts = [sorted(set(places)) for places in starts]
        pieces = [
            one[:, start : start + window] for one, places in zip(features, starts, strict=True) for start in places
        ]
        widest = max(piece.shape[1] for piece in pieces)
        valid = torch.tensor(
            [[frame < piece.shape[1] for frame in range(widest)] for piece in pieces], device=self.device
        )
        padded = torch.cat([nn.functional.pad(piece, (0, 0, 0, widest - piece.shape[1])) for piece in pieces])
        # As it was trained, where that is quicker; what comes out is averaged over windows and differs by less than 0.1 mm.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=computes_bf16(self.device)):
            said = self.model(padded, valid)
        out, done = [], 0
        for one, places in zip(features, starts, strict=True):
            mine = LifterOutput(
                **{field.name: getattr(said, field.name)[done : done + len(places)] for field in fields(LifterOutput)}
            )
            done += len(places)
            out.append(_blended(mine, places, one.shape[1], min(window, one.shape[1])))
        return out


def _blended(lifted: LifterOutput, starts: Sequence[int], frames: int, window: int) -> LifterOutput:
    """One clip out of its windows, each counting most in its middle."""
    device = lifted.pose.device
    ramp = torch.arange(window, device=device) + 0.5
    weight = torch.minimum(ramp, window - ramp)[:, None]
    total = torch.zeros(frames, 1, device=device)
    for start in starts:
        total[start : start + window] += weight

    def blended(value: Float[Tensor, "W S C"]) -> Float[Tensor, "1 T C"]:
        out = torch.zeros(frames, value.shape[-1], device=device)
        for start, part in zip(starts, value, strict=True):
            out[start : start + window] += part[:window] * weight
        return (out / total)[None]

    parts = {field.name: blended(getattr(lifted, field.name)) for field in fields(LifterOutput)}
    parts["betas"] = lifted.betas[:, 0].mean(0).expand(1, frames, -1)
    return LifterOutput(**parts)


def _thinned(value: _Framed, axis: int) -> _Framed:
    """Every other frame, which tells as much of a shape; frames lie along an axis of whatever is an array."""
    every = (slice(None),) * axis + (slice(None, None, 2),)
    arrays = {field.name: getattr(value, field.name) for field in fields(value)}
    thin: dict[str, Any] = {name: part[every] for name, part in arrays.items() if isinstance(part, Tensor)}
    return replace(value, **thin)


def _way(sight: ClipObservation, lifted: LifterOutput, box: Boxes) -> Way:
    """Where a body is before the camera, and how far along the line of sight it goes by its steps, in one window."""
    root_camera, root_level = (matrix_from_6d(said[0]) for said in (lifted.root_camera, lifted.root_level))
    to_camera = camera_attitude(root_camera.cpu(), root_level.cpu(), sight.since)
    heading = yaw_matrix(heading_rad(to_camera.mT @ root_camera.cpu()))
    velocity = (heading @ lifted.velocity[0].cpu()[..., None])[..., 0]
    place = pelvis_in_camera(lifted.place, box.centre, box.size)[0].cpu()
    ahead = (to_camera[:, 2] * velocity).sum(-1)
    up = to_camera[:, :, 1]
    rise = (up[:, :2] * place[:, :2]).sum(-1)
    return Way(place[:, 2], ahead, velocity.norm(dim=-1), rise, up[:, 2], carried=sight.since is not None)


def _sight(clip: Clip) -> ClipObservation:
    """A clip as the lifter sees it."""
    return _rays(clip.keypoints, clip.track.shot.video, clip.camera_turn, clip.closeup)


def _sight_of(track: Track, frames: slice) -> ClipObservation:
    turn, closeup = (None if value is None else value[frames] for value in (track.camera_turn, track.closeup))
    return _rays(track.keypoints[frames], track.shot.video, turn, closeup)


def _rays(
    seen: Float[np.ndarray, "T 17 3"],
    video: Video,
    camera_turn: Float[np.ndarray, "T 3"] | None,
    closeup: Float[np.ndarray, "T 17 3"] | None,
) -> ClipObservation:
    intrinsics = intrinsics_of(video)
    keypoints = clean_keypoints(seen)
    rays = torch.from_numpy((keypoints[..., :2] - intrinsics[2:]) / intrinsics[:2]).float()
    since = None
    if camera_turn is not None and bool(np.any(camera_turn != camera_turn[:1])):
        turned = axis_angle_to_matrix(torch.from_numpy(camera_turn).float())
        since = turned @ turned[0].mT
    looked = None if closeup is None else torch.from_numpy(closeup / intrinsics[0]).float()
    focal_off = FOCAL_KNOWN if video.focal_px > 0 else FOCAL_GUESSED
    return ClipObservation(rays, torch.from_numpy(keypoints[..., 2]).float(), since, looked, focal_off)


def _groups(clips: Sequence[Clip], frames: int) -> Iterator[list[Clip]]:
    """Clips in order, as many at a time as make `frames`, at least one."""
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


def main(arguments: Sequence[str]) -> int:
    """`python -m stages.recovery.lifter.fitter CHECKPOINT [OUT [SHARE]]`: export the weights of a training."""
    usage = "lifter: no checkpoint; use `python -m stages.recovery.lifter.fitter runs/lifter/checkpoint.pt`"
    return command(arguments, usage, lambda given: _export(*given[:3]))


def _export(checkpoint: str, path: str = str(SHIPPED_WEIGHTS), share: str = "1") -> None:
    try:
        how_far = float(share)
    except ValueError as error:
        raise UsageError(f"share is {share!r}: give a number from 0 to 1") from error
    export(checkpoint, path, how_far)


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
