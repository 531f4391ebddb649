"""Training of the language model on a dataset's texts and on its motions encoded by a tokenizer."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model import checkpoints
from model.data.dataset import MotionDataset, check_body_model
from model.data.samples import MotionSample
from model.data.text import mirror_text
from model.features.motions import motion_features
from model.llm.examples import Example, build, caption_instruction, collate, trainable
from model.llm.language_model import MotionLanguageModel
from model.llm.loading import TEXT_VOCABULARY, TOKENIZER, build_model
from model.llm.vocabulary import TextVocabulary
from model.tokenizer.motion_tokenizer import MotionTokenizer, load_tokenizer
from model.training.config import LanguageModelTraining
from model.training.loop import Processes, Result, drawn_samples, fit, open_loader
from schemas.body_model import BodyModel
from schemas.coverage import mirror_seen, seen_parts
from schemas.dataset import read_description
from schemas.errors import HumoError, UsageError
from schemas.records import Instruction
from schemas.storage import Storage

_MAX_CACHED_MOTIONS = 200_000
"""Motions whose codes are cached in memory, a few kilobytes each."""


def train_llm(config: LanguageModelTraining) -> Result:
    """Train and save a language model. Raises HumoError for an unusable dataset or tokenizer."""
    processes = Processes.join(config.device)
    torch.manual_seed(config.seed)
    body = BodyModel.load(config.body_model or None)
    check_body_model(config.dataset, body)
    folder, _ = checkpoints.find(config.tokenizer, "tokenizer")
    tokenizer, description = load_tokenizer(folder)
    if description["body_model"] != body.id:
        raise HumoError(
            f"{config.tokenizer}: trained for the body {description['body_model']}, this run uses {body.id}"
        )
    loader = open_loader(config, processes)
    vocabulary = _resumed_vocabulary(config, folder)
    if vocabulary is None:
        learned = processes.broadcast(_learn_vocabulary(config).to_json() if processes.is_main else None)
        vocabulary = TextVocabulary.from_json(learned)
    module = build_model(config.architecture, tokenizer, vocabulary)
    task = _LanguageTask(module, config, body, tokenizer.to(processes.device), vocabulary, folder)
    return fit(task, config, loader, processes)


def _resumed_vocabulary(config: LanguageModelTraining, tokenizer: Path) -> TextVocabulary | None:
    """The text vocabulary of the run that will be resumed, if any: learned anew from a dataset that has grown, its tokens would be
    others than those the weights know. Raises UsageError if the run began with other codes or another size of vocabulary."""
    begun = checkpoints.newest(Path(config.output)) if config.resume else None
    if begun is None:
        return None
    before, now = checkpoints.fingerprint(begun / TOKENIZER), checkpoints.fingerprint(tokenizer)
    if before != now:
        raise UsageError(
            f"{config.output}: began with the tokenizer {before}, {config.tokenizer} is {now}; name that tokenizer, set another "
            "output, or resume: false to start over"
        )
    size = checkpoints.find(begun, "language_model")[1]["training"].get("text_vocabulary", config.text_vocabulary)
    if size != config.text_vocabulary:
        raise UsageError(
            f"{config.output}: began with text_vocabulary {size}, now {config.text_vocabulary}; set it back, set another "
            "output, or resume: false to start over"
        )
    return TextVocabulary.from_json((begun / TEXT_VOCABULARY).read_text())


def training_texts(sample: MotionSample) -> Iterator[str]:
    """All texts of a sample that training may use."""
    yield from sample.body
    for instruction in sample.instructions:
        yield from (instruction.instruction, instruction.inputs.text, instruction.target.text)


def _learn_vocabulary(config: LanguageModelTraining) -> TextVocabulary:
    samples = drawn_samples(config, config.text_samples)
    texts = [text for sample in samples for text in training_texts(sample) if text]
    if config.mirror:
        texts += [mirror_text(text) for text in texts]
    return TextVocabulary.learn(texts, config.text_vocabulary)


@dataclass(eq=False)
class _LanguageTask:
    module: MotionLanguageModel
    config: LanguageModelTraining
    body: BodyModel
    tokenizer: MotionTokenizer
    vocabulary: TextVocabulary
    tokenizer_folder: Path
    kind: str = "language_model"
    has_unused_parameters: bool = True
    _codes: dict[tuple[str, bool], Int[Tensor, "S P K"]] = field(default_factory=dict)

    def losses(self, module: nn.Module, samples: list[MotionSample], step: int) -> dict[str, Tensor]:
        rng = random.Random(int(torch.randint(2**31, ())))
        if self.tokenizer.device.type == "cuda":
            self.encode_together(samples)
        examples = [example for sample in samples if (example := self._example(sample, rng)) is not None]
        if not examples:
            raise HumoError(
                f"{self.config.dataset}: no sample of a batch has an example of the tasks {self.config.tasks or 'known'} "
                "that fits architecture.context; set other tasks, raise architecture.context or caption_share"
            )
        batch = collate(
            examples,
            self.vocabulary,
            parts=self.module.parts,
            levels=self.module.levels,
            context=self.module.config.context,
        )
        losses = module(batch.to(self.module.stop.weight.device))
        loss = losses["motion"] + self.config.text_weight * losses["text"] + self.config.stop_weight * losses["stop"]
        return {"loss": loss, **losses}

    def _example(self, sample: MotionSample, rng: random.Random) -> Example | None:
        mirrored = self.config.mirror and rng.random() < 0.5
        codes = self._encode(sample, mirrored)
        if not len(codes):
            return None
        seen = sample.motion.seen
        parts = seen_parts(seen)
        instructions = [instruction for instruction in sample.instructions if self._is_selected(instruction, parts)]
        if not instructions or rng.random() < self.config.caption_share:
            instruction = caption_instruction(sample, rng.randrange(len(sample.body)))
        else:
            instruction = rng.choice(instructions)
        example = build(
            instruction,
            codes,
            self.vocabulary,
            downsample=self.tokenizer.config.downsample,
            max_steps=self.config.max_steps,
            mirrored=mirrored,
            seen=mirror_seen(seen) if mirrored else seen,
        )
        # A long motion with a long text may exceed the context.
        if example is None or len(example) > self.module.config.context:
            return None
        if example.target_motion is None:
            return example
        if rng.random() < self.config.drop_text:
            return replace(example, prompt=[])
        return replace(example, prompt=[token for token in example.prompt if rng.random() >= self.config.drop_words])

    def _is_selected(self, instruction: Instruction, parts: Sequence[str]) -> bool:
        return trainable(instruction, parts) and (not self.config.tasks or instruction.task in self.config.tasks)

    def encode_together(self, samples: list[MotionSample]) -> None:
        """Codes of the samples that are not cached, and of their mirror images, in one pass of the tokenizer.

        Shorter motions are padded at the end: the encoder is causal, so the codes before it do not change.
        """
        keys = dict.fromkeys((sample.key, mirrored) for sample in samples for mirrored in {False, self.config.mirror})
        motions = {sample.key: sample for sample in samples}
        missing = [key for key in keys if key not in self._codes]
        if not missing:
            return
        rows = [self._rows(motions[key], mirrored)[0] for key, mirrored in missing]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        step = self.tokenizer.config.downsample
        for key, codes, own in zip(missing, self._codes_of(padded), rows, strict=True):
            self._cache(key, codes[: len(own) // step])

    def _encode(self, sample: MotionSample, mirrored: bool) -> Int[Tensor, "S P K"]:
        key = (sample.key, mirrored)
        if key not in self._codes:
            self._cache(key, self._codes_of(self._rows(sample, mirrored))[0])
        return self._codes[key].long()

    def _rows(self, sample: MotionSample, mirrored: bool) -> Float[Tensor, "1 N F"]:
        rows = motion_features([sample.motion], self.body, self.tokenizer.config.features)
        return self.tokenizer.features.mirror(rows) if mirrored else rows

    def _codes_of(self, rows: Float[Tensor, "B N F"]) -> Int[Tensor, "B S P K"]:
        with torch.no_grad(), torch.autocast(self.tokenizer.device.type, enabled=False):
            return self.tokenizer.encode(rows.to(self.tokenizer.device)).cpu()

    def _cache(self, key: tuple[str, bool], codes: Int[Tensor, "S P K"]) -> None:
        if len(self._codes) >= _MAX_CACHED_MOTIONS:
            self._codes.pop(next(iter(self._codes)))
        self._codes[key] = codes.short()

    def validate(self) -> dict[str, float]:
        """The losses of training on examples of the val split, the same ones every time."""
        splits = {shard.split for shard in read_description(Storage(self.config.dataset)).shards if shard.samples}
        if "val" not in splits:
            return {}
        samples = list(itertools.islice(MotionDataset(self.config.dataset, split="val", subsets=self.config.subsets),
                                        self.config.validation_samples))  # fmt: skip
        torch.manual_seed(self.config.seed)
        return {name: value.item() for name, value in self.losses(self.module, samples, 0).items()}

    def description(self) -> dict[str, Any]:
        return {"architecture": self.module.config.model_dump(), "body_model": self.body.id}

    def extra_files(self) -> tuple[dict[str, str], list[tuple[str, Path]]]:
        return {TEXT_VOCABULARY: self.vocabulary.to_json()}, [(TOKENIZER, self.tokenizer_folder)]
