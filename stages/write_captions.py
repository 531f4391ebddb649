"""Describe a motion by rules on its kinematics: events, sentences for the body at three lengths, sentences for each part."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.records import FPS, CaptionedMotion, Captions, Event, ScoredMotion, Transcript
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import PARTS
from stages.base import Stage, StageConfig
from stages.captions.body_events import body_events
from stages.captions.kinematics import SIDES, Kinematics, kinematics
from stages.captions.limb_events import arm_events, event, leg_events, torso_events
from stages.captions.phrases import phrase
from stages.captions.sentences import body_sentences, part_sentences
from stages.captions.signals import Span
from stages.captions.thresholds import Thresholds

RULES = "rules 1"
"""Who writes: raise the number whenever the same motion would be described differently."""


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


def describe(
    rotations: Float[Tensor, "T 24 3 3"],
    trans: Float[Tensor, "T 3"],
    rest_joints: Float[Tensor, "24 3"],
    joint_confidence: Float[np.ndarray, "T 24"],
    limits: Thresholds,
    *,
    seed: str,
) -> Captions:
    """Captions of a motion at 30 fps. The seed picks among wordings; the mirrored motion with the same seed gets the same
    text with left and right exchanged."""
    k = kinematics(
        rotations,
        trans,
        rest_joints,
        joint_confidence,
        smoothing_s=limits.smoothing_s,
        travel_smoothing_s=limits.travel_smoothing_s,
        min_confidence=limits.min_confidence,
    )
    events = find_events(k, limits)
    return Captions(
        body=body_sentences(events, seed),
        parts={part: part_sentences(part, events, k.seen[part], seed) for part in PARTS},
        events=events,
        writers={"body": RULES, "parts": RULES, "events": RULES, "transcript": "none"},
    )


def find_events(k: Kinematics, limits: Thresholds) -> tuple[Event, ...]:
    """All events in order of time; at least one for the body and one for every part."""
    body = body_events(k, limits)
    jumps, lying = _frames(body, ("jump",)), _frames(body, ("lie", "crawl"))
    found = {f"{side}_arm": arm_events(k, side, limits).events for side in SIDES}
    found |= {f"{side}_leg": leg_events(k, side, jumps, limits).events for side in SIDES}
    found["torso"] = torso_events(k, lying, limits).events
    events = list(body)
    for part in PARTS:
        events += found[part] if k.seen[part] and found[part] else [_rest(k, part)]
    worded = [replace(e, text=phrase(e) if e.part == "body" or k.seen[e.part] else "is out of view") for e in events]
    return tuple(sorted(worded, key=lambda e: (e.start_s, e.end_s, e.part, e.kind)))


def _rest(k: Kinematics, part: str) -> Event:
    """A part that does nothing, over the whole motion; its amount is how far its last joint strays in body axes."""
    joint = PARTS[part][-1] if k.seen[part] else PARTS[part][1]
    path = k.at(joint)
    side = part.split("_")[0] if "_" in part else "none"
    strayed = float(np.linalg.norm(path - path.mean(0), axis=-1).max()) if k.seen[part] else 0.0
    return event(part, "rest", (0, len(k)), strayed, joint=joint, side=side)


def _frames(events: list[Event], kinds: tuple[str, ...]) -> list[Span]:
    return [(round(e.start_s * FPS), round(e.end_s * FPS)) for e in events if e.kind in kinds]
