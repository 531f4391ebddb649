"""A CLIP model of random weights as a tower: the code path is real, the values are meaningless."""

from pathlib import Path

import pytest
import torch
from open_clip_models import WIDTH, open_clip, save_model

from model.vision.config import VisionConfig
from model.vision.open_clip_tower import OpenClipTower
from model.vision.tower import VisionTower, open_tower
from schemas.errors import HumoError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("clip") / "tiny")


def test_tokens_are_the_patches_of_the_last_layer(folder: Path) -> None:
    tower = open_tower(VisionConfig(tower="open_clip", model=str(folder), grid=2))
    assert isinstance(tower, VisionTower)
    assert (tower.px, tower.width, tower.tokens_per_frame) == (32, WIDTH, 5)
    frames = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tokens = tower(frames)
    assert tokens.shape == (3, 5, WIDTH)
    assert not tokens.requires_grad
    assert torch.equal(tower(frames[2:])[0], tokens[2])
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    visual = model.visual.eval()
    normalise = next(step for step in prepare.transforms if type(step).__name__ == "Normalize")
    with torch.no_grad():
        images = normalise(frames.permute(0, 3, 1, 2).float() / 255)
        layers: list[torch.Tensor] = []
        visual.ln_post.register_forward_pre_hook(lambda _, given: layers.append(given[0]))
        visual(images)
        patches = visual.ln_post(layers[0])[:, 1:]  # 2 x 2 patches of 16 pixels, after the class token
    torch.testing.assert_close(tokens[:, 1:], patches, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tokens[:, 0], patches.mean(1), atol=1e-5, rtol=1e-4)


def test_other_weights_are_another_tower(folder: Path, tmp_path: Path) -> None:
    import safetensors.torch

    first = OpenClipTower(str(folder))
    assert first.fingerprint == OpenClipTower(str(folder)).fingerprint
    assert first.fingerprint != OpenClipTower(str(folder), grid=2).fingerprint
    other = save_model(tmp_path / "tiny")
    file = other / "open_clip_model.safetensors"
    state = {name: value + 1 for name, value in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(state, file)
    assert first.fingerprint != OpenClipTower(str(other)).fingerprint


def test_missing_weights_are_named() -> None:
    with pytest.raises(HumoError, match=r"vision: model is empty"):
        open_tower(VisionConfig(tower="open_clip"))
    with pytest.raises(HumoError, match=r"vision: weights 'none\.pt' is not a file"):
        open_tower(VisionConfig(tower="open_clip", model="ViT-B-16-SigLIP", weights="none.pt"))
