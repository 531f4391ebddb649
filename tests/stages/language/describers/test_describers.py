"""Failures and wrong answers of a describer affect only its own sentences; tested with a real HTTP server."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import GOOD, ChatServer, chat_server, completion, saying

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.records import (
    Camera,
    CaptionedMotion,
    Captions,
    Clip,
    Footage,
    InstructedMotion,
    Motion,
    Provenance,
    ScoredMotion,
    Shot,
    Source,
    Track,
    Transcript,
    Video,
    Word,
)
from schemas.rotations import matrix_to_axis_angle
from schemas.sample import encode_sample_record, sample_problems
from schemas.storage import Storage
from stages.base import apply
from stages.language.describers.endpoint import EndpointConfig
from stages.language.describers.merging import merge_answer, sentences_in
from stages.language.describers.protocol import LEVELS, Answer, Describer, RulesOnly
from stages.language.describers.vlm import Vlm, VlmConfig
from stages.synthesis.film import film
from stages.synthesis.motions import generate
from stages.synthesis.outfit import Outfit
from stages.synthesis.renderer import Person
from stages.write_captions import WriteCaptions

BODY = BodyModel.load()
WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def waving(tmp_path_factory: pytest.TempPathFactory) -> ScoredMotion:
    """A filmed person who waves with the left hand, with the exact motion."""
    generated = generate("wave_left", 3.0, 3, body=BODY)
    path = tmp_path_factory.mktemp("film") / "wave.mp4"
    film([Person(motion=generated, outfit=Outfit.draw(1))], path, width=WIDTH, height=HEIGHT, seed=1, body=BODY)
    source = Source(id="wave", uri=str(path))
    transcript = Transcript(language="en", words=(Word(text=" hello", start_s=0.5, end_s=1.0, probability=0.9),))
    video = Video(
        source=source, sha256="ab" * 32, width=WIDTH, height=HEIGHT, fps=30.0, duration_s=3.0, has_audio=True,
        transcript=transcript,
        models={"transcribe": "listener 1"},
    )  # fmt: skip
    count = len(generated)
    boxes, keypoints = np.tile([110.0, 40.0, 210.0, 220.0], (count, 1)), np.ones((count, 17, 3))
    track = Track(
        shot=Shot(video=video, index=0, start_s=0, end_s=3), person=0, times_s=np.arange(count) / 30, boxes=boxes,
        keypoints=keypoints, models={},
    )  # fmt: skip
    camera = Camera(rotation=np.tile(np.eye(3), (count, 1, 1)), position=np.zeros((count, 3)), intrinsics=np.ones(4))
    motion = Motion(
        provenance=Provenance(source=source, sha256="ab" * 32, person=0, start_s=0.0, end_s=3.0, source_fps=30.0),
        footage=Footage(clip=Clip(track=track, start_s=0.0, end_s=3.0, boxes=boxes, keypoints=keypoints), camera=camera),
        poses=matrix_to_axis_angle(generated.rotations).numpy(), trans=generated.trans.numpy(), betas=generated.betas.numpy(),
        contacts=generated.contacts.numpy().astype(np.uint8), joint_confidence=np.ones((count, 24), np.float32),
        to_source=np.eye(4), body_model=BODY.id, models={},
    )  # fmt: skip
    return ScoredMotion(motion=motion, scores={"jitter": 0.1})


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def stage(server: ChatServer, cache: Path, **settings: Any) -> WriteCaptions:
    quick = {"timeout_s": 3.0, "tries": 2, "backoff_s": 0.01, "frames": 3, "max_px": 160}
    vlm = VlmConfig(**{"endpoint": server.url, "model": "looker-1", "cache": str(cache), **quick, **settings})
    write_captions = WriteCaptions(WriteCaptions.Config(describer="vlm", vlm=vlm))
    write_captions.setup()
    return write_captions


def captions_by(write_captions: WriteCaptions, record: ScoredMotion) -> Captions:
    results, rejections = apply(write_captions, [record])
    assert not rejections
    (result,) = results
    assert isinstance(result, CaptionedMotion)
    return result.captions


@pytest.fixture(scope="module")
def rule_captions(waving: ScoredMotion) -> Captions:
    return captions_by(WriteCaptions(), waving)


def assert_rules_are_kept(captions: Captions, rule_captions: Captions) -> None:
    assert captions.body[: len(rule_captions.body)] == rule_captions.body
    assert all(captions.parts[part][: len(lines)] == lines for part, lines in rule_captions.parts.items())
    assert captions.events == rule_captions.events


def test_sentences_are_added_with_their_writer(
    server: ChatServer, waving: ScoredMotion, rule_captions: Captions, tmp_path: Path
) -> None:
    captions = captions_by(stage(server, tmp_path, usd_per_million_prompt_tokens=2.0), waving)
    assert_rules_are_kept(captions, rule_captions)
    assert "A person waves with the left hand." in captions.body
    assert captions.writers["body"] == f"{rule_captions.writers['body']}, vlm looker-1"
    effort = captions.effort
    assert (effort.outcome, effort.prompt_tokens, effort.completion_tokens) == ("answered", 900, 80)
    assert effort.cost_usd == pytest.approx(0.0018)
    found = {one.text: one for one in captions.statements}
    wave = found["A person waves with the left hand."]
    assert (wave.verdict, wave.writer, wave.level) == ("supported", "vlm looker-1", "body")
    assert "left_arm wave" in wave.evidence
    assert {found[line].writer for line in rule_captions.body} == {rule_captions.writers["body"]}
    assert len(captions.statements) == len(captions.body) + sum(len(lines) for lines in captions.parts.values())


def test_the_request_has_frames_transcript_and_events(server: ChatServer, waving: ScoredMotion, tmp_path: Path) -> None:
    captions_by(stage(server, tmp_path), waving)
    (request,) = server.requests
    assert request["model"] == "looker-1"
    assert request["response_format"]["json_schema"]["schema"]["required"] == list(LEVELS)
    text, *images = request["messages"][1]["content"]
    assert len(images) == 3
    assert "left arm: waves" in text["text"]
    assert '"hello"' in text["text"]
    assert "Authorization" not in server.keys[0]


def test_the_persons_box_is_drawn(waving: ScoredMotion) -> None:
    from stages.language.describers.clip_images import boxed_frames, jpeg, person_crops

    assert waving.motion.footage is not None
    clip = waving.motion.footage.clip
    frames = boxed_frames(clip, 4, 160)
    assert [round(time_s, 2) for time_s, _ in frames] == pytest.approx([0.375, 1.125, 1.875, 2.625], abs=0.05)
    for _, image in frames:
        assert image.shape == (120, 160, 3)
        assert (image[20, 60:100] == (255, 0, 255)).all()
        assert jpeg(image) == jpeg(image)
    assert all(crop.shape[0] < HEIGHT and crop.shape[1] < WIDTH for crop in person_crops(clip, 2))


def wrong_arm(number: int, body: Any) -> Any:
    wrong = {
        "body": ["A person waves with the right hand.", "A person waves."],
        "right_arm": ["Waves.", "It stays at rest."],
    }
    return 200, {}, completion(json.dumps({**GOOD, **wrong}))


def test_only_the_claim_about_the_wrong_arm_is_rejected(
    waving: ScoredMotion, rule_captions: Captions, tmp_path: Path
) -> None:
    with chat_server(wrong_arm) as server:
        captions = captions_by(stage(server, tmp_path), waving)
    assert_rules_are_kept(captions, rule_captions)
    assert "A person waves with the right hand." not in captions.body
    assert "A person waves." in captions.body
    assert "It stays at rest." in captions.parts["right_arm"]
    rejected = {one.text: one.evidence for one in captions.statements if one.verdict == "rejected"}
    assert (
        set(rejected) == {"A person waves with the right hand.", "Waves."}
        or "Waves." not in captions.parts["right_arm"]
    )
    assert "left_arm wave" in rejected["A person waves with the right hand."]


HTML = b"<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>"
MISBEHAVIOUR: dict[str, tuple[Any, str]] = {
    "html": (lambda n, b: (200, {"Content-Type": "text/html"}, HTML), "no chat completion"),
    "html in the answer": (saying(HTML.decode()), "no JSON"),
    "prose": (saying("I am sorry, I cannot help with that."), "no JSON"),
    "another layout": (saying({"caption": "A person waves."}), "another layout: body"),
    "wrong types": (saying({**GOOD, "body": [1, 2]}), "another layout: body.0"),
    "half a JSON": (saying('{"body": ["A person wa'), "no whole JSON"),
    "cut off": (lambda n, b: (200, {}, completion('{"body": ["A', finish="length")), "cut off at max_tokens"),
    "empty": (saying(""), "empty"),
    "null": (lambda n, b: (200, {}, completion("x").replace(b'"content": "x"', b'"content": null')), "empty"),
    "no choices": (lambda n, b: (200, {}, b'{"choices": []}'), "no chat completion"),
    "a number": (lambda n, b: (200, {}, b"42"), "no chat completion"),
    "server error": (lambda n, b: (500, {}, b"out of memory"), "status 500: out of memory"),
    "no such model": (lambda n, b: (404, {}, b"model not found"), "status 404: model not found"),
    "wrong key": (lambda n, b: (401, {}, b"who are you"), "status 401"),
    "elsewhere": (lambda n, b: (302, {"Location": "http://127.0.0.1:9/"}, b""), "status 302"),
    "endless": (lambda n, b: (200, {}, b"x" * 3_000_000), "longer than"),
    "binary": (lambda n, b: (200, {}, bytes(range(256)) * 9), "no chat completion"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_failures_are_recorded_and_the_rules_are_kept(
    name: str, waving: ScoredMotion, rule_captions: Captions, tmp_path: Path
) -> None:
    answer, why = MISBEHAVIOUR[name]
    with chat_server(answer) as server:
        captions = captions_by(stage(server, tmp_path), waving)
    assert (captions.body, captions.parts) == (rule_captions.body, rule_captions.parts)
    assert captions.effort.outcome == "failed"
    assert why in captions.effort.why
    assert not Storage(tmp_path).list("", ".json")


def test_the_time_limit_holds(waving: ScoredMotion, rule_captions: Captions, tmp_path: Path) -> None:
    for delay in ({"slow_s": 5.0}, {"dribble_s": 0.2}):
        with chat_server() as server:
            for name, value in delay.items():
                setattr(server, name, value)
            write_captions, start = stage(server, tmp_path, timeout_s=0.6), time.monotonic()
            captions = captions_by(write_captions, waving)
            assert time.monotonic() - start < 3
        assert captions.body == rule_captions.body
        assert captions.effort.outcome == "failed"
        assert "imed out" in captions.effort.why or "no whole reply" in captions.effort.why


def test_an_unreachable_server_is_not_asked_forever(
    waving: ScoredMotion, rule_captions: Captions, tmp_path: Path
) -> None:
    with chat_server() as server:
        write_captions = stage(server, tmp_path, give_up_after=2)
    for number in range(3):
        captions = captions_by(write_captions, waving)
        assert captions.body == rule_captions.body
        assert ("not asked" in captions.effort.why) == (number == 2)


def test_transient_failures_are_retried(waving: ScoredMotion, tmp_path: Path) -> None:
    def busy(number: int, body: Any) -> Any:
        return (429, {"Retry-After": "0"}, b"busy") if number == 1 else saying(GOOD)(number, body)

    with chat_server(busy) as server:
        captions = captions_by(stage(server, tmp_path), waving)
        assert len(server.requests) == 2
    assert captions.effort.outcome == "answered"


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(waving: ScoredMotion, tmp_path: Path) -> None:
    with chat_server(lambda n, b: (429, {"Retry-After": "3600"}, b"come back later")) as server:
        start = time.monotonic()
        assert "come back later" in captions_by(stage(server, tmp_path), waving).effort.why
        assert time.monotonic() - start < 2


@pytest.mark.parametrize(("supported", "tries"), [("json_object", 2), ("text", 3)])
def test_servers_without_json_schema(supported: str, tries: int, waving: ScoredMotion, tmp_path: Path) -> None:
    def answer(number: int, body: Any) -> Any:
        mode = body.get("response_format", {}).get("type", "text")
        if mode != supported:
            return 400, {}, b'{"error": "response_format is not supported"}'
        return saying(f"Here it is:\n```json\n{json.dumps(GOOD)}\n```\nBye.")(number, body)

    with chat_server(answer) as server:
        write_captions = stage(server, tmp_path)
        assert captions_by(write_captions, waving).effort.outcome == "answered"
        assert len(server.requests) == tries
        # The supported mode is remembered.
        captions_by(write_captions, replace(waving, motion=replace(waving.motion, footage=_shorter(waving.motion))))
        assert len(server.requests) == tries + 1


def _shorter(motion: Motion) -> Footage:
    assert motion.footage is not None
    return replace(motion.footage, clip=replace(motion.footage.clip, end_s=2.0))


def test_answers_are_cached(waving: ScoredMotion, tmp_path: Path) -> None:
    with chat_server() as server:
        first = captions_by(stage(server, tmp_path), waving)
        again = captions_by(stage(server, tmp_path), waving)
        assert len(server.requests) == 1
        assert again == first
        other = captions_by(stage(server, tmp_path, model="looker-2"), waving)
        assert len(server.requests) == 2
        assert other.effort.describer == "vlm looker-2"
    for path in tmp_path.glob("*.json"):
        path.write_text("{broken")
    with chat_server() as server:
        assert captions_by(stage(server, tmp_path), waving).body == first.body
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "limit", [{"budget_tokens": 900}, {"budget_usd": 1e-4, "usd_per_million_completion_tokens": 50.0}]
)
def test_the_budget_limits_requests(
    limit: dict[str, Any], waving: ScoredMotion, rule_captions: Captions, tmp_path: Path
) -> None:
    shorter = replace(waving, motion=replace(waving.motion, footage=_shorter(waving.motion)))
    with chat_server() as server:
        write_captions = stage(server, tmp_path, **limit)
        assert captions_by(write_captions, waving).effort.outcome == "answered"
        captions = captions_by(write_captions, shorter)
        assert len(server.requests) == 1
        # Cached answers are free.
        assert captions_by(write_captions, waving).effort.outcome == "answered"
    assert captions.effort.outcome == "skipped"
    assert "budget is spent" in captions.effort.why
    assert captions.body == rule_captions.body


def test_tokens_of_an_invalid_answer_count(waving: ScoredMotion, tmp_path: Path) -> None:
    with chat_server(saying("No.")) as server:
        effort = captions_by(stage(server, tmp_path), waving).effort
    assert (effort.outcome, effort.prompt_tokens) == ("failed", 900)


def test_motion_capture_is_skipped(server: ChatServer, waving: ScoredMotion, tmp_path: Path) -> None:
    captions = captions_by(stage(server, tmp_path), replace(waving, motion=replace(waving.motion, footage=None)))
    assert captions.effort.outcome == "skipped"
    assert not server.requests


def test_a_missing_video_affects_only_its_sentences(
    server: ChatServer, waving: ScoredMotion, rule_captions: Captions, tmp_path: Path
) -> None:
    footage = waving.motion.footage
    assert footage is not None
    clip = footage.clip
    missing = replace(clip.track.shot.video, source=Source(id="gone", uri=str(tmp_path / "gone.mp4")))
    track = replace(clip.track, shot=replace(clip.track.shot, video=missing))
    motion = replace(waving.motion, footage=replace(footage, clip=replace(clip, track=track)))
    captions = captions_by(stage(server, tmp_path), replace(waving, motion=motion))
    assert "no pictures" in captions.effort.why
    assert captions.body == rule_captions.body


def test_the_key_is_read_from_the_environment_and_never_written(
    monkeypatch: pytest.MonkeyPatch, waving: ScoredMotion, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOOKER_KEY", "secret-123")
    with chat_server(lambda n, b: (401, {}, b"the key secret-123 is not valid")) as server:
        write_captions = stage(server, tmp_path, api_key_env="LOOKER_KEY")
        captions = captions_by(write_captions, waving)
        assert server.keys == ["Bearer secret-123"]
    assert "***" in captions.effort.why
    written = repr(captions) + repr(write_captions.config.model_dump())
    assert "secret-123" not in written


def test_errors_name_the_missing_setting(tmp_path: Path) -> None:
    def setup(**settings: Any) -> None:
        WriteCaptions(WriteCaptions.Config(describer="vlm", vlm=VlmConfig(**settings))).setup()

    with pytest.raises(HumoError, match="endpoint is empty"):
        setup()
    with pytest.raises(HumoError, match="model is empty"):
        setup(endpoint="http://localhost:1/v1")
    assert "HUMO_NO_SUCH_KEY" not in os.environ
    with pytest.raises(HumoError, match="HUMO_NO_SUCH_KEY, which is not set"):
        setup(endpoint="http://localhost:1/v1", model="m", api_key_env="HUMO_NO_SUCH_KEY")
    for address in ("localhost:8000", "http://me:word@host/v1"):
        with pytest.raises(ValueError, match="endpoint"):
            EndpointConfig(endpoint=address)
    with pytest.raises(HumoError, match="no weights come with humo"):
        WriteCaptions(WriteCaptions.Config(describer="coca")).setup()


def test_only_plain_sentences_are_kept(rule_captions: Captions) -> None:
    sentences = (
        '**A person stands.** Then the person waves with the left hand', "- a person stands there", "Yes.",
        "<b>A person</b> waves.", "word " * 80, *(f"A person number {number} stands there." for number in range(9)),
        rule_captions.body[0],
    )  # fmt: skip
    captions = merge_answer(
        rule_captions, Answer(usage=replace(rule_captions.effort, describer="d"), sentences={"body": sentences})
    )
    kept = captions.body[len(rule_captions.body) :]
    assert kept[:3] == ("A person stands.", "Then the person waves with the left hand.", "A person stands there.")
    assert len(kept) == 6
    assert len([one for one in captions.added if one.verdict == "rejected"]) == len(captions.added) - 6
    assert len(set(captions.body)) == len(captions.body)


def test_texts_are_split_into_sentences() -> None:
    assert sentences_in("  a person walks. He waves!  'It ends' ") == ["A person walks.", "He waves!", "It ends."]
    assert sentences_in("It takes 1.5 s.") == ["It takes 1.5 s."]
    assert sentences_in(" \n ") == []


def test_the_stored_layout_is_always_the_same(server: ChatServer, waving: ScoredMotion, tmp_path: Path) -> None:
    """text.json has the same keys and types with and without a describer, answered or failed."""

    def layout(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: layout(inner) for name, inner in value.items()}
        if isinstance(value, list):
            (kind,) = {json.dumps(layout(inner), sort_keys=True) for inner in value}
            return [json.loads(kind)]
        return type(value).__name__

    found = []
    with chat_server(saying("No.")) as silent:
        for write_captions in (
            WriteCaptions(),
            stage(server, tmp_path),
            stage(silent, tmp_path / "b"),
            stage(server, tmp_path, budget_tokens=1),
        ):
            (result,) = write_captions.run(waving)
            sample = encode_sample_record(InstructedMotion(captioned=result, instructions=()), b"clip", "digest")
            text = json.loads(sample.members["text.json"])
            assert text["checks"]
            found.append(layout(text))
            assert not [one for one in sample_problems(sample.key, sample.members, "video") if "text.json" in one]
    assert found[1:] == found[:-1]


def test_describers_implement_the_protocol(server: ChatServer, tmp_path: Path) -> None:
    assert isinstance(RulesOnly(), Describer)
    assert isinstance(Vlm(VlmConfig(endpoint=server.url, model="m", cache=str(tmp_path))), Describer)
