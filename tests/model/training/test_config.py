"""YAML to configs: error messages."""

from pathlib import Path
from typing import Literal

import pytest

from model.training.config import TokenizerTraining
from schemas.config import Config, load_config, parse_config
from schemas.errors import UsageError


class Inner(Config):
    """An inner config."""

    speed_mps: float = 1.0
    """Metres a second."""


class Other(Config):
    """An alternative config."""

    kind: Literal["other"] = "other"
    """A kind."""


class Outer(Config):
    """An outer config."""

    name: str
    """A name."""
    mode: Literal["fast", "slow"] = "fast"
    """A mode."""
    inner: Inner = Inner()
    """An inner config."""
    many: list[Inner] = []
    """A list of inner configs."""
    either: Inner | Other = Other()
    """A union."""


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "x", "inner": {"sped_mps": 2}}, r"inner\.sped_mps: is not a key; did you mean speed_mps\?"),
        ({"name": "x", "many": [{"speed_mps": 1}, {"speed": 1}]}, r"many\.1\.speed: .*did you mean speed_mps"),
        ({"name": "x", "moed": "fast"}, "moed: .*did you mean mode"),
        ({"name": "x", "zzz": 1}, "zzz: is not a key; known keys: either, inner, many, mode, name"),
        ({"name": "x", "mode": "quick"}, "mode: 'quick': .*'fast' or 'slow'"),
        ({"name": "x", "either": {"speed_mp": 2}}, "did you mean speed_mps"),
        ({}, "name: is missing"),
        ({"name": "x", "inner": 3}, "inner: 3: "),
    ],
)
def test_errors_name_key_and_remedy(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_config(mapping, Outer, "a.yaml")
    assert str(caught.value).startswith("a.yaml: ")


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_config({"nam": 1, "mode": 3}, Outer, "a.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: x\nmany: [{speed_mps: 1}, {speed_mps: 2}]\n")
    overrides = ["inner.speed_mps=1e-3", "many.1.speed_mps=5", "mode=slow", "name=a=b"]
    config = load_config(path, Outer, overrides)
    assert config.inner.speed_mps == 0.001
    assert [inner.speed_mps for inner in config.many] == [1, 5]
    assert (config.mode, config.name) == ("slow", "a=b")
    for bad, message in (
        ("mode", "no '='"),
        ("many.7.speed_mps=1", "not an index"),
        ("innr.x=1", "did you mean inner"),
    ):
        with pytest.raises(UsageError, match=message):
            load_config(path, Outer, [bad])


def test_invalid_files_are_rejected(tmp_path: Path) -> None:
    for content, message in (("- 1", "holds a list"), ("a: [", "not YAML"), ("", "name: is missing")):
        (tmp_path / "a.yaml").write_text(content)
        with pytest.raises(UsageError, match=message):
            load_config(tmp_path / "a.yaml", Outer)
    with pytest.raises(UsageError, match="no such config"):
        load_config(tmp_path / "b.yaml", Outer)


def test_presets() -> None:
    base = {"dataset": "a", "output": "b"}
    tiny = parse_config({**base, "architecture": "tiny"}, TokenizerTraining, "a.yaml")
    wider = parse_config({**base, "architecture": {"preset": "tiny", "width": 128}}, TokenizerTraining, "a.yaml")
    assert wider.architecture == tiny.architecture.model_copy(update={"width": 128})
    with pytest.raises(UsageError, match="known presets: tiny, base"):
        parse_config({**base, "architecture": "huge"}, TokenizerTraining, "a.yaml")
    with pytest.raises(UsageError, match="did you mean width"):
        parse_config({**base, "architecture": {"preset": "tiny", "widht": 128}}, TokenizerTraining, "a.yaml")
