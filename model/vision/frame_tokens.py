"""Tokens of samples' frames: from the cache where the tower has seen them, else by the tower, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.data.clips import read_pictures
from model.data.frame_cache import FrameCache, SeenFrames, merged
from model.data.frames import FrameReader, SampleFrames
from model.vision.config import VisionConfig
from model.vision.slow_fast import VisualTokens, visual_tokens
from model.vision.tower import VisionTower, open_tower
from schemas.errors import HumoError
from schemas.offline import cache_folder
from schemas.records import FPS


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameRequest:
    """Frames of a sample that a model will look at."""

    frames: SampleFrames
    numbers: Int[np.ndarray, "n"]
    """Ascending, of `frames.numbers`."""
    mirrored: bool = False


class FrameTokens:
    """A frozen tower with its cache. Tokens pass through half precision whether they were cached or not: a run is the same."""

    def __init__(self, config: VisionConfig, tower: VisionTower, *, keep: bool = True) -> None:
        """`keep`: whether this process writes what it has computed."""
        self.config, self.tower, self._keep = config, tower, keep
        folder = Path(config.cache) if config.cache else cache_folder() / "vision"
        limit_bytes = int(config.cache_gib * 2**30)
        self.cache = FrameCache(folder, tower.fingerprint, limit_bytes) if limit_bytes else None

    @classmethod
    def open(cls, config: VisionConfig, device: str | torch.device = "cpu", *, keep: bool = True) -> "FrameTokens":
        """Raises HumoError if the tower's weights are missing."""
        return cls(config, open_tower(config, device), keep=keep)

    def reader(self, *, mirrored: bool = False) -> FrameReader:
        """What reads the frames in a loader's workers. `mirrored`: whether a training also asks for mirror images."""
        return FrameReader(px=self.tower.px, clip_fps=self.config.clip_fps, mirrored=mirrored, cache=self.cache)

    def __call__(self, requests: Sequence[FrameRequest]) -> list[VisualTokens]:
        """For each request the tokens of its frames, on the tower's device; one frame is an image, several are a clip."""
        tokens = self.of_frames(requests)
        return [
            visual_tokens(one, request.numbers / FPS, self.config)
            for one, request in zip(tokens, requests, strict=True)
        ]

    def of_frames(self, requests: Sequence[FrameRequest]) -> list[Float[Tensor, "n t width"]]:
        """For each request all tokens of its frames."""
        missing = [self._missing(request) for request in requests]
        found = iter(self._see([pixels for _, pixels in missing]))
        results = []
        for request, (numbers, pixels) in zip(requests, missing, strict=True):
            known = request.frames.seen.get(request.mirrored)
            if len(pixels):
                new: SeenFrames = (numbers, next(found))
                known = new if known is None else merged(known, new)
                if self.cache and self._keep:
                    self.cache.add(request.frames.identity, new, mirrored=request.mirrored)
            assert known is not None
            at = np.searchsorted(known[0], request.numbers)
            results.append(torch.from_numpy(known[1][at]).to(self.tower.device, torch.float32))
        return results

    def of_file(self, path: str) -> VisualTokens:
        """Tokens of a picture or a video that a user names. Raises HumoError if it is neither."""
        times_s = np.arange(self.config.fast_frames) / (self.config.clip_fps or 1.0)
        pixels = read_pictures(path, times_s.tolist(), self.tower.px)
        tokens = torch.from_numpy(self._see([pixels])[0]).to(self.tower.device, torch.float32)
        return visual_tokens(tokens, times_s[: len(tokens)], self.config)

    def _missing(self, request: FrameRequest) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and pixels, mirrored if that is asked for, of the frames that the tower has not seen."""
        frames = request.frames
        known = frames.seen[request.mirrored][0] if request.mirrored in frames.seen else np.zeros(0, np.int64)
        numbers = request.numbers[~np.isin(request.numbers, known)]
        if not np.isin(numbers, frames.pixel_numbers).all():
            absent = numbers[~np.isin(numbers, frames.pixel_numbers)].tolist()
            raise HumoError(
                f"frames {absent} of a clip are not at hand{' mirrored' * request.mirrored}; ask for frames of "
                "SampleFrames.numbers, and make the reader with mirrored=True where mirror images are wanted"
            )
        pixels = frames.pixels[np.searchsorted(frames.pixel_numbers, numbers)]
        return numbers, pixels[:, :, ::-1] if request.mirrored else pixels

    def _see(self, pixels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Tokens of each non-empty array of frames, in half precision, the tower being called once."""
        lengths = [len(one) for one in pixels if len(one)]
        if not lengths:
            return []
        frames = torch.from_numpy(np.ascontiguousarray(np.concatenate([one for one in pixels if len(one)])))
        tokens = self.tower(frames).half().cpu().numpy()
        return np.split(tokens, np.cumsum(lengths)[:-1])
