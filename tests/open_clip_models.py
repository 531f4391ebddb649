"""Small open_clip models of random weights: the code path is real, the values are meaningless."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.torchvision_ops import ensure_operators

ensure_operators()
open_clip = pytest.importorskip("open_clip")
WIDTH = 16


def save_model(folder: Path, *, generates_text: bool = False) -> Path:
    """Save a tiny CLIP, or a CoCa if it generates text, in open_clip's folder layout."""
    import safetensors.torch

    vision: dict[str, Any] = {"image_size": 32, "layers": 1, "width": WIDTH, "patch_size": 16, "head_width": 8}
    text: dict[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 1}
    config: dict[str, Any] = {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text}
    if generates_text:
        vision |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
        text |= {"context_length": 76, "embed_cls": True, "output_tokens": True}
        config["multimodal_cfg"] = {**text, "attn_pooler_heads": 2}
        config["custom_text"] = True
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    safetensors.torch.save_model(model, str(folder / "open_clip_model.safetensors"))
    return folder
