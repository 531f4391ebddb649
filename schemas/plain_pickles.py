"""Pickles read without running anything that they hold: numbers, text, containers and arrays, nothing else.

A pickle may name any function to be called while it is read; here only those are known that make arrays, and stand-ins take
the place of numpy's own classes, whose pickled state could claim anything about the memory. Known are plain pickles, joblib's
(its module `numpy_pickle`: each array stands as a `NumpyArrayWrapper` with shape, order and dtype, followed by one byte that
counts padding bytes, the padding, and the array's bytes), and tensors of `torch.save`'s older layout inside them.
"""

import collections
import io
import math
import pickle
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

import numpy as np
import torch

_DTYPE = re.compile(r"[biuf][1248]|[SU]\d+|O8?")
"""Numbers, text, and objects that are read themselves."""


class ForbiddenError(pickle.UnpicklingError):
    """Something that no array needs."""


class _Dtype:
    """Stands in for `numpy.dtype`, whose pickled state could claim anything about the memory."""

    def __init__(self, code: str, *_: Any) -> None:
        if not _DTYPE.fullmatch(code):
            raise ForbiddenError(f"an array of {code!r}")
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in "<>" else "|"

    @property
    def real(self) -> np.dtype:
        if self.code.startswith("O"):
            raise ForbiddenError("an array of objects")
        return np.dtype(self.code).newbyteorder(cast(Any, self.order))


class _Array:
    """Stands in for `numpy.ndarray` and joblib's `NumpyArrayWrapper` until everything is read."""

    shape: tuple[int, ...]
    order: str
    dtype: _Dtype
    value: Any

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            # joblib's; the bytes are still to come.
            self.shape, self.order, self.dtype = state["shape"], state["order"], state["dtype"]
            self.padded = state.get("numpy_array_alignment_bytes") is not None
            return
        _, self.shape, self.dtype, fortran, raw = state
        self.order = "F" if fortran else "C"
        # Objects: what `numpy.save` makes of a dictionary, an array of no dimension.
        self.value = raw if isinstance(raw, list) else self.filled(raw)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return np.asarray(self.value)

    def filled(self, raw: Any) -> np.ndarray:
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        return _frombuffer(raw, self.dtype, self.shape, self.order)

    def read(self, file: io.BytesIO) -> None:
        """The bytes that follow in joblib's files."""
        if self.padded:
            file.read(file.read(1)[0])
        self.value = self.filled(file.read(math.prod(self.shape) * self.dtype.real.itemsize))


def _frombuffer(raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    flat = np.frombuffer(raw, dtype.real, math.prod(shape)).copy()
    return flat.reshape(shape[::-1]).T if order == "F" else flat.reshape(shape)


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    return _frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype, ())[()]


def _storage(content: bytes) -> Any:
    """Stands in for `torch.storage._load_from_bytes`, which would read anything."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> torch.Tensor:
    flat = torch.tensor([], dtype=storage.dtype).set_(storage)
    end = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if min((0, offset, *size, *stride)) < 0 or end >= len(flat) > 0:
        raise ForbiddenError("a tensor beyond its storage")
    return flat.as_strided(size, stride, offset).clone()


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "bytearray"): bytearray,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Array,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
}


_NONE: Mapping[tuple[str, str], Any] = MappingProxyType({})


class PlainUnpickler(pickle._Unpickler):  # the one in Python: joblib's arrays lie between the opcodes
    """Unpickles numbers, text, containers and arrays; anything else is a ForbiddenError. `as_arrays` makes arrays of what it
    loads."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO, stand_ins: Mapping[tuple[str, str], Any] = _NONE) -> None:
        """`stand_ins`: what else may be named, by module and name, and what takes its place."""
        # Files of Python 2 hold strings that latin1 carries over byte by byte.
        super().__init__(file, encoding="latin1")
        self._file = file
        self._known = {**_KNOWN, **stand_ins}

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        module = module.replace("numpy.core", "numpy._core")
        if (module, name) not in self._known:
            raise ForbiddenError(f"{module}.{name}")
        return self._known[module, name]

    def load_build(self) -> None:
        cast(Any, super()).load_build()
        built = cast(Any, self).stack[-1]
        if isinstance(built, _Array) and not hasattr(built, "value"):
            built.read(self._file)

    dispatch[pickle.BUILD[0]] = load_build


def as_arrays(value: Any) -> Any:
    """What `PlainUnpickler` or `torch.load` gave, with arrays for stand-ins and tensors."""
    if isinstance(value, _Array):
        value = value.value[0] if isinstance(value.value, list) and value.shape == () else value.value
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, dict):
        return {key: as_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_arrays(item) for item in value]
    return value
