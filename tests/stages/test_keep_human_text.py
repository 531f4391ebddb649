"""Filtering of videos by their text."""

import pytest

from schemas.records import Rejection, Source, Transcript, Video, Word
from stages.base import apply
from stages.keep_human_text import KEYWORDS, KeepHumanText, matches
from stages.language.morphology import forms


def video(title: str = "", description: str = "", speech: str = "") -> Video:
    words = tuple(
        Word(text=f" {w}", start_s=float(i), end_s=i + 0.5, probability=1.0) for i, w in enumerate(speech.split())
    )
    return Video(
        source=Source(id="v", uri="v.mp4", title=title, description=description),
        sha256="0" * 64, width=4, height=4, fps=30.0, duration_s=9.0, has_audio=bool(speech),
        transcript=Transcript(language="en" if words else "", words=words),
    )  # fmt: skip


def verdict(record: Video, **config: object) -> str:
    results, rejections = apply(KeepHumanText(KeepHumanText.Config(**config)), [record])
    assert len(results) + len(rejections) == 1
    return "kept" if results else rejections[0].reason


def test_there_are_at_least_200_keywords() -> None:
    assert len(KEYWORDS) >= 200
    assert all(word == word.casefold().strip() for word in KEYWORDS)


@pytest.mark.parametrize(
    "text",
    ["A WOMAN dances", "two men jogging", "my sister's knees", "Getting up early", "mixed martial arts", "He ran home",
     "children playing", "five squats", "the runners' shoes", "boxes and boxing", "ladies", "he carried it"],
)  # fmt: skip
def test_texts_about_people_are_kept(text: str) -> None:
    assert verdict(video(title=text)) == "kept"


@pytest.mark.parametrize(
    "text", ["Sunset over mountains", "Manifold arithmetic", "Lego Technic review", "legend of armada"]
)
def test_other_texts_are_rejected(text: str) -> None:
    stage = KeepHumanText()
    (rejection,) = stage.run(video(description=text))
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.measured, rejection.limit) == ("no_human_keyword", 0.0, 1.0)
    assert rejection.detail == text


def test_every_field_is_searched_unless_excluded() -> None:
    assert verdict(video(title="Clouds", speech="now bend your knees")) == "kept"
    assert verdict(video(title="Clouds", speech="now bend your knees"), fields=("title",)) == "no_human_keyword"


def test_phrases_do_not_match_across_sentences_and_fields() -> None:
    assert matches("He got up. Down the road", ("get up", "up down")) == ["get up"]
    assert (
        verdict(video(title="things that stand", description="up there"), keywords=("stand up",)) == "no_human_keyword"
    )


def test_videos_without_text() -> None:
    assert verdict(video()) == "kept"
    assert verdict(video(title="  12:30 -- !!")) == "kept"
    assert verdict(video(), without_text="reject") == "no_text"


def test_text_in_a_script_of_no_keyword_is_ignored() -> None:
    assert verdict(video(title="山の夕日")) == "kept"
    assert verdict(video(title="山の夕日"), without_text="reject") == "no_text"
    assert verdict(video(title="山の夕日"), extra_keywords=("跳舞",)) == "no_human_keyword"
    assert verdict(video(title="她在跳舞呢"), extra_keywords=("跳舞",)) == "kept"


def test_the_block_list_takes_precedence() -> None:
    record = video(title="A man dances in a video game")
    assert verdict(record, blocklist=("Video Game",)) == "blocked_text"
    assert verdict(record, blocklist=("game show",)) == "kept"


def test_the_minimum_number_of_matches_is_a_setting() -> None:
    record = video(title="a man smiles")
    assert verdict(record, min_matches=2) == "no_human_keyword"
    assert verdict(record, min_matches=2, extra_keywords=("smile",)) == "kept"


def test_inflection() -> None:
    assert {"runs", "running", "runner", "ran"} <= forms("run")
    assert {"dances", "dancing", "danced", "dancer"} <= forms("dance")
    assert {"boxes"} <= forms("box")
    assert {"carries", "carried", "carrying"} <= forms("carry")
    assert "man" not in forms("ma")
