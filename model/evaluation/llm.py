"""Likelihood and left-right accuracy of a language model, on a split of a dataset."""

import itertools
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from model.data.dataset import MotionDataset, check_body_model
from model.data.text import mirror_text
from model.evaluation.generation import GenerationReport, evaluate_generation
from model.evaluation.limbs import SIDES, parse_limb
from model.evaluation.motions import Judge
from model.features import humo263
from model.features.motions import motion_features
from model.generation.generator import Generator
from model.llm.encoding import EncodedSample
from model.llm.loading import load_llm
from model.llm.tasks import build, caption_instruction
from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.sample import MotionArrays
from schemas.skeleton import joint

_DRIFT_FRAMES = 60


@dataclass(frozen=True, kw_only=True)
class LanguageModelReport:
    """Likelihood of a split's captions and motions, and left-right accuracy of generated motions."""

    motions: int
    motion_nats: float
    """Mean negative log-likelihood per code."""
    motion_perplexity: float
    text_nats: float
    """Mean negative log-likelihood per text token of instructions and captions."""
    text_perplexity: float
    exchange_accuracy: float
    """Fraction of prompts about one arm or leg for which that limb moves more than the opposite one, both for the prompt and
    with left and right swapped; NaN if the split has no such prompt."""
    exchange_prompts: int
    generation: GenerationReport | None = None
    """What it generates for the split; None if nothing was to be generated."""


def evaluate_llm(
    checkpoint: str | Path,
    dataset: str,
    *,
    split: str = "val",
    task: str | None = None,
    limit: int | None = 200,
    exchange_prompts: int = 20,
    generated: int = 0,
    seeds: int = 1,
    evaluator: str | Path = "",
    training: str = "",
    seed: int = 0,
    body_model: str = "",
    device: str = "cpu",
) -> LanguageModelReport:
    """Likelihoods over captions and instructions, or over those of `task` only; then left-right accuracy on up to
    `exchange_prompts` captions of the split; with `generated`, what it generates for so many of its samples, `seeds` motions
    each, judged by `evaluator` (by default the shipped one) beside rivals from the training split, of the dataset `training` if
    that is named. Raises HumoError for an unusable checkpoint or dataset."""
    loaded = load_llm(checkpoint)
    generator = Generator(loaded, body_model=body_model, device=device)
    check_body_model(dataset, generator.body)
    model, packer = generator.model, generator.packer
    sums = {"motion": 0.0, "text": 0.0}
    counts = {"motion": 0, "text": 0}
    motions = 0
    prompts: dict[str, tuple[str, str]] = {}
    rng = random.Random(seed)
    for sample in itertools.islice(MotionDataset(dataset, split=split), limit):
        if len(sample.motion.poses) <= generator.encoder.downsample:
            continue
        motions += 1
        (encoded,) = EncodedSample.encode([(sample, False)], generator.encoder)
        instructions = [instruction for instruction in sample.instructions if task in (None, instruction.task)]
        if task in (None, "t2m"):
            instructions.append(caption_instruction(sample, 0))
        for instruction in instructions:
            example = build(instruction, encoded, max_steps=model.context // 3, rng=rng)
            if isinstance(example, str) or packer.length(example) > model.context:
                continue
            batch = packer.collate([packer.sequence(example)])
            with torch.inference_mode():
                losses = model(batch.to(device))
            tokens = {"text": int(batch.is_target_text.sum()), "motion": int(batch.is_target_motion.sum())}
            for name, count in tokens.items():
                sums[name] += losses[name].item() * count
                counts[name] += count
        for caption in sample.body:
            limb = parse_limb(caption)
            if limb and caption not in prompts and len(prompts) < exchange_prompts:
                prompts[caption] = limb
    if not motions:
        raise HumoError(f"{dataset}: no motion in {split} is long enough; select another split")
    passed = [follows_side_swap(generator, caption, limb, seed) for caption, limb in prompts.items()]
    report = None
    if generated:
        judge = Judge(evaluator, body_model=body_model, device=device)
        report = evaluate_generation(
            generator, judge, dataset, split=split, limit=generated, training=training, seeds=seeds, seed=seed
        )
    motion_nats, text_nats = (sums[name] / counts[name] if counts[name] else math.nan for name in ("motion", "text"))
    return LanguageModelReport(
        motions=motions,
        motion_nats=motion_nats,
        motion_perplexity=math.exp(motion_nats),
        text_nats=text_nats,
        text_perplexity=math.exp(text_nats),
        exchange_accuracy=sum(passed) / len(passed) if passed else math.nan,
        exchange_prompts=len(passed),
        generation=report,
    )


def follows_side_swap(
    generator: Generator, caption: str, limb: tuple[str, str], seed: int, seconds: float = 4.0
) -> bool:
    """Whether the limb in the caption moves more than the opposite one, and the opposite one after swapping sides."""
    side, name = limb
    for text, expected in ((caption, side), (mirror_text(caption), _opposite(side))):
        path_m = limb_path_m(generator.generate(text, seconds=seconds, seed=seed).motion, generator.body, name)
        if path_m[expected] <= path_m[_opposite(expected)]:
            return False
    return True


def limb_path_m(motion: MotionArrays, body: BodyModel, name: str) -> dict[str, float]:
    """Path length of the left and the right wrist or ankle in the heading frame, metres."""
    rows = motion_features([motion], body)[0]
    positions = humo263.positions(rows)
    return {side: _path_length(positions[:, joint(f"{side}_{name}")]) for side in SIDES}


def _opposite(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]


def _path_length(positions: Float[Tensor, "N 3"]) -> float:
    return (positions[1:] - positions[:-1]).norm(dim=-1).sum().item()
