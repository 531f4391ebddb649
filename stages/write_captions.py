"""Describe a motion: events and sentences by rules on its kinematics and, if wanted, sentences of a describer that looks at it.

The rules always write: their events are what a describer's sentences are held against, and their sentences remain whatever
becomes of the others.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.records import CaptionedMotion, Captions, Motion, ScoredMotion, Transcript
from schemas.rotations import axis_angle_to_matrix
from stages.base import Stage, StageConfig
from stages.language.describers.coca import Coca, CocaConfig
from stages.language.describers.keeping import merge_answer
from stages.language.describers.protocol import Describer, RulesAlone, Scene
from stages.language.describers.vlm import Vlm, VlmConfig
from stages.language.rules.rules import describe
from stages.language.rules.thresholds import Thresholds


class WriteCaptions(Stage[ScoredMotion, CaptionedMotion]):
    """Say what is done: sentences for the body and for each part, a phrase for each event."""

    class Config(Thresholds):
        body_model: str = ""
        """Path of the body that the motions are in; empty: the shipped one."""
        describer: Literal["rules", "vlm", "coca"] = "rules"
        """Who writes besides the rules: nobody, a vision-language model behind an endpoint, or CoCa."""
        vlm: VlmConfig = VlmConfig()
        """The endpoint, for `describer: vlm`."""
        coca: CocaConfig = CocaConfig()
        """The weights, for `describer: coca`."""

    def __init__(self, config: StageConfig | None = None) -> None:
        super().__init__(config)
        self._body: BodyModel | None = None
        self._describer: Describer = RulesAlone()

    def setup(self) -> None:
        """Read the body model and make the describer ready. Raises HumoError where something that it needs is missing."""
        self._body = BodyModel.load(self.config.body_model or None)
        if self.config.describer == "vlm":
            self._describer = Vlm(self.config.vlm)
        elif self.config.describer == "coca":
            self._describer = Coca(self.config.coca)

    def remark(self) -> str:
        """Where pictures go, if anywhere."""
        vlm = self.config.vlm
        return f"frames of the videos are sent to {vlm.endpoint}" if self.config.describer == "vlm" else ""

    def run(self, record: ScoredMotion) -> Iterator[CaptionedMotion]:
        """The motion with its captions. Raises HumoError for a motion in another body than the config names."""
        if self._body is None:
            self.setup()
        assert self._body is not None
        motion = record.motion
        if motion.body_model != self._body.id:
            raise HumoError(
                f"{motion.id}: its body model is {motion.body_model}, not {self._body.id}; give write_captions the path "
                f"of that body model"
            )
        ruled = self._ruled(motion, self._body)
        transcript, listener = Transcript(), "none"
        if motion.footage is not None:
            video = motion.footage.clip.track.shot.video
            transcript = video.transcript.between(motion.provenance.start_s, motion.provenance.end_s)
            listener = video.models.get("transcribe", "none")
        writers = {**ruled.writers, "transcript": "none" if listener.startswith("failed") else listener}
        ruled = replace(ruled, writers=writers)
        answer = self._describer.describe(Scene(motion=motion, ruled=ruled, transcript=transcript))
        yield CaptionedMotion(scored=record, captions=merge_answer(ruled, answer), transcript=transcript)

    def _ruled(self, motion: Motion, body: BodyModel) -> Captions:
        return describe(
            axis_angle_to_matrix(torch.from_numpy(np.asarray(motion.poses, np.float64))),
            torch.from_numpy(np.asarray(motion.trans, np.float64)),
            body.rest_joints(torch.from_numpy(np.asarray(motion.betas, np.float32))),
            motion.joint_confidence,
            self.config,
            seed=motion.id,
        )
