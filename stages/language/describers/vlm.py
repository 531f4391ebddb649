"""Describes the frames of a clip with a vision-language model behind an OpenAI-compatible endpoint.

The model gets frames with the person's box drawn, the transcript and the rules' events, and answers by a JSON schema. Its
sentences are checked against the events before they are used. Motion capture has no frames, and a text derived from the
rules' text alone would add nothing, so it is skipped.
"""

import base64
import hashlib
import json
from contextlib import suppress
from typing import Any

import av
from pydantic import ConfigDict, Field, ValidationError

from schemas.config import Config
from schemas.ids import digest
from schemas.offline import cache_folder
from schemas.records import DescriberUsage, Footage
from schemas.storage import Storage
from stages.language.describers.clip_images import boxed_frames, jpeg
from stages.language.describers.endpoint import Endpoint, EndpointConfig, EndpointError, Reply
from stages.language.describers.protocol import LEVELS, Answer, Scene

_INSTRUCTIONS = """\
You describe how one person moves in a short video. You see {count} frames of it in order; a magenta box marks the person.
Describe only that person's movement, not clothes, place, looks or other people. Left and right are always the person's own,
not those of the picture. Measurements of the body's joints are given too; trust them on left and right and on timing.
Use the third person and the present tense, plain English, one sentence a string, no more than 25 words each.
Answer with one JSON object with the keys body, torso, left_arm, right_arm, left_leg, right_leg. `body` has one to three
sentences about the whole person, each of the others one sentence about that part, or none where you cannot tell."""


class VlmConfig(EndpointConfig):
    """Input of the model, budget and cache."""

    frames: int = Field(8, ge=1)
    """Number of frames of a clip that are sent."""
    max_px: int = Field(512, ge=32)
    """Maximum longer side of a frame, pixels."""
    usd_per_million_prompt_tokens: float = Field(0.0, ge=0)
    """Price of prompt tokens, for the report; frames count as prompt."""
    usd_per_million_completion_tokens: float = Field(0.0, ge=0)
    """Price of completion tokens."""
    budget_tokens: int = Field(0, ge=0)
    """Budget of a worker process, after which it sends no further requests; 0: no limit. Under Ray each worker has it."""
    budget_usd: float = Field(0.0, ge=0)
    """The same in US dollars."""
    cache: str = ""
    """Folder of cached answers, any fsspec path; the same request is not sent twice. Empty: humo's own cache folder."""


class _Description(Config):
    """Layout of the answer."""

    model_config = ConfigDict(extra="ignore")
    body: list[str]
    torso: list[str] = []
    left_arm: list[str] = []
    right_arm: list[str] = []
    left_leg: list[str] = []
    right_leg: list[str] = []


_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {level: {"type": "array", "items": {"type": "string"}} for level in LEVELS},
    "required": list(LEVELS),
    "additionalProperties": False,
}
"""JSON schema of the answer; endpoints in strict mode require every key to be required."""


class Vlm:
    """Vision-language model as a describer."""

    def __init__(self, config: VlmConfig) -> None:
        """Raises HumoError if the URL, the model, the key or the cache is missing; sends no request."""
        self._config = config
        self._endpoint = Endpoint(config)
        self._cache = Storage(config.cache or cache_folder() / "answers")
        self.name = f"vlm {config.model}"
        self._spent_tokens, self._spent_usd = 0, 0.0

    def describe(self, scene: Scene) -> Answer:
        """The model's sentences, or the reason why there are none."""
        footage = scene.motion.footage
        if footage is None:
            return self._no_answer("skipped", "motion capture has no pictures")
        try:
            messages, key = self._request(scene, footage)
            cached = self._load(key)
            if cached is None:
                over_budget = self._over_budget()
                if over_budget:
                    return self._no_answer("skipped", over_budget)
                reply = self._complete(messages)
                description = _parse(reply)
                self._store(key, description, reply)
            else:
                description, reply = cached
        except EndpointError as error:
            return self._no_answer("failed", str(error), *error.tokens)
        except (av.FFmpegError, OSError) as error:
            return self._no_answer("failed", f"no pictures: {type(error).__name__}: {error}"[:300])
        return Answer(
            usage=self._usage("answered", "", reply.prompt_tokens, reply.completion_tokens),
            sentences={level: tuple(getattr(description, level)) for level in LEVELS},
        )

    def _complete(self, messages: list[dict[str, Any]]) -> Reply:
        try:
            reply = self._endpoint.complete(messages, _SCHEMA)
        except EndpointError as error:
            self._spend(*error.tokens)
            raise
        self._spend(reply.prompt_tokens, reply.completion_tokens)
        return reply

    def _request(self, scene: Scene, footage: Footage) -> tuple[list[dict[str, Any]], str]:
        """The messages, and a cache key that depends on model, settings, text and frames only."""
        config = self._config
        frames = boxed_frames(footage.clip, config.frames, config.max_px)
        if not frames:
            raise EndpointError("no frame of the clip decodes")
        images = [jpeg(image) for _, image in frames]
        instructions = _INSTRUCTIONS.format(count=len(images))
        facts = _facts(scene, [time_s for time_s, _ in frames])
        content: list[dict[str, Any]] = [{"type": "text", "text": facts}]
        for image in images:
            url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": instructions},
            {"role": "user", "content": content},
        ]
        settings = (config.endpoint, config.model, config.temperature, config.max_tokens)
        return messages, digest(
            "answer",
            *settings,
            json.dumps(_SCHEMA),
            instructions,
            facts,
            *(hashlib.sha256(image).hexdigest() for image in images),
            digits=32,
        )

    def _over_budget(self) -> str:
        config = self._config
        if config.budget_tokens and self._spent_tokens >= config.budget_tokens:
            return f"the budget is spent: {self._spent_tokens} of {config.budget_tokens} tokens"
        if config.budget_usd and self._spent_usd >= config.budget_usd:
            return f"the budget is spent: {self._spent_usd:.4f} of {config.budget_usd:g} USD"
        return ""

    def _spend(self, prompt: int, completion: int) -> None:
        self._spent_tokens += prompt + completion
        self._spent_usd += self._cost_usd(prompt, completion)

    def _cost_usd(self, prompt: int, completion: int) -> float:
        config = self._config
        prices = config.usd_per_million_prompt_tokens, config.usd_per_million_completion_tokens
        return round((prompt * prices[0] + completion * prices[1]) / 1e6, 9)

    def _usage(self, outcome: str, why: str, prompt: int = 0, completion: int = 0) -> DescriberUsage:
        return DescriberUsage(
            describer=self.name, outcome=outcome, why=why, prompt_tokens=prompt, completion_tokens=completion,
            cost_usd=self._cost_usd(prompt, completion),
        )  # fmt: skip

    def _no_answer(self, outcome: str, why: str, prompt: int = 0, completion: int = 0) -> Answer:
        return Answer(usage=self._usage(outcome, why, prompt, completion))

    def _load(self, key: str) -> tuple[_Description, Reply] | None:
        """A cached answer, None if missing or broken. It has the original token counts, so that running a job again writes
        the same bytes."""
        try:
            value = json.loads(self._cache.read_bytes(f"{key}.json"))
            reply = Reply(
                text=value["text"], prompt_tokens=value["prompt_tokens"], completion_tokens=value["completion_tokens"]
            )
            return _parse(reply), reply
        except (OSError, ValueError, KeyError, TypeError, EndpointError):
            return None

    def _store(self, key: str, description: _Description, reply: Reply) -> None:
        value = {
            "model": self._config.model, "text": description.model_dump_json(), "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        }  # fmt: skip
        with suppress(OSError):  # An answer that cannot be cached is still valid.
            self._cache.write_bytes(f"{key}.json", json.dumps(value, sort_keys=True).encode())


def _parse(reply: Reply) -> _Description:
    """Parse the JSON object in a text, which some models wrap in prose or a code fence. Raises EndpointError."""
    tokens = reply.prompt_tokens, reply.completion_tokens
    start = reply.text.find("{")
    excerpt = " ".join(reply.text[:120].split())
    if start < 0:
        raise EndpointError(f"the answer is no JSON: {excerpt}", tokens)
    try:
        value, _ = json.JSONDecoder().raw_decode(reply.text[start:])
        return _Description.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(str(name) for name in first["loc"])
        raise EndpointError(f"the answer has another layout: {location}: {first['msg']}", tokens) from None
    except ValueError:
        raise EndpointError(f"the answer is no whole JSON: {excerpt}", tokens) from None


def _facts(scene: Scene, times_s: list[float]) -> str:
    """Duration, frame times, events and transcript as text."""
    seconds = scene.motion.seconds
    frame_times = ", ".join(f"{time_s:.1f}" for time_s in times_s)
    lines = [f"The clip lasts {seconds:.1f} seconds; the frames are at {frame_times} seconds.", "Measured:"]
    for event in scene.rule_captions.events:
        subject = "person" if event.part == "body" else event.part.replace("_", " ")
        lines.append(f"- {event.start_s:.1f}-{event.end_s:.1f} s, {subject}: {event.text}")
    speech = " ".join(word.text.strip() for word in scene.transcript.words)
    lines.append(
        f"Said meanwhile: {json.dumps(speech, ensure_ascii=False)}" if speech else "Nothing is said meanwhile."
    )
    return "\n".join(lines)
