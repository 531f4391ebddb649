"""How good a tokenizer and a language model are, measured on a split of a dataset."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from model import features
from model.data import MotionDataset, check_body_model, mirror_text, motion_features
from model.examples import build, caption_instruction, collate
from model.generation import Generator
from model.train_llm import load_llm
from model.train_tokenizer import load_tokenizer
from model.training import load_body
from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.sample import MotionArrays
from schemas.skeleton import joint

_DRIFT_FRAMES = 60
_SIDES = ("left", "right")


@dataclass(frozen=True, kw_only=True)
class TokenizerReport:
    """Reconstruction of whole motions, averaged over frames; lengths in millimetres."""

    motions: int
    frames: int
    mpjpe_mm: float
    """Joints 0..21 as the position block has them, each frame in its own heading frame (what HumanML3D's tables give)."""
    fk_mpjpe_mm: float
    """The same joints by forward kinematics through the decoded rotations, in the heading frame."""
    world_mpjpe_mm: float
    """The same with the decoded path, over windows of two seconds that start aligned."""
    root_drift_mm: float
    """How far the pelvis has strayed on the ground after two seconds."""
    codebook_usage: list[float] = field(default_factory=list)
    """Share of a level's codes that were used at all."""
    codebook_perplexity: list[float] = field(default_factory=list)
    """Codes of a level that would be in use if all were used equally."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelReport:
    """Likelihood of a split's captions and motions, and whether left and right are told apart."""

    motions: int
    motion_nats: float
    """Mean negative log-likelihood of a code."""
    motion_perplexity: float
    text_nats: float
    """Mean negative log-likelihood of a text token, instructions and captions alike."""
    text_perplexity: float
    exchange_accuracy: float
    """Share of prompts about one arm or leg for which that one moves more than the other, in both wordings; NaN where the
    split has none."""
    exchange_prompts: int


def evaluate_tokenizer(
    checkpoint: str | Path,
    dataset: str,
    *,
    split: str = "val",
    subsets: Sequence[str] = (),
    limit: int | None = None,
    body_model: str = "",
    device: str = "cpu",
) -> TokenizerReport:
    """Reconstruct up to `limit` motions of a split. Raises HumoError for a checkpoint or dataset that does not serve."""
    tokenizer, description = load_tokenizer(checkpoint)
    body = load_body(body_model)
    check_body_model(dataset, body)
    if description["body_model"] != body.id:
        raise HumoError(f"{checkpoint}: made for the body {description['body_model']}, this dataset is for {body.id}")
    tokenizer.to(device)
    rest = body.rest_joints(torch.zeros(10))
    shape = tokenizer.config
    used = torch.zeros(shape.levels, shape.codebook_size)
    sums = {"mpjpe": 0.0, "fk": 0.0, "world": 0.0, "drift": 0.0}
    motions = frames = windows = world_frames = 0
    stream = MotionDataset(dataset, split=split, subsets=subsets)
    for sample in itertools.islice(stream, limit):
        if len(sample.motion.poses) <= shape.downsample:
            continue
        rows = motion_features([sample.motion], body)
        with torch.inference_mode():
            codes = tokenizer.encode(rows.to(device))
            made = tokenizer.decode(codes)[0].cpu()
        for level in range(shape.levels):
            used[level] += torch.bincount(codes[..., level].flatten().cpu(), minlength=shape.codebook_size)
        true = rows[0, : len(made)]
        motions, frames = motions + 1, frames + len(made)
        sums["mpjpe"] += _distance(features.positions(made), features.positions(true)).sum().item()
        sums["fk"] += _distance(_in_heading(made, rest), features.positions(true)).sum().item()
        for start in range(0, len(made) - _DRIFT_FRAMES + 1, _DRIFT_FRAMES):
            window = slice(start, start + _DRIFT_FRAMES)
            here, there = _in_world(made[window], rest), _in_world(true[window], rest)
            sums["world"] += _distance(here, there).sum().item()
            sums["drift"] += (here[-1, 0] - there[-1, 0])[[0, 2]].norm().item()
            windows, world_frames = windows + 1, world_frames + _DRIFT_FRAMES
    if not motions:
        raise HumoError(f"{dataset}: no motion of more than {shape.downsample} frames in {split}; name another split")
    share = used / used.sum(1, keepdim=True)
    entropy = -(share * share.clamp(min=1e-12).log()).sum(1)
    return TokenizerReport(
        motions=motions,
        frames=frames,
        mpjpe_mm=1000 * sums["mpjpe"] / frames,
        fk_mpjpe_mm=1000 * sums["fk"] / frames,
        world_mpjpe_mm=1000 * sums["world"] / world_frames if windows else math.nan,
        root_drift_mm=1000 * sums["drift"] / windows if windows else math.nan,
        codebook_usage=(used > 0).float().mean(1).tolist(),
        codebook_perplexity=entropy.exp().tolist(),
    )


def evaluate_llm(
    checkpoint: str | Path,
    dataset: str,
    *,
    split: str = "val",
    task: str | None = None,
    limit: int | None = 200,
    exchange_prompts: int = 20,
    seed: int = 0,
    body_model: str = "",
    device: str = "cpu",
) -> LanguageModelReport:
    """Likelihoods over captions and, unless `task` names one, all instructions; then the exchange of left and right on
    up to `exchange_prompts` captions of the split. Raises HumoError for a checkpoint or dataset that does not serve."""
    loaded = load_llm(checkpoint)
    maker = Generator(loaded, body_model=body_model, device=device)
    check_body_model(dataset, maker.body)
    model, vocabulary, shape = maker.model, maker.vocabulary, maker.tokenizer.config
    sums = {"motion": 0.0, "text": 0.0}
    counts = {"motion": 0, "text": 0}
    motions = 0
    prompts: dict[str, tuple[str, str]] = {}
    stream = MotionDataset(dataset, split=split)
    for sample in itertools.islice(stream, limit):
        rows = motion_features([sample.motion], maker.body).to(device)
        if rows.shape[1] < shape.downsample:
            continue
        motions += 1
        with torch.inference_mode():
            codes = maker.tokenizer.encode(rows)[0].cpu()
        chosen = [one for one in sample.instructions if task in (None, one.task)]
        if task in (None, "t2m"):
            chosen.append(caption_instruction(sample, 0))
        for instruction in chosen:
            example = build(
                instruction, codes, vocabulary, downsample=shape.downsample, max_steps=model.config.context // 3
            )
            if example is None or len(example) > model.config.context:
                continue
            batch = collate([example], vocabulary, parts=model.parts, levels=model.levels, context=model.config.context)
            with torch.inference_mode():
                losses = model(batch.to(device))
            tokens = {"text": int(batch.is_target_text.sum()), "motion": int(batch.is_target_motion.sum())}
            for name, count in tokens.items():
                sums[name] += losses[name].item() * count
                counts[name] += count
        for caption in sample.body:
            limb = limb_named(caption)
            if limb and caption not in prompts and len(prompts) < exchange_prompts:
                prompts[caption] = limb
    if not motions:
        raise HumoError(f"{dataset}: no motion in {split} is long enough; name another split")
    passed = [exchange_holds(maker, caption, limb, seed) for caption, limb in prompts.items()]
    motion_nats, text_nats = (sums[name] / counts[name] if counts[name] else math.nan for name in ("motion", "text"))
    return LanguageModelReport(
        motions=motions,
        motion_nats=motion_nats,
        motion_perplexity=math.exp(motion_nats),
        text_nats=text_nats,
        text_perplexity=math.exp(text_nats),
        exchange_accuracy=sum(passed) / len(passed) if passed else math.nan,
        exchange_prompts=len(passed),
    )


def limb_named(caption: str) -> tuple[str, str] | None:
    """(side, joint) of the one limb that a sentence is about; None where it names both sides or no limb."""
    words = caption.lower().replace(",", " ").replace(".", " ").split()
    sides = {word for word in words if word in _SIDES}
    if len(sides) != 1 or "both" in words:
        return None
    for limb, names in (("wrist", ("hand", "arm", "fist", "wrist", "elbow")), ("ankle", ("foot", "leg", "knee"))):
        if any(name in words for name in names):
            return sides.pop(), limb
    return None


def exchange_holds(maker: Generator, caption: str, limb: tuple[str, str], seed: int, seconds: float = 4.0) -> bool:
    """Whether the named limb moves more than its twin, and after exchanging left and right the twin."""
    side, name = limb
    for text, wanted in ((caption, side), (mirror_text(caption), _SIDES[1 - _SIDES.index(side)])):
        moved = limb_travel(maker.generate(text, seconds=seconds, seed=seed).motion, maker.body, name)
        if moved[wanted] <= moved[_SIDES[1 - _SIDES.index(wanted)]]:
            return False
    return True


def limb_travel(motion: MotionArrays, body: BodyModel, name: str) -> dict[str, float]:
    """Metres that the left and the right wrist or ankle cover, seen from the pelvis and its heading."""
    rows = motion_features([motion], body)[0]
    places = features.positions(rows)
    return {side: _path(places[:, joint(f"{side}_{name}")]) for side in _SIDES}


def _path(places: Float[Tensor, "N 3"]) -> float:
    return (places[1:] - places[:-1]).norm(dim=-1).sum().item()


def _in_heading(rows: Float[Tensor, "N 263"], rest: Float[Tensor, "24 3"]) -> Float[Tensor, "N 22 3"]:
    """Forward kinematics of single frames, each under its own heading."""
    still = rows.clone()
    still[:, features.YAW_STEP] = 0
    still[:, features.ROOT_STEP] = 0
    return _in_world(still, rest)


def _in_world(rows: Float[Tensor, "N 263"], rest: Float[Tensor, "24 3"]) -> Float[Tensor, "N 22 3"]:
    rotations, trans = features.decode(rows, rest)
    return forward_kinematics(rotations, rest, trans)[0][:, :22]


def _distance(a: Float[Tensor, "N J 3"], b: Float[Tensor, "N J 3"]) -> Float[Tensor, "N"]:
    return (a - b).norm(dim=-1).mean(-1)
