"""Image-text similarity of a sample, and an embedding of its images, by the user's CLIP or SigLIP weights.

humo ships no such weights, so this is off until a config names some. Then every sample from video gets

- the score `clip_similarity`: mean cosine between the person's images and the sentences about the body; 0 where it was not
  computed. Every sample has this score.
- `visual_embedding`, an array of keypoints.npz and a column of the catalogue: the mean of the images' embeddings, length 1;
  empty where it was not computed.

The cosine of unrelated content is not 0 and differs between models: inspect the distribution before setting a limit.
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
from schemas.open_clip_weights import WEIGHTS_HINT, OpenClip
from schemas.records import CaptionedMotion, Rejection
from stages.base import Stage
from stages.language.describers.clip_images import person_crops
from stages.language.open_clip_config import OpenClipConfig
from stages.media.decoding import Image

SIMILARITY = "clip_similarity"
"""Every sample has this score."""


class ScorePictures(Stage[CaptionedMotion, CaptionedMotion]):
    """Compare the person's images with the captions; without weights, and for motion capture, records pass unchanged."""

    class Config(OpenClipConfig):
        frames: int = Field(8, ge=1)
        """Frames sampled from a clip."""
        min_similarity: float = Field(-1.0, ge=-1.0, le=1.0)
        """Lowest `clip_similarity` of a sample for which it was computed."""
        threads: int = Field(1, ge=1)
        """CPU threads."""

    config: Config

    def setup(self) -> None:
        """Load the weights, if the config names any. Raises HumoError where they do not load."""
        self._loaded: OpenClip | None = self.config.load(self.name) if self.config.model else None

    def remark(self) -> str:
        """That the stage is off, and why."""
        return "" if self.config.model else f"off: model is empty and {WEIGHTS_HINT}"

    def run(self, record: CaptionedMotion) -> Iterator[CaptionedMotion | Rejection]:
        """The record with its score and its embedding, or a rejection."""
        motion = record.scored.motion
        if self._loaded is None or motion.footage is None:
            yield replace(record, scored=replace(record.scored, scores={**record.scored.scores, SIMILARITY: 0.0}))
            return
        try:
            crops = person_crops(motion.footage.clip, self.config.frames)
        except (av.FFmpegError, OSError) as error:
            yield self.reject(record, "broken_stream", str(error)[:500])
            return
        if not crops:
            yield self.reject(record, "no_frame_decodes")
            return
        similarity, embedding = self._embed(self._loaded, crops, record.captions.body)
        if similarity < self.config.min_similarity:
            yield self.reject(record, f"low_{SIMILARITY}", measured=similarity, limit=self.config.min_similarity)
            return
        with_model = replace(motion, models={**motion.models, self.name: self._loaded.label})
        scored = replace(record.scored, motion=with_model, scores={**record.scored.scores, SIMILARITY: similarity})
        yield replace(record, scored=scored, visual_embedding=embedding)

    def _embed(
        self, clip: OpenClip, crops: list[Image], sentences: tuple[str, ...]
    ) -> tuple[float, Float[np.ndarray, "D"]]:
        """Mean cosine between images and sentences, and the normalised mean of the image embeddings."""
        with torch.inference_mode(), torch_threads(self.config.threads):
            images = torch.stack([clip.prepare(PilImage.fromarray(crop)) for crop in crops]).to(clip.device)
            image_embeddings = clip.model.encode_image(images, normalize=True).float()
            tokens = clip.tokenize(list(sentences)).to(clip.device)
            text_embeddings = clip.model.encode_text(tokens, normalize=True).float()
            mean = torch.nn.functional.normalize(image_embeddings.mean(0), dim=0)
            return float((image_embeddings @ text_embeddings.T).mean()), mean.cpu().numpy()
