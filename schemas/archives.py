"""Limits for reading archives of arrays: some kilobytes can unpack to any size."""

import zipfile

from schemas.errors import SourceError

MAX_UNPACKED_BYTES = 4 << 30
"""Largest content of an archive after unpacking, and largest array of a pickle."""


class ArchiveTooLargeError(SourceError, ValueError):
    """An archive that unpacks to more than the limit."""


def check_unpacked_size(archive: zipfile.ZipFile, name: str, limit: int = MAX_UNPACKED_BYTES) -> None:
    """Raise ArchiveTooLargeError for a zip whose members are too large together; `name` is for the message."""
    size = sum(member.file_size for member in archive.infolist())
    if size > limit:
        raise ArchiveTooLargeError("archive_too_large", f"{name}: bytes after unpacking", size, limit)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Content of a member, never more than the size in the directory, which `ZipFile.read` unpacks first and then cuts."""
    with archive.open(member) as file:
        return file.read(member.file_size)
