"""humo bench decoding: frames/s of the step decoder beside the flat layout on the same backbone, through the generator itself.

In the flat layout (arXiv 2508.07863) every code of a step takes a pass of the backbone. Weights are random, but for those of a
pretrained backbone: speed does not depend on them. Both generate the same number of frames, in turns.
"""

import statistics
import time
from typing import Any

import torch

from schemas.body_model import BodyModel
from schemas.devices import torch_threads
from schemas.errors import UsageError

_PROMPT = "walk forward while waving the right hand, then turn around and sit down"
_CONTEXT_PER_S = 160
"""Positions of a second of motion in the flat layout, and some more."""
LAYOUTS = ("steps", "flat")


def bench(
    *, preset: str = "small", backbone: str = "", tokenizer: str = "fast", seconds: float = 2.0, rounds: int = 3,
    threads: int = 1, device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Frames/s of both layouts by round, their passes of the backbone a step and parameters, and the median ratio.

    Raises UsageError for an unknown preset.
    """
    from model.llm.language_model import PRESETS, LanguageModelConfig
    from model.tokenizer.config import PRESETS as TOKENIZERS

    for name, known in ((preset, PRESETS), (tokenizer, TOKENIZERS)):
        if name not in known:
            raise UsageError(f"{name}: no such preset; known presets: {', '.join(known)}")
    generators = {}
    for layout in LAYOUTS:
        changes = {"layout": layout, "backbone": backbone, "context": 128 + round(_CONTEXT_PER_S * seconds)}
        architecture = LanguageModelConfig(**{**PRESETS[preset].model_dump(), **changes})
        generators[layout] = _generator(architecture, tokenizer, device)
    report: dict[str, Any] = {"backbone": backbone or preset, "tokenizer": tokenizer, "threads": threads, "layouts": {}}
    speeds: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    with torch_threads(threads):
        for _ in range(rounds):
            for layout, generator in generators.items():
                speeds[layout].append(_frames_per_s(generator, seconds))
    for layout, generator in generators.items():
        report["layouts"][layout] = {
            "frames_per_s": [round(speed, 2) for speed in speeds[layout]],
            "passes_per_step": generator.model.positions_per_step,
            "parameters": sum(one.numel() for one in generator.model.parameters()),
        }
    ratios = [one / other for one, other in zip(speeds["steps"], speeds["flat"], strict=True)]
    return {**report, "ratio": round(statistics.median(ratios), 2), "ratios": [round(one, 2) for one in ratios]}


def _generator(architecture: Any, preset: str, device: str) -> Any:
    from model.generation.generator import Generator
    from model.llm.huggingface import PretrainedVocabulary
    from model.llm.loading import LoadedModel, build_model, build_packer
    from model.llm.vocabulary import TextVocabulary
    from model.tokenizer.config import PRESETS as TOKENIZERS
    from model.tokenizer.motion_tokenizer import MotionTokenizer

    torch.manual_seed(0)
    tokenizer = MotionTokenizer(TOKENIZERS[preset]).eval()
    pretrained = architecture.backbone
    vocabulary = PretrainedVocabulary.of(pretrained) if pretrained else TextVocabulary.learn([_PROMPT] * 2, 300)
    model = build_model(architecture, tokenizer, vocabulary).eval()
    packer = build_packer(model, tokenizer, vocabulary)
    return Generator(LoadedModel(model, tokenizer, packer, BodyModel.load().id), device=device)


def _frames_per_s(generator: Any, seconds: float) -> float:
    """Speed of all from the prompt to rotations, without guidance."""
    from model.generation.generator import Request, Sampling

    request = Request(text=_PROMPT, seconds=seconds)
    begin = time.perf_counter()
    frames = sum(len(rotations) for rotations, _ in generator.steps(request, Sampling(guidance=1.0)).frames())
    return frames / (time.perf_counter() - begin)


def bench_text(report: dict[str, Any]) -> str:
    """The report as lines."""
    lines = [f"{report['backbone']}, tokenizer {report['tokenizer']}, {report['threads']} thread(s), without guidance"]
    for layout, row in report["layouts"].items():
        speeds = ", ".join(f"{speed:g}" for speed in row["frames_per_s"])
        lines.append(
            f"  {layout:<6} {speeds} frames/s; {row['passes_per_step']} pass(es) of the backbone a step, "
            f"{row['parameters'] / 1e6:.1f} million parameters"
        )
    return "\n".join([*lines, f"  the step decoder is {report['ratio']} times as fast"])
