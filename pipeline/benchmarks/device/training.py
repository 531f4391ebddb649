"""Training steps of the tokenizer and the language model, encoding and decoding of motions; inputs are random."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.benchmarks.device.measure import Measurement, Setting, peak, rate
from pipeline.benchmarks.device.report import Figure

_ROWS = 64
_WORDS = 500


def tokenizer(setting: Setting) -> list[Measurement]:
    """The networks by themselves, which need no quantizer, and the whole tokenizer."""
    from model.tokenizer.config import PRESETS
    from model.tokenizer.convolutions import Decoder, Encoder

    device = setting.device
    size, batch = ("tiny", 16) if setting.small else ("base", 256)
    config = PRESETS[size]
    frames, channels = batch * _ROWS, [60] * len(config.streams)

    def encode(seconds: float) -> Figure:
        network = Encoder(config, channels).to(device).eval()
        parts = [torch.randn(batch, count, _ROWS, device=device) for count in channels]
        return _inference(lambda: network(parts), frames, seconds, device)

    def decode(seconds: float) -> Figure:
        network = Decoder(config, channels).to(device).eval()
        latents = torch.randn(batch, len(channels), _ROWS // config.downsample, config.code_width, device=device)
        return _inference(lambda: network(latents), frames, seconds, device)

    def whole(seconds: float, kind: str) -> Figure:
        network, features = _tokenizer(size, device), torch.randn(batch, _ROWS, 263, device=device)
        codes = network.encode(features)
        work = (lambda: network.encode(features)) if kind == "encode" else (lambda: network.decode(codes))
        return _inference(work, frames, seconds, device)

    def train(seconds: float) -> Figure:
        from model.tokenizer.losses import LossWeights
        from model.tokenizer.motion_tokenizer import Batch

        network = _tokenizer(size, device).train()
        batch_of_rows = Batch(features=torch.randn(batch, _ROWS, 263, device=device))
        weights = LossWeights()
        optimiser = _optimiser(network)

        def step() -> int:
            with _bf16(device):
                loss = network(batch_of_rows, weights, drop_levels=True)["loss"]
            _descend(loss, optimiser)
            return 1

        steps = rate(step, seconds, device)
        return {"steps_per_s": steps, "frames_per_s": steps * frames, **peak(device)}

    return [
        Measurement(f"training, {size}, batch {batch}", train, weight=2.0),
        Measurement(f"encoding to codes, {size}", partial(whole, kind="encode")),
        Measurement(f"decoding of codes, {size}", partial(whole, kind="decode")),
        Measurement(f"encoder alone, {size}", encode),
        Measurement(f"decoder alone, {size}", decode),
    ]


def llm(setting: Setting) -> list[Measurement]:
    """Training of the language model, by size."""
    device = setting.device
    sizes = [("tiny", 2, 96)] if setting.small else [("base", 32, 512), ("small", 64, 512)]

    def train(seconds: float, size: str, batch: int, length: int) -> Figure:
        network, examples = language_model(size).to(device).train(), example_batch(batch, length).to(device)
        optimiser = _optimiser(network)

        def step() -> int:
            with _bf16(device):
                loss = torch.stack(list(network(examples).values())).sum()
            _descend(loss, optimiser)
            return batch * length

        tokens = rate(step, seconds, device)
        parameters = sum(value.numel() for value in network.parameters())
        return {
            "tokens_per_s": tokens, "steps_per_s": tokens / batch / length, "parameters": parameters, **peak(device)
        }  # fmt: skip

    return [
        Measurement(
            f"training, {size}, batch {batch} of {length}", partial(train, size=size, batch=batch, length=length)
        )
        for size, batch, length in sizes
    ]


def language_model(size: str) -> Any:
    """An untrained model of a preset, with seeded weights."""
    from model.llm.language_model import PRESETS

    torch.manual_seed(0)
    return build_language_model(PRESETS[size])


def build_language_model(config: Any) -> Any:
    from model.llm.language_model import MotionLanguageModel
    from model.tokenizer.config import PRESETS

    codes = PRESETS["base"]
    return MotionLanguageModel(
        config,
        text_tokens=_WORDS,
        parts=len(codes.streams),
        levels=codes.levels,
        codebook_size=codes.codebook_size,
        code_width=codes.code_width,
    )


def example_batch(batch: int, length: int) -> Any:
    """Random examples: a prompt of text over an eighth of the length, then motion."""
    from model.llm.batch import Batch
    from model.tokenizer.config import PRESETS

    tokenizer = PRESETS["base"]
    generator = torch.Generator().manual_seed(0)
    is_prompt = torch.arange(length).expand(batch, -1) < length // 8
    none, is_stop = torch.zeros_like(is_prompt), torch.zeros_like(is_prompt)
    is_stop[:, -1] = True
    shape = (batch, length, len(tokenizer.streams))
    codes = torch.randint(tokenizer.codebook_size, (*shape, tokenizer.levels), generator=generator)
    latents = torch.randn(*shape, tokenizer.code_width, generator=generator)
    return Batch(
        text=torch.randint(1, _WORDS, (batch, length), generator=generator) * is_prompt,
        markers=torch.full((batch, length), -1), codes=codes * ~is_prompt[..., None, None],
        latents=latents * ~is_prompt[..., None, None], shown=torch.ones(shape, dtype=torch.bool), is_motion=~is_prompt,
        is_prompt=is_prompt, is_input_motion=none, is_answer=none, is_target_text=none, is_target_motion=~is_prompt,
        is_stop=is_stop, is_continue=~is_prompt & ~is_stop,
    )  # fmt: skip


def _tokenizer(size: str, device: str) -> Any:
    """A tokenizer whose codebooks are taken from random motions, as in the first step of a training."""
    from model.tokenizer.config import PRESETS
    from model.tokenizer.motion_tokenizer import MotionTokenizer

    torch.manual_seed(0)
    network = MotionTokenizer(PRESETS[size]).to(device)
    with torch.no_grad():
        network.quantizer(network.latents(torch.randn(64, _ROWS, 263, device=device)))
    return network.eval()


@torch.inference_mode()
def _inference(work: Any, frames: int, seconds: float, device: str) -> Figure:
    def run() -> int:
        work()
        return frames

    return {"frames_per_s": rate(run, seconds, device), **peak(device)}


def _bf16(device: str) -> Any:
    from schemas.devices import supports_bf16

    return torch.autocast(device, torch.bfloat16, enabled=supports_bf16(torch.device(device)))


def _optimiser(network: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=2e-4, betas=(0.9, 0.99))


def _descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
