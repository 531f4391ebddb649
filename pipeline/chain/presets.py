"""Presets: filter settings of published datasets, in configs/presets, used as defaults for a job's stage settings."""

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline import PROJECT_ROOT
from schemas.errors import UsageError

_FOLDER = PROJECT_ROOT / "configs" / "presets"


def preset_names() -> list[str]:
    """All presets, in alphabetical order."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def preset_stages(name: str) -> dict[str, dict[str, Any]]:
    """A preset's settings, stage -> key -> value; raises UsageError for an unknown name."""
    if name not in preset_names():
        raise UsageError(f"preset: {name!r} is not known; presets: {', '.join(preset_names())}")
    return yaml.safe_load((_FOLDER / f"{name}.yaml").read_text())["stages"]


def with_preset(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job's settings merged over those of its `preset`; the job's own values take precedence."""
    merged, name = dict(job), job.get("preset")
    overrides = merged.get("stages") or {}
    # Values of the wrong type are reported by the validation that follows.
    if not name or not isinstance(name, str) or not isinstance(overrides, Mapping):
        return merged
    stages = dict(overrides)
    for stage, settings in preset_stages(name).items():
        override = overrides.get(stage) or {}
        stages[stage] = {**settings, **override} if isinstance(override, Mapping) else override
    return {**merged, "stages": stages}
