import ipaddress

import pytest

from schemas.errors import SourceError
from schemas.network import AddressPolicy, RequestsConfig, folder_of, is_public, protocol_of

STORES = ("/data/videos", "s3://mine/raw", "http://127.0.0.1:8000/list.csv", "http://[::1]:8000/")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("::ffff:93.184.216.34", True), ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False), ("0.0.0.0", False), ("10.1.2.3", False), ("169.254.169.254", False), ("100.100.100.200", False),
        ("224.0.0.1", False), ("240.0.0.1", False), ("::1", False), ("::", False), ("fe80::1", False), ("fd00:ec2::254", False),
        ("::ffff:127.0.0.1", False), ("::127.0.0.1", False), ("64:ff9b::a9fe:a9fe", False), ("2002:7f00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False), ("ff02::1", False),
    ],
)  # fmt: skip
def test_which_hosts_are_on_the_internet(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("/anywhere/v.mp4", True), ("s3://any/v.mp4", True), ("https://example.org/v?key=a::b", True), ("HTTPS://a.org/v", True),
        ("ftp://example.org/v.mp4", False), ("simplecache::https://example.org/v.mp4", False), ("s3://a::b/v.mp4", False),
        ("concat:http://a|http://b", False), ("http:///v.mp4", False), ("http://exa mple:x/v", False), ("memory://v", False),
    ],
)  # fmt: skip
def test_protocols(uri: str, allowed: bool) -> None:
    policy = AddressPolicy(RequestsConfig(), STORES)
    if allowed:
        policy.check(uri)
        return
    with pytest.raises(SourceError, match=r"no host|protocol|not an address") as caught:
        policy.check(uri)
    assert caught.value.reason == "address_not_allowed"


def test_a_protocol_that_is_taken_out_is_left_to_the_stores() -> None:
    policy = AddressPolicy(RequestsConfig(protocols=["https"]), STORES)
    for uri in (
        "/data/videos/a/v.mp4",
        "file:///data/videos/v.mp4",
        "s3://mine/other/v.mp4",
        "http://127.0.0.1:8000/v.mp4",
    ):
        policy.check(uri)
    for uri in (
        "/data/videos/../v.mp4",
        "/data/videos2/v.mp4",
        "s3://mine2/v.mp4",
        "http://127.0.0.1:8001/v.mp4",
        "http://127.0.0.1/",
    ):
        with pytest.raises(SourceError):
            policy.check(uri)


def test_a_store_is_one_host_and_port() -> None:
    policy = AddressPolicy(RequestsConfig(), STORES)
    assert policy.is_store("http://127.0.0.1:8000/deep/v.mp4")
    assert policy.is_store("http://[::1]:8000/v.mp4")
    for uri in (
        "http://127.0.0.1:8000@10.0.0.1/",
        "https://127.0.0.1:8000/",
        "http://127.0.0.1:80/",
    ):
        assert not policy.is_store(uri), uri


def test_private_networks_of_the_settings() -> None:
    policy = AddressPolicy(RequestsConfig(private_networks=["10.20.0.0/16", "fd12::/16"]))
    policy.check_host("http://camera/v.mp4", ["10.20.3.4", "::ffff:10.20.3.4", "fd12::1"])
    for address in ("10.21.0.1", "::ffff:10.21.0.1", "fd13::1"):
        with pytest.raises(SourceError, match=r"requests\.private_networks"):
            policy.check_host("http://camera/v.mp4", ["93.184.216.34", address])
    with pytest.raises(ValueError, match="does not appear to be"):
        RequestsConfig(private_networks=["ten"])


@pytest.mark.parametrize(
    ("uri", "protocol"),
    [
        ("v.mp4", "file"),
        ("/a/b::c", "/a/b"),
        ("S3://b/k", "s3"),
        ("file:///a", "file"),
        ("concat:http://x", "concat:http"),
    ],
)
def test_protocol_of(uri: str, protocol: str) -> None:
    assert protocol_of(uri) == protocol


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("a/v.mp4", "a"),
        ("s3://b/a/v?1.mp4", "s3://b/a"),
        ("https://me:word@host/a/v.mp4?X-Amz-Credential=AK/2026/s3&sig=a#b/c", "https://me:word@host/a"),
    ],
)
def test_folder_of(uri: str, folder: str) -> None:
    assert folder_of(uri) == folder


def test_texts_have_the_public_form() -> None:
    policy = AddressPolicy(RequestsConfig(protocols=["https"]))
    for uri in (
        "http://me:CANARY@host/v.mp4?sig=CANARY",
        "https://me:CANARY@/v.mp4",
        "https://me:CANARY@host:CANARY/v",
    ):
        with pytest.raises(SourceError) as caught:
            policy.check(uri)
        assert "CANARY" not in f"{caught.value} {caught.value.args}"
    with pytest.raises(SourceError, match=r"http://host/v\.mp4: its host") as caught:
        policy.check_host("http://me:CANARY@host/v.mp4?sig=CANARY", ["127.0.0.1"])
    assert "CANARY" not in str(caught.value)
