"""Quality scores of a motion, stored with the sample; thresholds reject, and hardly anything by default.

| score | unit | definition |
|---|---|---|
| dynamic | rad/s and rad | 0.7 mean speed + 0.3 mean range of the 24 joints' angles; near 0 for a motionless person |
| jitter | m/frame^2 | mean length of the second difference of the joints' positions at 30 fps |
| foot_slide | m/frame | mean horizontal step of heels and toes between frames in both of which they are planted; 0 if none |
| penetration | m | mean over frames of the depth of the lowest contact point below the ground |
| float | m | mean height of the lowest contact point above the ground in frames with a contact; 0 where there is none |
| reprojection | box heights | median distance of projected from detected keypoints; 0 for motion capture |
| visibility | 0 to 1 | mean confidence of the keypoints; 1 for motion capture |
| whole_body | 0 to 1 | share of frames in which trunk, both legs and an arm were seen; 1 for motion capture |
| camera_seen | 0 to 1 | share of the shot's frames whose background gave the camera rotation; 1 for motion capture |
| max_root_speed | m/s | largest speed of the pelvis |
| max_joint_speed | rad/s | largest angular speed of a joint relative to its parent |
| identity_switches | times | number of times that the track seems to change to another person; 0 for motion capture |
| truncation | 0 to 1 | share of frames in which the image border truncates the person; 0 for motion capture |
| joint_limits | 0 to 1 | share of frames in which a joint is more than 10 degrees beyond its anatomical limits |
| physical | body weights | mean root wrench that no contact explains: 0 in steps and in jumps, 1 for a body suspended in the air |

A joint's speed is the angle between its rotations in neighbouring frames times 30; its range the largest angle from its first
rotation. Parts that were not seen count neither with their keypoints nor with their feet, and `physical` is 0 where most frames
show no leg. Speed and range enter `dynamic` as mean angles over joints (MotionMillion's filter uses 0.7 to 0.3). `stages/quality/`
defines the last four. The model knows only flat ground: people who sit on a chair, climb or swing have a high `physical` as
well, so the default limit rejects only jitter.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float

from schemas.body_model import BodyModel
from schemas.coverage import seen_contacts, seen_keypoints, shows
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Footage, Motion, Rejection, ScoredMotion
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.skeleton import joint
from stages.base import Stage, StageConfig
from stages.geometry.cameras import reprojection_error
from stages.geometry.keypoints import clean_keypoints
from stages.quality.anatomy import share_beyond_limits
from stages.quality.physics import unexplained_wrench
from stages.quality.tracking import MIN_CONFIDENCE, identity_switches, truncation

SCORES = (
    "dynamic", "jitter", "foot_slide", "penetration", "float", "reprojection", "visibility", "whole_body", "camera_seen",
    "max_root_speed", "max_joint_speed", "identity_switches", "truncation", "joint_limits", "physical",
)  # fmt: skip
"""Every sample has exactly these."""


class ScoreMotion(Stage[Motion, ScoredMotion]):
    """Score a motion and reject it where a score exceeds its limit. The module's table defines the scores."""

    class Config(StageConfig):
        min_dynamic: float = 0.0
        """Smallest `dynamic`, rad/s and rad mixed; 0.1 rejects people who hardly move."""
        max_jitter: float = 0.04
        """Largest `jitter`, m/frame^2."""
        max_foot_slide: float = 0.05
        """Largest `foot_slide`, m/frame."""
        max_penetration: float = 0.15
        """Largest `penetration`, m."""
        max_float: float = 0.3
        """Largest `float`, m."""
        max_reprojection: float = 0.12
        """Largest `reprojection`, box heights."""
        min_visibility: float = 0.3
        """Smallest `visibility`, 0 to 1."""
        min_whole_body: float = 0.0
        """Smallest `whole_body`, 0 to 1; 0.8 rejects upper bodies."""
        min_camera_seen: float = 0.0
        """Smallest `camera_seen`, 0 to 1; 0.7 rejects people in front of a bare wall, where a rotating camera is assumed
        static."""
        max_root_speed: float = 15.0
        """Largest `max_root_speed`, m/s."""
        max_joint_speed: float = 60.0
        """Largest `max_joint_speed`, rad/s."""
        max_identity_switches: float = 0.0
        """Largest `identity_switches`, times."""
        max_truncation: float = 1.0
        """Largest `truncation`, 0 to 1; 0.3 rejects people at the image border, whose hidden side is a guess."""
        max_joint_limits: float = 0.9
        """Largest `joint_limits`, 0 to 1."""
        max_physical: float = 2.0
        """Largest `physical`, body weights; 0.5 rejects people in the air, and on chairs and ladders."""
        body_model: str = ""
        """Path of a licensed SMPL file (.npz or .pkl); empty for the shipped body. Must be the body of the motions."""

    config: Config

    def setup(self) -> None:
        """Load the body."""
        self._body = BodyModel.load(self.config.body_model or None)
        self._rigs = self._body.contact_rig(), self._body.keypoint_rig()

    def run(self, record: Motion) -> Iterable[ScoredMotion | Rejection]:
        """The motion with its scores, or a rejection by the first limit that it exceeds, in the order of the table."""
        if record.body_model != self._body.id:
            detail = f"made for {record.body_model}, not {self._body.id}: set score_motion.body_model to that body"
            return [self.reject(record, "another_body_model", detail)]
        scores = self._scores(record)
        not_finite = [name for name, value in scores.items() if not np.isfinite(value)]
        if not_finite:
            return [self.reject(record, "not_finite", ", ".join(not_finite))]
        for name, (low, high) in limits_of(self.config).items():
            value, reason = scores[name], name.removeprefix("max_")
            if value < low:
                return [self.reject(record, f"low_{reason}", measured=value, limit=low)]
            if value > high:
                return [self.reject(record, f"high_{reason}", measured=value, limit=high)]
        return [ScoredMotion(motion=record, scores=scores)]

    def _scores(self, motion: Motion) -> dict[str, float]:
        contact_rig, keypoint_rig = self._rigs
        betas = torch.from_numpy(motion.betas)
        rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
        rest = self._body.rest_joints(betas)
        joints, global_rotations = forward_kinematics(rotations, rest, torch.from_numpy(motion.trans))
        feet = contact_rig.points(global_rotations, joints, betas).numpy().astype(np.float64)
        positions = joints.numpy().astype(np.float64)
        joint_speed = _angles(rotations[:-1], rotations[1:]) * FPS
        joint_range = _angles(rotations[:1], rotations)
        feet_seen = seen_contacts(np.ones_like(motion.contacts), motion.seen).astype(bool)
        lowest = np.where(feet_seen, feet[..., 1], np.inf).min(-1)
        stands = np.asarray(feet_seen.any(-1))
        has_contact = motion.contacts.any(-1)
        planted = (motion.contacts[1:] & motion.contacts[:-1]).astype(bool)
        foot_steps = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1)[planted]
        jitter = np.linalg.norm(np.diff(positions, n=2, axis=0), axis=-1)
        root_speed = np.linalg.norm(np.diff(positions[:, joint("pelvis")], axis=0), axis=-1) * FPS
        reprojection, visibility, camera_seen, switches, truncated = 0.0, 1.0, 1.0, 0, 0.0
        if motion.footage is not None:
            clip = motion.footage.clip
            switches, truncated, camera_seen = identity_switches(clip), truncation(clip), clip.track.camera_seen
            points = keypoint_rig.points(global_rotations, joints, betas).numpy()
            reprojection, visibility = _image_scores(points, motion.footage)
        physical = 0.0
        if 2 * stands.sum() > len(stands):
            physical = unexplained_wrench(rotations, positions, feet, rest.numpy().astype(np.float64))
        scores = {
            "dynamic": 0.7 * _mean(joint_speed) + 0.3 * _mean(joint_range.max(0)),
            "jitter": _mean(jitter),
            "foot_slide": _mean(foot_steps),
            "penetration": _mean(np.maximum(-lowest, 0.0)[stands]),
            "float": _mean(np.maximum(lowest, 0.0)[has_contact]),
            "reprojection": reprojection,
            "visibility": visibility,
            "whole_body": float(shows(motion.seen, "whole").mean()),
            "camera_seen": camera_seen,
            "max_root_speed": float(root_speed.max(initial=0.0)),
            "max_joint_speed": float(joint_speed.max(initial=0.0)),
            "identity_switches": switches,
            "truncation": truncated,
            "joint_limits": share_beyond_limits(rotations),
            "physical": physical,
        }
        return {name: float(scores[name]) for name in SCORES}


def limits_of(config: "ScoreMotion.Config") -> dict[str, tuple[float, float]]:
    """Score -> smallest and largest accepted value, infinite where there is no limit, in the order of the table."""

    def limit(bound: str, name: str, default: float) -> float:
        return float(getattr(config, f"{bound}_{name.removeprefix('max_')}", default))

    return {name: (limit("min", name, -math.inf), limit("max", name, math.inf)) for name in SCORES}


def _image_scores(points: Float[np.ndarray, "T 17 3"], footage: Footage) -> tuple[float, float]:
    """Median reprojection error in box heights and mean confidence, of seen parts; infinite where no keypoint is visible."""
    confidence = clean_keypoints(footage.clip.keypoints)[..., 2]
    seen = seen_keypoints(footage.clip.seen)
    visible = (confidence >= MIN_CONFIDENCE) & seen
    errors = reprojection_error(points, footage.camera, footage.clip)
    reprojection = float(np.median(errors[visible])) if visible.any() else np.inf
    return reprojection, float(confidence[seen].mean()) if seen.any() else 0.0


def _angles(before: torch.Tensor, after: torch.Tensor) -> Float[np.ndarray, "N 24"]:
    """Angle between rotations, radians."""
    return matrix_to_axis_angle(before.transpose(-1, -2) @ after).norm(dim=-1).numpy().astype(np.float64)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
