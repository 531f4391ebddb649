"""YAML to a validated config: an unknown key is an error that suggests the nearest known one.

A config is a `Config` subclass: one annotated field per key, with its meaning and unit in the string underneath, which
pydantic keeps as the field's description.
"""

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import UsageError
from schemas.secrets import public_override, public_settings


class Config(BaseModel):
    """Base of all configs: frozen, no unknown keys, descriptions from the strings under the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)
    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Deprecated name of a key -> its name. A deprecated name is an error that gives the new one."""

    def original_names(self) -> dict[str, Any]:
        """The config as plain values under the original names of its keys, so that renaming a key keeps digests."""
        original = {new: old for old, new in self.RENAMED.items()}
        return {original.get(key, key): value for key, value in self.model_dump(mode="json").items()}

    @classmethod
    def current_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values recorded under deprecated names, under the current names."""
        return {cls.RENAMED.get(key, key): value for key, value in values.items()}


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def load_config(path: str | Path, model: type[ConfigT], overrides: Sequence[str] = ()) -> ConfigT:
    """A YAML file with `key.inner=value` overrides applied (values are YAML too), as a validated config.

    Raises UsageError for a missing file, content that is not a mapping, an unknown key (suggesting the nearest known one) or an
    invalid value.
    """
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such config; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML ({' '.join(str(error).split())}); correct that line") from None
    if content is None:
        content = {}
    given = f" with {' '.join(map(public_override, overrides))}" if overrides else ""
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: holds a {type(content).__name__}; a config is a mapping of keys to values")
    return parse_config(apply_overrides(content, overrides), model, f"{path}{given}")


def parse_config(mapping: Mapping[str, Any], model: type[ConfigT], source_name: str) -> ConfigT:
    """A mapping as a validated config; UsageError lists all errors, one per line, each with `source_name`."""
    try:
        return model.model_validate(mapping)
    except ValidationError as error:
        # A union reports errors for each of its members: list every key once.
        lines = dict.fromkeys(_explain(item, model) for item in error.errors(include_url=False))
        raise UsageError("\n".join(f"{source_name}: {line}" for line in lines)) from None


def apply_overrides(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of a mapping with overrides applied in order; see `apply_override`."""
    for override in overrides:
        mapping = apply_override(mapping, override)
    return dict(mapping)


def apply_override(mapping: Mapping[str, Any], override: str) -> dict[str, Any]:
    """A copy of a mapping with `a.b.0=value` set; the value is read as YAML, so `3`, `true` and `[1, 2]` work."""
    import yaml

    dotted, sign, text = override.partition("=")
    printed = public_override(override)
    if not sign or not dotted.strip():
        raise UsageError(f"--set {printed}: has no '='; write key=value, for example seed=1")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {printed}: is not a YAML value; quote it") from None
    return _with(mapping, dotted.strip().split("."), value, printed)


def _with(node: Any, names: list[str], value: Any, printed: str) -> Any:
    if not names:
        return value
    name, rest = names[0], names[1:]
    if isinstance(node, list):
        if not name.isdigit() or int(name) >= len(node):
            raise UsageError(f"--set {printed}: {name} is not an index of a list of {len(node)}; indices count from 0")
        return [*node[: int(name)], _with(node[int(name)], rest, value, printed), *node[int(name) + 1 :]]
    inner = dict(node) if isinstance(node, Mapping) else {}
    inner[name] = _with(inner.get(name), rest, value, printed)
    return inner


def _explain(item: Any, model: type[BaseModel]) -> str:
    location = item["loc"]
    key = ".".join(str(step) for step in location) or "the config"
    if item["type"] == "extra_forbidden":
        models = _models_at(model, location[:-1])
        for one in models:
            if issubclass(one, Config) and location[-1] in one.RENAMED:
                return f"{key}: is now called {one.RENAMED[location[-1]]}; rename it"
        known = sorted({name for inner in models for name in inner.model_fields})
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}" if known else "remove it"
        return f"{key}: is not a key; {hint}"
    if item["type"] == "missing":
        return f"{key}: is missing; add it"
    message = item["msg"].removeprefix("Value error, ")
    value = repr(public_settings(item["input"], str(location[-1]) if location else "")[0])
    return f"{key}: {value if len(value) <= 80 else value[:77] + '...'}: {message[:1].lower() + message[1:]}"


def _models_at(model: type[BaseModel], location: Iterable[str | int]) -> list[type[BaseModel]]:
    """The config classes possible at a location; more than one at a union."""
    models: list[type[BaseModel]] = [model]
    for step in location:
        if isinstance(step, int):
            continue
        inner = [one for outer in models if step in outer.model_fields for one in _models_in(outer.model_fields[step])]
        # A union adds its member's name or tag to the location: select among the members instead of descending.
        models = inner or [outer for outer in models if outer.__name__ == step] or models
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    annotation = getattr(annotation, "annotation", annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not get_origin(annotation):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated, list, tuple, dict, Sequence, Mapping):
        return [one for inner in get_args(annotation) for one in _models_in(inner)]
    return [one for inner in get_args(annotation) for one in _models_in(inner)]
