"""Takes secrets out of texts and settings: of error messages and crash reports, of titles and descriptions, of recorded jobs."""

import base64
import html
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from schemas.addresses import START, divide, is_credential_name, is_remote, public_form, shown_query

HIDDEN = "***"
"""Stands in texts for what was taken out."""
_MIN_SECRET, _MIN_UNNAMED = 4, 6
"""Shortest value that is searched for in a text as it stands, characters; shorter ones occur in ordinary words."""
_MIN_CUT = 6
"""Shortest beginning of a secret that is recognised at the end of a text that was cut off, characters."""
_ADDRESS = re.compile(rf"{START}(?:(?!{START})[^\s\"'<>|`])+")
_END = re.compile(r"[).,;:\]}\\]+$")
_SCHEMELESS_USER = re.compile(r"(?<=//)[^\s/@:\"'<>]+:[^\s/@\"'<>]+@")
_PATH_AND_QUERY = re.compile(r"(/[^\s?\"'<>]*)\?([^\s\"'<>#]+=[^\s\"'<>]*)")
_PARAMETER = re.compile(r"(?<=[?&;])([\w.%-]+)=([^\s&;#\"'<>)\]}]*)")
_HEADERS = (
    re.compile(
        r"(?i)\b((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?)(?:(?:basic|bearer|digest|token)\s+)?[^\s\"',;)\]}]+"
    ),
    re.compile(r"(?i)\b((?:set-)?cookie[\"']?\s*[:=]\s*[\"']?)[^\n\"']+"),
    re.compile(
        r"(?i)\b([\w-]*(?:api[-_]?key|auth-token|access-token|security-token)[\"']?\s*=\s*[\"']?)[^\s\"',;)\]}]+"
    ),
)


def hide_secrets(text: str) -> str:
    """An error message or crash report with every address in its public form, and without credentials of queries and headers."""
    if not any(sign in text for sign in "/=:"):
        return text
    text = _ADDRESS.sub(_public, text)
    text = _SCHEMELESS_USER.sub(f"{HIDDEN}@", text)
    text = _PATH_AND_QUERY.sub(_public_query, text)
    text = _PARAMETER.sub(_without_credential, text)
    for header in _HEADERS:
        text = header.sub(rf"\1{HIDDEN}", text)
    return text


def hide_credentials(text: str) -> str:
    """A title or description in which addresses with credentials have their public form; all else stays as it is."""
    if ":/" not in text and ":\\" not in text:
        return text
    return _ADDRESS.sub(lambda match: _public(match) if divide(match[0]).credentials else match[0], text)


def holds_secret_address(text: str) -> bool:
    """Whether any address in a text is not in its public form."""
    return any(_public(match) != match[0] for match in _ADDRESS.finditer(text))


def hide_parts(text: str, address: str) -> str:
    """`hide_secrets`, and without the secrets of this address wherever they stand in the text, escaped or not, even cut off."""
    parts = divide(address)
    if text and address != parts.public:
        text = text.replace(address, parts.public)
        unnamed = [one.partition("=")[2] or one for one in parts.unnamed]
        values = {one for one in parts.secrets if len(one) >= _MIN_SECRET}
        values |= {one for one in unnamed if len(one) >= _MIN_UNNAMED}
        values |= {base64.b64encode(unquote(one).encode()).decode() for one in parts.secrets if ":" in one}
        spellings = sorted({spelling for value in values for spelling in _spellings(value)}, key=len, reverse=True)
        for spelling in spellings:
            text = text.replace(spelling, HIDDEN)
        for spelling in spellings:
            text = _without_cut(text, spelling)
    return hide_secrets(text)


def public_settings(settings: Any, name: str = "") -> tuple[Any, list[str]]:
    """Settings with addresses in their public form and without values of keys that name a credential (but `..._env`, the name of
    an environment variable), and the dotted names of the settings from which something was left out."""
    if isinstance(settings, Mapping):
        pairs = {key: public_settings(value, f"{name}.{key}" if name else str(key)) for key, value in settings.items()}
        return {key: value for key, (value, _) in pairs.items()}, [
            one for _, left_out in pairs.values() for one in left_out
        ]
    if isinstance(settings, list | tuple):
        items = [public_settings(value, f"{name}.{index}") for index, value in enumerate(settings)]
        return type(settings)(value for value, _ in items), [one for _, left_out in items for one in left_out]
    if not isinstance(settings, str):
        return settings, []
    public = "" if _is_credential_setting(name) else public_form(settings)
    return public, [] if public == settings else [name]


def hide_in(value: Any) -> Any:
    """JSON-like values with `hide_secrets` applied to every text, for output."""
    if isinstance(value, Mapping):
        return {key: hide_in(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(inner) for inner in value]
    return hide_secrets(value) if isinstance(value, str) else value


def hide_secrets_in_output() -> None:
    """Let log records and the tracebacks of uncaught exceptions of this process pass `hide_secrets`: libraries put addresses into
    their messages."""
    logging.setLogRecordFactory(_log_record)
    sys.excepthook, threading.excepthook = _report, _report_of_thread


def _log_record(*arguments: Any, **named: Any) -> logging.LogRecord:
    record = logging.LogRecord(*arguments, **named)
    record.msg, record.args = hide_secrets(record.getMessage()), ()
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = _traceback_text(*record.exc_info).rstrip("\n")
    return record


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(_traceback_text(kind, error, trace))


def _report_of_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is not SystemExit and failure.exc_value is not None:
        _report(failure.exc_type, failure.exc_value, failure.exc_traceback)


def _traceback_text(kind: Any, error: Any, trace: TracebackType | None) -> str:
    return hide_secrets("".join(traceback.format_exception(kind, error, trace)))


def public_override(override: str) -> str:
    """A `key=value` of the command line as it may be printed."""
    name, sign, value = override.partition("=")
    return f"{name}{sign}{HIDDEN if _is_credential_setting(name) else hide_secrets(value)}"


def _is_credential_setting(name: str) -> bool:
    key = name.rpartition(".")[2]
    return is_credential_name(key) and not key.endswith("_env")


def _public(match: re.Match[str]) -> str:
    end = _END.search(match[0])
    address, rest = (match[0][: end.start()], end[0]) if end else (match[0], "")
    return public_form(address) + rest if is_remote(address) else match[0]


def _public_query(match: re.Match[str]) -> str:
    shown, _, secret = shown_query(match[2])
    if not secret:
        return match[0]
    return match[1] + (f"?{'&'.join(shown)}" if shown else "")


def _without_credential(match: re.Match[str]) -> str:
    return f"{match[1]}={HIDDEN}" if is_credential_name(match[1]) else match[0]


def _spellings(value: str) -> set[str]:
    plain = {value, unquote(value), unquote_plus(value)}
    plain |= {quote(one) for one in plain} | {quote(one, safe="") for one in plain} | {quote_plus(one) for one in plain}
    plain |= (
        {html.escape(one) for one in plain}
        | {json.dumps(one)[1:-1] for one in plain}
        | {repr(one)[1:-1] for one in plain}
    )
    return {one for one in plain if len(one) >= _MIN_SECRET}


def _without_cut(text: str, secret: str) -> str:
    for length in range(len(secret) - 1, _MIN_CUT - 1, -1):
        if text.endswith(secret[:length]):
            return text[:-length] + HIDDEN
    return text
