"""Segments as sequences, sequences as batches.

    START words [POSE step] [MOTION steps] [GAP length] [IMAGE tokens] ANSWER text END
    START words ...                                                    ANSWER MOTION steps

The stop logit ends a target motion, not a token.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.llm.batch import Batch, Marker
from model.llm.segments import Example, Gap, Motion, MotionAnswer, Picture, Pose, Words
from model.llm.sentence_encoder import SentenceEncoder
from model.llm.vocabulary import TextVocabulary
from schemas.errors import HumoError

MINILM, VISION = "minilm", "vision"
"""Names of the frozen encoders' features in a batch."""
_FLAGS = (
    "is_motion", "is_prompt", "is_input_motion", "is_answer", "is_target_text", "is_target_motion", "is_stop", "is_continue",
)  # fmt: skip


@dataclass(eq=False)
class Packer:
    """Turns examples into sequences for a model of `parts`, `levels` and latents of `code_width` numbers."""

    vocabulary: TextVocabulary
    parts: int
    levels: int
    code_width: int
    context: int
    positions_per_step: int = 1
    """Positions that a step of a target motion takes."""
    sentence_encoder: SentenceEncoder | None = None
    """Gives states for the words of prompts; None: they are text tokens alone."""
    tokens: bool = True
    """Whether the words of prompts are text tokens."""

    def prepare(self, examples: Sequence[Example]) -> None:
        """Encode the words of several prompts together."""
        if self.sentence_encoder is not None:
            texts = [part.text for one in examples for part in one.prompt if isinstance(part, Words)]
            self.sentence_encoder.prepare_states(texts)

    def length(self, example: Example) -> int:
        """Positions of an example."""
        total = 1
        for segment in example.prompt:
            if isinstance(segment, Words):
                total += self._tokens(segment.text) if self.tokens else 0
                total += self.sentence_encoder.count(segment.text) if self.sentence_encoder else 0
            elif isinstance(segment, Gap):
                total += 1 + self._tokens(str(segment.steps))
            elif isinstance(segment, Picture):
                total += 1 + len(segment.features)
            else:
                total += 1 + len(segment.latents)
        answer = example.answer
        return total + (
            2 + len(answer.codes) * self.positions_per_step
            if isinstance(answer, MotionAnswer)
            else 2 + self._tokens(answer.text)
        )

    def _tokens(self, text: str) -> int:
        return len(self.vocabulary.encode(text))

    def sequence(
        self, example: Example, *, answered: bool = True, drop_words: float = 0.0, rng: random.Random | None = None
    ) -> "PackedSequence":
        """Positions of an example; without the answer up to where it begins. `drop_words` of the prompt's words are left out."""
        sequence = PackedSequence(self)
        sequence.marker(Marker.START)
        for segment in example.prompt:
            if isinstance(segment, Words):
                self._words(sequence, segment.text, drop_words, rng)
            elif isinstance(segment, Motion):
                sequence.marker(Marker.MOTION)
                sequence.motion(segment.codes, segment.latents, segment.shown, is_input_motion=True)
            elif isinstance(segment, Pose):
                sequence.marker(Marker.POSE)
                codes = torch.zeros(1, self.parts, self.levels, dtype=torch.long)
                sequence.motion(codes, segment.latents, None, is_input_motion=True)
            elif isinstance(segment, Gap):
                sequence.marker(Marker.GAP)
                sequence.text(self.vocabulary.encode(str(segment.steps)))
            elif isinstance(segment, Picture):
                sequence.marker(Marker.CLIP if segment.moving else Marker.IMAGE)
                sequence.features(VISION, segment.features, is_prompt=True)
        answer = example.answer
        if isinstance(answer, MotionAnswer):
            sequence.marker(Marker.ANSWER)
            sequence.marker(Marker.MOTION, is_continue=True)
            if answered and len(answer.codes):
                sequence.answer(answer)
            return sequence
        sequence.marker(Marker.ANSWER, is_answer=True)
        if answered:
            tokens = [*self.vocabulary.encode(answer.text), self.vocabulary.end]
            sequence.text(tokens, is_answer=True, is_target_text=True)
        return sequence

    def collate(self, sequences: Sequence["PackedSequence"], *, multiple: int = 1) -> Batch:
        """Sequences padded to a batch, whose length is a multiple of `multiple` where the context allows: libraries prepare for
        every length anew. Raises HumoError for a sequence that exceeds the context."""
        length, largest = max(map(len, sequences)), max(sequence.positions for sequence in sequences)
        if largest > self.context:
            raise HumoError(
                f"an example has {largest} positions, the context {self.context}; raise architecture.context or lower max_steps"
            )
        shape = (len(sequences), max(length, min(-(-length // multiple) * multiple, self.context)))
        columns: dict[str, Tensor] = {
            "text": torch.full(shape, self.vocabulary.pad),
            "markers": torch.full(shape, -1),
            "codes": torch.zeros(*shape, self.parts, self.levels, dtype=torch.long),
            "latents": torch.zeros(*shape, self.parts, self.code_width),
            "shown": torch.ones(*shape, self.parts, dtype=torch.bool),
            "learned": torch.ones(*shape, self.parts, dtype=torch.bool),
            "given": torch.zeros(*shape, self.parts, dtype=torch.bool),
            **{name: torch.zeros(shape, dtype=torch.bool) for name in _FLAGS},
        }
        found: dict[str, list[tuple[int, slice, Tensor]]] = {}
        for row, sequence in enumerate(sequences):
            for span, values in sequence.pieces:
                for name, value in values.items():
                    if name in columns:
                        columns[name][row, span] = value
                    else:
                        found.setdefault(name, []).append((row, span, value))
        features = {}
        for name, rows in found.items():
            mask = torch.zeros(shape, dtype=torch.bool)
            for row, span, _ in rows:
                mask[row, span] = True
            # Row by row and in order, as a mask selects them.
            features[name] = mask, torch.cat([value for _, _, value in rows])
        batch: dict[str, Any] = {**columns, "features": features}
        batch["learned"] = None if columns["learned"].all() else columns["learned"]
        batch["given"] = columns["given"] if columns["given"].any() else None
        return Batch(**batch)

    def _words(self, sequence: "PackedSequence", text: str, drop: float, rng: random.Random | None) -> None:
        if self.tokens:
            tokens = [token for token in self.vocabulary.encode(text) if rng is None or rng.random() >= drop]
            sequence.text(tokens, is_prompt=True, is_target_text=True)
        if self.sentence_encoder is not None:
            states = self.sentence_encoder.states(text)
            if rng is not None and drop:
                states = states[[number for number in range(len(states)) if rng.random() >= drop]]
            sequence.features(MINILM, states, is_prompt=True)


@dataclass(eq=False)
class PackedSequence:
    """Positions, piece by piece: a span and the values of its columns."""

    packer: Packer
    pieces: list[tuple[slice, dict[str, Any]]] = field(default_factory=list)
    _length: int = 0

    def __len__(self) -> int:
        return self._length

    @property
    def positions(self) -> int:
        """Positions that it takes in the model's layout."""
        steps = sum(span.stop - span.start for span, values in self.pieces if "is_target_motion" in values)
        return self._length + steps * (self.packer.positions_per_step - 1)

    def marker(self, marker: Marker, **flags: bool) -> None:
        self._add(1, markers=int(marker), **flags)

    def text(self, tokens: list[int], **flags: bool) -> None:
        self._add(len(tokens), text=torch.tensor(tokens, dtype=torch.long), **flags)

    def features(self, name: str, values: Float[Tensor, "n _width"], **flags: bool) -> None:
        self._add(len(values), **{name: values}, **flags)

    def motion(self, codes: Tensor, latents: Tensor, shown: Bool[Tensor, "P"] | None, **flags: bool) -> None:
        values: dict[str, Any] = {"codes": codes, "latents": latents, "is_motion": True, **flags}
        if shown is not None:
            values["shown"] = shown
        self._add(len(codes), **values)

    def answer(self, answer: MotionAnswer) -> None:
        values: dict[str, Any] = {"is_target_motion": True}
        if answer.learned is not None:
            values["learned"] = answer.learned
        if answer.given is not None:
            values["given"] = answer.given
        self.motion(answer.codes, answer.latents, None, **values)
        span = self.pieces[-1][0]
        self.pieces.append((slice(span.start, span.stop - 1), {"is_continue": True}))
        if answer.ends:
            self.pieces.append((slice(span.stop - 1, span.stop), {"is_stop": True}))

    def _add(self, count: int, **values: Any) -> None:
        if count:
            self.pieces.append((slice(self._length, self._length + count), values))
            self._length += count
