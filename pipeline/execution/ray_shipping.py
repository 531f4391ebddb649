"""What of the project's folder is uploaded to a Ray cluster, so that its machines run the code that a job brings."""

import re
from pathlib import Path

from pipeline import PROJECT_ROOT
from pipeline.chain.config import IngestConfig

_SHIPPED = ("schemas", "stages", "pipeline", "model", "configs", "pyproject.toml", "LICENSE", "NOTICE")
"""What of the project's folder a cluster gets."""


def shipping_excludes(config: IngestConfig) -> list[str]:
    """Patterns, as in .gitignore, of what stays out of the copy of this project that Ray uploads to a cluster.

    Only the packages, the presets, and files of this folder that settings of a stage name are shipped. Videos, datasets and
    environments beside the code are not, nor sources and outputs inside it: workers read those where they are.
    """
    settings = config.stages.model_dump(mode="json")  # type: ignore[attr-defined]
    films = settings.get("film_studio", {}).pop("folder", "")
    named = [value for stage in settings.values() for value in stage.values() if isinstance(value, str) and value]
    kept = [*_SHIPPED, *filter(None, map(_inside_project, named))]
    left = [*(source.path for source in config.sources), config.output, films]
    left = [
        path
        for path in map(_inside_project, left)
        if path and not any(f"{one}/".startswith(f"{path}/") for one in kept)
    ]
    opened = [pattern for path in kept for pattern in _opened(path)]
    whole = "!/."  # Ray asks about the folder itself too, and uploads nothing of one that is excluded
    return ["/*", whole, *opened, *(f"/{_escaped(path)}" for path in left)]


def _opened(path: str) -> list[str]:
    """Patterns that let one path through where everything is excluded: its folders, without what else is in them."""
    folders = [folder.as_posix() for folder in reversed(Path(path).parents) if folder.as_posix() != "."]
    inner = [pattern for folder in folders for pattern in (f"!/{_escaped(folder)}", f"/{_escaped(folder)}/*")]
    return [] if folders and folders[0] in _SHIPPED else [*inner, f"!/{_escaped(path)}"]


def _inside_project(path: str) -> str:
    """A local path relative to the project's folder; empty if it is elsewhere, a pattern, or not there."""
    if "://" in path:
        return ""
    absolute = Path(path).expanduser().absolute()
    inside = absolute.is_relative_to(PROJECT_ROOT) and absolute != PROJECT_ROOT
    return absolute.relative_to(PROJECT_ROOT).as_posix() if inside and absolute.exists() else ""


def _escaped(path: str) -> str:
    return re.sub(r"([\\*?\[\]!# ])", r"\\\1", path)
