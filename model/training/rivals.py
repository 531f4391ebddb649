"""Tokenizers that are compared: what makes each of them out of the architecture of a config."""

import math
from collections.abc import Mapping

from model.tokenizer.config import TokenizerConfig
from schemas.errors import UsageError

_WHOLE: Mapping[str, object] = {"parts": "whole", "mix_parts": False, "code_width": 96}
_PRQ: Mapping[str, object] = {"parts": "five", "levels": 4}
RIVALS: Mapping[str, Mapping[str, object]] = {
    "VQ-1": {**_WHOLE, "levels": 1},
    "RQ-6": {**_WHOLE, "levels": 6},
    "RQ-20": {**_WHOLE, "levels": 20},
    "RQ-30": {**_WHOLE, "levels": 30},
    "PRQ-1": {**_PRQ, "levels": 1},
    "PRQ-2": {**_PRQ, "levels": 2},
    "PRQ-4": _PRQ,
    "PRQ-6": {**_PRQ, "levels": 6},
    "PRQ-4, no shared joints": {**_PRQ, "share_joints": False},
    "PRQ-4, codebooks per part": {**_PRQ, "share_parts": False},
    "PRQ-4, one codebook": {**_PRQ, "share_levels": True},
    "PRQ-4, not predictive": {**_PRQ, "predict": 0},
    "2D-PRQ-4": {**_PRQ, "mix_parts": True},
    "FSQ-4": {**_PRQ, "quantizer": "fsq", "predict": 0},
}
"""Name -> what differs from the architecture of the config. RQ-20 has the bits of PRQ-4 and FSQ-4, RQ-30 those of PRQ-6."""


def rival_architecture(name: str, base: TokenizerConfig) -> TokenizerConfig:
    """The architecture of a rival. Raises UsageError for an unknown name, and for FSQ with codes that no grid has."""
    if name not in RIVALS:
        raise UsageError(f"no rival {name!r}; known ones: {', '.join(RIVALS)}")
    changes = dict(RIVALS[name])
    if changes.get("quantizer") == "fsq":
        changes["fsq_grid"] = _grid(base.codebook_size)
    return TokenizerConfig(**{**base.model_dump(), **changes})


def _grid(codes: int) -> tuple[int, ...]:
    """A grid of powers of two with as many codes, in three dimensions as equal as can be."""
    bits = int(math.log2(codes))
    if 2**bits != codes or bits < 3:
        raise UsageError(f"codebook_size is {codes}; FSQ needs a power of two from 8 on to have as many codes")
    return tuple(2 ** ((bits + 2 - i) // 3) for i in range(3))
