"""Describes single frames with CoCa, open_clip's image captioner; requires user-supplied weights."""

from typing import Any

import av
import torch
from jaxtyping import Float
from PIL import Image as PilImage
from pydantic import Field
from torch import Tensor

from schemas.devices import torch_threads
from schemas.errors import HumoError
from schemas.records import DescriberUsage
from stages.language.describers.clip_images import person_crops
from stages.language.describers.protocol import Answer, Scene
from stages.language.open_clip_config import OpenClipConfig


class CocaConfig(OpenClipConfig):
    """Weights, and number of frames described."""

    frames: int = Field(3, ge=1)
    """Frames of a clip, one sentence each; duplicates are dropped."""
    max_words: int = Field(30, ge=2)
    """Maximum length of a sentence, tokens."""
    threads: int = Field(1, ge=1)
    """CPU threads."""


class Coca:
    """CoCa as a describer. It sees still frames only, so its statements on movement are guesses checked by the events."""

    def __init__(self, config: CocaConfig) -> None:
        """Load the weights. Raises HumoError if they are missing or of another kind of model."""
        self._config = config
        self._loaded = config.load("write_captions.coca")
        if not hasattr(self._loaded.model, "text_decoder"):
            raise HumoError(
                f"write_captions.coca: model {config.model!r} generates no text; use a CoCa model such as coca_ViT-L-14"
            )
        if not hasattr(self._loaded.tokenize, "sot_token_id"):
            raise HumoError(
                f"write_captions.coca: model {config.model!r} has a tokenizer without sot_token_id, which decoding needs; use "
                "a CoCa model such as coca_ViT-L-14"
            )
        self.name = f"coca {self._loaded.label}"

    def describe(self, scene: Scene) -> Answer:
        """A sentence about the body for each frame."""
        footage = scene.motion.footage
        if footage is None:
            return Answer(usage=self._usage("skipped", "motion capture has no pictures"))
        try:
            crops = person_crops(footage.clip, self._config.frames)
        except (av.FFmpegError, OSError) as error:
            return Answer(usage=self._usage("failed", f"no pictures: {type(error).__name__}: {error}"[:300]))
        if not crops:
            return Answer(usage=self._usage("failed", "no frame of the clip decodes"))
        with torch.inference_mode(), torch_threads(self._config.threads):
            images = torch.stack([self._loaded.prepare(PilImage.fromarray(crop)) for crop in crops])
            sentences = [self._caption(image[None].to(self._loaded.device)) for image in images]
        return Answer(usage=self._usage("answered", ""), sentences={"body": tuple(dict.fromkeys(sentences))})

    def _caption(self, image: Float[Tensor, "1 3 H W"]) -> str:
        """Greedy decoding: open_clip's beam search requires transformers, and this is reproducible."""
        model, tokenizer = self._loaded.model, self._loaded.tokenize
        encoded: dict[str, Any] = model(image)
        tokens = [tokenizer.sot_token_id]
        for _ in range(self._config.max_words):
            text = torch.tensor([tokens], device=image.device)
            output = model(
                image,
                text,
                image_latent=encoded["image_features"],
                image_embs=encoded["image_embs"],
                output_labels=False,
            )
            next_token = int(output["logits"][0, -1].argmax())
            if next_token == tokenizer.eot_token_id:
                break
            tokens.append(next_token)
        return tokenizer.decode(tokens[1:]).replace("<end_of_text>", "").strip()

    def _usage(self, outcome: str, why: str) -> DescriberUsage:
        return DescriberUsage(describer=self.name, outcome=outcome, why=why)
