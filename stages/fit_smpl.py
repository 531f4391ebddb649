"""Clips to SMPL in the world: fit a body to the keypoints, find the ground, and start at the origin facing +Z."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from schemas.body_model import BodyModel
from schemas.devices import torch_threads
from schemas.kinematics import forward_kinematics, start_at_origin
from schemas.records import Camera, Clip, Footage, Motion, Provenance, Rejection
from schemas.rotations import matrix_to_axis_angle
from schemas.skeleton import SMPL_JOINTS, joint, keypoint
from stages.base import Stage, StageConfig
from stages.fitting.contacts import find_contacts, ground_height
from stages.fitting.fit import Fit, Fitter

_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_SHOULDERS, _HIPS = ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_TRUNK = {
    "pelvis": _HIPS, "spine1": _SHOULDERS + _HIPS, "spine2": _SHOULDERS + _HIPS, "spine3": _SHOULDERS + _HIPS,
    "neck": _SHOULDERS, "head": _FACE,
}  # fmt: skip
_NEAREST = {"collar": "shoulder", "hand": "wrist", "foot": "ankle"}


def _witnesses(name: str) -> tuple[str, ...]:
    """Keypoints that tell about a joint."""
    if name in _TRUNK:
        return _TRUNK[name]
    side, _, bare = name.partition("_")
    return (f"{side}_{_NEAREST.get(bare, bare)}",)


_WITNESSES = tuple([keypoint(name) for name in _witnesses(joint_name)] for joint_name in SMPL_JOINTS)


class FitSmpl(Stage[Clip, Motion]):
    """Recover SMPL in world coordinates from a clip's keypoints.

    The camera is a static pinhole without roll whose focal length is the image's diagonal; its pitch is estimated. The
    world of the source, to which `Motion.to_source` leads, is the level world of the camera's first frame: origin at the
    camera's centre, X right in the image, Y up against gravity, Z level and back towards the viewer, metres. The motion's
    own world differs from it by a turn about Y and a shift.
    """

    class Config(StageConfig):
        fitter: Literal["optimise", "lift"] = "optimise"
        """How bodies are found: `optimise` (from keypoints alone, no weights needed) or `lift` (a trained network)."""
        lifter_weights: str = ""
        """For `lift`: exported weights (.safetensors) or a training's checkpoint (.pt); empty for shipped ones, if any."""
        coarse_steps: int = 150
        """Steps of the optimiser on every third frame, for all hypotheses about facing."""
        fine_steps: int = 100
        """Steps on all frames, for the best hypothesis."""
        body_model: str = ""
        """Path of a licensed SMPL file (.npz or .pkl); empty for the shipped body."""
        min_visible_keypoints: float = 6.0
        """Fewest keypoints seen, on average over the frames; 17 is all of them."""
        min_keypoint_confidence: float = 0.3
        """From here on a keypoint counts as seen, 0 to 1."""
        max_reprojection: float = 0.12
        """Largest median distance between projected and seen keypoints, box heights."""

    config: Config

    def setup(self) -> None:
        """Read the body and make the fitter."""
        self._body = BodyModel.load(self.config.body_model or None)
        self._contact_rig = self._body.contact_rig()
        self._fitter = self._make_fitter()

    def _make_fitter(self) -> Fitter:
        if self.config.fitter == "lift":
            from stages.lifting.fitter import LiftFitter

            return LiftFitter(self._body, weights=self.config.lifter_weights or None)
        from stages.fitting.optimise import OptimiseFitter

        steps = {"coarse_steps": self.config.coarse_steps, "fine_steps": self.config.fine_steps}
        return OptimiseFitter(self._body, **steps)

    def run(self, record: Clip) -> Iterable[Motion | Rejection]:
        """One motion, or why there is none."""
        return self.run_batch([record])[0]

    def run_batch(self, records: Sequence[Clip]) -> list[list[Motion | Rejection]]:
        """As `run`; the fitter sees all clips at once, yet fits each as if it were alone."""
        outcomes: list[list[Motion | Rejection]] = [[] for _ in records]
        fitting = []
        for place, clip in enumerate(records):
            seen = float((clip.keypoints[..., 2] >= self.config.min_keypoint_confidence).sum(-1).mean())
            if seen < self.config.min_visible_keypoints:
                limit = self.config.min_visible_keypoints
                outcomes[place] = [self.reject(clip, "too_few_keypoints", measured=seen, limit=limit)]
            else:
                fitting.append(place)
        with torch_threads(1):
            fits = self._fitter.fit([records[place] for place in fitting])
        for place, fit in zip(fitting, fits, strict=True):
            outcomes[place] = [self._judge(records[place], fit)]
        return outcomes

    def _judge(self, clip: Clip, fit: Fit) -> Motion | Rejection:
        visible = clip.keypoints[..., 2] >= self.config.min_keypoint_confidence
        error = float(np.median(fit.reprojection[visible]))
        numbers = [fit.rotations, fit.trans, fit.betas, torch.as_tensor(fit.reprojection[visible])]
        if not all(bool(torch.isfinite(value).all()) for value in numbers):
            return self.reject(clip, "fit_diverged", "the fit holds values that are not finite")
        if error > self.config.max_reprojection:
            limit = self.config.max_reprojection
            return self.reject(clip, "fit_did_not_converge", "median, box heights", measured=error, limit=limit)
        return self._motion(clip, fit)

    def _motion(self, clip: Clip, fit: Fit) -> Motion:
        track = clip.track
        video = track.shot.video
        rest = self._body.rest_joints(fit.betas)
        joints, turns = forward_kinematics(fit.rotations, rest, fit.trans)
        feet = self._contact_rig.points(turns, joints, fit.betas).numpy()
        ground_m = ground_height(feet)
        rotations, trans, back = start_at_origin(fit.rotations, fit.trans, rest[joint("pelvis")], ground_m)
        to_source = back.numpy()
        return Motion(
            provenance=Provenance(
                source=video.source,
                sha256=video.sha256,
                person=track.person,
                start_s=clip.start_s,
                end_s=clip.end_s,
                source_fps=video.fps,
            ),
            footage=Footage(clip=clip, camera=_moved_camera(fit.camera, to_source)),
            poses=matrix_to_axis_angle(rotations).numpy().astype(np.float32),
            trans=trans.numpy().astype(np.float32),
            betas=fit.betas.numpy().astype(np.float32),
            contacts=find_contacts(feet, ground_m),
            joint_confidence=joint_confidence(clip.keypoints),
            to_source=to_source,
            body_model=self._body.id,
            models={**track.models, self.name: self._fitter.version},
        )


def joint_confidence(keypoints: Float[np.ndarray, "T 17 3"]) -> Float[np.ndarray, "T 24"]:
    """For each joint the mean confidence of the keypoints that tell about it, 0 to 1."""
    seen = np.clip(np.nan_to_num(keypoints[..., 2]), 0, 1)
    return np.stack([seen[:, witnesses].mean(-1) for witnesses in _WITNESSES], -1).astype(np.float32)


def _moved_camera(camera: Camera, to_source: Float[np.ndarray, "4 4"]) -> Camera:
    """The same camera in the motion's own world."""
    turn, shift = to_source[:3, :3], to_source[:3, 3]
    return Camera(
        rotation=(camera.rotation @ turn).astype(np.float32),
        position=((camera.position - shift) @ turn).astype(np.float32),
        intrinsics=camera.intrinsics.astype(np.float32),
    )
