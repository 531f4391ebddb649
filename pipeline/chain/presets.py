"""Settings that stand for what published datasets filter by: files in configs/presets, laid under the settings of a job."""

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline import PROJECT_ROOT
from schemas.errors import UsageError

_FOLDER = PROJECT_ROOT / "configs" / "presets"


def preset_names() -> list[str]:
    """All presets, in the order of the alphabet."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def preset_stages(name: str) -> dict[str, dict[str, Any]]:
    """A preset's settings, stage -> key -> value; raises UsageError for a name that is not known."""
    if name not in preset_names():
        raise UsageError(f"preset: {name!r} is not known; presets: {', '.join(preset_names())}")
    return yaml.safe_load((_FOLDER / f"{name}.yaml").read_text())["stages"]


def with_preset(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job's settings with those of its `preset` under them: whatever the job says itself stays."""
    merged, name = dict(job), job.get("preset")
    own = merged.get("stages") or {}
    # What is of a wrong type is left to the check that follows.
    if not name or not isinstance(name, str) or not isinstance(own, Mapping):
        return merged
    stages = dict(own)
    for stage, settings in preset_stages(name).items():
        said = own.get(stage) or {}
        stages[stage] = {**settings, **said} if isinstance(said, Mapping) else said
    return {**merged, "stages": stages}
