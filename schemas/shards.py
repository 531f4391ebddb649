"""Shards are plain tar files: the members of a sample are adjacent entries `KEY.member`, KEY without dots.

Headers have no time and no owner, so the same samples give the same bytes, and the bytes of a sample can be copied between
tars unchanged.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple, Protocol, cast, runtime_checkable

from schemas.errors import HumoError

END_OF_ARCHIVE = b"\0" * 1024


@runtime_checkable
class ByteSink(Protocol):
    """A target to write a tar to."""

    def write(self, data: bytes, /) -> int: ...


@runtime_checkable
class ByteSource(Protocol):
    """A source to read a tar from."""

    def read(self, size: int = -1, /) -> bytes: ...


def encode_sample(key: str, members: dict[str, bytes]) -> bytes:
    """Tar entries of one sample, members sorted by name, without the end-of-archive mark."""
    if "." in key or "/" in key:
        raise ValueError(f"sample key {key!r}: a key has no dots or slashes")
    buffer = io.BytesIO()
    for name in sorted(members):
        header = tarfile.TarInfo(f"{key}.{name}")
        header.size = len(members[name])
        header.mode = 0o644
        buffer.write(header.tobuf(format=tarfile.USTAR_FORMAT))
        buffer.write(members[name])
        buffer.write(b"\0" * (-header.size % 512))
    return buffer.getvalue()


class TarContent(NamedTuple):
    """Layout and hash of a written tar."""

    spans: list[tuple[int, int]]
    """(offset, length) of each sample."""
    bytes: int
    sha256: str


def write_tar(file: ByteSink, samples: Iterable[bytes]) -> TarContent:
    """Write encoded samples and the end-of-archive mark."""
    total, offset = hashlib.sha256(), 0
    spans = []
    for sample in samples:
        file.write(sample)
        total.update(sample)
        spans.append((offset, len(sample)))
        offset += len(sample)
    file.write(END_OF_ARCHIVE)
    total.update(END_OF_ARCHIVE)
    return TarContent(spans, offset + len(END_OF_ARCHIVE), total.hexdigest())


def read_samples(file: ByteSource, name: str = "shard") -> Iterator[tuple[str, dict[str, bytes]]]:
    """Stream (key, members) from a tar.

    Raises HumoError if it is truncated, not a tar, or holds what no shard has: links, devices, sparse files, a member twice, names
    that lead out of the folder it is unpacked in. Nothing is unpacked here, but other tools do.
    """
    key = ""
    members: dict[str, bytes] = {}
    try:
        # tarfile only reads from a stream, although its signature asks for more.
        with tarfile.open(fileobj=cast(IO[bytes], file), mode="r|") as tar:
            for entry in tar:
                _check_entry(entry, name)
                entry_key, _, member = entry.name.rsplit("/", 1)[-1].partition(".")
                if entry_key != key and members:
                    yield key, members
                    members = {}
                key = entry_key
                if member in members:
                    raise HumoError(f"{name}: holds {entry.name!r} twice; fetch it again or run humo pack")
                content = tar.extractfile(entry)
                assert content is not None
                members[member] = content.read()
                if len(members[member]) != entry.size:
                    raise HumoError(f"{name}: ends inside {entry.name}; fetch it again or run humo pack")
    except (tarfile.TarError, ValueError, OverflowError) as error:  # a damaged header can also be no number
        raise HumoError(f"{name}: not a readable tar ({error}); fetch it again or run humo pack") from None
    if members:
        yield key, members


def _check_entry(entry: tarfile.TarInfo, name: str) -> None:
    """Refuse what is no plain file: a link or device, or a sparse file, whose few bytes may claim to be terabytes."""
    problem = ""
    if not entry.isreg() or entry.issparse():
        problem = "is not a plain file"
    elif entry.name.startswith("/") or ".." in entry.name.split("/"):
        problem = "leads out of the folder it would be unpacked in"
    elif entry.size < 0:
        problem = f"claims {entry.size} bytes"
    if problem:
        raise HumoError(f"{name}: {entry.name!r} {problem}; do not unpack it, fetch it again or run humo pack")


def decode_sample_bytes(content: bytes, name: str = "shard") -> tuple[str, dict[str, bytes]]:
    """(key, members) of one encoded sample; raises HumoError if it is truncated or empty."""
    for sample in read_samples(io.BytesIO(content + END_OF_ARCHIVE), name):
        return sample
    raise HumoError(f"{name}: no sample where one should be; fetch it again or run humo pack")
