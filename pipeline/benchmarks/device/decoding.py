"""Decoding of motion with a backbone of LLaMA-7B's size and random weights: the step decoder against the flat layout.

Both use the blocks of `model/llm/language_model.py`. With the step decoder the backbone takes one pass a motion step and a small
transformer one a residual level. In the flat layout (arXiv 2508.07863) each of a step's 20 codes is a position of its own, and
takes a pass through the backbone. Speed does not depend on the values of the weights. int8 and int4 are weights of the
backbone's linear layers, by torchao.
"""

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.benchmarks.device.measure import Measurement, Setting, peak, synchronise
from pipeline.benchmarks.device.report import Figure

FRAMES_PER_STEP = 4
PROMPT = 64
"""Positions of the prompt."""
STEPS = {"7B": 75, "tiny": 15}
"""Length of the motion, steps; 7.5 are a second."""
_GROUP = 64
"""Weights that share a scale in int4, of which the width of a feed-forward layer is a multiple."""
_ALIGNMENT = 64
"""Of the context: attention copies masks of other lengths."""
PRECISIONS = ("bf16", "int8", "int4")
STEP_DECODER, FLAT = "step decoder", "flat layout"


def measurements(setting: Setting) -> list[Measurement]:
    """Both layouts in each precision, the step decoder first; on a CPU bf16 stands for single precision."""

    def row(layout: str, precision: str) -> Measurement:
        name = "fp32" if setting.device == "cpu" and precision == "bf16" else precision
        size = "tiny" if setting.small else "7B"
        return Measurement(
            f"{size}, {layout}, {name}",
            partial(measure, layout=layout, size=size, precision=precision, device=setting.device),
            weight=1.0 if layout == STEP_DECODER else 2.0,
        )

    return [row(layout, precision) for precision in PRECISIONS for layout in (STEP_DECODER, FLAT)]


def shape(size: str, layout: str, positions: int) -> Any:
    """The model's config: LLaMA-7B's width, depth and heads, or tiny ones."""
    from model.llm.language_model import LanguageModelConfig

    name: Any = "steps" if layout == STEP_DECODER else "flat"
    if size == "7B":
        return LanguageModelConfig(
            width=4096,
            layers=32,
            heads=32,
            step_width=1024,
            step_layers=6,
            step_heads=16,
            context=positions,
            layout=name,
        )
    return LanguageModelConfig(
        width=256, layers=4, heads=4, step_width=128, step_layers=2, step_heads=4, context=positions, layout=name
    )


def build(size: str, layout: str, precision: str, positions: int, device: str) -> Any:
    """A model with random weights, made on the device, without dropout. Raises ImportError where torchao is missing."""
    from pipeline.benchmarks.device.training import build_language_model

    if precision != "bf16":
        import torchao  # noqa: F401  # before gigabytes are made
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = build_language_model(shape(size, layout, positions)).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    if precision != "bf16":
        quantize(model.backbone.blocks, precision, device)
    return model


def quantize(blocks: nn.Module, precision: str, device: str) -> None:
    """int8 or int4 weights of all linear layers; raises RuntimeError where some stay as they were."""
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    config: Any = Int8WeightOnlyConfig()
    if precision == "int4":
        if device != "cuda":
            raise RuntimeError("int4 weights are packed for CUDA alone")
        config = Int4WeightOnlyConfig(group_size=_GROUP, int4_packing_format="tile_packed_to_4d")
    quantize_(blocks, config)
    layers = [layer for layer in blocks.modules() if isinstance(layer, nn.Linear)]
    plain = sum(type(layer.weight) in (nn.Parameter, Tensor) for layer in layers)
    if plain:
        raise RuntimeError(f"torchao left {plain} of {len(layers)} linear layers as they were")


@torch.inference_mode()
def encode_prompt(model: Any, tokens: int) -> Any:
    """The state after a prompt of that many text tokens."""
    from model.generation.motion_steps import EncodedPrompt

    batch = prompt_batch(model, tokens).to(model.stop.weight.device)
    cache = model.text_model.new_cache(1)
    state = model.text_model(model.embed(batch), cache)[:, -1]
    return EncodedPrompt(cache, model.prompt_vector(batch), model.motion_vector(batch), state)


def prompt_batch(model: Any, tokens: int) -> Any:
    """A prompt of that many text tokens."""
    from model.llm.batch import Batch

    text = (torch.arange(tokens) % model.backbone.text.num_embeddings)[None]
    none = torch.zeros_like(text, dtype=torch.bool)
    parts, code_width = model.steps.mean.shape
    return Batch(
        text=text, markers=torch.full_like(text, -1), codes=torch.zeros(1, tokens, parts, model.levels, dtype=torch.long),
        latents=torch.zeros(1, tokens, parts, code_width), shown=torch.ones(1, tokens, parts, dtype=torch.bool),
        is_motion=none, is_prompt=~none, is_input_motion=none, is_answer=none, is_target_text=none, is_target_motion=none,
        is_stop=none, is_continue=none,
    )  # fmt: skip


def greedy(device: torch.device) -> Any:
    """The most likely codes."""
    from model.llm.sampling import CodeSampler

    return CodeSampler(0.0, 0, 1.0, torch.Generator(device))


class RandomCodebooks(nn.Module):
    """Decodes codes as sums of random vectors, one codebook a level: the work of a tokenizer without prediction."""

    books: Tensor

    def __init__(self, levels: int, codebook_size: int, code_width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.register_buffer("books", torch.randn(levels, codebook_size, code_width, generator=generator))

    def decode(self, codes: Tensor, memory: Any = None) -> Tensor:
        """Codes (B, S, P, K) to latents (B, P, S, C)."""
        levels = torch.arange(codes.shape[-1], device=codes.device)
        return self.books[levels, codes.transpose(1, 2)].sum(-2)


def codebooks_of(model: Any) -> RandomCodebooks:
    """Codebooks of a model's shape, where the model is and in its precision."""
    return RandomCodebooks(model.levels, model.codebook_size, model.steps.mean.shape[1]).to(model.stop.weight)


class StepLayout:
    """One pass of the backbone a step."""

    passes = 1

    def __init__(self, model: Any) -> None:
        from model.generation.motion_steps import CapturedSteps, CodeReader

        device = model.stop.weight.device
        reader = CodeReader(codebooks_of(model))
        self._steps = CapturedSteps([encode_prompt(model, PROMPT)], model, greedy(device), reader)

    def step(self) -> Tensor:
        """Codes (P, K) of the next step, passed on to the backbone."""
        codes = self._steps.draw()
        self._steps.read()
        return codes


class FlatLayout:
    """One pass of the backbone a code."""

    def __init__(self, model: Any) -> None:
        from model.generation.motion_steps import StaticCache, capture

        self._model, self.passes = model, model.positions_per_step
        prompt = encode_prompt(model, PROMPT)
        device = prompt.state.device
        self._vector = prompt.prompt_vector
        self._cache = StaticCache([prompt.cache])
        self._state = prompt.state.clone()
        self._code = torch.zeros(1, dtype=torch.long, device=device)
        self._place = torch.zeros(1, dtype=torch.long, device=device)
        self._advance = capture(self._pass, device)
        self._state.copy_(prompt.state)

    def step(self) -> Tensor:
        """Codes (P, K) of the next step."""
        drawn = []
        for place in range(self.passes):
            self._place.fill_(place)
            self._advance()
            self._cache.positions.add_(1)
            drawn.append(self._code.clone())
        return torch.cat(drawn).view(self._model.parts, self._model.levels)

    def _pass(self) -> None:
        self._code.copy_(self._model.flat.logits(self._state, self._place[0]).argmax(-1))
        x = self._model.embed_code(self._model.flat.embed(self._code, self._place)[:, None], self._vector)
        self._state.copy_(self._model.text_model(x, self._cache)[:, -1])


def layout_of(name: str, model: Any) -> StepLayout | FlatLayout:
    """The decoder of a layout, after the prompt."""
    return StepLayout(model) if name == STEP_DECODER else FlatLayout(model)


@torch.inference_mode()
def measure(seconds: float, layout: str, size: str, precision: str, device: str) -> Figure:
    """Speed for one sequence, or as much of it as fits into the time; building the model is included in that."""
    start = time.perf_counter()
    positions = PROMPT + STEPS[size] * (1 if layout == STEP_DECODER else 20)
    positions = -(-positions // _ALIGNMENT) * _ALIGNMENT
    with torch.inference_mode(False), torch.no_grad():
        model = build(size, layout, precision, positions, device)
    decoder = layout_of(layout, model)  # captures the graphs
    synchronise(device)
    first_ms = _first_ms(model, decoder, device)
    taken, begin = 0, time.perf_counter()
    while taken < STEPS[size] - 1 and (not taken or time.perf_counter() - start < seconds):
        decoder.step()
        synchronise(device)
        taken += 1
    step_s = (time.perf_counter() - begin) / taken
    return {
        "frames_per_s": FRAMES_PER_STEP / step_s, "ms_per_step": 1e3 * step_s, "first_frames_ms": first_ms,
        "passes_per_step": decoder.passes, "parameters": sum(value.numel() for value in model.parameters()), **peak(device),
    }  # fmt: skip


def _first_ms(model: Any, decoder: StepLayout | FlatLayout, device: str) -> float:
    """Time of the prompt's pass and of the first step."""
    begin = time.perf_counter()
    encode_prompt(model, PROMPT)
    decoder.step()
    synchronise(device)
    return 1e3 * (time.perf_counter() - begin)
