"""How good a motion is, in numbers that stay with the sample; thresholds reject, and by default hardly anything.

| score | unit | what it is |
|---|---|---|
| dynamic | rad/s and rad | 0.7 mean speed + 0.3 mean range of the 24 joints' angles; near 0 for who stands still |
| jitter | m/frame^2 | mean length of the second difference of the joints' positions at 30 fps |
| foot_slide | m/frame | mean level step of heels and toes between frames in both of which they are planted; 0 if none |
| penetration | m | mean over frames of how far the lowest contact point is below the ground |
| float | m | mean height of the lowest contact point over the ground in frames with a contact; 0 where there is none |
| reprojection | box heights | median distance of projected from seen keypoints; 0 for motion capture |
| visibility | 0 to 1 | mean confidence of the keypoints; 1 for motion capture |
| camera_seen | 0 to 1 | share of the shot's frames whose background told how the camera turns; 1 for motion capture |
| max_root_speed | m/s | largest speed of the pelvis |
| max_joint_speed | rad/s | largest angular speed of a joint against its parent |
| identity_switches | times | how often the track seems to go over to somebody else; 0 for motion capture |
| truncation | 0 to 1 | share of frames in which the picture's edge cuts the person off; 0 for motion capture |
| joint_limits | 0 to 1 | share of frames in which a joint is more than 10 degrees beyond its anatomical limits |
| physical | body weights | mean push at the pelvis that no contact explains: 0 in steps and in jumps, 1 for who hangs in the air |

A joint's speed is the angle between its rotations in neighbouring frames times 30; its range the largest angle from its
first rotation. Speed and range enter `dynamic` as mean angles over joints (MotionMillion's filter takes 0.7 to 0.3).
`stages/quality/` tells how the last four are found. Whoever sits on a chair, climbs or swings is pushed by what is not in
the picture of a bare ground: `physical` is great there too, so by default it only turns down what shakes.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Footage, Motion, Rejection, ScoredMotion
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from schemas.skeleton import joint
from stages.base import Stage, StageConfig
from stages.geometry.cameras import reprojection_error
from stages.geometry.keypoints import clean_keypoints
from stages.quality.anatomy import share_beyond_limits
from stages.quality.physics import implausible_share
from stages.quality.tracking import SEEN, identity_switches, truncation

SCORES = (
    "dynamic", "jitter", "foot_slide", "penetration", "float", "reprojection", "visibility", "camera_seen",
    "max_root_speed", "max_joint_speed", "identity_switches", "truncation", "joint_limits", "physical",
)  # fmt: skip
"""Every sample has exactly these."""


class ScoreMotion(Stage[Motion, ScoredMotion]):
    """Measure a motion; reject it where a number passes its limit. What each number means stands in the module's table."""

    class Config(StageConfig):
        min_dynamic: float = 0.0
        """Smallest `dynamic`, rad/s and rad mixed; 0.1 drops people who hardly move."""
        max_jitter: float = 0.04
        """Largest `jitter`, m/frame^2."""
        max_foot_slide: float = 0.05
        """Largest `foot_slide`, m/frame."""
        max_penetration: float = 0.15
        """Largest `penetration`, m."""
        max_float: float = 0.3
        """Largest `float`, m."""
        max_reprojection: float = 0.12
        """Largest `reprojection_error`, box heights."""
        min_visibility: float = 0.3
        """Smallest `visibility`, 0 to 1."""
        min_camera_seen: float = 0.0
        """Smallest `camera_seen`, 0 to 1; 0.7 drops people before a bare wall, where a turning camera is taken to stand still."""
        max_root_speed: float = 15.0
        """Largest `max_root_speed`, m/s."""
        max_joint_speed: float = 60.0
        """Largest `max_joint_speed`, rad/s."""
        max_identity_switches: float = 0.0
        """Largest `identity_switches`, times."""
        max_truncation: float = 1.0
        """Largest `truncation`, 0 to 1; 0.3 drops people at the picture's edge, whose hidden side is a guess."""
        max_joint_limits: float = 0.9
        """Largest `joint_limits`, 0 to 1."""
        max_physical: float = 2.0
        """Largest `physical`, body weights; 0.5 drops people in the air, and on chairs and ladders."""
        body_model: str = ""
        """Path of a licensed SMPL file (.npz or .pkl); empty for the shipped body. The body of the motions."""

    config: Config

    def setup(self) -> None:
        """Read the body."""
        self._body = BodyModel.load(self.config.body_model or None)
        self._rigs = self._body.contact_rig(), self._body.keypoint_rig()

    def run(self, record: Motion) -> Iterable[ScoredMotion | Rejection]:
        """The motion with its scores, or the first limit that it passes, in the order of the table."""
        if record.body_model != self._body.id:
            detail = f"made for {record.body_model}, not {self._body.id}: name that body in score_motion.body_model"
            return [self.reject(record, "another_body_model", detail)]
        scores = self._scores(record)
        wrong = [name for name, value in scores.items() if not np.isfinite(value)]
        if wrong:
            return [self.reject(record, "not_finite", ", ".join(wrong))]
        for name, (low, high) in limits_of(self.config).items():
            value, bare = scores[name], name.removeprefix("max_")
            if value < low:
                return [self.reject(record, f"low_{bare}", measured=value, limit=low)]
            if value > high:
                return [self.reject(record, f"high_{bare}", measured=value, limit=high)]
        return [ScoredMotion(motion=record, scores=scores)]

    def _scores(self, motion: Motion) -> dict[str, float]:
        contact_rig, keypoint_rig = self._rigs
        betas = torch.from_numpy(motion.betas)
        rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
        rest = self._body.rest_joints(betas)
        joints, turns = forward_kinematics(rotations, rest, torch.from_numpy(motion.trans))
        feet = contact_rig.points(turns, joints, betas).numpy().astype(np.float64)
        places = joints.numpy().astype(np.float64)
        speed = _angles(rotations[:-1], rotations[1:]) * FPS
        reach = _angles(rotations[:1], rotations)
        lowest = feet[..., 1].min(-1)
        touching = motion.contacts.any(-1)
        planted = (motion.contacts[1:] & motion.contacts[:-1]).astype(bool)
        slides = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1)[planted]
        jitter = np.linalg.norm(np.diff(places, n=2, axis=0), axis=-1)
        root_speed = np.linalg.norm(np.diff(places[:, joint("pelvis")], axis=0), axis=-1) * FPS
        off, visibility, camera_seen, switches, cut_off = 0.0, 1.0, 1.0, 0, 0.0
        if motion.footage is not None:
            clip = motion.footage.clip
            switches, cut_off, camera_seen = identity_switches(clip), truncation(clip), clip.track.camera_seen
            points = keypoint_rig.points(turns, joints, betas).numpy()
            off, visibility = _against_image(points, motion.footage)
        scores = {
            "dynamic": 0.7 * _mean(speed) + 0.3 * _mean(reach.max(0)),
            "jitter": _mean(jitter),
            "foot_slide": _mean(slides),
            "penetration": _mean(np.maximum(-lowest, 0.0)),
            "float": _mean(np.maximum(lowest, 0.0)[touching]),
            "reprojection": off,
            "visibility": visibility,
            "camera_seen": camera_seen,
            "max_root_speed": float(root_speed.max(initial=0.0)),
            "max_joint_speed": float(speed.max(initial=0.0)),
            "identity_switches": switches,
            "truncation": cut_off,
            "joint_limits": share_beyond_limits(rotations),
            "physical": implausible_share(rotations, places, feet, rest.numpy().astype(np.float64)),
        }
        return {name: float(scores[name]) for name in SCORES}


def limits_of(config: "ScoreMotion.Config") -> dict[str, tuple[float, float]]:
    """Score -> the least and the greatest value that passes, infinite where there is no limit, in the order of the table."""

    def limit(side: str, name: str, without: float) -> float:
        return float(getattr(config, f"{side}_{name.removeprefix('max_')}", without))

    return {name: (limit("min", name, -math.inf), limit("max", name, math.inf)) for name in SCORES}


def _against_image(points: Float[np.ndarray, "T 17 3"], footage: Footage) -> tuple[float, float]:
    """Median reprojection in box heights and mean confidence; infinite where nothing was seen."""
    confidence = clean_keypoints(footage.clip.keypoints)[..., 2]
    seen = confidence >= SEEN
    apart = reprojection_error(points, footage.camera, footage.clip)
    error = float(np.median(apart[seen])) if seen.any() else np.inf
    return error, float(confidence.mean())


def _angles(before: torch.Tensor, after: torch.Tensor) -> Float[np.ndarray, "N 24"]:
    """Angle between rotations, radians."""
    return matrix_to_axis_angle(before.transpose(-1, -2) @ after).norm(dim=-1).numpy().astype(np.float64)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
