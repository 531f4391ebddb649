"""Downloads a remote file once, from start to end, within limits; hosts are checked at every redirect.

HTTP is requested here, because the address that is checked must be the one that is connected to: a name that is resolved
twice may resolve differently. Buckets are read through fsspec; their endpoints come from the environment, not from manifests.
"""

import asyncio
import errno
import hashlib
import io
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin

import aiohttp
import fsspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from schemas.addresses import public_form
from schemas.errors import SourceError
from schemas.network import HTTP, AddressPolicy, protocol_of
from schemas.secrets import hide_parts

_CHUNK_BYTES = 4 << 20
_MAX_REDIRECTS = 10
_CONNECT_S, _SILENCE_S = 30.0, 60.0
"""Longest time to connect, and between two pieces of an answer."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MISSING = frozenset({404, 410})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one download."""

    max_bytes: int
    max_s: float


_LISTING = Limits(max_bytes=32 << 20, max_s=60.0)
"""Of a web server's page that lists a folder."""


class Download:
    """Receives the bytes of a file: counts and hashes them, and calls `write` with them. `reserve` is called with the size that is
    known or reached."""

    def __init__(self, uri: str, write: Callable[[bytes], Any], limits: Limits, reserve: Callable[[int], None]) -> None:
        self.name, self.size = public_form(uri), 0
        self._write, self._limits, self._reserve = write, limits, reserve
        self._hash, self._start_s, self._reserved = hashlib.sha256(), time.monotonic(), 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def expect(self, size: int) -> None:
        """Reserve room for a file of this size; raises SourceError if it is too large."""
        if size > self._limits.max_bytes:
            raise SourceError("source_too_large", f"{self.name}: bytes", measured=size, limit=self._limits.max_bytes)
        if size > self._reserved:
            self._reserve(size)
            self._reserved = size

    def write(self, content: bytes) -> None:
        """Raises SourceError if the file is too large or takes too long."""
        self.size += len(content)
        if self.size > self._reserved:
            self.expect(min(self._limits.max_bytes, self.size + 16 * _CHUNK_BYTES))
        self.expect(self.size)
        self.check_time()
        self._hash.update(content)
        self._write(content)

    def check_time(self) -> None:
        seconds = time.monotonic() - self._start_s
        if seconds > self._limits.max_s:
            raise SourceError(
                "fetch_timed_out", f"{self.name}: seconds, with {self.size} bytes read", seconds, self._limits.max_s
            )


def download(uri: str, policy: AddressPolicy, into: Download) -> None:
    """Read a remote file. Raises SourceError, FileNotFoundError, OSError; a network error, which a retry may resolve, is a
    ConnectionError, a TimeoutError or one of the store's library."""
    policy.check(uri)
    if protocol_of(uri) in HTTP:
        asyncio.run(_download_http(uri, policy, into))
        return
    fs, path = fsspec.core.url_to_fs(uri)
    before = _identity(fs, path)
    if before[0] is not None:
        into.expect(before[0])
    with fs.open(path, "rb", block_size=_CHUNK_BYTES, cache_type="readahead") as file:
        while content := file.read(_CHUNK_BYTES):
            into.write(content)
    if before != _identity(fs, path):
        raise SourceError(
            "source_changed", f"{public_form(uri)}: it changed while it was read; ingest it once it is complete"
        )
    _check_complete(into, before[0])


def open_remote(uri: str, policy: AddressPolicy) -> Any:
    """A seekable remote file that reads only what is asked for. Raises as `download`."""
    policy.check(uri)
    if protocol_of(uri) not in HTTP:
        return fsspec.open(uri, "rb").open()

    async def session(**options: Any) -> aiohttp.ClientSession:
        # fsspec follows redirects within one call; the connector checks the host of each.
        return _session(policy, uri, **options)

    with _refusals_bare():
        return fsspec.filesystem(protocol_of(uri), get_client=session, skip_instance_cache=True).open(uri)


def list_folder(uri: str, policy: AddressPolicy) -> list[str]:
    """Names in a remote folder, whose address ends with a slash; of a web server, those that its page links to. Raises as
    `download`."""
    policy.check(uri)
    if protocol_of(uri) not in HTTP:
        fs, path = fsspec.core.url_to_fs(uri)
        return sorted(PurePosixPath(str(name)).name for name in fs.ls(path, detail=False))
    page = io.BytesIO()
    download(uri, policy, Download(uri, page.write, _LISTING, lambda size: None))
    links = _Links()
    links.feed(page.getvalue().decode(errors="replace"))
    folder, names = re.split("[?#]", uri, maxsplit=1)[0], set()
    for link in links.found:
        with suppress(ValueError):  # no address
            target = re.split("[?#]", urljoin(uri, link), maxsplit=1)[0]
            names |= {target.removeprefix(folder)} if re.fullmatch(re.escape(folder) + "[^/]+", target) else set()
    return sorted(names)


class _Links(HTMLParser):
    """Collects what a page links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


@contextmanager
def _refusals_bare() -> Iterator[None]:
    """Raise a SourceError that is the cause of a library's error in its place."""
    try:
        yield
    except Exception as error:
        refusal = _refusal_in(error)
        if refusal is not None:
            raise refusal from None
        raise


def _refusal_in(error: BaseException) -> SourceError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SourceError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _identity(fs: Any, path: str) -> tuple[int | None, str]:
    """Size of a stored object, and what changes with its content."""
    fs.invalidate_cache()
    info = fs.info(path)
    return info.get("size"), str(
        [info.get(name) for name in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")]
    )


async def _download_http(uri: str, policy: AddressPolicy, into: Download) -> None:
    current = uri
    for _ in range(_MAX_REDIRECTS + 1):
        policy.check(current)
        if protocol_of(current) not in HTTP:
            target = public_form(current)[:200]
            text = f"{public_form(uri)}: redirects to {target}; list that file itself"
            raise SourceError("address_not_allowed", text)
        async with _session(policy, current) as session:
            try:
                async with session.get(URL(current), allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        await _receive(response, into)
                        return
                    target = response.headers.get("Location", "")
            except aiohttp.ClientError as error:
                into.check_time()
                raise _as_os_error(uri, error) from error
        try:
            current = str(URL(current).join(URL(target)))
        except ValueError as error:
            text = hide_parts(f"redirects to {target!r}, which is no address ({error})", target)
            raise OSError(f"{public_form(uri)}: {text[:500]}") from None
    raise OSError(f"{public_form(uri)}: more than {_MAX_REDIRECTS} redirects")


async def _receive(response: aiohttp.ClientResponse, into: Download) -> None:
    if response.status in _MISSING:
        raise FileNotFoundError(errno.ENOENT, f"HTTP status {response.status}", into.name)
    if response.status in _BUSY:
        raise ConnectionError(f"{into.name}: HTTP status {response.status}")
    if response.status != 200:
        raise OSError(f"{into.name}: HTTP status {response.status}")
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    size = response.content_length if plain else None
    if size is not None:
        into.expect(size)
    async for content in response.content.iter_chunked(_CHUNK_BYTES):
        into.write(content)
    _check_complete(into, size)


def _check_complete(into: Download, size: int | None) -> None:
    if size is not None and into.size != size:
        raise ConnectionError(f"{into.name}: ended after {into.size} of {size} bytes")


def _as_os_error(uri: str, error: aiohttp.ClientError) -> OSError:
    refusal = _refusal_in(error)
    if refusal is not None:
        raise refusal
    if isinstance(error, aiohttp.InvalidURL):
        return OSError(hide_parts(f"{uri}: no address that can be requested ({error})", uri))
    return ConnectionError(hide_parts(f"{uri}: {type(error).__name__}: {error}", uri)[:500])


def _session(policy: AddressPolicy, uri: str, **options: Any) -> aiohttp.ClientSession:
    """An HTTP client that connects to checked hosts only, and to that of `uri` if it is a store of the user's."""
    gate = _Gate(policy, uri)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    connector = aiohttp.TCPConnector(resolver=gate, socket_factory=gate.socket, use_dns_cache=False)
    headers = {"Accept-Encoding": "identity"}
    return aiohttp.ClientSession(**{"connector": connector, "timeout": timeout, "headers": headers, **options})


class _Gate(AbstractResolver):
    """The system's resolver, and the sockets of all connections: a host is checked where it is connected to.

    A name with any address that is not allowed is refused as a whole.
    """

    def __init__(self, policy: AddressPolicy, uri: str) -> None:
        self._policy, self._uri = policy, uri
        url = URL(uri)
        self._store = (url.host or "", url.port or 0) if policy.is_store(uri) else None
        self._exempt = {self._store}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        addresses = [str(address[0]) for *_, address in found]
        if (host, port) == self._store:
            self._exempt |= {(address, port) for address in addresses}
        else:
            self._policy.check_host(self._uri, addresses)
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]  # fmt: skip

    def socket(self, info: Any) -> socket.socket:
        """Called with the address of each connection, also where a host is written as an address and not resolved."""
        family, kind, protocol, _, address = info
        if (address[0], address[1]) not in self._exempt:
            self._policy.check_host(self._uri, [address[0]])
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        pass
