"""Result files: only numbers, text, containers and arrays, without running code from the file."""

from typing import Any

from schemas import plain_files
from schemas.errors import HumoError

SUFFIXES = plain_files.SUFFIXES


class ResultError(HumoError):
    """A result that cannot be imported; `reason` becomes the reason of the rejection."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_plain(name: str, content: bytes) -> Any:
    """Content of a file, tensors as arrays; `name` is used in messages and its suffix determines the format.

    Raises ResultError, SourceError.
    """
    try:
        return plain_files.read_plain(name, content)
    except plain_files.PlainFileError as error:
        raise ResultError(error.reason, str(error)) from None
