"""Stand-ins for packages that only describe and check: jaxtyping (shapes) and pydantic (settings).

They let the networks run on a machine that has torch and little else; speed and numbers do not depend on them. Settings have
their defaults and given values, unchecked.
"""

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ClassVar, get_origin


def install() -> list[str]:
    """Put stand-ins in the place of those that are not installed; their names."""
    makers = {"jaxtyping": _jaxtyping, "pydantic": _pydantic}
    missing = [name for name in makers if name not in sys.modules and find_spec(name) is None]
    for name in missing:
        sys.modules[name] = makers[name]()
    return missing


class _Shaped:
    """`Float[Tensor, "T 3"]` is the tensor's type."""

    def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
        return item[0]


def _jaxtyping() -> ModuleType:
    module = ModuleType("jaxtyping")
    for name in ("Bool", "Float", "Int", "Integer", "Shaped", "UInt8"):
        setattr(module, name, _Shaped)
    return module


class _Default:
    def __init__(self, default: Any = ..., **limits: Any) -> None:
        self.default = limits.pop("default_factory")() if "default_factory" in limits else default


class _Model:
    """Fields with their defaults, set by name."""

    def __init__(self, **values: Any) -> None:
        for owner in reversed(type(self).__mro__):
            for name, annotation in vars(owner).get("__annotations__", {}).items():
                if get_origin(annotation) is ClassVar or str(annotation).startswith("typing.ClassVar"):
                    continue
                default = getattr(owner, name, ...)
                value = values.pop(name, default.default if isinstance(default, _Default) else default)
                if value is ...:
                    raise TypeError(f"{type(self).__name__}: {name} is missing")
                setattr(self, name, value)
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    @classmethod
    def model_validate(cls, values: dict[str, Any]) -> Any:
        return cls(**values)

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return dict(vars(self))

    def model_copy(self, update: dict[str, Any]) -> Any:
        return type(self)(**{**vars(self), **update})


def _unchanged(*_: Any, **__: Any) -> Any:
    return lambda function: function


def _pydantic() -> ModuleType:
    module = ModuleType("pydantic")
    values = {
        "BaseModel": _Model, "ConfigDict": dict, "Field": _Default, "ValidationError": type("ValidationError", (Exception,), {}),
        "model_validator": _unchanged, "field_validator": _unchanged,
    }  # fmt: skip
    for name, value in values.items():
        setattr(module, name, value)
    return module
