"""Safe reading of files of arrays: only numbers, text, containers and arrays, without running code from the file.

`.npy` files of objects are a pickle after a short header (numpy.lib.format).
"""

import io
import zipfile
from typing import Any

import numpy as np
import torch

from schemas.archives import check_unpacked_size
from schemas.errors import HumoError, SourceError
from schemas.plain_pickles import ForbiddenError, PlainUnpickler, as_arrays

SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz")
MAX_UNPACKED = 1 << 30
"""Most bytes that an archive of arrays may unpack to."""
_COMPRESSED = {b"\x78": "zlib", b"\x1f\x8b": "gzip", b"BZ": "bz2", b"\xfd7z": "xz", b"\x04\x22\x4d\x18": "lz4"}


class PlainFileError(HumoError):
    """A file that cannot be read; `reason` is `unreadable_result` or `unknown_layout`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_plain(name: str, content: bytes) -> Any:
    """Content of a file, tensors as arrays; `name` is used in messages and its suffix determines the format.

    Raises PlainFileError, ArchiveTooLargeError.
    """
    suffix = "." + name.rsplit(".", 1)[-1].lower()
    compression = next((method for magic, method in _COMPRESSED.items() if content.startswith(magic)), None)
    if suffix in (".pkl", ".pickle") and compression:
        raise PlainFileError(
            "unreadable_result", f"{name}: a pickle compressed with {compression}; save it again without compression"
        )
    try:
        if suffix in (".pkl", ".pickle"):
            return as_arrays(PlainUnpickler(io.BytesIO(content)).load())
        if suffix in (".pt", ".pth"):
            if zipfile.is_zipfile(io.BytesIO(content)):
                _check_size(name, content)
            return as_arrays(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        if suffix == ".npy":
            return as_arrays(_read_npy(io.BytesIO(content)))
        if suffix == ".npz":
            _check_size(name, content)
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
    except (PlainFileError, SourceError):
        raise
    except ForbiddenError as error:
        raise PlainFileError(
            "unreadable_result",
            f"{name}: it refers to {error}, which no result needs and which could run code; save plain arrays instead",
        ) from None
    except Exception as error:
        # Broken files raise almost any error, from EOFError to MemoryError.
        message = str(error).partition("\n")[0][:200]
        raise PlainFileError(
            "unreadable_result",
            f"{name}: no readable {suffix} of plain arrays ({type(error).__name__}: {message}); copy or save it again",
        ) from None
    raise PlainFileError("unknown_layout", f"{name}: ends in {suffix!r}; results end in {', '.join(SUFFIXES)}")


def _read_npy(file: io.BytesIO) -> Any:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if read_header(file)[2].hasobject:
        return PlainUnpickler(file).load()
    file.seek(0)
    return np.load(file, allow_pickle=False)


def _check_size(name: str, content: bytes) -> None:
    """A small archive may unpack to any size."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_unpacked_size(archive, name, MAX_UNPACKED)
