"""Shards are plain tar files: the members of a sample lie side by side as `KEY.member`, KEY without dots.

Headers carry no clock and no owner, so the same samples give the same bytes, and a sample's stretch of a tar can be
copied as it is.
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
    """What a tar can be written to."""

    def write(self, data: bytes, /) -> int: ...


@runtime_checkable
class ByteSource(Protocol):
    """What a tar can be read from."""

    def read(self, size: int = -1, /) -> bytes: ...


def encode_sample(key: str, members: dict[str, bytes]) -> bytes:
    """The stretch of a tar that holds one sample, members in the order of their names."""
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
    """What a tar that was written holds."""

    spans: list[tuple[int, int]]
    """(offset, length) of each sample's stretch."""
    bytes: int
    sha256: str


def write_tar(file: ByteSink, stretches: Iterable[bytes]) -> TarContent:
    """Write encoded samples and the end mark."""
    total, offset = hashlib.sha256(), 0
    spans = []
    for stretch in stretches:
        file.write(stretch)
        total.update(stretch)
        spans.append((offset, len(stretch)))
        offset += len(stretch)
    file.write(END_OF_ARCHIVE)
    total.update(END_OF_ARCHIVE)
    return TarContent(spans, offset + len(END_OF_ARCHIVE), total.hexdigest())


def read_samples(file: ByteSource, name: str = "shard") -> Iterator[tuple[str, dict[str, bytes]]]:
    """Stream (key, members) from a tar; raises HumoError for one that is cut short or no tar at all."""
    key = ""
    members: dict[str, bytes] = {}
    try:
        # A stream is only ever read, whatever more the signature of tarfile asks for.
        with tarfile.open(fileobj=cast(IO[bytes], file), mode="r|") as tar:
            for entry in tar:
                if not entry.isfile():
                    continue
                here, _, member = entry.name.rsplit("/", 1)[-1].partition(".")
                if here != key and members:
                    yield key, members
                    members = {}
                key = here
                content = tar.extractfile(entry)
                assert content is not None
                members[member] = content.read()
                if len(members[member]) != entry.size:
                    raise HumoError(f"{name}: ends inside {entry.name}; fetch it again or run humo pack")
    except tarfile.TarError as error:
        raise HumoError(f"{name}: not a readable tar ({error}); fetch it again or run humo pack") from None
    if members:
        yield key, members


def decode_sample_bytes(stretch: bytes, name: str = "shard") -> tuple[str, dict[str, bytes]]:
    """(key, members) of one sample's stretch of a tar; raises HumoError for one that is cut short or empty."""
    for sample in read_samples(io.BytesIO(stretch + END_OF_ARCHIVE), name):
        return sample
    raise HumoError(f"{name}: no sample where one should be; fetch it again or run humo pack")
