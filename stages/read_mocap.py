"""Motion capture to SMPL in the world: read a take of any known format, bring it onto the body, cut it into pieces."""

import hashlib
import math
from collections.abc import Iterable
from itertools import pairwise

import fsspec
import numpy as np

from schemas.body_model import NUM_SHAPES, BodyModel
from schemas.ids import is_source_id
from schemas.records import Motion, Provenance, Rejection, Source
from schemas.rotations import matrix_to_axis_angle
from stages.base import Stage, StageConfig
from stages.mocap import read_take
from stages.mocap.retarget import Retargeted, cut, retarget
from stages.mocap.skeletons import candidate_maps, find_map
from stages.mocap.take import MocapError, Take

_VERSION = "retarget 1"


class ReadMocap(Stage[Source, Motion]):
    """Read BVH, ASF/AMC, DeepMimic and AMASS files and retarget them by rotations relative to each rest pose.

    The world of the source, to which `Motion.to_source` leads, is the file's own in metres, so that matrix holds the
    ratio of the source's legs to the body's as well. All pieces of a take stand on one ground.
    """

    class Config(StageConfig):
        """How files are understood and takes are cut."""

        min_s: float = 2.0
        """Shortest motion, seconds."""
        max_s: float = 10.0
        """Longest motion, seconds; a longer take is cut into equal pieces."""
        min_fps: float = 12.0
        """Lowest frame rate of a file, frames a second: below it motion cannot be followed."""
        joint_map: str = "auto"
        """Which skeleton the files have: `auto` (by the names of their joints), `cmu_bvh`, `cmu_asf`, `deepmimic`,
        `bandai_namco`, `amass`, or the path of a YAML file with `joints` (SMPL joint: joint of the file), `reference`
        (`zero` or `first_frame`: the pose that is a T-pose), `feet` (`flat` or `with_shank` in it), `up` (`y` or `z`)."""
        metres_per_unit: float = 0.0
        """Length unit of the files, metres; 0 takes what the file says, else what makes its legs those of a human."""
        fps: float = 0.0
        """Frame rate of the files, frames a second; 0 takes what the file says (AMC files say nothing: 120)."""
        body_model: str = ""
        """Path of a licensed SMPL file (.npz or .pkl); empty for the shipped body."""

    config: Config

    def setup(self) -> None:
        """Read the body and the joint map. Raises UsageError for a map that is not known or wrong."""
        candidate_maps(self.config.joint_map)
        self._body = BodyModel.load(self.config.body_model or None)

    def run(self, record: Source) -> Iterable[Motion | Rejection]:
        """Motions of `min_s` to `max_s`, or why there are none."""
        if record.kind != "mocap":
            return [self.reject(record, "not_mocap", f"a source of kind {record.kind!r}: list it with kind: mocap")]
        if not is_source_id(record.id):
            detail = f"id {record.id!r}: use at most 128 of letters, digits, - and _, or leave the column out"
            return [self.reject(record, "bad_id", detail)]
        try:
            with fsspec.open(record.uri, "rb") as file:
                content = file.read()
            take = read_take(record.uri, content=content, fps=self.config.fps or None)
            joint_map = find_map(take, self.config.joint_map, file=record.uri)
        except OSError as error:
            return [self.reject_unread(record, error)]
        except MocapError as error:
            return [self.reject(record, error.reason, str(error)[:2000])]
        refused = self._judge(record, take)
        if refused is not None:
            return [refused]
        motion = retarget(take, joint_map, self._body, metres_per_unit=self.config.metres_per_unit or None)
        if len(motion.trans) / motion.fps < self.config.min_s:
            # A T-pose that was dropped can make the difference.
            seconds = len(motion.trans) / motion.fps
            return [self.reject(record, "too_short", "seconds", measured=seconds, limit=self.config.min_s)]
        sha256 = hashlib.sha256(content).hexdigest()
        model = f"{take.format} {_VERSION}"
        return [self._motion(record, sha256, model, cut(motion, *span, self._body)) for span in self._spans(motion)]

    def _judge(self, record: Source, take: Take) -> Rejection | None:
        seconds = len(take.times_s) / take.fps if take.fps else 0.0
        for bad, reason, detail, measured, limit in (
            (seconds < self.config.min_s, "too_short", "seconds", seconds, self.config.min_s),
            (take.fps < self.config.min_fps, "frame_rate_too_low", "", take.fps, self.config.min_fps),
        ):
            if bad:
                return self.reject(record, reason, detail, measured=measured, limit=limit)
        return None

    def _spans(self, motion: Retargeted) -> list[tuple[int, int]]:
        """First and one past the last frame of equal pieces."""
        frames = len(motion.trans)
        pieces = max(1, math.ceil(frames / motion.fps / self.config.max_s - 1e-9))
        return list(pairwise(round(piece * frames / pieces) for piece in range(pieces + 1)))

    def _motion(self, record: Source, sha256: str, model: str, piece: Retargeted) -> Motion:
        return Motion(
            provenance=Provenance(
                source=record,
                sha256=sha256,
                person=0,
                start_s=piece.start_s,
                end_s=piece.start_s + len(piece.trans) / piece.fps,
                source_fps=piece.source_fps,
            ),
            footage=None,
            poses=matrix_to_axis_angle(piece.rotations).numpy().astype(np.float32),
            trans=piece.trans.numpy(),
            betas=np.zeros(NUM_SHAPES, np.float32),
            contacts=piece.contacts,
            joint_confidence=piece.joint_confidence,
            to_source=piece.to_source,
            body_model=self._body.id,
            models={self.name: model},
        )
