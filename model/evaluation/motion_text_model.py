"""The evaluator: motions and sentences as vectors of one space, in which a motion lies near the sentences that are true of it.

Shape and training follow TMR (Petrovich et al. 2023, "TMR: Text-to-Motion Retrieval") without its decoder: a transformer over
HuMo263 rows whose first token becomes the motion's vector, a small network on a sentence encoder's vector, and InfoNCE on
cosines. Rows are normalised and joined in patches of a few frames; what lies beyond a motion's length is zero before the first
layer and masked in all others, so that padding changes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from model import checkpoints
from model.features import humo263
from model.llm.sentence_encoder import WIDTH as SENTENCE_WIDTH
from schemas.config import Config
from schemas.errors import HumoError

KIND = "evaluator"
"""Kind of its checkpoints."""
FEATURES, FPS = "humo263", 30
"""What it judges: rows of this layout at this rate."""
SHIPPED = Path(__file__).parent / "data" / "evaluator"
"""Folder of the shipped evaluator."""


class EvaluatorConfig(Config):
    """Sizes of the two encoders."""

    latent: int = Field(default=128, gt=0)
    """Numbers of a vector. FID needs at least five times as many motions."""
    width: int = Field(default=128, gt=0)
    """Channels of the motion transformer."""
    layers: int = Field(default=3, gt=0)
    """Layers of the motion transformer."""
    heads: int = Field(default=4, gt=0)
    """Attention heads; they divide `width`."""
    patch: int = Field(default=6, gt=0)
    """Frames of a token."""
    max_frames: int = Field(default=300, gt=0)
    """Longest motion, rows; longer ones are cut."""
    min_frames: int = Field(default=16, gt=0)
    """Shortest motion, rows; shorter ones are not judged."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of both encoders in training."""


class MotionTextModel(nn.Module):
    """Vectors of motions and of sentences. Cosines compare the two; FID takes the vectors as they are, of any length."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: EvaluatorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.register_buffer("mean", torch.zeros(humo263.NUM_FEATURES))
        self.register_buffer("std", torch.ones(humo263.NUM_FEATURES))
        self.patches = nn.Linear(config.patch * humo263.NUM_FEATURES, width)
        self.summary = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, dropout=config.dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.motion_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.latent))
        self.text_head = nn.Sequential(
            nn.Linear(SENTENCE_WIDTH, 2 * width), nn.GELU(), nn.Dropout(config.dropout), nn.LayerNorm(2 * width),
            nn.Linear(2 * width, config.latent),
        )  # fmt: skip
        self.register_buffer("_times", _sinusoids(1 + -(-config.max_frames // config.patch), width), persistent=False)

    def forward(
        self, rows: Float[Tensor, "B N 263"], lengths: Int[Tensor, "B"], sentences: Float[Tensor, "M 384"]
    ) -> tuple[Float[Tensor, "B L"], Float[Tensor, "M L"]]:
        """Vectors of motions, of which the first `lengths` rows count, and of sentence vectors."""
        return self.motion_vectors(rows, lengths), self.text_vectors(sentences)

    def motion_vectors(self, rows: Float[Tensor, "B N 263"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B L"]:
        """Vectors of padded motions. Rows beyond `max_frames` are ignored."""
        patch, most = self.config.patch, self.config.max_frames
        rows, lengths = rows[:, :most], lengths.clamp(max=most)
        frames = torch.arange(rows.shape[1], device=rows.device)
        beyond = frames >= lengths[:, None]
        normal = ((rows - self.mean) / self.std).masked_fill(beyond[..., None], 0.0)
        normal = nn.functional.pad(normal, (0, 0, 0, -rows.shape[1] % patch))
        tokens = self.patches(normal.unflatten(1, (-1, patch)).flatten(2))
        tokens = torch.cat([self.summary.expand(len(tokens), 1, -1), tokens], 1)
        tokens = tokens + self.get_buffer("_times")[: tokens.shape[1]]
        used = 1 + -(-lengths // patch)
        masked = torch.arange(tokens.shape[1], device=rows.device) >= used[:, None]
        return self.motion_head(self.layers(tokens, src_key_padding_mask=masked)[:, 0])

    def text_vectors(self, sentences: Float[Tensor, "M 384"]) -> Float[Tensor, "M L"]:
        """Vectors of sentences from their sentence vectors."""
        return self.text_head(sentences)

    @torch.inference_mode()
    def embed_motions(self, motions: Sequence[Float[Tensor, "_ 263"]], batch: int = 32) -> Float[Tensor, "B L"]:
        """Vectors of motions of any lengths, on the CPU."""
        vectors = torch.empty(len(motions), self.config.latent)
        order = sorted(range(len(motions)), key=lambda i: len(motions[i]))
        device = self.mean.device
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            rows = nn.utils.rnn.pad_sequence([motions[i] for i in chosen], batch_first=True).to(device)
            lengths = torch.tensor([len(motions[i]) for i in chosen], device=device)
            vectors[chosen] = self.motion_vectors(rows, lengths).cpu()
        return vectors


def contrastive_loss(
    motions: Float[Tensor, "B L"], texts: Float[Tensor, "B L"], same: Bool[Tensor, "B B"], temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """InfoNCE in both directions and the share of texts whose own motion is the nearest.

    `same[i, j]` says that text j describes what text i does: such pairs are no negatives.
    """
    cosines = nn.functional.normalize(texts.float(), dim=-1) @ nn.functional.normalize(motions.float(), dim=-1).mT
    itself = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    logits = (cosines / temperature).masked_fill(same & ~itself, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    loss = (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.mT, target)) / 2
    return loss, (logits.argmax(1) == target).float().mean()


@dataclass(frozen=True)
class Evaluator:
    """An evaluator that is ready to judge, and what it is called beside its figures."""

    model: MotionTextModel
    name: str
    description: dict[str, Any]
    """Its model.json."""


def load_evaluator(path: str | Path = "", body_model: str = "") -> Evaluator:
    """The evaluator of a checkpoint, by default the shipped one.

    Raises HumoError for anything else, and for one that judges motions of another body than `body_model`, where that is given, of
    another layout or frame rate.
    """
    folder, description = checkpoints.find(path or SHIPPED, KIND)
    try:
        config = EvaluatorConfig.model_validate(description["architecture"])
    except (KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HumoError(f"{folder}: its model.json is not that of an evaluator ({reason}); train it again") from None
    for key, expected in (("body_model", body_model), ("features", FEATURES), ("fps", FPS)):
        if expected and description.get(key) != expected:
            raise HumoError(
                f"{path or folder}: judges {key} {description.get(key)}, these motions have {expected}; train another"
            )
    model = MotionTextModel(config)
    checkpoints.load_into(model, folder)
    name = str(path) if path else f"shipped, {checkpoints.fingerprint(folder)}"
    return Evaluator(model.eval(), name, description)


def _sinusoids(length: int, width: int) -> Float[Tensor, "T D"]:
    """Positions as sines and cosines (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
