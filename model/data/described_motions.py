"""Motions of a dataset with the sentences of people about them, or with its own captions where nobody wrote any."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from model.data.samples import MotionSample, slice_frames
from schemas.human_texts import Texts, name_words
from schemas.sample import MotionArrays


@dataclass(frozen=True, kw_only=True, eq=False)
class DescribedMotion:
    """A motion, or a span of one, with one sentence."""

    key: str
    """The sample's key."""
    motion: MotionArrays
    text: str


def take_of(sample: MotionSample) -> str:
    """The name of the take or video that a sample is from: its file's name without folder and ending."""
    return PurePosixPath(str(sample.meta["uri"])).stem


def human_sentences(sample: MotionSample, texts: Texts) -> tuple[str, ...]:
    """What people wrote of the take that a sample is from, whole or this span; else the words of its name, if it has any."""
    start_s, end_s = float(sample.meta["start_s"]), float(sample.meta["end_s"])
    sentences = texts.sentences(take_of(sample))
    found = tuple(one.text for one in sentences if one.start_s <= start_s + 0.5 and one.end_s >= end_s - 0.5)
    words = name_words(take_of(sample))
    return found or ((words,) if words else ())


def described(
    sample: MotionSample, texts: Texts | None, *, sources: tuple[str, ...] = (), min_frames: int = 1
) -> Iterator[DescribedMotion]:
    """The sample with each sentence about it; a sentence about a span of its take comes with the frames of that span.

    `sources` selects sentences by the key under which their file has them; empty means all. Without `texts`, the sentence is
    the first of the sample's own captions. With them, samples of which nobody wrote have the words of their take's name.
    """
    if texts is None:
        if sample.body:
            yield DescribedMotion(key=sample.key, motion=sample.motion, text=sample.body[0])
        return
    sentences = [one for one in texts.sentences(take_of(sample)) if not sources or one.source in sources]
    if not sentences and not sources and name_words(take_of(sample)):
        yield DescribedMotion(key=sample.key, motion=sample.motion, text=name_words(take_of(sample)))
    start_s, fps = float(sample.meta["start_s"]), float(sample.meta["fps"])
    frames = len(sample.motion.poses)
    for one in sentences:
        first = max(0, round((one.start_s - start_s) * fps))
        last = frames if one.end_s == float("inf") else min(frames, round((one.end_s - start_s) * fps))
        if last - first > min_frames:
            yield DescribedMotion(key=sample.key, motion=slice_frames(sample.motion, first, last), text=one.text)
