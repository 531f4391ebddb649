"""How well pictures and words of a sample fit, and one vector of what the pictures show, by the user's CLIP or SigLIP weights.

No such weights come with humo, so this is off until a config names some: then every sample from video gets

- the score `clip_similarity`: mean cosine between the person's pictures and the sentences about the body; 0 where nobody
  looked. Every sample has it.
- `visual_embedding`, an array of keypoints.npz and a column of the catalogue: the mean of the pictures' vectors, length 1;
  empty where nobody looked.

The cosine of unrelated things is not 0 and differs from model to model: look at the distribution before setting a limit.
"""

from collections.abc import Iterator
from dataclasses import replace

import av
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as PilImage
from pydantic import Field

from schemas.devices import torch_threads
from schemas.records import CaptionedMotion, Rejection
from stages.base import Stage
from stages.language.describers.pictures import person_pictures
from stages.language.open_clip_weights import HOW, OpenClip, OpenClipConfig, load_open_clip
from stages.media.decoding import Image

SIMILARITY = "clip_similarity"
"""Every sample has this score."""


class ScorePictures(Stage[CaptionedMotion, CaptionedMotion]):
    """Compare the person's pictures with the captions; without weights, and for motion capture, all passes as it is."""

    class Config(OpenClipConfig):
        frames: int = Field(8, ge=1)
        """Pictures of a clip that are looked at."""
        min_similarity: float = Field(-1.0, ge=-1.0, le=1.0)
        """Smallest `clip_similarity` of a sample that somebody looked at."""
        threads: int = Field(1, ge=1)
        """CPU threads."""

    config: Config

    def setup(self) -> None:
        """Load the weights, if the config names any. Raises HumoError where they do not load."""
        self._loaded: OpenClip | None = load_open_clip(self.config, self.name) if self.config.model else None

    def remark(self) -> str:
        """That it is off, and why."""
        return "" if self.config.model else f"off: model is empty and {HOW}"

    def run(self, record: CaptionedMotion) -> Iterator[CaptionedMotion | Rejection]:
        """The record with its score and its embedding, or the limit that it passes."""
        motion = record.scored.motion
        if self._loaded is None or motion.footage is None:
            yield replace(record, scored=replace(record.scored, scores={**record.scored.scores, SIMILARITY: 0.0}))
            return
        try:
            pictures = person_pictures(motion.footage.clip, self.config.frames)
        except (av.FFmpegError, OSError) as error:
            yield self.reject(record, "broken_stream", str(error)[:500])
            return
        if not pictures:
            yield self.reject(record, "no_frame_decodes")
            return
        similarity, embedding = self._look(self._loaded, pictures, record.captions.body)
        if similarity < self.config.min_similarity:
            yield self.reject(record, f"low_{SIMILARITY}", measured=similarity, limit=self.config.min_similarity)
            return
        known = replace(motion, models={**motion.models, self.name: self._loaded.label})
        scored = replace(record.scored, motion=known, scores={**record.scored.scores, SIMILARITY: similarity})
        yield replace(record, scored=scored, visual_embedding=embedding)

    def _look(
        self, clip: OpenClip, pictures: list[Image], sentences: tuple[str, ...]
    ) -> tuple[float, Float[np.ndarray, "D"]]:
        with torch.inference_mode(), torch_threads(self.config.threads):
            images = torch.stack([clip.prepare(PilImage.fromarray(one)) for one in pictures]).to(clip.device)
            seen = clip.model.encode_image(images, normalize=True).float()
            told = clip.model.encode_text(clip.tokenize(list(sentences)).to(clip.device), normalize=True).float()
            mean = torch.nn.functional.normalize(seen.mean(0), dim=0)
            return float((seen @ told.T).mean()), mean.cpu().numpy()
