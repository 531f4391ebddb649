"""Training of the language model on a dataset's texts and on its motions encoded by a tokenizer."""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from model import checkpoints
from model.data.dataset import MotionDataset, check_body_model, licences
from model.data.samples import MotionSample
from model.data.text import mirror_text
from model.llm.encoding import EncodedSample, MotionEncoder
from model.llm.huggingface import PretrainedVocabulary, read_vocabulary
from model.llm.language_model import MotionLanguageModel
from model.llm.loading import TEXT_VOCABULARY, TOKENIZER, SeenBy, build_model, build_packer, describe_backbone
from model.llm.packing import MINILM, VISION, Packer
from model.llm.segments import Example, MotionAnswer, Picture
from model.llm.sentence_encoder import SentenceEncoder
from model.llm.tasks import build, caption_instruction
from model.llm.vocabulary import TextVocabulary
from model.tokenizer.motion_tokenizer import load_tokenizer
from model.training.config import LanguageModelTraining
from model.training.loop import Processes, Result, drawn_samples, fit, open_loader
from model.vision.frame_tokens import FrameRequest, FrameTokens
from schemas.body_model import BodyModel
from schemas.dataset import read_description
from schemas.errors import HumoError, UsageError
from schemas.records import Instruction
from schemas.storage import Storage

_MAX_CACHED_MOTIONS = 20_000
"""Motions that are kept encoded, 100 kilobytes each or so."""
_USES = 4
"""Times that a motion is used before it is disturbed anew."""
_LENGTH_MULTIPLE = 32
"""Batches have few different lengths, for which libraries prepare once."""
_LATENT_SAMPLES, _CENSUS_SAMPLES = 200, 64
"""Samples from which the statistics of latents are computed, and of which the instructions are counted by task."""


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
    eyes = FrameTokens.open(config.vision, processes.device, keep=processes.is_main) if config.vision else None
    reader = eyes.reader(mirrored=config.mirror) if eyes else None
    loader = open_loader(config, processes, reader)
    vocabulary = _resumed_vocabulary(config, folder)
    if vocabulary is None:
        found = processes.broadcast(_find_vocabulary(config).to_json() if processes.is_main else None)
        vocabulary = read_vocabulary(found)
    vision = SeenBy.of(config.vision, eyes.tower) if config.vision and eyes else None
    module = build_model(config.architecture, tokenizer, vocabulary, vision)
    encoder = MotionEncoder(tokenizer.to(processes.device), body)
    packer = build_packer(module, tokenizer, vocabulary, config.sentence_encoder)
    names = tuple(licences(config.dataset, config.subsets))
    task = _LanguageTask(module, config, encoder, packer, folder, names, eyes, vision)
    if not (config.resume and checkpoints.newest(config.output)):
        module.steps.measure(processes.broadcast(_drawn_latents(config, encoder) if processes.is_main else None))
        if packer.sentence_encoder is not None:
            states = _drawn_states(config, packer.sentence_encoder) if processes.is_main else None
            cast(Any, module.projectors[MINILM]).measure(processes.broadcast(states))
        if eyes is not None:
            pictures = _drawn_pictures(config, eyes) if processes.is_main else None
            cast(Any, module.projectors[VISION]).measure(processes.broadcast(pictures))
        if config.initial:
            _start_from(config, module, folder)
        if processes.is_main:
            print(_census(config, task), flush=True)
    return fit(task, config, loader, processes, sharded=config.sharded)


def _resumed_vocabulary(config: LanguageModelTraining, tokenizer: Path) -> TextVocabulary | None:
    """The text vocabulary of the run that will be resumed, if any: learned anew from a dataset that has grown, its tokens would be
    others than those the weights know. Raises UsageError if the run began with other codes or another size of vocabulary."""
    begun = checkpoints.newest(config.output) if config.resume else None
    if begun is None and config.initial:
        return read_vocabulary((checkpoints.find(config.initial, "language_model")[0] / TEXT_VOCABULARY).read_text())
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
    return read_vocabulary((begun / TEXT_VOCABULARY).read_text())


def training_texts(sample: MotionSample) -> Iterator[str]:
    """All texts of a sample that training may use."""
    yield from sample.body
    for instruction in sample.instructions:
        yield from (instruction.instruction, instruction.inputs.text, instruction.target.text)


def _find_vocabulary(config: LanguageModelTraining) -> TextVocabulary:
    if config.architecture.backbone:
        return PretrainedVocabulary.of(config.architecture.backbone)
    samples = drawn_samples(config, config.text_samples)
    texts = [text for sample in samples for text in training_texts(sample) if text]
    if config.mirror:
        texts += [mirror_text(text) for text in texts]
    return TextVocabulary.learn(texts, config.text_vocabulary)


def _drawn_latents(config: LanguageModelTraining, encoder: MotionEncoder) -> Float[Tensor, "n P C"]:
    """Latents of steps of the training split, from which the model takes their mean and deviation."""
    samples = [one for one in drawn_samples(config, _LATENT_SAMPLES) if len(one.motion.poses) > encoder.downsample]
    if not samples:
        raise HumoError(f"{config.dataset}: no motion is longer than a step of {encoder.downsample} frames")
    return torch.cat([one.latents for one in EncodedSample.encode([(one, False) for one in samples], encoder)])


def _drawn_states(config: LanguageModelTraining, encoder: SentenceEncoder) -> Float[Tensor, "n 384"]:
    """States of words of captions, mirrored too, from which the model takes their mean and deviation."""
    texts = [text for sample in drawn_samples(config, _LATENT_SAMPLES) for text in sample.body]
    texts += [mirror_text(text) for text in texts]
    encoder.prepare_states(texts)
    return torch.cat([encoder.states(text) for text in texts])


def _drawn_pictures(config: LanguageModelTraining, eyes: FrameTokens) -> Float[Tensor, "n _width"]:
    """Tokens of first frames of the training split. Raises HumoError if it has no clips."""
    samples = drawn_samples(config, _LATENT_SAMPLES, eyes.reader())
    requests = [request for sample in samples if (request := _first_frame(sample, False)) is not None]
    if not requests:
        raise HumoError(f"{config.dataset}: no sample has a clip; leave vision out or ingest videos")
    return torch.cat([one.features.cpu() for one in eyes(requests)])


def _first_frame(sample: MotionSample, mirrored: bool) -> FrameRequest | None:
    if sample.frames is None or not len(sample.frames.numbers):
        return None
    return FrameRequest(frames=sample.frames, numbers=np.array([sample.frames.nearest(0)]), mirrored=mirrored)


def _start_from(config: LanguageModelTraining, module: MotionLanguageModel, tokenizer: Path) -> None:
    """Take the weights of an earlier stage; what it did not have stays as it is. Raises UsageError if they belong to other codes or
    another architecture."""
    folder, _ = checkpoints.find(config.initial, "language_model")
    if checkpoints.fingerprint(folder / TOKENIZER) != checkpoints.fingerprint(tokenizer):
        raise UsageError(f"{config.initial}: trained on another tokenizer than {config.tokenizer}; name that one")
    begun = checkpoints.read_state(folder)
    state = module.state_dict()
    differing = [name for name, value in begun.items() if name in state and state[name].shape != value.shape]
    if differing:
        raise UsageError(f"{config.initial}: another architecture ({', '.join(differing[:3])}); set the same one")
    module.load_state_dict({**state, **{name: value for name, value in begun.items() if name in state}})


def _census(config: LanguageModelTraining, task: "_LanguageTask") -> str:
    """How many instructions of each task some samples give, and why others give none."""
    used: Counter[str] = Counter()
    left: dict[str, Counter[str]] = defaultdict(Counter)
    rng = random.Random(config.seed)
    samples = list(
        drawn_samples(config, _CENSUS_SAMPLES, task.eyes.reader(mirrored=config.mirror) if task.eyes else None)
    )
    encoded_samples = task.encode(samples, rng)
    pictures = task.pictures(samples, encoded_samples)
    for encoded in encoded_samples:
        for instruction in encoded.sample.instructions:
            if not task.is_selected(instruction):
                left[instruction.task]["not among tasks"] += 1
                continue
            picture = pictures.get(encoded.sample.key)
            example = build(instruction, encoded, max_steps=config.max_steps, rng=rng, picture=picture)
            if isinstance(example, Example) and task.packer.length(example) > task.packer.context:
                example = "longer than the context"
            if isinstance(example, str):
                left[instruction.task][example] += 1
            else:
                used[instruction.task] += 1
    names = sorted({*used, *left})
    lines = [f"instructions of {len(encoded_samples)} samples, by task:"]
    for name in names:
        reasons = "".join(f", {count} not ({reason})" for reason, count in left[name].most_common())
        lines.append(f"  {name}: {used[name]} used{reasons}")
    return "\n".join(lines)


@dataclass(eq=False)
class _LanguageTask:
    module: MotionLanguageModel
    config: LanguageModelTraining
    encoder: MotionEncoder
    packer: Packer
    tokenizer_folder: Path
    licences: tuple[str, ...]
    """Licences of the motions and texts that it is trained on."""
    eyes: FrameTokens | None = None
    vision: SeenBy | None = None
    kind: str = "language_model"
    has_unused_parameters: bool = True
    _encoded: dict[tuple[str, bool], EncodedSample] = field(default_factory=dict)

    def losses(self, module: nn.Module, samples: list[MotionSample], step: int) -> dict[str, Tensor]:
        rng = random.Random(int(torch.randint(2**31, ())))
        encoded_samples = self.encode(samples, rng)
        pictures = self.pictures(samples, encoded_samples)
        found = [self._example(encoded, rng, pictures.get(encoded.sample.key)) for encoded in encoded_samples]
        examples = [example for example in found if example is not None]
        if not examples:
            raise HumoError(
                f"{self.config.dataset}: no sample of a batch has an example of the tasks {self.config.tasks or 'known'} "
                "that fits architecture.context; set other tasks, raise architecture.context or caption_share"
            )
        self.packer.prepare(examples)
        drop = self.config.drop_words
        batch = self.packer.collate(
            [
                self.packer.sequence(one, drop_words=drop * isinstance(one.answer, MotionAnswer), rng=rng)
                for one in examples
            ]
        )
        losses = module(batch.to(self.module.stop.weight.device))
        loss = losses["motion"] + self.config.text_weight * losses["text"] + self.config.stop_weight * losses["stop"]
        return {"loss": loss, **losses}

    def pictures(self, samples: Sequence[MotionSample], encoded: Sequence[EncodedSample]) -> dict[str, Picture]:
        """First frames of the samples that have clips, mirrored like their codes, by key."""
        if self.eyes is None:
            return {}
        mirrored = {one.sample.key: one.mirrored for one in encoded}
        requests = {
            sample.key: request
            for sample in samples
            if sample.key in mirrored and (request := _first_frame(sample, mirrored[sample.key])) is not None
        }
        tokens = self.eyes(list(requests.values()))
        return {key: Picture(features=one.features.cpu()) for key, one in zip(requests, tokens, strict=True)}

    def _example(self, encoded: EncodedSample, rng: random.Random, picture: Picture | None) -> Example | None:
        sample = encoded.sample
        instructions = [instruction for instruction in sample.instructions if self.is_selected(instruction)]
        rng.shuffle(instructions)
        if not instructions or rng.random() < self.config.caption_share:
            instructions.insert(0, caption_instruction(sample, rng.randrange(len(sample.body))))
        for instruction in instructions:
            example = build(instruction, encoded, max_steps=self.config.max_steps, rng=rng, picture=picture)
            # A long motion with a long text may exceed the context.
            if isinstance(example, str) or self.packer.length(example) > self.packer.context:
                continue
            if isinstance(example.answer, MotionAnswer) and rng.random() < self.config.drop_text:
                return example.without_words()
            return example
        return None

    def is_selected(self, instruction: Instruction) -> bool:
        """Whether the run trains on its task."""
        return not self.config.tasks or instruction.task in self.config.tasks

    def encode(self, samples: Sequence[MotionSample], rng: random.Random) -> list[EncodedSample]:
        """The samples that are longer than a step, half of them mirrored; disturbed anew every few times."""
        long_enough = [sample for sample in samples if len(sample.motion.poses) > self.encoder.downsample]
        drawn = [(sample, self.config.mirror and rng.random() < 0.5) for sample in long_enough]
        missing = []
        for sample, mirrored in drawn:
            found = self._encoded.get((sample.key, mirrored))
            if found is None or (self.config.latent_noise and found.uses >= _USES):
                missing.append((replace(sample, frames=None), mirrored))  # frames are not kept
        for encoded in EncodedSample.encode(missing, self.encoder, self.config.latent_noise):
            self._encoded[encoded.sample.key, encoded.mirrored] = encoded
        chosen = [self._encoded[sample.key, mirrored] for sample, mirrored in drawn]
        for encoded in chosen:
            encoded.uses += 1
        while len(self._encoded) > _MAX_CACHED_MOTIONS:
            self._encoded.pop(next(iter(self._encoded)))
        return chosen

    def validate(self) -> dict[str, float]:
        """The losses of training on examples of the val split, the same ones every time."""
        splits = {shard.split for shard in read_description(Storage(self.config.dataset)).shards if shard.samples}
        if "val" not in splits:
            return {}
        samples = list(itertools.islice(MotionDataset(
            self.config.dataset, split="val", subsets=self.config.subsets, frames=self.eyes.reader() if self.eyes else None
        ),
                                        self.config.validation_samples))  # fmt: skip
        torch.manual_seed(self.config.seed)
        return {name: value.item() for name, value in self.losses(self.module, samples, 0).items()}

    def description(self) -> dict[str, Any]:
        return {
            "architecture": self.module.config.model_dump(),
            "body_model": self.encoder.body.id,
            "vision": self.vision.model_dump() if self.vision else None,
            "dataset_version": read_description(Storage(self.config.dataset)).version,
            "licences": list(self.licences),
            "backbone": describe_backbone(self.module),
        }

    def extra_files(self) -> tuple[dict[str, str], list[tuple[str, Path]]]:
        return {TEXT_VOCABULARY: self.packer.vocabulary.to_json()}, [(TOKENIZER, self.tokenizer_folder)]
