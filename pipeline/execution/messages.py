"""Messages from a worker process, read as data: the process has decoded files that anybody may have made.

They are pickles whose only callables are the three below: one that fills a record of a known class, one that makes an array of
numbers or text, one that makes a scalar. A pickle that names anything else is not loaded.
"""

import io
import pickle
import re
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, cast

import numpy as np

from pipeline.chain.work_item import WorkItem
from schemas import records
from schemas.errors import HumoError, SourceError, UsageError
from schemas.records import Rejection, Source
from schemas.staging import Look

MAX_MESSAGE_BYTES = 8 << 30
"""Largest message that is received: the records of hours of video with their encoded samples."""
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|[SU]\d{1,6})")
"""Numbers and text; the state of numpy's own pickles could describe arbitrary memory."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The stages are set up."""

    description: str = ""
    """What holds the network back."""


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """Progress of a work item: all that is needed to reject it at this stage if no further message arrives."""

    stage: str
    """The stage that begins."""
    ids: list[str]
    """Of the stage's input records."""
    rejections: list[Rejection]
    stage_stats: dict[str, tuple[int, int, int, float]]
    sha256: str

    @classmethod
    def of(cls, stage: str, work_item: WorkItem) -> "StageStarted":
        """A snapshot, as the work item changes later."""
        ids = [record.id for record in work_item.records]
        return cls(
            stage=stage,
            ids=ids,
            rejections=[*work_item.rejections],
            stage_stats={**work_item.stage_stats},
            sha256=work_item.sha256,
        )


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """The worker needs a remote file, which only its parent may fetch; the answer is what that method of `SourceFiles` returns."""

    method: str
    """`copy` or `siblings`."""
    uri: str = field(repr=False)
    """The secret form of its address."""


Message = Ready | StageStarted | FileRequest | HumoError | WorkItem
"""Sent by the worker: Ready or a HumoError of `setup` once; then, for each work item, StageStarted per stage, any number of
FileRequests, and the work item."""

_RECORDS: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (*vars(records).values(), WorkItem, Look, Ready, StageStarted, FileRequest)
    if isinstance(cls, type) and is_dataclass(cls)
}
_ERRORS: dict[str, type[Exception]] = {cls.__name__: cls for cls in (HumoError, UsageError, SourceError)}


def encode(message: Message) -> bytes:
    """Raises pickle.PicklingError for a record of another class."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(message)
    return buffer.getvalue()


def decode(content: bytes) -> Message:
    """Raises pickle.UnpicklingError for anything that `encode` does not write."""
    try:
        message = _Unpickler(io.BytesIO(content)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        # Damaged pickles raise almost any error.
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
    if not isinstance(message, Message):
        raise pickle.UnpicklingError(f"a {type(message).__name__} is no message")
    return message


class _Callable:
    """A callable that a pickle can call, and nothing else: it has no state that a pickle could change."""

    __slots__ = ()
    name: ClassVar[str]

    def __reduce__(self) -> str:
        return self.name

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"{self.name} has no state")


class _MakeRecord(_Callable):
    __slots__ = ()
    name = "make_record"

    def __call__(self, name: str, values: tuple[Any, ...]) -> Any:
        cls = _RECORDS[name]
        names = [one.name for one in fields(cls)]
        record = object.__new__(cls)
        record.__dict__.update(zip(names, values, strict=True))
        if isinstance(record, Source | Rejection):
            record.__post_init__()  # their texts keep hiding secrets, whatever the message says
        return record


class _MakeError(_Callable):
    __slots__ = ()
    name = "make_error"

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> Exception:
        return _ERRORS[name](*arguments)


class _MakeArray(_Callable):
    __slots__ = ()
    name = "make_array"

    def __call__(self, dtype: str, shape: tuple[int, ...], order: Any, content: Any) -> np.ndarray:
        if not _DTYPE.fullmatch(dtype):
            raise pickle.UnpicklingError(f"an array of {dtype!r}")
        return np.ndarray(shape, np.dtype(dtype), content, order="F" if order == "F" else "C")


class _MakeScalar(_Callable):
    __slots__ = ()
    name = "make_scalar"

    def __call__(self, dtype: str, content: bytes) -> Any:
        return make_array(dtype, (1,), "C", content)[0]


make_record, make_error, make_array, make_scalar = _MakeRecord(), _MakeError(), _MakeArray(), _MakeScalar()
_CALLABLES: dict[tuple[str, str], Any] = {
    (__name__, one.name): one for one in (make_record, make_error, make_array, make_scalar)
} | {("builtins", "set"): set, ("builtins", "frozenset"): frozenset, ("builtins", "bytearray"): bytearray}


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        cls = type(value)
        if cls is np.ndarray:
            order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
            # Of Fortran order, the transposed view is contiguous in C order.
            flat = np.ascontiguousarray(value.T if order == "F" else value)
            return make_array, (
                value.dtype.str,
                value.shape,
                order,
                pickle.PickleBuffer(cast(Any, flat.reshape(-1).view(np.uint8))),
            )
        if isinstance(value, np.generic):
            return make_scalar, (value.dtype.str, value.tobytes())
        if _RECORDS.get(cls.__name__) is cls:
            return make_record, (cls.__name__, tuple(value.__dict__[one.name] for one in fields(cls)))
        if _ERRORS.get(cls.__name__) is cls:
            return make_error, (cls.__name__, value.args)
        if isinstance(value, Exception | type) or (is_dataclass(cls) and cls.__module__ != __name__):
            raise pickle.PicklingError(f"a {cls.__name__} cannot be sent by a worker")
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _CALLABLES.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return found
