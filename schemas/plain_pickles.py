"""Reads pickles without running their code: numbers, text, containers and arrays, nothing else.

A pickle may name any function to call while it is loaded; here only functions that build arrays are allowed, and stand-ins
replace numpy's classes, whose pickled state could describe arbitrary memory. Supported are plain pickles, joblib's (module
`numpy_pickle`: each array is a `NumpyArrayWrapper` with shape, order and dtype, followed by one byte that counts padding
bytes, the padding, and the array's bytes), and tensors of `torch.save`'s older layout inside them.
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

from schemas.archives import MAX_UNPACKED_BYTES

_DTYPE = re.compile(r"[biuf][1248]|[SU]\d+|O8?")
"""Numbers, text, and object arrays whose elements are unpickled separately."""


class ForbiddenError(pickle.UnpicklingError):
    """A global or value that plain arrays do not need."""


class _Dtype:
    """Stand-in for `numpy.dtype`, whose pickled state could describe arbitrary memory."""

    def __init__(self, code: str, *_: Any) -> None:
        if not _DTYPE.fullmatch(code):
            raise ForbiddenError(f"an array of {code!r}")
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in "<>" else "|"

    @property
    def numpy_dtype(self) -> np.dtype:
        if self.code.startswith("O"):
            raise ForbiddenError("an array of objects")
        return np.dtype(self.code).newbyteorder(cast(Any, self.order))


class _Array:
    """Stand-in for `numpy.ndarray` and joblib's `NumpyArrayWrapper` until everything is read."""

    shape: tuple[int, ...]
    order: str
    dtype: _Dtype
    value: Any

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            # joblib's wrapper; the array's bytes follow in the file.
            self.shape, self.order, self.dtype = state["shape"], state["order"], state["dtype"]
            self.padded = state.get("numpy_array_alignment_bytes") is not None
            return
        _, self.shape, self.dtype, fortran, raw = state
        self.order = "F" if fortran else "C"
        # A list of objects: `numpy.save` stores a dictionary as a zero-dimensional object array.
        self.value = raw if isinstance(raw, list) else self.from_bytes(raw)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return np.asarray(self.value)

    def from_bytes(self, raw: Any) -> np.ndarray:
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        return _frombuffer(raw, self.dtype, self.shape, self.order)

    def read(self, file: io.BytesIO) -> None:
        """Read the array's bytes, which follow the wrapper in joblib's files."""
        if self.padded:
            file.read(file.read(1)[0])
        self.value = self.from_bytes(file.read(math.prod(self.shape) * self.dtype.numpy_dtype.itemsize))


def _frombuffer(raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    flat = np.frombuffer(raw, dtype.numpy_dtype, math.prod(shape)).copy()
    return flat.reshape(shape[::-1]).T if order == "F" else flat.reshape(shape)


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    return _frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype, ())[()]


def _storage(content: bytes) -> Any:
    """Stand-in for `torch.storage._load_from_bytes`, which would load any object."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> torch.Tensor:
    flat = torch.tensor([], dtype=storage.dtype).set_(storage)
    end = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if min((0, offset, *size, *stride)) < 0 or end >= len(flat) > 0:
        raise ForbiddenError("a tensor beyond its storage")
    if math.prod(size) * storage.dtype.itemsize > MAX_UNPACKED_BYTES:  # a stride of 0 repeats numbers without end
        raise ForbiddenError("a tensor larger than its file can be")
    return flat.as_strided(size, stride, offset).clone()


_ALLOWED: dict[tuple[str, str], Any] = {
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


class PlainUnpickler(
    pickle._Unpickler
):  # the Python implementation, since joblib's arrays are interleaved with opcodes
    """Unpickles numbers, text, containers and arrays; anything else raises ForbiddenError. `as_arrays` converts the result to
    arrays."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO, stand_ins: Mapping[tuple[str, str], Any] = _NONE) -> None:
        """`stand_ins`: further allowed globals, by module and name, and their replacements."""
        # latin1 keeps the bytes of strings pickled by Python 2.
        super().__init__(file, encoding="latin1")
        self._file = file
        self._allowed = {**_ALLOWED, **stand_ins}

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        module = module.replace("numpy.core", "numpy._core")
        if (module, name) not in self._allowed:
            raise ForbiddenError(f"{module}.{name}")
        return self._allowed[module, name]

    def load_build(self) -> None:
        cast(Any, super()).load_build()
        built = cast(Any, self).stack[-1]
        if isinstance(built, _Array) and not hasattr(built, "value"):
            built.read(self._file)

    dispatch[pickle.BUILD[0]] = load_build


def as_arrays(value: Any, converted: dict[int, Any] | None = None) -> Any:
    """Convert the stand-ins and tensors in a result of `PlainUnpickler` or `torch.load` to arrays.

    A container that occurs several times is converted once: ten lists of ten references each stand for 10^10 values.
    """
    converted = {} if converted is None else converted
    if id(value) in converted:
        return converted[id(value)]
    original = value
    if isinstance(value, _Array):
        value = value.value[0] if isinstance(value.value, list) and value.shape == () else value.value
    if isinstance(value, torch.Tensor):
        if value.nelement() * value.element_size() > MAX_UNPACKED_BYTES:
            raise ForbiddenError("a tensor larger than its file can be")
        value = value.detach().numpy()
    elif isinstance(value, dict):
        value = {key: as_arrays(item, converted) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        value = [as_arrays(item, converted) for item in value]
    else:
        return value
    converted[id(original)] = value
    return value
