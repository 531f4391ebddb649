"""CoCa, open_clip's captioner, describes single pictures of the person; with the user's weights only."""

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
from stages.language.describers.pictures import person_pictures
from stages.language.describers.protocol import Answer, Scene
from stages.language.open_clip_weights import OpenClipConfig, load_open_clip


class CocaConfig(OpenClipConfig):
    """The weights, and how many pictures are described."""

    frames: int = Field(3, ge=1)
    """Pictures of a clip, each of which gets a sentence; equal ones count once."""
    max_words: int = Field(30, ge=2)
    """Longest sentence, tokens."""
    threads: int = Field(1, ge=1)
    """CPU threads."""


class Coca:
    """A describer; see the module. It sees still pictures, so what it says of movement is a guess that the events check."""

    def __init__(self, config: CocaConfig) -> None:
        """Load the weights; raises HumoError where they are missing or belong to another kind of model."""
        self._config = config
        self._loaded = load_open_clip(config, "write_captions.coca")
        if not hasattr(self._loaded.model, "text_decoder"):
            raise HumoError(
                f"write_captions.coca: model {config.model!r} writes no text; name a CoCa model, as coca_ViT-L-14"
            )
        if not hasattr(self._loaded.tokenize, "sot_token_id"):
            raise HumoError(
                f"write_captions.coca: model {config.model!r} has a tokenizer that CoCa's decoding does not know"
            )
        self.name = f"coca {self._loaded.label}"

    def describe(self, scene: Scene) -> Answer:
        """A sentence about the body for every picture."""
        footage = scene.motion.footage
        if footage is None:
            return Answer(effort=self._effort("skipped", "motion capture has no pictures"))
        try:
            pictures = person_pictures(footage.clip, self._config.frames)
        except (av.FFmpegError, OSError) as error:
            return Answer(effort=self._effort("failed", f"no pictures: {type(error).__name__}: {error}"[:300]))
        if not pictures:
            return Answer(effort=self._effort("failed", "no frame of the clip decodes"))
        with torch.inference_mode(), torch_threads(self._config.threads):
            images = torch.stack([self._loaded.prepare(PilImage.fromarray(one)) for one in pictures])
            lines = [self._caption(image[None].to(self._loaded.device)) for image in images]
        return Answer(effort=self._effort("answered", ""), sentences={"body": tuple(dict.fromkeys(lines))})

    def _caption(self, image: Float[Tensor, "1 3 H W"]) -> str:
        """The likeliest token after the other: open_clip's own beam search wants transformers, and this is reproducible."""
        model, tokenizer = self._loaded.model, self._loaded.tokenize
        seen: dict[str, Any] = model(image)
        tokens = [tokenizer.sot_token_id]
        for _ in range(self._config.max_words):
            text = torch.tensor([tokens], device=image.device)
            told = model(
                image,
                text,
                image_latent=seen["image_features"],
                image_embs=seen["image_embs"],
                output_labels=False,
            )
            following = int(told["logits"][0, -1].argmax())
            if following == tokenizer.eot_token_id:
                break
            tokens.append(following)
        return tokenizer.decode(tokens[1:]).replace("<end_of_text>", "").strip()

    def _effort(self, outcome: str, why: str) -> DescriberUsage:
        return DescriberUsage(describer=self.name, outcome=outcome, why=why)
