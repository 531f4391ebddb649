"""A vision-language model behind an OpenAI-compatible endpoint looks at frames of the clip and writes down what it sees.

It gets some frames with the person's box drawn, the words spoken and the rules' events, and answers by a JSON schema. What
it writes is held against the events before it counts. Motion capture has no pictures, and a text made from the rules' text
alone would add nothing, so there it is not asked.
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
from stages.language.describers.endpoint import Endpoint, EndpointConfig, EndpointError, Reply
from stages.language.describers.pictures import boxed_pictures, jpeg
from stages.language.describers.protocol import LEVELS, Answer, Scene

_INSTRUCTIONS = """\
You describe how one person moves in a short video. You see {count} frames of it in order; a magenta box marks the person.
Describe only that person's movement, not clothes, place, looks or other people. Left and right are always the person's own,
not those of the picture. Measurements of the body's joints are given too; trust them on left and right and on timing.
Use the third person and the present tense, plain English, one sentence a string, no more than 25 words each.
Answer with one JSON object with the keys body, torso, left_arm, right_arm, left_leg, right_leg. `body` has one to three
sentences about the whole person, each of the others one sentence about that part, or none where you cannot tell."""


class VlmConfig(EndpointConfig):
    """What the model is shown, what may be spent on it, and where its answers are kept."""

    frames: int = Field(8, ge=1)
    """Frames of a clip that it sees."""
    max_px: int = Field(512, ge=32)
    """Their longer side, pixels."""
    usd_per_million_prompt_tokens: float = Field(0.0, ge=0)
    """Price, for the report; frames count among the prompt."""
    usd_per_million_completion_tokens: float = Field(0.0, ge=0)
    """Price of what it writes."""
    budget_tokens: int = Field(0, ge=0)
    """Once a worker process has spent more it asks no further; 0: no limit. Under Ray each worker has this budget."""
    budget_usd: float = Field(0.0, ge=0)
    """The same in money."""
    cache: str = ""
    """Folder for answers, any fsspec path: the same model, words and pictures are not asked for twice. Empty: in humo's own
    cache folder."""


class _Described(Config):
    """The answer's layout."""

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
"""The same for the endpoint: strict ones want every key required."""


class Vlm:
    """A describer; see the module."""

    def __init__(self, config: VlmConfig) -> None:
        """Raises HumoError where the address, the model, the key or the cache is missing; asks nothing yet."""
        self._config = config
        self._endpoint = Endpoint(config)
        self._answers = Storage(config.cache or cache_folder() / "answers")
        self.name = f"vlm {config.model}"
        self._spent_tokens, self._spent_usd = 0, 0.0

    def describe(self, scene: Scene) -> Answer:
        """Its sentences, or why there are none."""
        footage = scene.motion.footage
        if footage is None:
            return self._none("skipped", "motion capture has no pictures")
        try:
            messages, key = self._question(scene, footage)
            stored = self._stored(key)
            if stored is None:
                over = self._over_budget()
                if over:
                    return self._none("skipped", over)
                reply = self._asked(messages)
                described = _parsed(reply)
                self._store(key, described, reply)
            else:
                described, reply = stored
        except EndpointError as error:
            return self._none("failed", str(error), *error.tokens)
        except (av.FFmpegError, OSError) as error:
            return self._none("failed", f"no pictures: {type(error).__name__}: {error}"[:300])
        return Answer(
            effort=self._effort("answered", "", reply.prompt_tokens, reply.completion_tokens),
            sentences={level: tuple(getattr(described, level)) for level in LEVELS},
        )

    def _asked(self, messages: list[dict[str, Any]]) -> Reply:
        try:
            reply = self._endpoint.ask(messages, _SCHEMA)
        except EndpointError as error:
            self._spend(*error.tokens)
            raise
        self._spend(reply.prompt_tokens, reply.completion_tokens)
        return reply

    def _question(self, scene: Scene, footage: Footage) -> tuple[list[dict[str, Any]], str]:
        """The conversation, and a key that depends on model, settings, words and pictures alone."""
        config = self._config
        pictures = boxed_pictures(footage.clip, config.frames, config.max_px)
        if not pictures:
            raise EndpointError("no frame of the clip decodes")
        images = [jpeg(image) for _, image in pictures]
        told = _INSTRUCTIONS.format(count=len(images))
        words = _facts(scene, [time_s for time_s, _ in pictures])
        content: list[dict[str, Any]] = [{"type": "text", "text": words}]
        for image in images:
            url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        messages: list[dict[str, Any]] = [{"role": "system", "content": told}, {"role": "user", "content": content}]
        settings = (config.endpoint, config.model, config.temperature, config.max_tokens)
        return messages, digest(
            "answer",
            *settings,
            json.dumps(_SCHEMA),
            told,
            words,
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

    def _effort(self, outcome: str, why: str, prompt: int = 0, completion: int = 0) -> DescriberUsage:
        return DescriberUsage(
            describer=self.name, outcome=outcome, why=why, prompt_tokens=prompt, completion_tokens=completion,
            cost_usd=self._cost_usd(prompt, completion),
        )  # fmt: skip

    def _none(self, outcome: str, why: str, prompt: int = 0, completion: int = 0) -> Answer:
        return Answer(effort=self._effort(outcome, why, prompt, completion))

    def _stored(self, key: str) -> tuple[_Described, Reply] | None:
        """An answer given before; a broken one counts as none. It tells the tokens that it took then, so that a job that is
        run again writes the same bytes."""
        try:
            value = json.loads(self._answers.read_bytes(f"{key}.json"))
            reply = Reply(
                text=value["text"], prompt_tokens=value["prompt_tokens"], completion_tokens=value["completion_tokens"]
            )
            return _parsed(reply), reply
        except (OSError, ValueError, KeyError, TypeError, EndpointError):
            return None

    def _store(self, key: str, described: _Described, reply: Reply) -> None:
        value = {
            "model": self._config.model, "text": described.model_dump_json(), "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        }  # fmt: skip
        with suppress(OSError):  # An answer that cannot be kept is an answer all the same.
            self._answers.write_bytes(f"{key}.json", json.dumps(value, sort_keys=True).encode())


def _parsed(reply: Reply) -> _Described:
    """The JSON object in a text, which some models wrap in words or a code fence. Raises EndpointError."""
    tokens = reply.prompt_tokens, reply.completion_tokens
    start = reply.text.find("{")
    excerpt = " ".join(reply.text[:120].split())
    if start < 0:
        raise EndpointError(f"the answer is no JSON: {excerpt}", tokens)
    try:
        value, _ = json.JSONDecoder().raw_decode(reply.text[start:])
        return _Described.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(name) for name in first["loc"])
        raise EndpointError(f"the answer has another layout: {place}: {first['msg']}", tokens) from None
    except ValueError:
        raise EndpointError(f"the answer is no whole JSON: {excerpt}", tokens) from None


def _facts(scene: Scene, times_s: list[float]) -> str:
    """What is known without pictures, as text."""
    seconds = scene.motion.seconds
    shown = ", ".join(f"{time_s:.1f}" for time_s in times_s)
    lines = [f"The clip lasts {seconds:.1f} seconds; the frames are at {shown} seconds.", "Measured:"]
    for event in scene.ruled.events:
        who = "person" if event.part == "body" else event.part.replace("_", " ")
        lines.append(f"- {event.start_s:.1f}-{event.end_s:.1f} s, {who}: {event.text}")
    said = " ".join(word.text.strip() for word in scene.transcript.words)
    lines.append(f"Said meanwhile: {json.dumps(said, ensure_ascii=False)}" if said else "Nothing is said meanwhile.")
    return "\n".join(lines)
