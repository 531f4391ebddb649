"""The two vocabularies: motion tokens named by part, and text tokens learned from a dataset's own sentences.

A motion step is written part by part, the levels of a part in order: `<torso_17><torso_4>...<left_arm_9>...`, 20 tokens
for five parts and four levels. A token names part and code; its level follows from its position.
"""

import re
from collections.abc import Iterable

from jaxtyping import Int
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, tensor

from schemas.errors import HumoError

PAD, END = "<pad>", "<end>"
SPECIAL = (PAD, END)
_MOTION_TOKEN = re.compile(r"<(\w+)_(\d+)>")


class MotionVocabulary:
    """Codes as named tokens and as token ids: part index times codebook size plus code."""

    def __init__(self, parts: tuple[str, ...], levels: int, codebook_size: int) -> None:
        self.parts, self.levels, self.codebook_size = parts, levels, codebook_size

    def __len__(self) -> int:
        return len(self.parts) * self.codebook_size

    @property
    def tokens_per_step(self) -> int:
        return len(self.parts) * self.levels

    def names(self) -> list[str]:
        """All token names in the order of their ids."""
        return [f"<{part}_{code}>" for part in self.parts for code in range(self.codebook_size)]

    def flatten(self, codes: Int[Tensor, "S P K"]) -> Int[Tensor, "S*P*K"]:
        """Codes to token ids, step by step, part by part, level by level."""
        offsets = tensor([part * self.codebook_size for part in range(len(self.parts))], device=codes.device)
        return (codes + offsets[:, None]).flatten()

    def unflatten(self, tokens: Int[Tensor, "L"]) -> Int[Tensor, "S P K"]:
        """Inverse of `flatten`; raises HumoError if the tokens are not whole steps in order."""
        if len(tokens) % self.tokens_per_step:
            raise HumoError(f"{len(tokens)} motion tokens: a step has {self.tokens_per_step}; give whole steps")
        grid = tokens.unflatten(0, (-1, len(self.parts), self.levels))
        offsets = tensor([part * self.codebook_size for part in range(len(self.parts))], device=tokens.device)
        codes = grid - offsets[:, None]
        if ((codes < 0) | (codes >= self.codebook_size)).any():
            raise HumoError(f"motion tokens out of order: a step is written {', '.join(self.parts)}, level by level")
        return codes

    def write(self, codes: Int[Tensor, "S P K"]) -> str:
        """Codes as text."""
        names = self.names()
        return "".join(names[token] for token in self.flatten(codes).tolist())

    def read(self, text: str) -> Int[Tensor, "S P K"]:
        """Codes from text; raises HumoError for a token that is not in this vocabulary."""
        tokens = []
        for part, code in _MOTION_TOKEN.findall(text):
            if part not in self.parts or int(code) >= self.codebook_size:
                raise HumoError(
                    f"<{part}_{code}>: no such motion token; parts are {', '.join(self.parts)}, codes run up to "
                    f"{self.codebook_size - 1}"
                )
            tokens.append(self.parts.index(part) * self.codebook_size + int(code))
        return self.unflatten(tensor(tokens))


class TextVocabulary:
    """Byte-level BPE tokenizer: it encodes any text; known words are mostly one token, with endings split off."""

    def __init__(self, tokenizer: Tokenizer, pad: str = PAD, end: str = END) -> None:
        self._tokenizer = tokenizer
        # A special token spelled out in a user's text is plain text.
        tokenizer.encode_special_tokens = True
        self.pad, self.end = (_token_id(tokenizer, name) for name in (pad, end))

    @classmethod
    def learn(cls, texts: Iterable[str], size: int) -> "TextVocabulary":
        """Train on sentences; `size` includes the 256 bytes and the special tokens."""
        tokenizer = Tokenizer(models.BPE())
        # Endings are split off, so that `wave`, which users type, shares its token with `waves`, which captions use.
        endings = pre_tokenizers.Split(Regex(r"(?<=[a-z]{3})(?:s|ed|ing)(?![a-z])"), "isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([endings, letters])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((_normalised(text) for text in texts), trainer)
        return cls(tokenizer)

    @classmethod
    def from_json(cls, text: str) -> "TextVocabulary":
        return cls(Tokenizer.from_str(text))

    def to_json(self) -> str:
        return self._tokenizer.to_str()

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids; case and surrounding whitespace are ignored."""
        return self._tokenizer.encode(_normalised(text), add_special_tokens=False).ids

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True).strip()


def _normalised(text: str) -> str:
    return " " + " ".join(text.lower().split()).rstrip(".")


def _token_id(tokenizer: Tokenizer, name: str) -> int:
    token = tokenizer.token_to_id(name)
    if token is None:
        raise HumoError(f"the text vocabulary lacks {name}; retrain the language model")
    return token
