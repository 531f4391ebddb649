"""Describe a motion by rules on its kinematics: events, sentences for the body at three lengths, sentences for each part."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.records import CaptionedMotion, ScoredMotion, Transcript
from schemas.rotations import axis_angle_to_matrix
from stages.base import Stage, StageConfig
from stages.captions.rules import describe
from stages.captions.thresholds import Thresholds


class WriteCaptions(Stage[ScoredMotion, CaptionedMotion]):
    """Say what is done: sentences for the body and for each part, a phrase for each event."""

    class Config(Thresholds):
        body_model: str = ""
        """Path of the body that the motions are in; empty: the shipped one."""

    def __init__(self, config: StageConfig | None = None) -> None:
        super().__init__(config)
        self._body: BodyModel | None = None

    def setup(self) -> None:
        """Read the body model. Raises HumoError where it is missing."""
        self._body = BodyModel.load(self.config.body_model or None)

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
        captions = describe(
            axis_angle_to_matrix(torch.from_numpy(np.asarray(motion.poses, np.float64))),
            torch.from_numpy(np.asarray(motion.trans, np.float64)),
            self._body.rest_joints(torch.from_numpy(np.asarray(motion.betas, np.float32))),
            motion.joint_confidence,
            self.config,
            seed=motion.id,
        )
        transcript, listener = Transcript(), "none"
        if motion.footage is not None:
            video = motion.footage.clip.track.shot.video
            transcript = video.transcript.between(motion.provenance.start_s, motion.provenance.end_s)
            listener = video.models.get("transcribe", "none")
        writers = {**captions.writers, "transcript": "none" if listener.startswith("failed") else listener}
        yield CaptionedMotion(scored=record, captions=replace(captions, writers=writers), transcript=transcript)
