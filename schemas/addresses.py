"""Public and secret forms of addresses, and the rule that divides an address into what may be written and what may not.

The secret form is what opens a file: `https://me:word@host/v.mp4?X-Amz-Signature=...`. The public form is what is written and
printed: `https://host/v.mp4`. The rule, for each link of a chained address (`zip://a.mp4::https://...`):

- User, password and fragment are left out, and path parameters (`;jsessionid=...`) with the name of a credential.
- A parameter of the query is *shown* if its name is among those that commonly address an object (`v`, `id`, `page`, ...) and its
  value is short and plain.
- It is *secret* if its name is that of a credential or of a part of a signature (`token`, `sig`, `X-Amz-*`, `Expires`, ...).
- Any other parameter is *unnamed*: it may address the object and it may be a secret, so it is not shown, but counts for the
  source's id.

In object stores and archives (`s3://`, `gs://`, `zip://`, ...) `?` and `#` belong to names: everything but credentials is shown.
Paths of a disk are their own public form. A secret that stands in the path itself cannot be recognised.
"""

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{1,30}"  # bounded: a search through a long word without one would take quadratic time
START = rf"(?:{_SCHEME}://|(?i:https?|ftps?|sftp):[/\\])"
"""Pattern of the beginning of an address; those of the web also with a wrong number of slashes."""
_LINKS = re.compile(rf"::(?={START})")
_LINK = re.compile(rf"(?={START})({_SCHEME}):([/\\]+)(.*)", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/?#@\[\]]*)(:\d*)?")
_NESTED_USER = re.compile(r"(?<=://)[^/@\s]*@")
_PATH_PARAMETER = re.compile(r";([^/;=]+)=[^/;]*")
_NAME_PARAMETER = re.compile(r"(?<=[?&#;])([^=&#;?/]+)=([^&#;]*)([&;]?)")

_STORES = frozenset(
    {
        "abfs", "abfss", "adl", "az", "azure", "b2", "blockcache", "cos", "dbfs", "file", "filecache", "gcs", "github", "gs",
        "hdfs", "hf", "local", "memory", "obs", "oci", "oss", "r2", "s3", "s3a", "s3n", "simplecache", "swift", "tar", "wasb",
        "wasbs", "webhdfs", "zip",
    }
)  # fmt: skip
"""Protocols whose names may contain `?` and `#`."""
_CONTAINERS = frozenset(
    {
        "abfs", "abfss", "az", "azure", "github", "wasb", "wasbs",
    }
)  # fmt: skip
"""Protocols with `container@account` or `owner:repository@revision` in place of a user."""
_SHOWN = frozenset(
    {
        "action", "alt", "angle", "bitrate", "cam", "camera", "chapter", "chunk", "clip", "clipid", "codec", "container",
        "dl", "download", "end", "ep", "episode", "export", "file", "filename", "fmt", "format", "fps", "frame", "frames",
        "generation", "height", "id", "index", "itag", "lang", "language", "list", "locale", "n", "name", "no", "num",
        "number", "p", "page", "part", "playlist", "quality", "raw", "res", "resolution", "rev", "revision", "scene",
        "season", "segment", "seq", "sequence", "start", "subject", "take", "track", "type", "v", "version", "versionid",
        "vid", "video", "videoid", "view", "width",
    }
)  # fmt: skip
"""Names of parameters that address an object, without signs and in lower case."""
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9._~,+-]{0,36}")
_KNOWN_TOKEN = re.compile(r"(AKIA|ASIA|AIza|SG\.|eyJ|gh[opsur]_|github_pat_|glpat-|hf_|sk-|xox[abeprs]-|ya29\.)")
"""Beginnings of the tokens of widely used services."""
_CREDENTIAL_STEMS = (
    "accessid", "accesskey", "apikey", "authoriz", "bearer", "cookie", "credential", "csrf", "expires", "hmac", "jwt", "keypair",
    "nonce", "oauth", "passphrase", "passw", "privatekey", "secret", "session", "signature", "signed", "ticket", "token", "xsrf",
)  # fmt: skip
_CREDENTIAL_WORDS = frozenset(
    {
        "access", "acl", "amz", "auth", "code", "cred", "creds", "email", "exp", "expiration", "expire", "expiry", "gda",
        "goog", "hash", "hdnea", "hdntl", "hdnts", "key", "login", "lsig", "mac", "mail", "md5", "oe", "oh", "otp", "pass",
        "pin", "policy", "pw", "pwd", "security", "sess", "sha1", "sha256", "sid", "sig", "sign", "tok", "uid", "user",
        "username", "usr",
    }
)  # fmt: skip
_CREDENTIAL_PREFIX = re.compile(r"q-(ak|header|key|sign|url)|_nc_|x-(amz|cos|goog|ms|obs|oss|tos)-")
_BESIDE_SIGNATURES = frozenset(
    {
        "date", "e", "ei", "endtime", "ip", "saoid", "scid", "sdd", "se", "sip", "ske", "skoid", "sks", "skt", "sktid", "skv",
        "sp", "sparams", "spr", "sr", "srt", "ss", "st", "starttime", "suoid", "sv", "t", "time", "timestamp", "ts", "ttl",
        "txtime", "validfrom", "validto", "wstime",
    }
)  # fmt: skip
"""Names that belong to a signature where one stands beside them, as in Azure's `sv=...&se=...&sig=...`."""


@dataclass(frozen=True)
class AddressParts:
    """An address, divided."""

    public: str
    unnamed: tuple[str, ...] = ()
    """Parameters `name=value` that are not shown but count for the id."""
    credentials: tuple[str, ...] = ()
    """User, password, values of secret parameters, as they stand in the address."""
    fragment: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything that must not be written, except the unnamed parameters."""
        return tuple(one for one in (*self.credentials, self.fragment) if one)


def divide(address: str) -> AddressParts:
    """Public form, unnamed parameters and secrets of an address. The public form is its own public form."""
    links = [_divide_link(link) for link in _LINKS.split(address)]
    return AddressParts(
        "::".join(link.public for link in links),
        tuple(one for link in links for one in link.unnamed),
        tuple(one for link in links for one in link.credentials if one),
        "".join(link.fragment for link in links),
    )


def public_form(address: str) -> str:
    """What may be written and printed of an address."""
    return divide(address).public if ":" in address else address


def path_part(address: str) -> str:
    """An address without query and fragment where its protocol has them, to look for a suffix or a pattern in."""
    match = _LINK.fullmatch(address)
    return (
        address
        if match is None or match[1].lower() in _STORES
        else re.split("[?#]", public_form(address), maxsplit=1)[0]
    )


def is_remote(address: str) -> bool:
    """Whether it names a protocol, even with a wrong number of slashes; otherwise it is a path of a disk."""
    return any(_LINK.match(link) for link in _LINKS.split(address))


def is_credential_name(name: str) -> bool:
    """Whether a parameter, setting or column of this name holds a credential or a part of a signature."""
    plain = unquote(name).strip()
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", plain)}
    words |= {word.rstrip("0123456789") for word in words}
    return (
        bool(words & _CREDENTIAL_WORDS)
        or _CREDENTIAL_PREFIX.match(plain.lower()) is not None
        or any(stem in _compact(plain) for stem in _CREDENTIAL_STEMS)
    )


def shown_query(query: str) -> tuple[list[str], list[str], list[str]]:
    """Shown, unnamed and secret parameters of a web address's query."""
    parameters = [one for one in re.split("[&;]", query) if one]
    signed = any(is_credential_name(one.partition("=")[0]) for one in parameters)
    shown: list[str] = []
    unnamed: list[str] = []
    secret: list[str] = []
    for one in parameters:
        name, sign, value = one.partition("=")
        compact = _compact(unquote(name))
        inner = unquote(value)
        is_secret = is_credential_name(name) or (signed and compact in _BESIDE_SIGNATURES)
        if is_secret or _KNOWN_TOKEN.match(inner) or divide(inner).credentials:
            secret.append(one)
        elif sign and compact in _SHOWN and _PLAIN_VALUE.fullmatch(value):
            shown.append(one)
        else:
            unnamed.append(one)
    return shown, unnamed, secret


def _compact(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _divide_link(link: str) -> AddressParts:
    match = _LINK.fullmatch(link)
    if match is None:
        return AddressParts(link)
    scheme, slashes, rest = match.groups()
    start = f"{scheme}:{slashes}"
    return _divide_name(scheme.lower(), start, rest) if scheme.lower() in _STORES else _divide_web(start, rest)


def _divide_web(start: str, rest: str) -> AddressParts:
    rest, _, fragment = rest.partition("#")
    rest, _, query = rest.partition("?")
    authority, path = _authority(rest)
    user, _, host = authority.rpartition("@")
    whole = "?".join(filter(None, [rest, query])) + fragment
    if not _HOST.fullmatch(host):
        # A sign in the password that should have been escaped, or a text that was cut off: only what follows the last @ is sure.
        before, at, after = whole.rpartition("@")
        if at:
            inner = _divide_web(start, after)
            return replace(inner, credentials=(*_user_parts(before), *inner.credentials))
        host, _, port = host.partition(":")
        return AddressParts(f"{start}{host}", (), (port, path, query), fragment)
    shown, unnamed, secret = shown_query(query)
    left_out = [
        match[0].partition("=")[2] for match in _PATH_PARAMETER.finditer(path) if is_credential_name(match[1])
    ] + [match[0][:-1] for match in _NESTED_USER.finditer(path)]
    path = _PATH_PARAMETER.sub(lambda match: "" if is_credential_name(match[1]) else match[0], path)
    path = _NESTED_USER.sub("", path)
    values = [one.partition("=")[2] or one for one in secret]
    values += [one.partition("=")[2] for one in re.split("[&;]", fragment) if is_credential_name(one.partition("=")[0])]
    public = f"{start}{host}{path}" + (f"?{'&'.join(shown)}" if shown else "")
    return AddressParts(public, tuple(unnamed), (*_user_parts(user), *left_out, *values), fragment)


def _divide_name(scheme: str, start: str, rest: str) -> AddressParts:
    """Of a protocol whose names may contain `?` and `#`."""
    authority, whole = _authority(rest)
    mark = re.search("[?#]|$", whole)
    assert mark is not None
    path, name = whole[: mark.start()], whole[mark.start() :]
    user, at, bucket = authority.rpartition("@")
    keeps_user = scheme in _CONTAINERS and (scheme == "github" or ":" not in user)
    secrets: list[str] = [] if keeps_user else [*_user_parts(user)]
    parameters = list(_NAME_PARAMETER.finditer(name))
    signed = any(is_credential_name(one[1]) for one in parameters)

    def keep(one: re.Match[str]) -> str:
        is_secret = is_credential_name(one[1]) or (signed and _compact(unquote(one[1])) in _BESIDE_SIGNATURES)
        if is_secret or _KNOWN_TOKEN.match(unquote(one[2])):
            secrets.append(one[2])
            return ""
        return one[0]

    kept = _NAME_PARAMETER.sub(keep, name)
    kept = kept if kept == name else re.sub(r"[?&#;]+(?=#)|[?&#;]+$", "", kept)
    return AddressParts(f"{start}{f'{user}@' if at and keeps_user else ''}{bucket}{path}{kept}", (), tuple(secrets))


def _authority(rest: str) -> tuple[str, str]:
    end = re.search(r"[/\\]|$", rest)
    assert end is not None
    return rest[: end.start()], rest[end.start() :]


def _user_parts(user: str) -> tuple[str, ...]:
    name, _, password = user.partition(":")
    return (name, password, user) if user else ()
