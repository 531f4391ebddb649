"""Which addresses may be requested: protocols, and no host of a private network.

Manifests are written by others. An address in one must not make a job ask the services beside it (a cloud's metadata
service, a database on the loopback), neither directly, nor through a name that resolves there, nor by a redirect. What
the user's own settings name, the output and the stores of the sources, is exempt.
"""

import ipaddress
import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator

from schemas.addresses import path_part, public_form
from schemas.config import Config
from schemas.errors import SourceError
from schemas.secrets import hide_parts

HTTP = ("http", "https")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SPLIT = re.compile(r"::|://")
"""As fsspec splits addresses: a chain of file systems by `::`, a protocol by `://`."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class RequestsConfig(Config):
    """Addresses that sources may have, and limits of fetching them."""

    protocols: list[str] = ["file", "http", "https", "s3", "s3a", "gs", "gcs"]
    """Protocols of addresses in manifests. Paths that `sources` and `output` name, and files in the same store, may have any."""
    private_networks: list[str] = []
    """Networks that addresses in manifests may lead to although they are private (loopback, link-local, 10.0.0.0/8, ...), such
    as 10.20.0.0/16. The hosts of `sources` and `output` need no entry."""
    max_bytes: int = Field(100_000_000_000, gt=0)
    """Largest source, bytes."""
    max_s: float = Field(3600.0, gt=0)
    """Longest time to fetch a source, seconds."""
    staging_folder: str = ""
    """Folder on each node for copies of remote sources while they are processed; empty: one in the system's temporary folder."""
    staging_bytes: int = Field(200_000_000_000, gt=0)
    """Largest total size of a job's copies on a node, bytes; a source waits until others are done."""

    @field_validator("private_networks")
    @classmethod
    def _check_networks(cls, value: list[str]) -> list[str]:
        for network in value:
            ipaddress.ip_network(network)
        return value


def protocol_of(uri: str) -> str:
    """Protocol of an address in small letters; `file` for a path."""
    parts = _SPLIT.split(uri, maxsplit=1)
    return parts[0].lower() if len(parts) > 1 else "file"


def local_path(uri: str) -> str | None:
    """Path of an address on this machine; None for a remote one."""
    if protocol_of(uri) != "file":
        return None
    return uri[len("file://") :] if "://" in uri else uri


def folder_of(uri: str) -> str:
    """The folder of a file, by its address."""
    path = path_part(uri)
    if path == uri:
        return uri.rpartition("/")[0]
    # The query of a web address may contain slashes, and its user stays part of the folder.
    return re.split("[?#]", uri, maxsplit=1)[0].rpartition("/")[0]


def is_public(address: IpAddress) -> bool:
    """Whether an IP address belongs to a host on the internet, also inside the forms that carry an IPv4 address in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        # Also ::a.b.c.d, which is deprecated but understood by some systems.
        if address in _NAT64 or address.packed[:12] == bytes(12):
            inner.append(ipaddress.IPv4Address(address.packed[12:]))
        if any(one is not None and not is_public(one) for one in inner):
            return False
    return address.is_global and not address.is_multicast


class AddressPolicy:
    """Decides on addresses. `stores` are the paths and addresses in the user's settings."""

    def __init__(self, config: RequestsConfig, stores: Iterable[str] = ()) -> None:
        self._protocols = {protocol.lower() for protocol in config.protocols}
        self._networks = [ipaddress.ip_network(network) for network in config.private_networks]
        self._stores = {_store(uri) for uri in stores}

    @cached_property
    def _folders(self) -> list[str]:
        return [where for protocol, where in self._stores if protocol == "file"]

    def is_store(self, uri: str) -> bool:
        """Whether an address lies in one of the user's stores: below its folder, in its bucket, or on its host and port."""
        protocol, where = _store(uri)
        if protocol != "file":
            return (protocol, where) in self._stores
        return any(where == folder or where.startswith(f"{folder.rstrip('/')}/") for folder in self._folders)

    def check(self, uri: str) -> None:
        """Raise SourceError for an address that may not be requested; hosts are checked when they are connected to."""
        if self.is_store(uri):
            return
        protocol = protocol_of(uri)
        if protocol not in self._protocols or ("::" in uri and protocol not in ("file", *HTTP)):
            raise SourceError(
                "address_not_allowed",
                f"{public_form(uri)}: protocol {protocol!r} is not among {', '.join(sorted(self._protocols))}; copy the file to "
                "one of these, or add the protocol to requests.protocols",
            )
        if protocol in HTTP:
            _host_and_port(uri)

    def check_host(self, uri: str, addresses: Sequence[str]) -> None:
        """Raise SourceError where a host, given by all IP addresses that its name has, is not to be connected to."""
        for text in addresses:
            address = ipaddress.ip_address(text.partition("%")[0])
            inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
            allowed = any(one in network for one in (address, inner) if one is not None for network in self._networks)
            if not allowed and not is_public(address):
                raise SourceError(
                    "address_not_allowed",
                    f"{public_form(uri)}: its host has the private address {text}; add its network to "
                    "requests.private_networks if sources may be read from there",
                )


def _store(uri: str) -> tuple[str, str]:
    """What addresses of one store have in common: host and port, bucket, or the local folder or file itself."""
    protocol = protocol_of(uri)
    if protocol == "file":
        return protocol, posixpath.normpath(Path(local_path(uri) or "").expanduser().absolute())
    if protocol in HTTP:
        host, port = _host_and_port(uri)
        return protocol, f"{host}:{port}"
    rest = _SPLIT.split(uri, maxsplit=1)[1]
    return protocol, rest if "::" in uri else rest.partition("/")[0]


def _host_and_port(uri: str) -> tuple[str, int]:
    """By the parser of the library that connects: two parsers could read one address as two hosts."""
    from yarl import URL

    try:
        url = URL(uri)
    except ValueError as error:
        text = hide_parts(f"not an address ({error})", uri)
        raise SourceError("address_not_allowed", f"{public_form(uri)}: {text}; correct the manifest") from None
    if not url.host or not url.port:
        raise SourceError("address_not_allowed", f"{public_form(uri)}: it names no host; correct the manifest")
    return url.host, url.port
