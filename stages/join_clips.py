"""Long motions: clips of one person, or of people who move alike, one after another without a seam to be seen."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from pydantic import Field, model_validator

from schemas.body_model import BodyModel
from schemas.errors import UsageError
from schemas.ids import unit_interval
from schemas.kinematics import start_at_origin
from schemas.records import FPS, Motion, Provenance, Rejection
from schemas.rotations import matrix_to_axis_angle
from stages.base import Stage, StageConfig
from stages.joining.blend import join
from stages.joining.clips import Opening, SampleClip, reach, segment, together
from stages.joining.measure import SeamReport, measure
from stages.joining.pieces import Body, Piece
from stages.joining.seams import best_seam, head, tail
from stages.joining.telling import actions_of

_VERSION = "join 1"
_DULL_M = 0.05
"""What a seam costs after which the same goes on."""


class JoinClips(Stage[Opening, Motion]):
    """Go on from the opening with the clip that fits best, another time and another, until the motion is long enough.

    Clips of the same person come first; others only where none of those fits. The body is the opening's, and the way of
    whoever has longer or shorter legs shrinks or grows with them. A joined motion has a world of its own.
    """

    class Config(StageConfig):
        """How long, and how well clips must fit."""

        min_s: float = Field(10.0, gt=0)
        """Shortest long motion, seconds."""
        max_s: float = Field(60.0, gt=0)
        """Longest long motion, seconds; each has a length of its own in between that it ends after."""
        max_cost_m: float = Field(0.25, gt=0)
        """How far joints may be apart at a seam, metres: mean over joints, with what their velocities lead apart in a fifth
        of a second and 3 cm a foot point that stands in one of the two only."""
        cut_share: float = Field(0.25, gt=0, le=0.4)
        """Most of a clip that is cut off at either end to find a better seam, as a share of its length."""
        cut_s: float = Field(1.0, gt=0)
        """The same in seconds; the smaller counts."""
        fade_s: float = Field(0.4, ge=0.1)
        """How long, before a seam and after it, what is apart at the seam takes to fade, seconds."""
        candidates: int = Field(24, ge=1)
        """Clips that are tried for each seam, of the same person first."""
        seed: int = 0
        """Of lengths and of which clips are tried."""
        body_model: str = ""
        """Path of a licensed SMPL file (.npz or .pkl); empty for the shipped body. The body of the motions."""

        @model_validator(mode="after")
        def _ordered(self) -> "JoinClips.Config":
            if self.min_s > self.max_s:
                raise ValueError(f"min_s is {self.min_s} and max_s {self.max_s}: the first must not be the larger")
            return self

    config: Config

    def setup(self) -> None:
        """Read the body."""
        self.body = Body(BodyModel.load(self.config.body_model or None))
        self.reports: dict[str, SeamReport] = {}
        """Joined motion -> how it does at its seams."""

    def run(self, record: Opening) -> Iterable[Motion | Rejection]:
        """The long motion, or that too little fits."""
        if record.first.body_model != self.body.model.id:
            raise UsageError(
                f"{record.first.key}: made for {record.first.body_model}, not {self.body.model.id}: name that body in "
                "join_clips.body_model"
            )
        limits = self.config
        most = round(limits.max_s * FPS)
        place = unit_interval("join", limits.seed, record.first.key)
        enough = round((limits.min_s + (limits.max_s - limits.min_s) * place) * FPS)
        joined = Piece.of(record.first.motion, self.body)
        parts = [(record.first, 0, 0)]
        while len(joined) < enough:
            found = self._next(record, joined, [clip for clip, _, _ in parts], len(joined) - parts[-1][1])
            if found is None:
                break
            clip, piece = found
            end = tail(joined, len(joined) - self._reach(len(joined) - parts[-1][1]), len(joined))
            seam = best_seam(end, head(piece, 0, self._reach(len(piece))))
            joined = join(joined, piece, seam, round(limits.fade_s * FPS))
            parts.append((clip, seam.last + 1, seam.first))
        joined = joined.between(0, min(len(joined), most))
        if len(parts) < 2 or len(joined) < limits.min_s * FPS:
            seconds = len(joined) / FPS
            return [self.reject(record, "too_little_fits", "seconds", measured=seconds, limit=limits.min_s)]
        motion = self._motion(record, joined, parts)
        self.reports[motion.id] = measure(joined, [start for _, start, _ in parts[1:]], round(FPS / 2))
        return [motion]

    def _reach(self, frames: int) -> int:
        return reach(frames, self.config.cut_share, round(self.config.cut_s * FPS))

    def _next(
        self, record: Opening, joined: Piece, used: list[SampleClip], last: int
    ) -> tuple[SampleClip, Piece] | None:
        """The clip to go on with, on the body of the joined motion; none where nothing fits."""
        limits, keys = self.config, {clip.key for clip in used}
        # A clip that would be cut off at the end is taken only where the motion would be too short without it.
        room = round(limits.max_s * FPS) - len(joined) if len(joined) >= limits.min_s * FPS else math.inf
        free = [clip for clip in record.others if clip.key not in keys and len(clip) <= room]
        free.sort(
            key=lambda clip: (
                clip.person != used[-1].person,
                unit_interval(limits.seed, record.id, len(used), clip.key),
            )
        )
        end = tail(joined, len(joined) - self._reach(last), len(joined))
        costs = []
        for place, clip in enumerate(free[: limits.candidates]):
            entrance = clip.entrance(limits.cut_share, round(limits.cut_s * FPS))
            cost = best_seam(end, entrance).cost_m
            if cost <= limits.max_cost_m:
                dull = actions_of(clip.captions) == actions_of(used[-1].captions) != frozenset()
                costs.append((clip.person != used[-1].person, cost + _DULL_M * dull, place))
        if not costs:
            return None
        clip = free[min(costs)[2]]
        return clip, Piece.of(clip.motion, self.body, joined.betas.numpy())

    def _motion(self, record: Opening, joined: Piece, parts: list[tuple[SampleClip, int, int]]) -> Motion:
        ends = [start for _, start, _ in parts[1:]] + [len(joined)]
        segments = tuple(
            segment(clip, start, end, first) for (clip, start, first), end in zip(parts, ends, strict=True)
        )  # fmt: skip
        sources = [one.provenance.source for one in segments]
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
                    licence=together(source.licence for source in sources),
                    consent=together(source.consent for source in sources),
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
            contacts=joined.planted.astype(np.uint8),
            joint_confidence=joined.confidence.astype(np.float32),
            to_source=torch.eye(4).numpy(),
            body_model=self.body.model.id,
            models={name: "; ".join(sorted(versions)) for name, versions in models.items()},
            segments=segments,
        )
