"""Client for an OpenAI-compatible chat endpoint with a time limit and a fallback between JSON modes.

Whatever the server does (no response, errors, HTML, endless bodies), the caller gets a reply or an `EndpointError`.
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

_MAX_REPLY_BYTES = 1 << 20
_CONNECT_S = 10.0
_MIN_TIMEOUT_S = 0.05
_RETRY_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Transient statuses."""
_UNSUPPORTED_STATUSES = frozenset({400, 404, 415, 422, 501})
"""Statuses by which servers reject an unsupported response_format."""
_MODES = ("json_schema", "json_object", "text")


class EndpointConfig(Config):
    """Endpoint, model, time limits and retries."""

    endpoint: str = ""
    """Base URL of the API, such as http://localhost:8000/v1; frames of the videos are sent there. Empty: none."""
    model: str = ""
    """The model's name at the endpoint."""
    api_key_env: str = ""
    """Environment variable with the API key; the key itself is never written anywhere. Empty: no key is sent."""
    answer_as: Literal["auto", "json_schema", "json_object", "text"] = "auto"
    """Requested response_format; auto starts with json_schema and falls back to the next one when it is rejected."""
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    """Sampling temperature; 0: greedy decoding."""
    max_tokens: int = Field(700, ge=1)
    """Maximum length of an answer, tokens."""
    timeout_s: float = Field(90.0, gt=0)
    """Time limit for one motion including retries, seconds."""
    tries: int = Field(3, ge=1)
    """Maximum number of requests for one motion if the endpoint is busy, fails or does not respond."""
    backoff_s: float = Field(1.0, ge=0)
    """Pause before the second try, seconds; it doubles with each try and respects a longer Retry-After."""
    give_up_after: int = Field(5, ge=1)
    """Consecutive motions without a reply after which requests are suspended."""
    leave_alone_s: float = Field(300.0, ge=0)
    """Duration of the suspension, seconds."""

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("is not a URL; write it as http://host:port/v1")
        if "@" in value.split("://", 1)[-1].split("/", 1)[0]:
            raise ValueError("contains a user or a password; set api_key_env to the key's environment variable instead")
        return value.rstrip("/")


class EndpointError(Exception):
    """Why there is no reply; `tokens` are the prompt and completion tokens spent nevertheless."""

    def __init__(self, why: str, tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(why)
        self.tokens = tokens


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The model's text and the token counts reported by the endpoint (0 if it reports none)."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class Endpoint:
    """A chat endpoint with retries, and suspension after repeated failures."""

    def __init__(self, config: EndpointConfig) -> None:
        """Raises HumoError if the URL, the model or the key is missing; sends no request."""
        for name in ("endpoint", "model"):
            if not getattr(config, name):
                raise HumoError(f"write_captions.vlm: {name} is empty; set it, or set write_captions.describer: rules")
        self._key = os.environ.get(config.api_key_env, "") if config.api_key_env else ""
        if config.api_key_env and not self._key:
            raise HumoError(
                f"write_captions.vlm: api_key_env names {config.api_key_env}, which is not set; export it or clear api_key_env"
            )
        self._config = config
        self._session = requests.Session()
        self._modes = list(_MODES) if config.answer_as == "auto" else [config.answer_as]
        self._failures, self._suspended_until = 0, 0.0

    def complete(self, messages: list[dict[str, Any]], schema: dict[str, Any]) -> Reply:
        """The reply to a conversation, requested as JSON of the given schema. Raises EndpointError."""
        if time.monotonic() < self._suspended_until:
            raise EndpointError(f"not asked: no reply to {self._config.give_up_after} motions in a row")
        deadline = time.monotonic() + self._config.timeout_s
        try:
            reply = self._with_fallback(messages, schema, deadline)
        except EndpointError:
            self._failures += 1
            if self._failures >= self._config.give_up_after:
                self._failures, self._suspended_until = 0, time.monotonic() + self._config.leave_alone_s
            raise
        self._failures = 0
        return _read(reply)

    def _with_fallback(self, messages: list[dict[str, Any]], schema: dict[str, Any], deadline: float) -> bytes:
        while True:
            status, content, _ = self._with_retries(self._body(messages, schema), deadline)
            if status == 200:
                return content
            if status not in _UNSUPPORTED_STATUSES or len(self._modes) == 1:
                raise EndpointError(self._status(status, content))
            self._modes.pop(0)  # for good: the server's capabilities do not change

    def _body(self, messages: list[dict[str, Any]], schema: dict[str, Any]) -> dict[str, Any]:
        config, mode = self._config, self._modes[0]
        body = {
            "model": config.model,
            "messages": messages,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
        }
        if mode == "json_schema":
            named_schema = {"name": "description", "schema": schema, "strict": True}
            body["response_format"] = {"type": mode, "json_schema": named_schema}
        elif mode == "json_object":
            body["response_format"] = {"type": mode}
        return body

    def _with_retries(self, body: dict[str, Any], deadline: float) -> tuple[int, bytes, float]:
        """Status, content and requested pause; retries transient failures until the deadline."""
        pause_s = self._config.backoff_s
        for tries_left in reversed(range(self._config.tries)):
            try:
                status, content, retry_after_s = self._post(body, deadline)
                why = self._status(status, content)
                if status not in _RETRY_STATUSES:
                    return status, content, retry_after_s
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                why, retry_after_s = self._clean(f"{type(error).__name__}: {error}"), 0.0
            wait_s = max(pause_s, retry_after_s)
            if not tries_left or time.monotonic() + wait_s >= deadline:
                break
            time.sleep(wait_s)
            pause_s *= 2
        raise EndpointError(why)

    def _post(self, body: dict[str, Any], deadline: float) -> tuple[int, bytes, float]:
        """Status, content and the server's Retry-After in seconds."""
        left_s = max(_MIN_TIMEOUT_S, deadline - time.monotonic())
        with self._session.post(
            f"{self._config.endpoint}/chat/completions", json=body, auth=self._authorize, stream=True, allow_redirects=False,
            timeout=(min(_CONNECT_S, left_s), left_s),
        ) as response:  # fmt: skip
            content = bytearray()
            while chunk := response.raw.read1(1 << 16, decode_content=True):
                content += chunk
                if time.monotonic() > deadline:
                    raise requests.Timeout(f"no whole reply within {self._config.timeout_s:g} s")
                if len(content) > _MAX_REPLY_BYTES:
                    raise EndpointError(f"the reply is longer than {_MAX_REPLY_BYTES} bytes")
            retry_after = response.headers.get("Retry-After", "")
            return response.status_code, bytes(content), float(retry_after) if retry_after.isdigit() else 0.0

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Adds the key; as a custom auth it keeps requests from sending a password from a netrc file."""
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _status(self, status: int, content: bytes) -> str:
        return self._clean(f"status {status}: {content[:300].decode(errors='replace')}")

    def _clean(self, text: str) -> str:
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:300]


def _read(content: bytes) -> Reply:
    """Parse a chat completion. Raises EndpointError."""
    try:
        value = json.loads(content)
        choice = value["choices"][0]
        text, finish_reason = choice["message"]["content"], choice.get("finish_reason")
        usage = value.get("usage") or {}
        tokens = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        excerpt = " ".join(content[:120].decode(errors="replace").split())
        raise EndpointError(f"no chat completion ({type(error).__name__}): {excerpt}") from None
    if finish_reason == "length":
        raise EndpointError("the answer was cut off at max_tokens", tokens)
    if not isinstance(text, str) or not text.strip():
        raise EndpointError("the answer is empty", tokens)
    return Reply(text=text, prompt_tokens=tokens[0], completion_tokens=tokens[1])
