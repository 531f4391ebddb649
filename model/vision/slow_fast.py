"""Which tokens of an image's or a clip's frames a language model reads.

An image is one frame with all its tokens. Of a clip up to `fast_frames` frames enter, evenly spread: some of them slow, with all
their tokens, the others with the one that sums them up (slow-fast frames as in LLaVA-Video, arXiv 2410.02713). All are in the order
of time.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.vision.config import VisionConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class VisualTokens:
    """Tokens of one image or clip, before the projector."""

    tokens: Float[Tensor, "V width"]
    places: Int[Tensor, "V"]
    """Number of the token in its frame; 0 sums the frame up."""
    times_s: Float[Tensor, "V"]
    """Seconds from the first frame."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def features(self) -> Float[Tensor, "V _columns"]:
        """One row of `width` + 2 columns per token, as the projector takes it: the token, its place, its seconds. Rows of several
        images and clips may be stacked."""
        return torch.cat([self.tokens, self.places[:, None].to(self.tokens), self.times_s[:, None]], 1)


def even_frames(numbers: Int[np.ndarray, "n"], count: int) -> Int[np.ndarray, "k"]:
    """At most `count` of the frames, evenly spread, the first one among them."""
    if len(numbers) <= count:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, count).round().astype(int)] if count > 1 else numbers[:1]


def visual_tokens(
    tokens: Float[Tensor, "n t width"], times_s: Float[np.ndarray, "n"], config: VisionConfig
) -> VisualTokens:
    """Tokens of frames in ascending order of time; a single frame is an image. More than `fast_frames` are thinned out."""
    kept = even_frames(np.arange(len(tokens)), config.fast_frames)
    slow = set(even_frames(kept, config.slow_frames).tolist())
    per_frame = tokens.shape[1]
    frames = np.concatenate([np.full(per_frame if frame in slow else 1, frame) for frame in kept])
    places = np.concatenate([np.arange(per_frame if frame in slow else 1) for frame in kept])
    at = torch.from_numpy(frames).to(tokens.device)
    return VisualTokens(
        tokens=tokens[at, torch.from_numpy(places).to(tokens.device)],
        places=torch.from_numpy(places).to(tokens.device),
        times_s=torch.as_tensor(times_s[frames] - times_s[0], dtype=torch.float32, device=tokens.device),
    )


def most_tokens(config: VisionConfig, tokens_per_frame: int) -> int:
    """Positions that a clip takes at most in the language model; an image takes `tokens_per_frame`."""
    slow = min(config.slow_frames, config.fast_frames)
    return slow * tokens_per_frame + config.fast_frames - slow
