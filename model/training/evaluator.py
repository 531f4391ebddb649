"""Training of the evaluator: motions and sentences of a dataset, contrastively.

Sentences are the dataset's own captions and what people wrote about its takes. A motion and its mirror image stand in the same
batch where their sentences differ, so that sides count; sentences that mean the same are no negatives of each other.
"""

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from model.data.dataset import MotionDataset, check_body_model, licences
from model.data.described_motions import human_sentences
from model.data.samples import MotionSample
from model.data.text import mirror_text
from model.evaluation.motion_text_model import KIND, EvaluatorConfig, MotionTextModel, contrastive_loss
from model.evaluation.protocol import SAME_MEANING, retrieval
from model.features import humo263
from model.features.layouts import layout
from model.features.motions import motion_features
from model.llm.sentence_encoder import SentenceEncoder, same_meaning
from model.training.config import Run
from model.training.loop import Processes, Result, fit, open_loader
from model.training.statistics import drawn_rows, feature_statistics
from schemas.body_model import BodyModel
from schemas.dataset import read_description
from schemas.human_texts import Texts, read_texts
from schemas.storage import Storage

_MAX_CACHED_FRAMES = 2_000_000
"""Feature rows that are kept in memory, a kilobyte each."""


class EvaluatorTraining(Run):
    """Training of the evaluator."""

    architecture: EvaluatorConfig = EvaluatorConfig()
    """Sizes of the encoders."""
    sentence_encoder: str = ""
    """Folder of the MiniLM sentence encoder; empty means the installed package."""
    texts: list[str] = []
    """Files of what people wrote about the takes, as for `humo bench captions --texts`."""
    human_share: float = Field(default=0.4, ge=0, le=1)
    """Share of sentences of people where there are any; the rest are the dataset's captions."""
    temperature: float = Field(default=0.1, gt=0)
    """Cosines are divided by it."""
    same_meaning: float = Field(default=0.85, ge=0, le=1)
    """Cosine of two sentences above which, if they name the same sides, neither is a negative of the other."""
    crop: float = Field(default=0.15, ge=0, lt=1)
    """Largest share of a motion that is cut off at its ends."""
    statistics_samples: int = Field(default=2000, gt=0)
    """Motions, drawn at random, from which feature mean and deviation are computed before the first step."""


def train_evaluator(config: EvaluatorTraining) -> Result:
    """Train and save an evaluator. Raises HumoError for an unusable dataset, UsageError for unreadable texts."""
    processes = Processes.join(config.device)
    torch.manual_seed(config.seed)
    body = BodyModel.load(config.body_model or None)
    check_body_model(config.dataset, body)
    texts = read_texts(config.texts)
    encoder = SentenceEncoder.load(config.sentence_encoder)
    loader = open_loader(config, processes)
    model = MotionTextModel(config.architecture)
    rows = drawn_rows(config, config.statistics_samples, body, features="humo263", mirror=True)
    mean, std = processes.broadcast(feature_statistics(layout("humo263"), rows) if processes.is_main else None)
    model.mean.copy_(mean)
    model.std.copy_(std)
    names = tuple(licences(config.dataset, config.subsets))
    return fit(_EvaluatorTask(model, config, body, texts, encoder, names), config, loader, processes)


@dataclass(eq=False)
class _EvaluatorTask:
    module: MotionTextModel
    config: EvaluatorTraining
    body: BodyModel
    texts: Texts
    encoder: SentenceEncoder
    licences: tuple[str, ...]
    """Licences of the motions it is trained on."""
    kind: str = KIND
    has_unused_parameters: bool = False
    _rows: dict[str, Float[Tensor, "N 263"]] = field(default_factory=dict)
    _cached_frames: int = 0

    def losses(self, module: nn.Module, samples: list[MotionSample], step: int) -> dict[str, Tensor]:
        rng = random.Random(int(torch.randint(2**31, ())))
        pairs = [pair for sample in samples for pair in self._pairs(sample, rng)]
        if not pairs:
            nothing = torch.stack([parameter.sum() for parameter in self.module.parameters()]).sum() * 0.0
            return {"loss": nothing, "accuracy": nothing.detach(), "pairs": torch.tensor(0.0)}
        sentences = [text for _, text in pairs]
        vectors = self.encoder.encode(sentences)
        device = self.module.mean.device
        rows = nn.utils.rnn.pad_sequence([one for one, _ in pairs], batch_first=True).to(device)
        lengths = torch.tensor([len(one) for one, _ in pairs], device=device)
        motions, texts = module(rows, lengths, vectors.to(device))
        same = same_meaning(sentences, vectors, self.config.same_meaning).to(device)
        loss, accuracy = contrastive_loss(motions, texts, same, self.config.temperature)
        return {"loss": loss, "accuracy": accuracy, "pairs": torch.tensor(float(len(pairs)))}

    def _pairs(self, sample: MotionSample, rng: random.Random) -> list[tuple[Float[Tensor, "_ 263"], str]]:
        """The motion with a sentence, and its mirror image if that has another one."""
        rows = self._features(sample)
        cut = rng.uniform(0, self.config.crop) * len(rows)
        start = int(rng.random() * cut)
        rows = rows[start : start + len(rows) - int(cut)]
        written = human_sentences(sample, self.texts)
        own = sample.body + tuple(written)
        if len(rows) < self.config.architecture.min_frames or not own:
            return []
        choice = written if written and (not sample.body or rng.random() < self.config.human_share) else sample.body
        text = rng.choice(choice)
        pairs = [(rows, text)]
        if self.config.mirror:
            mirrored = (humo263.mirror(rows), mirror_text(text))
            if mirrored[1] != text:
                pairs.append(mirrored)
            elif rng.random() < 0.5:
                pairs = [mirrored]
        return pairs

    def _features(self, sample: MotionSample) -> Float[Tensor, "_ 263"]:
        if sample.key in self._rows:
            return self._rows[sample.key]
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            rows = motion_features([sample.motion], self.body)[0]
        if self._cached_frames < _MAX_CACHED_FRAMES:
            self._rows[sample.key] = rows
            self._cached_frames += len(rows)
        return rows

    def validate(self) -> dict[str, float]:
        """R-precision of the first captions of motions of the val split, in batches of different meaning."""
        splits = {shard.split for shard in read_description(Storage(self.config.dataset)).shards if shard.samples}
        if "val" not in splits:
            return {}
        samples = MotionDataset(self.config.dataset, split="val", subsets=self.config.subsets)
        chosen = [
            one
            for one in itertools.islice(samples, self.config.validation_samples)
            if one.body and len(one.motion.poses) > 1
        ]
        rows = [motion_features([one.motion], self.body)[0] for one in chosen]
        long_enough = [len(one) >= self.module.config.min_frames for one in rows]
        sentences = [one.body[0] for one, enough in zip(chosen, long_enough, strict=True) if enough]
        if len(set(sentences)) < 2:
            return {}
        motions = self.module.embed_motions([one for one, enough in zip(rows, long_enough, strict=True) if enough])
        vectors = self.encoder.encode(sentences)
        texts = self.module.text_vectors(vectors.to(self.module.mean.device)).cpu()
        found = retrieval(motions, texts, same_meaning(sentences, vectors, SAME_MEANING))
        return {"r1": found.r_precision[0].mean, "r3": found.r_precision[2].mean, "chance": found.chance}

    def description(self) -> dict[str, Any]:
        return {
            "architecture": self.module.config.model_dump(),
            "body_model": self.body.id,
            "features": "humo263",
            "fps": 30,
            "dataset_version": read_description(Storage(self.config.dataset)).version,
            "licences": list(self.licences),
        }

    def extra_files(self) -> tuple[dict[str, str], list[tuple[str, Path]]]:
        return {}, []
