"""One question to an OpenAI-compatible chat endpoint, in a limited time and with whatever kind of JSON mode it knows.

Whatever the other side does (nothing, errors, HTML, endless bodies), the asker gets a reply or an `EndpointError`.
"""

import json
import os
import time
from dataclasses import dataclass
from typing import Any, Literal

import requests
import urllib3
from pydantic import Field, field_validator

from schemas.config import Config
from schemas.errors import HumoError

_LONGEST_REPLY_BYTES = 1 << 20
_CONNECT_S = 10.0
_SHORTEST_S = 0.05
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses that may pass."""
_NOT_UNDERSTOOD = frozenset({400, 404, 415, 422, 501})
"""Statuses by which servers turn down a response_format that they do not know."""
_MODES = ("json_schema", "json_object", "text")


class EndpointConfig(Config):
    """Which endpoint, which model, and how long to wait for it."""

    endpoint: str = ""
    """Base address of the API, such as http://localhost:8000/v1; frames of the videos are sent there. Empty: nowhere."""
    model: str = ""
    """The model's name at the endpoint."""
    api_key_env: str = ""
    """Name of the environment variable that holds the key; the key itself is never written anywhere. Empty: none is sent."""
    answer_as: Literal["auto", "json_schema", "json_object", "text"] = "auto"
    """Which response_format to ask for; auto begins with json_schema and goes on to the next when it is turned down."""
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    """0: the likeliest words."""
    max_tokens: int = Field(700, ge=1)
    """Longest answer, tokens."""
    timeout_s: float = Field(90.0, gt=0)
    """Time for one motion with all further tries, seconds."""
    tries: int = Field(3, ge=1)
    """Requests for one motion where the endpoint is busy, fails or is silent."""
    backoff_s: float = Field(1.0, ge=0)
    """Pause before the second try, seconds; it doubles from try to try, and is longer where the endpoint asks for it."""
    give_up_after: int = Field(5, ge=1)
    """Motions in a row without a reply after which the endpoint is left alone for a while."""
    leave_alone_s: float = Field(300.0, ge=0)
    """How long, seconds."""

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("is no address; write it as http://host:port/v1")
        if "@" in value.split("://", 1)[-1].split("/", 1)[0]:
            raise ValueError("holds a user or a password; name the key's environment variable in api_key_env instead")
        return value.rstrip("/")


class EndpointError(Exception):
    """Why there is no reply, in a sentence. `tokens` were spent nevertheless: prompt and completion."""

    def __init__(self, why: str, tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(why)
        self.tokens = tokens


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model wrote, and the tokens that it took by the endpoint's own count (0 where it does not count)."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class Endpoint:
    """A chat endpoint, and whether it has been answering of late."""

    def __init__(self, config: EndpointConfig) -> None:
        """Raises HumoError where the address, the model or the key is missing; asks nothing yet."""
        for name in ("endpoint", "model"):
            if not getattr(config, name):
                raise HumoError(
                    f"write_captions.vlm: {name} is empty; name one, or set write_captions.describer: rules"
                )
        self._key = os.environ.get(config.api_key_env, "") if config.api_key_env else ""
        if config.api_key_env and not self._key:
            raise HumoError(
                f"write_captions.vlm: api_key_env names {config.api_key_env}, which is not set; export it, or leave it empty"
            )
        self._config = config
        self._session = requests.Session()
        self._modes = list(_MODES) if config.answer_as == "auto" else [config.answer_as]
        self._silent, self._closed_until = 0, 0.0

    def ask(self, messages: list[dict[str, Any]], schema: dict[str, Any]) -> Reply:
        """The reply to a conversation, which should be JSON of this schema. Raises EndpointError."""
        if time.monotonic() < self._closed_until:
            raise EndpointError(f"not asked: no reply to {self._config.give_up_after} motions in a row")
        deadline = time.monotonic() + self._config.timeout_s
        try:
            reply = self._in_some_mode(messages, schema, deadline)
        except EndpointError:
            self._silent += 1
            if self._silent >= self._config.give_up_after:
                self._silent, self._closed_until = 0, time.monotonic() + self._config.leave_alone_s
            raise
        self._silent = 0
        return _read(reply)

    def _in_some_mode(self, messages: list[dict[str, Any]], schema: dict[str, Any], deadline: float) -> bytes:
        while True:
            status, content, _ = self._persistent(self._body(messages, schema), deadline)
            if status == 200:
                return content
            if status not in _NOT_UNDERSTOOD or len(self._modes) == 1:
                raise EndpointError(self._status(status, content))
            self._modes.pop(0)  # It stays so: the server will not learn it meanwhile.

    def _body(self, messages: list[dict[str, Any]], schema: dict[str, Any]) -> dict[str, Any]:
        config, mode = self._config, self._modes[0]
        body = {
            "model": config.model,
            "messages": messages,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
        }
        if mode == "json_schema":
            wanted = {"name": "description", "schema": schema, "strict": True}
            body["response_format"] = {"type": mode, "json_schema": wanted}
        elif mode == "json_object":
            body["response_format"] = {"type": mode}
        return body

    def _persistent(self, body: dict[str, Any], deadline: float) -> tuple[int, bytes, float]:
        """Status and content; tries again what may pass, as long as there is time."""
        pause_s = self._config.backoff_s
        for left in reversed(range(self._config.tries)):
            try:
                status, content, asked_s = self._once(body, deadline)
                why = self._status(status, content)
                if status not in _AGAIN:
                    return status, content, asked_s
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                why, asked_s = self._clean(f"{type(error).__name__}: {error}"), 0.0
            wait_s = max(pause_s, asked_s)
            if not left or time.monotonic() + wait_s >= deadline:
                break
            time.sleep(wait_s)
            pause_s *= 2
        raise EndpointError(why)

    def _once(self, body: dict[str, Any], deadline: float) -> tuple[int, bytes, float]:
        """Status, content and the pause that the server asks for, seconds."""
        left_s = max(_SHORTEST_S, deadline - time.monotonic())
        with self._session.post(
            f"{self._config.endpoint}/chat/completions", json=body, auth=self._sign, stream=True, allow_redirects=False,
            timeout=(min(_CONNECT_S, left_s), left_s),
        ) as response:  # fmt: skip
            content = bytearray()
            while some := response.raw.read1(1 << 16, decode_content=True):
                content += some
                if time.monotonic() > deadline:
                    raise requests.Timeout(f"no whole reply within {self._config.timeout_s:g} s")
                if len(content) > _LONGEST_REPLY_BYTES:
                    raise EndpointError(f"the reply is longer than {_LONGEST_REPLY_BYTES} bytes")
            pause = response.headers.get("Retry-After", "")
            return response.status_code, bytes(content), float(pause) if pause.isdigit() else 0.0

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """The key, and never a password that requests would find in a netrc file."""
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _status(self, status: int, content: bytes) -> str:
        return self._clean(f"status {status}: {content[:300].decode(errors='replace')}")

    def _clean(self, text: str) -> str:
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:300]


def _read(content: bytes) -> Reply:
    """The model's text in a chat completion. Raises EndpointError."""
    try:
        value = json.loads(content)
        choice = value["choices"][0]
        text, ended = choice["message"]["content"], choice.get("finish_reason")
        used = value.get("usage") or {}
        tokens = (int(used.get("prompt_tokens") or 0), int(used.get("completion_tokens") or 0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        start = " ".join(content[:120].decode(errors="replace").split())
        raise EndpointError(f"no chat completion ({type(error).__name__}): {start}") from None
    if ended == "length":
        raise EndpointError("the answer was cut off at max_tokens", tokens)
    if not isinstance(text, str) or not text.strip():
        raise EndpointError("the answer is empty", tokens)
    return Reply(text=text, prompt_tokens=tokens[0], completion_tokens=tokens[1])
