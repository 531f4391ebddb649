"""The track and the channel with the speech, from files with several of them; a loud tone stands for speech."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stages.media.sound import SAMPLE_HZ, Sound, audio_chunks, choose_sound

SECONDS = 4
TIMES_S = np.arange(SECONDS * SAMPLE_HZ) / SAMPLE_HZ
VOICE = (0.4 * np.sin(2 * np.pi * 300 * TIMES_S)).astype(np.float32)
SILENCE = np.zeros_like(VOICE)
MUSIC = np.random.default_rng(0).normal(0, 0.2, len(VOICE)).astype(np.float32)


def write_sound(path: Path, *tracks: list[np.ndarray]) -> str:
    """A Matroska file with a lossless sound track for each list of channels."""
    layouts = [{1: "mono", 2: "stereo"}[len(channels)] for channels in tracks]
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("pcm_f32le", rate=SAMPLE_HZ, layout=layout) for layout in layouts]
        for start in range(0, len(VOICE), 1600):
            for channels, layout, stream in zip(tracks, layouts, streams, strict=True):
                block = np.stack([channel[start : start + 1600] for channel in channels], axis=1).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="flt", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = SAMPLE_HZ, start, Fraction(1, SAMPLE_HZ)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode())
    return str(path)


def voice_s(audio: np.ndarray) -> float:
    """Seconds in which there is hardly anything but the tone."""
    spectrum = np.abs(np.fft.rfft(audio[: len(audio) // SAMPLE_HZ * SAMPLE_HZ].reshape(-1, SAMPLE_HZ)))
    return float((spectrum[:, 300] > 0.9 * np.sqrt((spectrum**2).sum(axis=1) + 1e-9)).sum())


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        ([[VOICE]], Sound()),
        ([[VOICE, VOICE]], Sound()),
        ([[VOICE, 0.5 * VOICE]], Sound()),
        ([[VOICE, -VOICE]], Sound(channel=0)),
        ([[MUSIC, VOICE]], Sound(channel=1)),
        ([[MUSIC], [VOICE]], Sound(track=1)),
        ([[SILENCE, SILENCE], [SILENCE, VOICE]], Sound(track=1)),
        ([[SILENCE, SILENCE]], Sound()),
    ],
)
def test_the_sound_with_the_voice_is_chosen(tmp_path: Path, tracks: list, expected: Sound) -> None:
    uri = write_sound(tmp_path / "sound.mkv", *tracks)
    found = choose_sound(uri, voice_s)
    assert found == expected
    heard = np.concatenate([audio for _, audio in audio_chunks(uri, 600.0, found)])
    assert len(heard) == pytest.approx(len(VOICE), abs=200)
    silent = not any(channel.any() for channels in tracks for channel in channels)
    assert voice_s(heard) == (0 if silent else pytest.approx(SECONDS, abs=1))


def test_the_choice_in_words() -> None:
    assert Sound().note == ""
    assert Sound(track=1, channel=0).note == "sound track 2, channel 1"
