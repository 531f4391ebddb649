"""Clips to bodies by the lifter: windows through the network, one camera a clip, then the path over the ground."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.records import Camera, Clip
from schemas.rotations import heading_rad, yaw_matrix
from schemas.skeleton import joint
from stages.fitting.cameras import guess_intrinsics, project
from stages.fitting.fit import Fit
from stages.fitting.start import cleaned
from stages.lifting.examples import Rigs
from stages.lifting.features import Observation, find_boxes, make_features
from stages.lifting.losses import Bodies, make_bodies, pelvis_in_camera
from stages.lifting.network import Lifted, Lifter, NetworkConfig
from stages.lifting.trajectory import Certainty, solve_path

SHIPPED_WEIGHTS = Path(__file__).parent / "data" / "lifter.safetensors"
_PELVIS = joint("pelvis")


@dataclass(frozen=True)
class Lift:
    """A body over T frames in the level world of the camera, whose origin is the camera's centre."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local; the root's is its orientation in the level world."""
    trans: Float[Tensor, "T 3"]
    betas: Float[Tensor, "10"]
    to_camera: Float[Tensor, "T 3 3"]
    """Level world to camera axes; the same in all frames while the camera stands still."""
    contacts: Float[Tensor, "T 4"]
    """Chance that left heel, left toe, right heel, right toe stand on the ground."""
    sigma_m: Float[Tensor, "T 22"]
    """Expected error of each joint but the hands relative to the pelvis, metres."""


def load_weights(path: str | Path | None = None) -> tuple[Lifter, int, str]:
    """Network, window and version from exported weights (.safetensors), a training's checkpoint (.pt), or the shipped ones.

    Raises HumoError for a file that is missing or holds something else.
    """
    path = Path(path) if path else SHIPPED_WEIGHTS
    if not path.is_file():
        raise HumoError(f"{path}: there are no lifter weights; train some with `python -m stages.lifting.train`")
    try:
        if path.suffix == ".pt":
            state = torch.load(path, map_location="cpu", weights_only=True)
            shape, window, weights = state["network"], state["window"], state["average"]
        else:
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["about"])
                weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            shape, window = about["network"], about["window"]
        model = Lifter(NetworkConfig.model_validate(shape))
        model.load_state_dict(weights)
    except Exception as error:
        raise HumoError(
            f"{path}: holds no lifter ({type(error).__name__}: {error}); train it again, or leave it out for the shipped one"
        ) from error
    return model.eval(), int(window), f"lifter {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def export(checkpoint: str | Path, path: str | Path = SHIPPED_WEIGHTS) -> None:
    """The averaged weights of a checkpoint in half precision, with the shape of the network and the config of the training."""
    from safetensors.torch import save_file

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config = {**state["config"], "mocap": [Path(folder).name for folder in state["config"]["mocap"]]}
    about: dict[str, Any] = {
        "network": state["network"], "window": state["window"], "steps": state["step"], "training": config
    }  # fmt: skip
    weights = {name: value.half().contiguous() for name, value in state["average"].items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, {"about": json.dumps(about, sort_keys=True)})


class LiftFitter:
    """The learned fitter: about 3,000 frames a second and thread.

    Each clip goes through the network alone, so that its bits depend on no other clip. Cameras are taken to stand still
    unless `lift` is told how they turn.
    """

    def __init__(
        self,
        body: BodyModel,
        *,
        weights: str | Path | None = None,
        mirror: bool = True,
        device: torch.device | str = "cpu",
        certainty: Certainty | None = None,
    ) -> None:
        """`mirror`: also look at the mirror image and average, which takes twice as long and errs less."""
        self.model, self.window, self.version = load_weights(weights)
        self.model.to(device)
        self.device = torch.device(device)
        self.rigs = Rigs.of(body, device)
        self._keypoint_rig = body.keypoint_rig()
        self.body = body
        self.mirror = mirror
        self.certainty = certainty or Certainty()

    def fit(self, clips: Sequence[Clip]) -> list[Fit]:
        """One fit a clip, in order."""
        return [self._fit_one(clip) for clip in clips]

    def _fit_one(self, clip: Clip) -> Fit:
        video = clip.track.shot.video
        intrinsics = guess_intrinsics(video.width, video.height)
        keypoints = cleaned(clip.keypoints)
        rays = torch.from_numpy((keypoints[..., :2] - intrinsics[2:]) / intrinsics[:2]).float()
        lift = self.lift(rays, torch.from_numpy(keypoints[..., 2]).float())
        frames = len(keypoints)
        camera = Camera(
            rotation=lift.to_camera.numpy(), position=np.zeros((frames, 3), np.float32), intrinsics=intrinsics
        )
        points = self._keypoints(lift).numpy()
        heights = np.maximum(clip.boxes[:, 3] - clip.boxes[:, 1], 1.0)
        apart = np.linalg.norm(project(points, camera) - keypoints[..., :2], axis=-1) / heights[:, None]
        return Fit(rotations=lift.rotations, trans=lift.trans, betas=lift.betas, camera=camera, reprojection=apart)

    @torch.inference_mode()
    def lift(
        self,
        rays: Float[Tensor, "T 17 2"],
        confidence: Float[Tensor, "T 17"],
        turn: Float[Tensor, "T 3 3"] | None = None,
    ) -> Lift:
        """A body from keypoints as rays (see `stages.lifting.features`). `turn` is the camera's rotation from frame to frame,
        without it the camera stands still."""
        frames = len(rays)
        still = turn is None
        turn = torch.eye(3).expand(frames, 3, 3) if turn is None else turn
        seen = Observation(
            rays[None].to(self.device),
            confidence[None].to(self.device),
            turn[None].to(self.device),
            torch.ones(1, frames, dtype=torch.bool, device=self.device),
        )
        boxes = find_boxes(seen)
        lifted = self._run(make_features(seen, boxes), seen.valid)
        if self.mirror:
            mirrored = seen.mirrored()
            other = self._run(make_features(mirrored, find_boxes(mirrored)), seen.valid)
            lifted = lifted.averaged(other.mirrored())
        said = make_bodies(lifted, self.rigs)
        place = pelvis_in_camera(lifted.place, boxes.centre, boxes.size)
        return self._in_world(seen, boxes.size, lifted, said, place, still)

    def _in_world(
        self, seen: Observation, size: Tensor, lifted: Lifted, said: Bodies, place: Tensor, still: bool
    ) -> Lift:
        to_camera = _camera_attitude(said.root_camera[0].cpu(), said.root_level[0].cpu(), seen.turn[0].cpu(), still)
        root_camera = said.root_camera[0].cpu()
        root = to_camera.mT @ root_camera
        keypoints, feet = (points[0].cpu() @ root.mT for points in (said.keypoints, said.contact_points))
        velocity = (yaw_matrix(heading_rad(root)) @ lifted.velocity[0].cpu()[..., None])[..., 0]
        contacts = lifted.contacts[0].sigmoid().cpu()
        guess = (to_camera.mT @ place[0].cpu()[..., None])[..., 0]
        pelvis = guess
        if len(guess) > 1:
            pelvis = solve_path(
                keypoints, seen.rays[0].cpu(), seen.confidence[0].cpu(), size[0].cpu(), guess, to_camera, velocity, feet,
                contacts, self.certainty,
            )  # fmt: skip
        rotations = said.rotations[0].cpu().clone()
        rotations[:, _PELVIS] = root
        betas = lifted.betas[0, 0].cpu()
        trans = pelvis - self.body.rest_joints(betas)[_PELVIS]
        return Lift(rotations, trans, betas, to_camera, contacts, lifted.log_sigma[0].exp().cpu())

    def _run(self, features: Float[Tensor, "1 T 63"], valid: Tensor) -> Lifted:
        """The network over windows that overlap by half, blended where they do; one shape for all."""
        frames, window = features.shape[1], self.window
        if frames <= window:
            return self.model(features, valid)
        starts = [*range(0, frames - window, window // 2), frames - window]
        windows = torch.cat([features[:, start : start + window] for start in starts])
        lifted = self.model(windows, torch.ones(windows.shape[:2], dtype=torch.bool, device=windows.device))
        ramp = torch.arange(window, device=features.device) + 0.5
        weight = torch.minimum(ramp, window - ramp)[:, None]
        total = torch.zeros(frames, 1, device=features.device)
        for start in starts:
            total[start : start + window] += weight

        def blended(value: Float[Tensor, "W S C"]) -> Float[Tensor, "1 T C"]:
            out = torch.zeros(frames, value.shape[-1], device=value.device)
            for start, part in zip(starts, value, strict=True):
                out[start : start + window] += part * weight
            return (out / total)[None]

        parts = {field.name: blended(getattr(lifted, field.name)) for field in fields(Lifted)}
        parts["betas"] = lifted.betas[:, 0].mean(0).expand(1, frames, -1)
        return Lifted(**parts)

    def _keypoints(self, lift: Lift) -> Float[Tensor, "T 17 3"]:
        rest = self.body.rest_joints(lift.betas)
        joints, turns = forward_kinematics(lift.rotations, rest, lift.trans)
        return self._keypoint_rig.points(turns, joints, lift.betas)


def _camera_attitude(
    root_camera: Float[Tensor, "T 3 3"], root_level: Float[Tensor, "T 3 3"], turn: Float[Tensor, "T 3 3"], still: bool
) -> Float[Tensor, "T 3 3"]:
    """Level world of the first frame to camera axes: each frame's two orientations of the pelvis say it; a camera that
    stands still has their mean, one that turns the mean after taking its turns back."""
    since = torch.eye(3).expand_as(turn).clone()
    if not still:
        for frame in range(1, len(turn)):
            since[frame] = turn[frame] @ since[frame - 1]
    # Gravity as the camera sees it in each frame, brought back to the first.
    up = (since.mT @ root_camera @ root_level[:, 1, :, None])[..., 0]
    up = torch.nn.functional.normalize(up.median(0).values, dim=0)
    forward = torch.tensor([0.0, 0.0, 1.0])
    back = torch.nn.functional.normalize(up * (up @ forward) - forward, dim=0)
    right = torch.linalg.cross(up, back)
    first = torch.stack([right, up, back], dim=-1)
    return since @ first


def main(arguments: list[str]) -> int:
    """`python -m stages.lifting.fitter CHECKPOINT [OUT]`: export the weights of a training."""
    import sys

    if not arguments:
        print("lifter: no checkpoint; use `python -m stages.lifting.fitter runs/lifter/checkpoint.pt`", file=sys.stderr)
        return 2
    export(*arguments[:2])
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
