"""Clips to SMPL in the world: fit a body to the keypoints, estimate the ground, and start at the origin facing +Z."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from schemas.body_model import BodyModel
from schemas.coverage import LEFT_LEG, RIGHT_LEG, seen_confidence, seen_contacts, seen_keypoints
from schemas.devices import choose_device, torch_threads
from schemas.kinematics import forward_kinematics, start_at_origin
from schemas.network import local_path
from schemas.records import Clip, Footage, Motion, Provenance, Rejection
from schemas.rotations import matrix_to_axis_angle
from schemas.skeleton import SMPL_JOINTS, joint, keypoint
from stages.base import Stage, StageConfig
from stages.geometry.cameras import camera_in_motion
from stages.geometry.contacts import find_contacts, ground_of_seen
from stages.geometry.neutral import with_neutral_parts
from stages.recovery.protocol import Fit, Fitter, NoFit

_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_SHOULDERS, _HIPS = ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_TRUNK = {
    "pelvis": _HIPS, "spine1": _SHOULDERS + _HIPS, "spine2": _SHOULDERS + _HIPS, "spine3": _SHOULDERS + _HIPS,
    "neck": _SHOULDERS, "head": _FACE,
}  # fmt: skip
HALF_CONFIDENCE_ERROR_M = 0.15
"""Expected error of a joint at which its confidence is halved."""
_NEAREST_LIMB = {"collar": "shoulder", "hand": "wrist", "foot": "ankle"}


def _keypoints_of(name: str) -> tuple[str, ...]:
    """Keypoints on which a joint depends."""
    if name in _TRUNK:
        return _TRUNK[name]
    side, _, bare = name.partition("_")
    return (f"{side}_{_NEAREST_LIMB.get(bare, bare)}",)


_JOINT_KEYPOINTS = tuple([keypoint(name) for name in _keypoints_of(joint_name)] for joint_name in SMPL_JOINTS)


class FitSmpl(Stage[Clip, Motion]):
    """Recover SMPL in world coordinates from a clip's keypoints.

    The camera is a pinhole. Its focal length comes from the manifest or the file, or else is assumed to be the image diagonal;
    the lifter corrects this assumption from walking people (`stages.recovery.lifter.focal_estimation`). The optimiser assumes a
    static, level camera; the lifter allows roll, rotation as measured from the background, and translation. The world of the
    source, the target of `Motion.to_source`, is the level world of the camera's first frame: origin at the camera's centre, X
    right in the image, Y up against gravity, Z horizontal and back towards the viewer, metres. The motion's own world differs
    from it by a rotation about Y and a translation. Parts that were not seen (`Clip.seen`) get a neutral pose, no confidence and no
    contacts, and tell nothing about the ground.
    """

    class Config(StageConfig):
        fitter: Literal["lift", "optimise", "imported"] = "lift"
        """How bodies are recovered: `lift` (a trained network, refined), `optimise` (optimisation alone), or `imported`
        (results of WHAM, GVHMR, GEM or TRAM, or AMASS-like files)."""
        lifter_weights: str = ""
        """For `lift`: exported weights (.safetensors) or the checkpoint of a finished training (.pt); empty for the shipped
        ones."""
        device: str = "auto"
        """For `lift`: device of the network; `auto` uses a GPU if there is one."""
        results: str = ""
        """For `imported`: folder with a sub-folder or file per video, named by its source id or its file name."""
        retarget: bool = False
        """For `imported`: transfer results for another body model to this one, without the person's shape."""
        coarse_steps: int = 150
        """For `optimise`: steps on every third frame, for all hypotheses about heading."""
        fine_steps: int = 100
        """Steps on all frames, for the best hypothesis."""
        body_model: str = ""
        """Path of a licensed SMPL file (.npz or .pkl); empty for the shipped body."""
        min_visible_keypoints: float = 6.0
        """Smallest number of visible keypoints, mean over the frames; 17 is all of them."""
        min_keypoint_confidence: float = 0.3
        """Lowest confidence of a visible keypoint, 0 to 1."""
        max_reprojection: float = 0.12
        """Largest median distance between projected and detected keypoints, box heights."""

    config: Config

    @property
    def needs_network(self) -> bool:
        """For results in a bucket."""
        return self.config.fitter == "imported" and local_path(self.config.results) is None

    def setup(self) -> None:
        """Load the body and create the fitter."""
        self._body = BodyModel.load(self.config.body_model or None)
        self._contact_rig = self._body.contact_rig()
        self._fitter = self._make_fitter()

    def _make_fitter(self) -> Fitter:
        if self.config.fitter == "lift":
            from stages.recovery.lifter.fitter import LiftFitter

            device = choose_device(self.config.device)
            return LiftFitter(self._body, weights=self.config.lifter_weights or None, device=device)
        if self.config.fitter == "imported":
            from stages.recovery.external.fitter import ImportFitter

            body_file = self.config.body_model
            return ImportFitter(
                self._body, results=self.config.results, body_file=body_file, retarget=self.config.retarget
            )
        from stages.recovery.optimise import OptimiseFitter

        steps = {"coarse_steps": self.config.coarse_steps, "fine_steps": self.config.fine_steps}
        return OptimiseFitter(self._body, **steps)

    def run(self, record: Clip) -> Iterable[Motion | Rejection]:
        """One motion, or why there is none."""
        return self.run_batch([record])[0]

    def run_batch(self, records: Sequence[Clip]) -> list[list[Motion | Rejection]]:
        """As `run`; the fitter gets all clips at once, yet fits each as if it were alone."""
        outcomes: list[list[Motion | Rejection]] = [[] for _ in records]
        indices = []
        for index, clip in enumerate(records):
            visible = float((clip.keypoints[..., 2] >= self.config.min_keypoint_confidence).sum(-1).mean())
            if visible < self.config.min_visible_keypoints:
                limit = self.config.min_visible_keypoints
                outcomes[index] = [self.reject(clip, "too_few_keypoints", measured=visible, limit=limit)]
            else:
                indices.append(index)
        with torch_threads(1):
            fits = self._fitter.fit([records[index] for index in indices])
        for index, fit in zip(indices, fits, strict=True):
            outcomes[index] = [self._check(records[index], fit)]
        return outcomes

    def _check(self, clip: Clip, fit: Fit | NoFit) -> Motion | Rejection:
        if isinstance(fit, NoFit):
            return self.reject(clip, fit.reason, fit.detail, measured=fit.measured, limit=fit.limit)
        visible = (clip.keypoints[..., 2] >= self.config.min_keypoint_confidence) & seen_keypoints(clip.seen)
        if not visible.any():
            return self.reject(clip, "nothing_seen", "no keypoint of a seen part is visible", measured=0.0, limit=1.0)
        error = float(np.median(fit.reprojection[visible]))
        values = [fit.rotations, fit.trans, fit.betas, torch.as_tensor(fit.reprojection[visible])]
        if not all(bool(torch.isfinite(value).all()) for value in values):
            return self.reject(clip, "fit_diverged", "the fit has values that are not finite")
        if error > self.config.max_reprojection:
            limit = self.config.max_reprojection
            return self.reject(clip, "fit_did_not_converge", "median, box heights", measured=error, limit=limit)
        return self._to_motion(clip, fit)

    def _to_motion(self, clip: Clip, fit: Fit) -> Motion:
        track = clip.track
        video = track.shot.video
        rest = self._body.rest_joints(fit.betas)
        fit_rotations = with_neutral_parts(fit.rotations, clip.seen)
        joints, global_rotations = forward_kinematics(fit_rotations, rest, fit.trans)
        feet = self._contact_rig.points(global_rotations, joints, fit.betas).numpy()
        stands = clip.seen[:, [LEFT_LEG, RIGHT_LEG]].any()
        ground_m = ground_of_seen(feet, clip.seen) if fit.ground_m is None or not stands else fit.ground_m
        rotations, trans, to_input = start_at_origin(fit_rotations, fit.trans, rest[joint("pelvis")], ground_m)
        to_source = to_input.numpy()
        return Motion(
            provenance=Provenance(
                source=video.source,
                sha256=video.sha256,
                person=track.person,
                start_s=clip.start_s,
                end_s=clip.end_s,
                source_fps=video.fps,
            ),
            footage=Footage(clip=clip, camera=camera_in_motion(fit.camera, to_source)),
            poses=matrix_to_axis_angle(rotations).numpy().astype(np.float32),
            trans=trans.numpy().astype(np.float32),
            betas=fit.betas.numpy().astype(np.float32),
            contacts=seen_contacts(find_contacts(feet, ground_m) if fit.contacts is None else fit.contacts, clip.seen),
            joint_confidence=seen_confidence(joint_confidence(clip.keypoints, fit.sigma_m), clip.seen),
            to_source=to_source,
            body_model=self._body.id,
            models={**track.models, self.name: f"{self._fitter.version} {fit.source}".rstrip()},
            seen=clip.seen,
        )


def joint_confidence(
    keypoints: Float[np.ndarray, "T 17 3"], sigma_m: Float[np.ndarray, "T 22"] | None = None
) -> Float[np.ndarray, "T 24"]:
    """Confidence of each joint, 0 to 1: the mean confidence of its keypoints; halved at an expected error of
    `HALF_CONFIDENCE_ERROR_M`."""
    keypoint_confidence = np.clip(np.nan_to_num(keypoints[..., 2]), 0, 1)
    confidence = np.stack([keypoint_confidence[:, columns].mean(-1) for columns in _JOINT_KEYPOINTS], -1)
    if sigma_m is not None:
        # Hands have the error of their wrists.
        confidence = confidence / (1 + (sigma_m[:, [*range(22), 20, 21]] / HALF_CONFIDENCE_ERROR_M) ** 2)
    return confidence.astype(np.float32)
