"""Long motions: clips of one person, or of people with matching poses, joined smoothly one after another."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from pydantic import Field, model_validator

from schemas.body_model import BodyModel
from schemas.coverage import seen_confidence, seen_contacts
from schemas.errors import UsageError
from schemas.ids import unit_interval
from schemas.kinematics import start_at_origin
from schemas.records import FPS, Motion, Provenance, Rejection
from schemas.rotations import matrix_to_axis_angle
from stages.base import Stage, StageConfig
from stages.joining.blend import join
from stages.joining.clips import Opening, SampleClip, max_cut_frames, segment, spdx_and
from stages.joining.measure import SeamReport, measure_seams
from stages.joining.pieces import Body, Piece
from stages.joining.seams import best_seam, entry_candidates, exit_candidates
from stages.joining.step_captions import actions_of

_VERSION = "join 1"
_REPETITION_COST_M = 0.05
"""Extra cost of a seam after which the same action continues."""


class JoinClips(Stage[Opening, Motion]):
    """Extend the opening with the best-matching clip until the motion is long enough.

    Clips of the same person come first, clips of other people only where none of those matches; all show as much of the body. The
    result is on the opening's body; the paths of other people are scaled with the leg length. A joined motion has its own world
    frame.
    """

    class Config(StageConfig):
        """Lengths of the motions, and how well clips must match."""

        min_s: float = Field(10.0, gt=0)
        """Minimum length of a long motion, seconds."""
        max_s: float = Field(60.0, gt=0)
        """Maximum length, seconds; each motion ends once it exceeds its own random target length between the two."""
        max_cost_m: float = Field(0.25, gt=0)
        """Maximum cost of a seam, metres: mean joint distance, plus the distance that velocity differences accumulate in
        0.2 s and 3 cm for each contact point that is planted on one side only."""
        cut_share: float = Field(0.25, gt=0, le=0.4)
        """Maximum share of a clip that is cut off at either end to find a better seam."""
        cut_s: float = Field(1.0, gt=0)
        """The same in seconds; the smaller limit applies."""
        fade_s: float = Field(0.4, ge=0.1)
        """Time over which the discontinuity at a seam fades out on either side, seconds."""
        candidates: int = Field(24, ge=1)
        """Number of clips tried for each seam, those of the same person first."""
        seed: int = 0
        """Seed of the target lengths and of the choice of clips tried."""
        body_model: str = ""
        """Body model of the motions: path of a licensed SMPL file (.npz or .pkl); empty for the shipped body."""

        @model_validator(mode="after")
        def _ordered(self) -> "JoinClips.Config":
            if self.min_s > self.max_s:
                raise ValueError(f"min_s is {self.min_s} and max_s is {self.max_s}; min_s must not be larger")
            return self

    config: Config

    def setup(self) -> None:
        """Load the body model."""
        self.body = Body(BodyModel.load(self.config.body_model or None))
        self.reports: dict[str, SeamReport] = {}
        """Joined motion's id -> its smoothness at the seams."""

    def run(self, record: Opening) -> Iterable[Motion | Rejection]:
        """The long motion, or a rejection if too few clips match."""
        if record.first.body_model != self.body.model.id:
            raise UsageError(
                f"{record.first.key}: its body model is {record.first.body_model}, not {self.body.model.id}; set "
                "join_clips.body_model to the path of that body model"
            )
        config = self.config
        max_frames = round(config.max_s * FPS)
        fraction = unit_interval("join", config.seed, record.first.key)
        target_frames = round((config.min_s + (config.max_s - config.min_s) * fraction) * FPS)
        joined = Piece.of(record.first.motion, self.body)
        parts = [(record.first, 0, 0)]  # clip, its first frame in the joined motion, first frame of the clip used
        while len(joined) < target_frames:
            continuation = self._next(record, joined, [clip for clip, _, _ in parts], len(joined) - parts[-1][1])
            if continuation is None:
                break
            clip, piece = continuation
            exits = exit_candidates(joined, len(joined) - self._max_cut(len(joined) - parts[-1][1]), len(joined))
            seam = best_seam(exits, entry_candidates(piece, 0, self._max_cut(len(piece))))
            joined = join(joined, piece, seam, round(config.fade_s * FPS))
            parts.append((clip, seam.last + 1, seam.first))
        joined = joined.between(0, min(len(joined), max_frames))
        if len(parts) < 2 or len(joined) < config.min_s * FPS:
            seconds = len(joined) / FPS
            return [self.reject(record, "too_little_fits", "seconds", measured=seconds, limit=config.min_s)]
        motion = self._motion(record, joined, parts)
        self.reports[motion.id] = measure_seams(joined, [start for _, start, _ in parts[1:]], round(FPS / 2))
        return [motion]

    def _max_cut(self, frames: int) -> int:
        return max_cut_frames(frames, self.config.cut_share, round(self.config.cut_s * FPS))

    def _next(
        self, record: Opening, joined: Piece, used: list[SampleClip], last_frames: int
    ) -> tuple[SampleClip, Piece] | None:
        """The next clip and its piece on the joined motion's body, or None if no clip matches; `last_frames` is the length
        of the last segment."""
        config, keys = self.config, {clip.key for clip in used}
        # A clip that would be cut off at the end is used only if the motion would be too short without it.
        room = round(config.max_s * FPS) - len(joined) if len(joined) >= config.min_s * FPS else math.inf
        unused = [
            clip
            for clip in record.candidates
            if clip.key not in keys and len(clip) <= room and clip.coverage == record.first.coverage
        ]
        unused.sort(
            key=lambda clip: (
                clip.person != used[-1].person,
                unit_interval(config.seed, record.id, len(used), clip.key),
            )
        )
        exits = exit_candidates(joined, len(joined) - self._max_cut(last_frames), len(joined))
        costs = []
        for index, clip in enumerate(unused[: config.candidates]):
            cost = best_seam(exits, clip.entries(config.cut_share, round(config.cut_s * FPS))).cost_m
            if cost <= config.max_cost_m:
                repeats = actions_of(clip.captions) == actions_of(used[-1].captions) != frozenset()
                costs.append((clip.person != used[-1].person, cost + _REPETITION_COST_M * repeats, index))
        if not costs:
            return None
        clip = unused[min(costs)[2]]
        return clip, Piece.of(clip.motion, self.body, joined.betas.numpy())

    def _motion(self, record: Opening, joined: Piece, parts: list[tuple[SampleClip, int, int]]) -> Motion:
        ends = [start for _, start, _ in parts[1:]] + [len(joined)]
        segments = tuple(
            segment(clip, start, end, first) for (clip, start, first), end in zip(parts, ends, strict=True)
        )  # fmt: skip
        sources = [item.provenance.source for item in segments]
        opening = record.first.provenance
        rotations, trans, _ = start_at_origin(joined.rotations, joined.trans, joined.rest[0])
        models: dict[str, set[str]] = {self.name: {_VERSION}}
        for clip, _, _ in parts:
            for name, version in clip.models.items():
                models.setdefault(name, set()).add(version)
        return Motion(
            provenance=Provenance(
                source=replace(
                    record.source,
                    licence=spdx_and(source.licence for source in sources),
                    consent=spdx_and(source.consent for source in sources),
                ),
                sha256=opening.sha256,
                person=opening.person,
                start_s=0.0,
                end_s=len(joined) / FPS,
                source_fps=opening.source_fps,
            ),
            footage=None,
            poses=matrix_to_axis_angle(rotations).numpy().astype(np.float32),
            trans=trans.numpy().astype(np.float32),
            betas=joined.betas.numpy(),
            contacts=seen_contacts(joined.planted.astype(np.uint8), joined.seen),
            joint_confidence=seen_confidence(joined.confidence, joined.seen),
            to_source=torch.eye(4).numpy(),
            body_model=self.body.model.id,
            models={name: "; ".join(sorted(versions)) for name, versions in models.items()},
            segments=segments,
            seen=joined.seen,
        )
