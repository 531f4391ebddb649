"""What a language model generates for a split: motions for its texts, continuations of its motions, sentences about them.

Rivals stand beside: the split's own motions, the training motion whose sentence is nearest to the text, and a body that stays in
its last pose.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from model.data.described_motions import DescribedMotion
from model.data.samples import slice_frames
from model.evaluation.limbs import parse_limb
from model.evaluation.motions import Judge
from model.evaluation.protocol import Interval, Retrieval, fid, fid_warning, multimodality, retrieval
from model.evaluation.text_metrics import TextScores, score_texts
from model.generation.generator import GUIDANCE, MAX_SECONDS, Generator
from schemas.errors import HumoError
from schemas.records import FPS
from schemas.sample import MotionArrays

HORIZONS_S = (0.5, 1.0)
"""Times after the given part at which continuations are measured."""
_TIMED = 5
"""Motions whose first frames are timed."""


@dataclass(frozen=True, kw_only=True)
class TextToMotion:
    """Judged by an evaluator; sentences that mean the same share no batch."""

    evaluator: str
    texts: int
    seeds: int
    """Motions of each text."""
    real: Retrieval
    generated: Retrieval
    nearest_sentence: Retrieval
    """Training motions whose sentence is nearest to each text."""
    fid: float
    nearest_sentence_fid: float
    to_nearest_training_motion: float
    """Mean distance of generated motions to the nearest training motion, in the evaluator's space."""
    real_to_nearest_training_motion: float
    """The same of the split's own motions: copies of training motions are nearer."""
    multimodality: Interval | None
    """Mean distance of motions of the same text; None for one seed."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """Motions continued from their first half, with their text."""

    motions: int
    error_mm: dict[str, float]
    """Mean distance of joints from the real ones, relative to the pelvis, by seconds after the given part."""
    still_mm: dict[str, float]
    """The same of a body that stays in its last pose."""


@dataclass(frozen=True, kw_only=True)
class MotionToText:
    """Sentences about the split's motions."""

    scores: TextScores
    """Against the motions' own sentences."""
    different: int
    """Different answers."""
    different_texts: int
    """Different sentences of the split."""
    side_accuracy: float
    """Share of answers that name the limb and the side of the sentence, of those whose sentence names one; NaN if none does."""
    sides: int


@dataclass(frozen=True, kw_only=True)
class GenerationReport:
    """All of it, with the speed of generation."""

    t2m: TextToMotion
    prediction: Continuation | None
    """None if no motion is long enough."""
    m2t: MotionToText
    frames_per_s: float
    first_frame_ms: float
    """From the request to the first frames; median."""
    parameters: int


def evaluate_generation(
    generator: Generator,
    judge: Judge,
    dataset: str,
    *,
    split: str = "val",
    limit: int = 50,
    training: str = "",
    rivals: int = 2000,
    seeds: int = 1,
    guidance: float = GUIDANCE,
    seed: int = 0,
) -> GenerationReport:
    """Generate for up to `limit` samples of a split, and judge. Up to `rivals` motions of the training split are
    rivals, of another dataset if `training` names one.

    Raises HumoError if there are fewer than two motions to judge in either split.
    """
    real = judge.described(dataset, split=split, limit=limit)
    known = judge.described(training or dataset, split="train", limit=rivals)
    for place, name, found in ((dataset, split, real), (training or dataset, "train", known)):
        if len(found) < 2:
            raise HumoError(
                f"{place}: {len(found)} motions with a sentence in {name}, two are needed; select another split or dataset"
            )
    begin, frames, made = time.perf_counter(), 0, []
    for one in real:
        seconds = min(len(one.motion.poses) / FPS, MAX_SECONDS)
        for number in range(seeds):
            motion = generator.generate(one.text, seconds=seconds, seed=seed + number, guidance=guidance).motion
            frames += len(motion.poses)
            made.append(motion)
    frames_per_s = frames / (time.perf_counter() - begin)
    return GenerationReport(
        t2m=_text_to_motion(judge, real, known, made, seeds, seed),
        prediction=_continuation(generator, real, guidance, seed),
        m2t=_motion_to_text(generator, real),
        frames_per_s=frames_per_s,
        first_frame_ms=_first_frame_ms(generator, [one.text for one in real[:_TIMED]], guidance),
        parameters=sum(parameter.numel() for parameter in generator.model.parameters()),
    )


def _text_to_motion(
    judge: Judge,
    real: Sequence[DescribedMotion],
    rivals: Sequence[DescribedMotion],
    made: Sequence[MotionArrays],
    seeds: int,
    seed: int,
) -> TextToMotion:
    texts = [one.text for one in real]
    vectors, training = (judge.vectors([one.motion for one in several]) for several in (real, rivals))
    generated = judge.vectors(made)
    sentences, known = (
        F.normalize(judge.encoder.encode(several), dim=1) for several in (texts, [one.text for one in rivals])
    )
    nearest = training[(sentences @ known.T).argmax(1)]
    words, same = judge.text_vectors(texts), judge.same(texts)
    first = generated[::seeds]
    return TextToMotion(
        evaluator=judge.name,
        texts=len(texts),
        seeds=seeds,
        real=retrieval(vectors, words, same, seed=seed),
        generated=retrieval(first, words, same, seed=seed),
        nearest_sentence=retrieval(nearest, words, same, seed=seed),
        fid=fid(vectors, first),
        nearest_sentence_fid=fid(vectors, nearest),
        to_nearest_training_motion=_to_nearest(first, training),
        real_to_nearest_training_motion=_to_nearest(vectors, training),
        multimodality=multimodality(list(generated.split(seeds)), seed=seed),
        warnings=tuple(filter(None, [fid_warning(len(texts), vectors.shape[1])])),
    )


def _continuation(
    generator: Generator, real: Sequence[DescribedMotion], guidance: float, seed: int
) -> Continuation | None:
    errors: dict[str, list[float]] = {f"{horizon:g}": [] for horizon in HORIZONS_S}
    still: dict[str, list[float]] = {name: [] for name in errors}
    count, needed = 0, round(max(HORIZONS_S) * FPS)
    for one in real:
        half = len(one.motion.poses) // 2
        rest = len(one.motion.poses) - half
        if half <= generator.encoder.downsample or rest <= needed:
            continue
        count += 1
        given = slice_frames(one.motion, 0, half)
        seconds = min(rest / FPS, MAX_SECONDS)
        made = generator.generate(one.text, seconds=seconds, initial=given, seed=seed, guidance=guidance).motion
        true, other = generator.local_joints(one.motion), generator.local_joints(made)
        for horizon in HORIZONS_S:
            frame = min(round(horizon * FPS), len(other)) - 1
            for found, joints in ((errors, other[frame]), (still, true[half - 1])):
                distance = (joints - true[half + frame]).norm(dim=-1).mean().item()
                found[f"{horizon:g}"].append(1e3 * distance)
    if not count:
        return None
    return Continuation(
        motions=count,
        error_mm={name: float(np.mean(values)) for name, values in errors.items()},
        still_mm={name: float(np.mean(values)) for name, values in still.items()},
    )


def _motion_to_text(generator: Generator, real: Sequence[DescribedMotion]) -> MotionToText:
    answers = [generator.describe(one.motion) for one in real]
    named = [
        (limb, parse_limb(answer)) for one, answer in zip(real, answers, strict=True) if (limb := parse_limb(one.text))
    ]
    return MotionToText(
        scores=score_texts(answers, [[one.text] for one in real]),
        different=len(set(answers)),
        different_texts=len({one.text for one in real}),
        side_accuracy=float(np.mean([found == limb for limb, found in named])) if named else float("nan"),
        sides=len(named),
    )


def _first_frame_ms(generator: Generator, texts: Sequence[str], guidance: float) -> float:
    taken = []
    for text in texts:
        begin = time.perf_counter()
        next(iter(generator.frames(text, seconds=1.0, guidance=guidance)))
        taken.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(taken)


def _to_nearest(vectors: Float[Tensor, "N L"], others: Float[Tensor, "M L"]) -> float:
    return torch.cdist(vectors, others).min(1).values.mean().item()
