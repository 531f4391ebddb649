"""Describe a motion: events and sentences by rules on its kinematics and, optionally, sentences of a describer of its frames.

The rules are always applied: a describer's sentences are checked against their events, and their sentences are kept in any
case.
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
from stages.language.describers.merging import merge_answer
from stages.language.describers.protocol import Describer, RulesOnly, Scene
from stages.language.describers.vlm import Vlm, VlmConfig
from stages.language.rules.rules import describe
from stages.language.rules.thresholds import Thresholds


class WriteCaptions(Stage[ScoredMotion, CaptionedMotion]):
    """Caption a motion: sentences for the body and for each part, a phrase for each event."""

    class Config(Thresholds):
        body_model: str = ""
        """Path of the motions' body model; empty: the shipped one."""
        describer: Literal["rules", "vlm", "coca"] = "rules"
        """Describer in addition to the rules: none, a vision-language model behind an endpoint, or CoCa."""
        vlm: VlmConfig = VlmConfig()
        """The endpoint, for `describer: vlm`."""
        coca: CocaConfig = CocaConfig()
        """The weights, for `describer: coca`."""

    def __init__(self, config: StageConfig | None = None) -> None:
        super().__init__(config)
        self._body: BodyModel | None = None
        self._describer: Describer = RulesOnly()

    def setup(self) -> None:
        """Load the body model and the describer. Raises HumoError if something that they need is missing."""
        self._body = BodyModel.load(self.config.body_model or None)
        if self.config.describer == "vlm":
            self._describer = Vlm(self.config.vlm)
        elif self.config.describer == "coca":
            self._describer = Coca(self.config.coca)

    @property
    def needs_network(self) -> bool:
        """For an endpoint."""
        return self.config.describer == "vlm"

    def remark(self) -> str:
        """Where frames are sent, if anywhere."""
        vlm = self.config.vlm
        return f"frames of the videos are sent to {vlm.endpoint}" if self.config.describer == "vlm" else ""

    def run(self, record: ScoredMotion) -> Iterator[CaptionedMotion]:
        """The motion with its captions. Raises HumoError for a motion with another body model than the configured one."""
        if self._body is None:
            self.setup()
        assert self._body is not None
        motion = record.motion
        if motion.body_model != self._body.id:
            raise HumoError(
                f"{motion.id}: its body model is {motion.body_model}, not {self._body.id}; set write_captions.body_model "
                f"to the path of that body model"
            )
        rule_captions = self._rule_captions(motion, self._body)
        transcript, transcriber = Transcript(), "none"
        if motion.footage is not None:
            video = motion.footage.clip.track.shot.video
            transcript = video.transcript.between(motion.provenance.start_s, motion.provenance.end_s)
            transcriber = video.models.get("transcribe", "none")
        transcriber = "none" if transcriber.startswith("failed") else transcriber
        rule_captions = replace(rule_captions, writers={**rule_captions.writers, "transcript": transcriber})
        scene = Scene(motion=motion, rule_captions=rule_captions, transcript=transcript)
        captions = merge_answer(rule_captions, self._describer.describe(scene))
        yield CaptionedMotion(scored=record, captions=captions, transcript=transcript)

    def _rule_captions(self, motion: Motion, body: BodyModel) -> Captions:
        return describe(
            axis_angle_to_matrix(torch.from_numpy(np.asarray(motion.poses, np.float64))),
            torch.from_numpy(np.asarray(motion.trans, np.float64)),
            body.rest_joints(torch.from_numpy(np.asarray(motion.betas, np.float32))),
            motion.joint_confidence,
            self.config,
            seed=motion.id,
            seen=motion.seen,
        )
