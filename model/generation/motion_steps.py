"""Motion steps after a prompt: one operation after the other, or on CUDA as graphs.

A step of a large model is hundreds of small kernels; started one by one from Python they take longer than they run. A CUDA
graph starts them together, but needs the same shapes and memory at every step: the cache has its full length from the
beginning, and the number of cached positions is a tensor. The prompts with and without text, whose lengths differ, are rows of
one batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.llm.language_model import MotionLanguageModel
from model.llm.sampling import CodeSampler
from model.llm.transformer import Cache
from model.tokenizer.convolutions import Memory
from model.tokenizer.quantizers import Quantizer

_WARM_UP = 3
"""Runs before a capture, in which libraries choose kernels and allocate their workspaces."""


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """State of the model after a prompt."""

    cache: Any
    prompt_vector: Float[Tensor, "1 1 D"]
    """Added to every motion step."""
    motion_vector: Float[Tensor, "1 1 D"]
    """Added to every text position of an answer."""
    state: Float[Tensor, "1 D"]


@dataclass(frozen=True, eq=False)
class Given:
    """Codes that are known before a step is drawn."""

    codes: Int[Tensor, "P K"]
    parts: Bool[Tensor, "P"]


@runtime_checkable
class MotionSteps(Protocol):
    """The steps that follow a prompt; `draw` and `read` alternate."""

    def draw(self, given: Given | None = None) -> Int[Tensor, "P K"]:
        """Codes of the next step."""
        ...

    def read(self) -> Float[Tensor, ""]:
        """Pass the drawn codes to the model; the logit that the motion ends with them."""
        ...

    @property
    def latents(self) -> Float[Tensor, "1 1 P C"]:
        """What the codes that were read last stand for."""
        ...


def steps_after(
    prompts: Sequence[EncodedPrompt],
    model: MotionLanguageModel,
    sampler: CodeSampler,
    quantizer: Quantizer,
    history: Tensor | None = None,
) -> MotionSteps:
    """Steps after a prompt and, with guidance, the same prompt without text. `history` is what a predictive quantizer remembers of
    the steps before. Use them in inference mode."""
    reader = CodeReader(quantizer, history)
    if model.flat is not None:
        return FlatSteps(prompts, model, sampler, reader)
    captured = prompts[0].state.device.type == "cuda" and isinstance(prompts[0].cache, Cache)
    return (CapturedSteps if captured else SequentialSteps)(prompts, model, sampler, reader)


class CodeReader:
    """Latents of codes, one step after another, in memory that stays where it is."""

    def __init__(self, quantizer: Quantizer, history: Tensor | None = None) -> None:
        self._quantizer, self._history = quantizer, history

    def __call__(self, codes: Int[Tensor, "1 P K"]) -> Float[Tensor, "1 1 P C"]:
        module = cast(nn.Module, self._quantizer)
        memory: Memory = {} if self._history is None else {module: self._history}
        latents = self._quantizer.decode(codes[:, None], memory)
        after = memory.get(module)
        if self._history is None:
            self._history = after
        elif after is not None:
            self._history.copy_(after)
        return latents.transpose(1, 2)

    @property
    def state(self) -> Tensor | None:
        """What is remembered."""
        return None if self._history is None else self._history.clone()

    @state.setter
    def state(self, state: Tensor | None) -> None:
        if self._history is not None and state is not None:
            self._history.copy_(state)
        else:
            self._history = None if state is None else state.clone()


class SequentialSteps:
    """Operations run one by one, each prompt by itself."""

    def __init__(
        self, prompts: Sequence[EncodedPrompt], model: MotionLanguageModel, sampler: CodeSampler, reader: CodeReader
    ) -> None:
        self._prompts, self._model, self._sampler, self._reader = prompts, model, sampler, reader
        self._states = [prompt.state for prompt in prompts]
        self.latents = _no_latents(model)

    def draw(self, given: Given | None = None) -> Int[Tensor, "P K"]:
        rows = len(self._states)
        known = () if given is None else (given.codes.expand(rows, -1, -1), given.parts.expand(rows, -1))
        self._codes = self._model.step_decoder.sample(torch.cat(self._states), self._sampler, *known)
        return self._codes[0]

    def read(self) -> Float[Tensor, ""]:
        model = self._model
        self.latents = self._reader(self._codes[:1])
        self._states = [
            model.text_model(model.embed_steps(self.latents, prompt.prompt_vector), prompt.cache)[:, -1]
            for prompt in self._prompts
        ]
        return model.stop(self._states[0])[0, 0]


class FlatSteps:
    """The flat layout: a pass of the backbone for every code."""

    latents: Float[Tensor, "1 1 P C"]

    def __init__(
        self, prompts: Sequence[EncodedPrompt], model: MotionLanguageModel, sampler: CodeSampler, reader: CodeReader
    ) -> None:
        assert model.flat is not None
        self._prompts, self._model, self._sampler, self._reader = prompts, model, sampler, reader
        self._flat = model.flat
        self._states = [prompt.state for prompt in prompts]
        self.latents = _no_latents(model)

    def draw(self, given: Given | None = None) -> Int[Tensor, "P K"]:
        known = None if given is None else (given.codes, given.parts)
        self._codes = self._flat.sample(self._states, self._sampler, self._advance, known)
        return self._codes[0]

    def read(self) -> Float[Tensor, ""]:
        self.latents = self._reader(self._codes[:1])
        last = torch.tensor([self._flat.places - 1], device=self._codes.device)
        x = self._flat.embed(self._codes[:1, -1, -1], last)[:, None]
        self._states = [self._advance(x, row) for row in range(len(self._prompts))]
        return self._model.stop(self._states[0])[0, 0]

    def _advance(self, x: Float[Tensor, "1 1 D"], row: int) -> Float[Tensor, "1 D"]:
        prompt = self._prompts[row]
        return self._model.text_model(self._model.embed_code(x, prompt.prompt_vector), prompt.cache)[:, -1]


class StaticCache(Cache):
    """A cache of full length; each sequence has its own number of cached positions, and gets one position at a time."""

    positions: Int[Tensor, "B"]
    """Cached positions of each sequence; whoever replays the graph counts them."""

    def __init__(self, caches: Sequence[Cache]) -> None:
        """A copy of caches of one sequence each and of the same capacity."""
        layers, device = range(len(caches[0].keys)), caches[0].keys[0].device
        super().__init__(
            [torch.cat([cache.keys[layer] for cache in caches]) for layer in layers],
            [torch.cat([cache.values[layer] for cache in caches]) for layer in layers],
        )
        self.positions = torch.tensor([cache.length for cache in caches], device=device)
        self._rows = torch.arange(len(caches), device=device)
        self._columns = torch.arange(self.keys[0].shape[2], device=device)
        # Attention gives what lies beyond the cached positions a weight of zero, for which it must be finite.
        beyond = (self._columns >= self.positions[:, None])[:, None, :, None]
        for cached in (*self.keys, *self.values):
            cached.masked_fill_(beyond, 0)

    def view(
        self, rotary: Float[Tensor, "2 L half"], count: int
    ) -> tuple[Float[Tensor, "2 B 1 1 half"], Bool[Tensor, "B 1 1 L"]]:
        mask = self._columns <= self.positions[:, None]
        return rotary[:, self.positions][:, :, None, None], mask[:, None, None]

    def extend(
        self, layer: int, k: Float[Tensor, "B H 1 d"], v: Float[Tensor, "B H 1 d"]
    ) -> tuple[Float[Tensor, "B H L d"], Float[Tensor, "B H L d"]]:
        for cached, added in ((self.keys[layer], k), (self.values[layer], v)):
            cached[self._rows, :, self.positions] = added[:, :, 0].to(cached.dtype)
        return self.keys[layer].to(k), self.values[layer].to(k)

    def advance(self, count: int) -> None:
        """Nothing: counting is no part of the graph."""


class CapturedSteps:
    """All prompts in one batch, on CUDA as graphs: the codes of a step are known before the backbone has read them.

    Steps with given parts, and the first one, run operation by operation.
    """

    def __init__(
        self, prompts: Sequence[EncodedPrompt], model: MotionLanguageModel, sampler: CodeSampler, reader: CodeReader
    ) -> None:
        self._model, self._sampler, self._reader = model, sampler, reader
        self._cache = StaticCache([prompt.cache for prompt in prompts])
        self._vectors = torch.cat([prompt.prompt_vector for prompt in prompts])
        self.latents = _no_latents(model)
        states = torch.cat([prompt.state for prompt in prompts])
        self._state = states.clone()
        self._codes = torch.zeros(len(states), model.parts, model.levels, dtype=torch.long, device=states.device)
        self._stop = torch.zeros_like(states[:, 0])
        self._draw = capture(self._draw_codes, states.device, sampler.generator)
        self._state.copy_(states)
        self._read: Callable[[], None] | None = None

    def draw(self, given: Given | None = None) -> Int[Tensor, "P K"]:
        if given is None:
            self._draw()
        else:
            rows = len(self._state)
            known = (given.codes.expand(rows, -1, -1), given.parts.expand(rows, -1))
            self._codes.copy_(self._model.step_decoder.sample(self._state, self._sampler, *known))
        return self._codes[0].clone()

    def read(self) -> Float[Tensor, ""]:
        if self._read is None:
            self._read_codes()
            self._read = self._capture_read
        else:
            self._read()
        self._cache.positions.add_(1)
        return self._stop[0]

    def _capture_read(self) -> None:
        """The second step: only now does the quantizer's history exist."""
        state, history = self._state.clone(), self._reader.state
        self._read = capture(self._read_codes, state.device)
        self._state.copy_(state)
        self._reader.state = history
        self._read()

    def _draw_codes(self) -> None:
        self._codes.copy_(self._model.step_decoder.sample(self._state, self._sampler))

    def _read_codes(self) -> None:
        self.latents = self._reader(self._codes[:1])
        embedded = self._model.embed_steps(self.latents.expand(len(self._codes), -1, -1, -1), self._vectors)
        self._state.copy_(self._model.text_model(embedded, self._cache)[:, -1])
        self._stop.copy_(self._model.stop(self._state)[:, 0])


def _no_latents(model: MotionLanguageModel) -> Float[Tensor, "1 1 P C"]:
    return torch.zeros_like(model.steps.mean)[None, None]


def capture(
    run: Callable[[], None], device: torch.device, generator: torch.Generator | None = None
) -> Callable[[], None]:
    """A function that works in place on tensors of fixed shapes, as one that replays it as a CUDA graph; itself elsewhere.

    On CUDA it is run a few times first, so restore what it has changed. `generator` is the source of its random numbers, and
    is left as it was.
    """
    if device.type != "cuda":
        return run
    state = generator.get_state() if generator is not None else None
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    if generator is not None and state is not None:
        generator.set_state(state)
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        run()
    return graph.replay
