"""Public forms of addresses, the ids made of them, and what is left in texts and settings."""

import logging
import pickle
from dataclasses import replace

import pytest

from schemas.addresses import divide, is_credential_name, path_part, public_form
from schemas.errors import HumoError
from schemas.ids import digest, source_id
from schemas.records import Rejection, Source
from schemas.secrets import (
    hide_credentials,
    hide_parts,
    hide_secrets,
    hide_secrets_in_output,
    public_override,
    public_settings,
)
from schemas.storage import Storage

AWS = "X-Amz-Algorithm=AWS4&X-Amz-Credential=AK%2F1&X-Amz-Date=20260101T0Z&X-Amz-Expires=60&X-Amz-Signature={}"
PUBLIC_FORMS = {
    "https://me:word@host/v.mp4?X-Amz-Signature=abc#part": "https://host/v.mp4",
    f"https://host/v.mp4?{AWS.format('f00d')}": "https://host/v.mp4",
    "https://host/v.mp4?X%2DAmz%2DSignature=abc&x-id=GetObject": "https://host/v.mp4",
    "https://b.blob.core.windows.net/c/v.mp4?sv=2020&st=1&se=2&sr=b&sp=r&sig=x%2By": "https://b.blob.core.windows.net/c/v.mp4",
    "https://storage.googleapis.com/b/v.mp4?X-Goog-Date=1&X-Goog-Signature=a": "https://storage.googleapis.com/b/v.mp4",
    "https://cdn/v.mp4?Expires=1&Policy=p&Signature=s&Key-Pair-Id=K": "https://cdn/v.mp4",
    "https://cdn/v.mp4?hdnts=exp=1~acl=*~hmac=ff": "https://cdn/v.mp4",
    "https://cos/v.mp4?q-sign-algorithm=sha1&q-ak=A&q-signature=s": "https://cos/v.mp4",
    "https://www.youtube.com/watch?v=dQw4w9WgXcQ": "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
    "https://host/get?id=42&token=abc&page=3": "https://host/get?id=42&page=3",
    "https://host/get?id=eyJhbGciOiJIUzI1NiJ9.e30.x": "https://host/get",
    "https://host/get?foo=bar": "https://host/get",
    "https://host/get?url=https%3A%2F%2Fme%3Aword%40inner%2F": "https://host/get",
    "https://host/v.mp4;jsessionid=ABC": "https://host/v.mp4",
    "https://web.archive.org/2020/https://me:word@host/v.mp4": "https://web.archive.org/2020/https://host/v.mp4",
    "HTTPS://me@Host:8443/v.mp4": "HTTPS://Host:8443/v.mp4",
    "http://[::1]:80/v.mp4": "http://[::1]:80/v.mp4",
    "https:/me:word@host/v.mp4": "https:/host/v.mp4",
    # signs in a password that should have been escaped, and texts that were cut off
    "https://me:wo/rd@host/v.mp4": "https://host/v.mp4",
    "https://me:wo?r#d@host/v.mp4": "https://host/v.mp4",
    "https://me:wo": "https://me",
    # object stores: ? and # belong to names
    "s3://bucket/Funny #shorts? 1.mp4": "s3://bucket/Funny #shorts? 1.mp4",
    "s3://KEY:SECRET@bucket/v.mp4?versionId=3&X-Amz-Security-Token=t": "s3://bucket/v.mp4?versionId=3",
    "abfs://container@account/v.mp4?sv=1&sig=a": "abfs://container@account/v.mp4",
    "abfs://container:word@account/v.mp4": "abfs://account/v.mp4",
    "hf://datasets/a/b@main/v.mp4": "hf://datasets/a/b@main/v.mp4",
    "zip://a.mp4::https://me:word@host/a.zip?token=t": "zip://a.mp4::https://host/a.zip",
    # disks, and sources without a file
    "/data/what? #1 a=b@c.mp4": "/data/what? #1 a=b@c.mp4",
    "studio:walk#3": "studio:walk#3",
}


@pytest.mark.parametrize(("address", "public"), PUBLIC_FORMS.items())
def test_public_forms(address: str, public: str) -> None:
    assert public_form(address) == public
    assert public_form(public) == public


def test_ids_stay_when_signatures_change() -> None:
    address = f"https://me:{{0}}@host/v.mp4?id=3&{AWS.format('{0}')}#{{0}}"
    assert source_id(address.format("one")) == source_id(address.format("two")) == source_id("https://host/v.mp4?id=3")


def test_parameters_that_are_not_shown_count_for_the_id() -> None:
    one, other = (f"https://host/get?foo={value}&token=t" for value in ("1", "2"))
    assert public_form(one) == public_form(other) == "https://host/get"
    assert source_id(one) != source_id(other)
    assert source_id("https://host/get?id=1") != source_id("https://host/get?id=2")


def test_ids_of_plain_addresses_are_the_digest_of_the_address() -> None:
    for address in ("/data/v.mp4", "s3://bucket/a b.mp4", "https://host/v.mp4"):
        assert source_id(address).endswith("-" + digest("source", address, digits=8))


@pytest.mark.parametrize(
    "name",
    ["Authorization", "cookie", "Set-Cookie", "token", "accessToken", "api_key", "apiKey", "password", "X-Amz-Date", "sig",
     "AWSAccessKeyId", "wsSecret", "client_secret", "Key-Pair-Id", "session_id", "user"],
)  # fmt: skip
def test_names_of_credentials(name: str) -> None:
    assert is_credential_name(name)


@pytest.mark.parametrize(
    "name", ["v", "id", "page", "design", "author", "keyframe", "signal", "passage", "index", "tokyo"]
)
def test_other_names(name: str) -> None:
    assert not is_credential_name(name)


def test_the_part_to_look_for_a_suffix_in() -> None:
    assert path_part("https://me:word@host/m.csv?X-Amz-Signature=a/b.c#d") == "https://host/m.csv"
    assert path_part("s3://bucket/what?.csv") == "s3://bucket/what?.csv"
    assert path_part("/data/what?.csv") == "/data/what?.csv"


def test_a_source_keeps_its_secret_form_in_memory_only() -> None:
    address = "https://me:word@host/v.mp4?X-Amz-Signature=abc"
    source = Source(
        id="one", uri=address, title="from https://me:word@host/x?y=1#z", description="see https://host/x?y=1#z"
    )
    assert (source.uri, source.location) == ("https://host/v.mp4", address)
    assert source.title == "from https://host/x"
    assert source.description == "see https://host/x?y=1#z"
    assert "word" not in repr(source)
    assert pickle.loads(pickle.dumps(source)) == source
    assert replace(source, title="other").location == address
    assert replace(source, uri="/films/one.mp4").location == "/films/one.mp4"
    assert Source(id="two", uri="/data/v.mp4").location == "/data/v.mp4"


def test_a_storage_names_its_public_form() -> None:
    storage = Storage("memory://me:word@bucket/data")
    assert storage.uri == "memory://bucket/data"
    assert storage.address == "memory://me:word@bucket/data"


MESSAGES = {
    "403, url='https://me:word@host/v.mp4?X-Amz-Signature=abc'": "403, url='https://host/v.mp4'",
    "exceeded with url: /v.mp4?X-Amz-Signature=abc&id=3 (Caused by": "exceeded with url: /v.mp4?id=3 (Caused by",
    "at https://host/v.mp4: no, see (https://host/w?foo=1).": "at https://host/v.mp4: no, see (https://host/w).",
    "{'Authorization': 'Bearer abc.def', 'Accept': '*/*'}": "{'Authorization': '***', 'Accept': '*/*'}",
    "Cookie: a=b; c=d": "Cookie: ***",
    "//me:word@host/v.mp4": "//***@host/v.mp4",
    "a,https://one:x@host/1,https://two:y@host/2": "a,https://host/1,https://host/2",
    "write_captions.vlm.api_key: is not a key": "write_captions.vlm.api_key: is not a key",
    "/data/what?.mp4 is not there (stages/a.py:12 in run)": "/data/what?.mp4 is not there (stages/a.py:12 in run)",
}


@pytest.mark.parametrize(("text", "hidden"), MESSAGES.items())
def test_messages(text: str, hidden: str) -> None:
    assert hide_secrets(text) == hidden
    assert hide_secrets(hidden) == hidden
    assert str(HumoError(text)) == hidden
    assert Rejection(id="one", stage="s", reason="r", detail=text).detail == hidden


def test_known_secrets_are_found_in_any_spelling() -> None:
    address = "https://bobby:pa%2Fss w0rd@host/v.mp4?X-Amz-Signature=s1gn%2Fature&other=0123456789#fragm3nt"
    for text in (
        "pa/ss w0rd", "pa%2Fss%20w0rd", "pa%2Fss+w0rd", "s1gn/ature", "0123456789", "the fragm3nt of bobby",
        "cut at s1gn%2Fa", "Ym9iYnk6cGEvc3MgdzByZA==", address,
    ):  # fmt: skip
        hidden = hide_parts(text, address)
        for secret in ("ss", "w0rd", "s1gn", "012345", "fragm3nt", "bobby", "Ym9i"):
            assert secret not in hidden, (text, hidden)
    assert hide_parts("nothing of it", address) == "nothing of it"


def test_prose_keeps_addresses_without_credentials() -> None:
    text = "see https://youtu.be/x?t=3&foo=1#top and https://host/v?token=abc#x"
    assert hide_credentials(text) == "see https://youtu.be/x?t=3&foo=1#top and https://host/v"


def test_settings_lose_credentials_and_say_where() -> None:
    settings = {
        "sources": [{"path": "https://me:word@host/v.mp4", "kind": "video"}, {"path": "/data"}],
        "storage": {"secret": "abc", "api_key_env": "KEY", "max_tokens": 700},
    }
    public, left_out = public_settings(settings)
    assert public["sources"] == [{"path": "https://host/v.mp4", "kind": "video"}, {"path": "/data"}]
    assert public["storage"] == {"secret": "", "api_key_env": "KEY", "max_tokens": 700}
    assert left_out == ["sources.0.path", "storage.secret"]
    assert public_settings(public) == (public, [])
    assert public_override("vlm.api_key=abc") == "vlm.api_key=***"
    assert public_override("output=s3://me:word@bucket/x") == "output=s3://bucket/x"


def test_logs_pass_the_same_filter(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (("sys", "excepthook"), ("threading", "excepthook")):
        monkeypatch.setattr(f"{module}.{name}", None)
    factory = logging.getLogRecordFactory()
    try:
        hide_secrets_in_output()
        try:
            raise OSError("https://me:word@host/v.mp4")
        except OSError:
            logging.getLogger("library").exception("at %s", "https://me:word@host/w.mp4")
    finally:
        logging.setLogRecordFactory(factory)
    assert "https://host/w.mp4" in caplog.text
    assert "OSError: https://host/v.mp4" in caplog.text
    assert "word" not in caplog.text


def test_division_names_what_it_hides() -> None:
    parts = divide("https://me:word@host/v?id=3&foo=1&token=t#f")
    assert parts.unnamed == ("foo=1",)
    assert set(parts.secrets) == {"me", "word", "me:word", "t", "f"}
