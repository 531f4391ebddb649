"""A language model that sees: from filmed samples to a motion that begins as a picture shows."""

from pathlib import Path

import pytest
import torch
from motion_datasets import write_filmed_dataset
from PIL import Image

from model import checkpoints
from model.generation.generator import Generator, Request, Sampling
from model.llm.loading import load_llm
from model.llm.packing import VISION
from model.training.config import LanguageModelTraining, TokenizerTraining
from model.training.llm import train_llm
from model.training.tokenizer import train_tokenizer
from pipeline import PROJECT_ROOT
from schemas.config import load_config, parse_config
from schemas.errors import HumoError, UsageError

OPTIMISATION = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "bf16": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LanguageModelTraining]:
    """The folder of the model and its config."""
    root = tmp_path_factory.mktemp("pictures")
    dataset = write_filmed_dataset(root / "filmed", clips=4)
    common = {"dataset": dataset, "workers": 0, "device": "cpu", "log_every": 1, "optimisation": OPTIMISATION}
    codes = {"preset": "tiny", "codebook_size": 16, "code_width": 8, "width": 16}
    tokenizer = {**common, "output": str(root / "tokenizer"), "architecture": codes, "window": 40}
    train_tokenizer(parse_config(tokenizer, TokenizerTraining, "test"))
    architecture = {
        "preset": "tiny",
        "width": 32,
        "layers": 1,
        "heads": 2,
        "step_width": 16,
        "step_layers": 1,
        "step_heads": 2,
    }
    language = {**common, "output": str(root / "llm"), "tokenizer": str(root / "tokenizer"), "architecture": architecture,
                "text_vocabulary": 400, "tasks": ["i2m_image"], "caption_share": 0.0,
                "vision": {"clip_fps": 0.0, "cache": str(root / "tokens"), "grid": 2}}  # fmt: skip
    config = parse_config(language, LanguageModelTraining, "test")
    train_llm(config)
    return root / "llm", config


def test_pictures_are_part_of_the_prompt(trained: tuple[Path, LanguageModelTraining], tmp_path: Path) -> None:
    generator = Generator(trained[0])
    paths = [tmp_path / f"{name}.png" for name in ("white", "noise")]
    Image.new("RGB", (320, 240), "white").save(paths[0])
    Image.fromarray(torch.randint(255, (240, 320, 3), dtype=torch.uint8).numpy()).save(paths[1])
    pictures = [generator.see(str(path)) for path in paths]
    assert not pictures[0].moving
    assert pictures[0].features.shape == (5, 256 + 2)
    assert not torch.equal(pictures[0].features, pictures[1].features)
    steps = [generator.steps(Request(text="go on", seconds=1.0, picture=str(path)), Sampling()) for path in paths]
    assert [len(list(one)) for one in steps] == [8, 8]
    motion = generator.generate("go on", seconds=1.0, picture=str(paths[0]))
    assert len(motion.motion.poses) == 32
    with pytest.raises(HumoError):
        generator.see(str(tmp_path / "missing.png"))


def test_the_checkpoint_names_the_tower(trained: tuple[Path, LanguageModelTraining]) -> None:
    loaded = load_llm(trained[0])
    assert loaded.vision is not None
    assert loaded.vision.tokens_per_frame == 5
    assert not loaded.vision.config.cache
    assert VISION in loaded.model.projectors
    weights = checkpoints.read_state(checkpoints.newest(trained[0]))
    assert weights[f"projectors.{VISION}.std"].min() > 0
    assert not any("tower" in name for name in weights)


def test_three_stages_each_start_from_the_one_before(
    trained: tuple[Path, LanguageModelTraining], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stages that configs/ describes, on a few samples."""
    given = trained[1]
    before: dict[str, torch.Tensor] = {}
    for number, name in enumerate(("stage1_motion_text", "stage2_vision", "stage3_instructions"), start=1):
        changes = [f"dataset={given.dataset}", f"tokenizer={given.tokenizer}", f"output={tmp_path / str(number)}",
                   f"architecture={given.architecture.model_dump_json()}", "text_vocabulary=400", "device=cpu", "workers=0",
                   "optimisation.steps=1", "optimisation.batch_size=4", "optimisation.learning_rate=1e-9",
                   "optimisation.weight_decay=0", "optimisation.bf16=false"]  # fmt: skip
        changes += [f"initial={tmp_path / str(number - 1)}"] if number > 1 else []
        config = load_config(PROJECT_ROOT / "configs" / f"llm_{name}.yaml", LanguageModelTraining, changes)
        train_llm(config)
        state = checkpoints.read_state(checkpoints.newest(tmp_path / str(number)))
        # At this rate of learning, the weights stay those that they began with.
        assert all(torch.allclose(state[name], value, atol=1e-6) for name, value in before.items())
        before = state
    assert (
        VISION in load_llm(tmp_path / "1").model.projectors,
        VISION in load_llm(tmp_path / "3").model.projectors,
    ) == (0, 1)
    printed = capsys.readouterr().out.split("instructions of ")[1:]
    assert ["i2m_image: 0 used" in one for one in printed] == [True, False, False]
    assert ["prediction: 0 used" in one for one in printed] == [True, True, False]


def test_a_model_without_vision_says_so(trained: tuple[Path, LanguageModelTraining], tmp_path: Path) -> None:
    blind = trained[1].model_copy(update={"vision": None, "output": str(tmp_path / "blind"), "tasks": ["t2m"]})
    train_llm(blind)
    with pytest.raises(UsageError, match="takes no pictures"):
        Generator(tmp_path / "blind").see("x.png")
