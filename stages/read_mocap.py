"""Motion capture to SMPL in the world: read a take of any known format, retarget it, and cut it into pieces."""

import hashlib
import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from schemas.body_model import NUM_SHAPES, BodyModel
from schemas.errors import UsageError
from schemas.ids import is_source_id
from schemas.records import Motion, Provenance, Rejection, Source
from schemas.rotations import matrix_to_axis_angle
from schemas.staging import read_source
from stages.base import Stage, StageConfig
from stages.mocap import MAX_TAKE_BYTES, read_take
from stages.mocap.falls import fall_acceleration_g
from stages.mocap.matching import find_map
from stages.mocap.retarget import Retargeted, cut, retarget
from stages.mocap.skeletons import candidate_maps
from stages.mocap.take import MocapError, Take

_VERSION = "retarget 1"


class ReadMocap(Stage[Source, Motion]):
    """Read BVH, ASF/AMC, DeepMimic and AMASS files and retarget them by rotations relative to the T-poses.

    The source world, into which `Motion.to_source` maps, is that of the file in metres, so the matrix also contains the
    ratio of the source's leg length to the body's. All pieces of a take share one ground.
    """

    class Config(StageConfig):
        """Interpretation of files and cutting of takes."""

        min_s: float = 2.0
        """Shortest motion, seconds."""
        max_s: float = 10.0
        """Longest motion, seconds; a longer take is cut into equal pieces."""
        min_fps: float = 12.0
        """Lowest frame rate of a file, frames/s: below it motion cannot be followed."""
        joint_map: str = "auto"
        """Skeleton of the files: `auto` (recognised by the names of the joints or the shape of the tree), `cmu_bvh`, `cmu_asf`,
        `deepmimic`, `bandai_namco`, `amass`, `smpl`, or the path of a YAML file, which `humo skeleton FILE --out map.yaml` writes.
        A manifest's column `joint_map` goes before it."""
        metres_per_unit: float = 0.0
        """Length unit of the files, metres; 0: from the file, or else the unit that gives legs of human length."""
        fps: float = 0.0
        """Frame rate of the files, frames/s; 0: from the file (120 for AMC files, which contain none). A manifest's column `fps`
        goes before it."""
        max_fall_g: float = 2.5
        """Highest downward acceleration of a body's centre, in g; above it the frame rate is wrong, as nothing falls faster
        than 1 g by itself. 0: any."""
        body_model: str = ""
        """Path of a licensed SMPL file (.npz or .pkl); empty for the shipped body."""

    config: Config

    def setup(self) -> None:
        """Load the body and check the joint map. Raises UsageError for an unknown or invalid map."""
        candidate_maps(self.config.joint_map)
        self._body = BodyModel.load(self.config.body_model or None)

    def run(self, record: Source) -> Iterable[Motion | Rejection]:
        """Motions of `min_s` to `max_s` seconds, or a rejection."""
        if record.kind != "mocap":
            return [self.reject(record, "not_mocap", f"a source of kind {record.kind!r}: list it with kind: mocap")]
        if not is_source_id(record.id):
            detail = f"id {record.id!r}: use at most 128 of letters, digits, - and _, or leave the column out"
            return [self.reject(record, "bad_id", detail)]
        try:
            content = read_source(record.location, MAX_TAKE_BYTES)
            take = read_take(record.location, content=content, fps=record.fps or self.config.fps or None)
            joint_map = find_map(take, record.joint_map or self.config.joint_map, file=record.uri)
        except OSError as error:
            return [self.reject_unread(record, error)]
        except MocapError as error:
            return [self.reject(record, error.reason, str(error)[:2000])]
        except UsageError as error:
            # A manifest names a map for this source alone, so the job goes on.
            return [self.reject(record, "bad_joint_map", str(error)[:2000])]
        rejection = self._check_limits(record, take)
        if rejection is not None:
            return [rejection]
        motion = retarget(take, joint_map, self._body, metres_per_unit=self.config.metres_per_unit or None)
        if len(motion.trans) / motion.fps < self.config.min_s:
            # A dropped T-pose can make the motion too short.
            seconds = len(motion.trans) / motion.fps
            return [self.reject(record, "too_short", "seconds", measured=seconds, limit=self.config.min_s)]
        fall_g = fall_acceleration_g(motion.rotations, motion.trans, motion.fps, self._body)
        if 0 < self.config.max_fall_g < fall_g:
            detail = f"falls at {fall_g:.1f} g: the true rate is lower than {take.fps:.4g} frames/s; set it as fps in a manifest"
            return [self.reject(record, "wrong_frame_rate", detail, measured=fall_g, limit=self.config.max_fall_g)]
        sha256 = hashlib.sha256(content).hexdigest()
        model = f"{take.format} {_VERSION}"
        models = {self.name: model}
        if take.betas or take.gender:
            # They belong to the file's body, not to the one that the motion is on.
            betas = "".join(f" {value:g}" for value in take.betas[:NUM_SHAPES])
            models["source_body"] = f"gender {take.gender or 'unknown'}, betas{betas or ' unknown'}"
        return [self._motion(record, sha256, models, cut(motion, *span, self._body)) for span in self._spans(motion)]

    def _check_limits(self, record: Source, take: Take) -> Rejection | None:
        seconds = len(take.times_s) / take.fps if take.fps else 0.0
        for failed, reason, detail, measured, limit in (
            (seconds < self.config.min_s, "too_short", "seconds", seconds, self.config.min_s),
            (take.fps < self.config.min_fps, "frame_rate_too_low", "", take.fps, self.config.min_fps),
        ):
            if failed:
                return self.reject(record, reason, detail, measured=measured, limit=limit)
        return None

    def _spans(self, motion: Retargeted) -> list[tuple[int, int]]:
        """Frame ranges [first, last) of equal pieces."""
        frames = len(motion.trans)
        pieces = max(1, math.ceil(frames / motion.fps / self.config.max_s - 1e-9))
        return list(pairwise(round(piece * frames / pieces) for piece in range(pieces + 1)))

    def _motion(self, record: Source, sha256: str, models: dict[str, str], piece: Retargeted) -> Motion:
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
            models=models,
        )
