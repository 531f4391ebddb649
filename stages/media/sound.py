"""The sound of a video as one channel at 16 kHz: the track and the channel that carry the speech, in chunks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from jaxtyping import Float

from stages.media.decoding import open_container, video_stream

SAMPLE_HZ = 16000
_GAP_S = 0.2
"""Gaps in the audio's time stamps longer than this are kept, so that later words have the right times."""
_LONG_GAP_S = 5.0
"""Shorter gaps are filled with silence; longer ones end a chunk."""
_SURVEY_S = 300.0
"""Sound from which track and channel are chosen, seconds from the start."""
_MIN_SHARE = 0.5
"""Mixed channels with less than this share of the loudest one's amplitude cancel one another out."""
_MIN_CORRELATION = 0.3
"""Two channels that correlate less carry different sounds, such as a voice and music."""
_MIN_AMPLITUDE = 1e-4
"""A quieter channel is silent."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Which sound of a file is heard."""

    track: int = 0
    """Number among the file's sound tracks, from 0."""
    channel: int | None = None
    """Number of the channel, from 0; None: all mixed."""

    @property
    def note(self) -> str:
        """The choice in words; empty for the first track, mixed."""
        parts = [f"sound track {self.track + 1}"] if self.track else []
        parts += [f"channel {self.channel + 1}"] if self.channel is not None else []
        return ", ".join(parts)


def choose_sound(uri: str, speech_s: Callable[[Float[np.ndarray, "N"]], float]) -> Sound:
    """The track and channel with the most speech, which `speech_s` measures; the first track, mixed, unless another is clearly
    better. Channels are tried where the mix loses them: where they cancel out or differ altogether. Raises as `audio_chunks`.
    """
    candidates: list[tuple[Sound, np.ndarray]] = []
    with open_container(uri) as container:
        tracks = _tracks(container)
        if len(tracks) == 1 and tracks[0].codec_context.channels == 1:
            return Sound()
    for number in range(len(tracks)):
        pieces = list(_within(_samples(uri, number, every_channel=True), _SURVEY_S))
        if not pieces:
            continue
        channels = np.concatenate(pieces, axis=1)
        mixed = channels.mean(axis=0)
        candidates.append((Sound(track=number), mixed))
        loudness = np.sqrt((channels**2).mean(axis=1))
        if _mix_loses(channels, mixed, loudness):
            loud = np.flatnonzero(loudness > max(_MIN_AMPLITUDE, 0.1 * loudness.max()))
            candidates += [(Sound(track=number, channel=int(one)), channels[one]) for one in loud]
    if len(candidates) < 2:
        return candidates[0][0] if candidates else Sound()
    heard = [speech_s(audio) for _, audio in candidates]
    best = int(np.argmax(heard))
    return candidates[best if heard[best] > 1.2 * heard[0] + 0.5 else 0][0]


def _mix_loses(
    channels: Float[np.ndarray, "C N"], mixed: Float[np.ndarray, "N"], loudness: Float[np.ndarray, "C"]
) -> bool:
    if len(channels) < 2 or loudness.max() < _MIN_AMPLITUDE:
        return False
    if float(np.sqrt((mixed**2).mean())) < _MIN_SHARE * float(loudness.max()):
        return True
    if len(channels) > 2 or loudness.min() < _MIN_AMPLITUDE:
        return False
    return float(np.corrcoef(channels)[0, 1]) < _MIN_CORRELATION


def _within(samples: Iterator[tuple[float, np.ndarray]], seconds: float) -> Iterator[np.ndarray]:
    heard = 0
    for _, piece in samples:
        yield piece
        heard += piece.shape[1]
        if heard > seconds * SAMPLE_HZ:
            return


def _tracks(container: InputContainer) -> list[AudioStream]:
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def audio_chunks(uri: str, max_s: float, sound: Sound | None = None) -> Iterator[tuple[float, Float[np.ndarray, "N"]]]:
    """Mono audio at 16 kHz, -1 to 1, in chunks of at most `max_s`, each with its time in the video; `sound` chooses what is heard.

    Times are relative to the first video frame. Damaged packets are skipped. Raises ValueError where no audio can be decoded,
    av.FFmpegError or OSError where the file does not open.
    """
    pieces: list[np.ndarray] = []
    buffered, start_s, started = 0, 0.0, False
    sound = sound or Sound()
    for time_s, channels in _samples(uri, sound.track, every_channel=sound.channel is not None):
        samples = channels[min(sound.channel or 0, len(channels) - 1)]
        if not started:
            start_s, started = time_s, True
        gap_s = time_s - (start_s + buffered / SAMPLE_HZ)
        if gap_s > _LONG_GAP_S:
            yield start_s, np.concatenate(pieces)
            pieces, buffered, start_s = [], 0, time_s
        elif gap_s > _GAP_S:
            pieces.append(np.zeros(round(gap_s * SAMPLE_HZ), np.float32))
            buffered += len(pieces[-1])
        pieces.append(samples)
        buffered += len(samples)
        while buffered > max_s * SAMPLE_HZ:
            audio = np.concatenate(pieces)
            cut = _quiet_moment(audio[: int(max_s * SAMPLE_HZ)])
            yield start_s, audio[:cut]
            pieces, buffered, start_s = [audio[cut:]], len(audio) - cut, start_s + cut / SAMPLE_HZ
    if not started:
        raise ValueError("no sound could be decoded")
    if buffered:
        yield start_s, np.concatenate(pieces)


def _samples(uri: str, track: int, *, every_channel: bool) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds from the first picture, and samples (channels, N): one channel of all mixed, or every channel."""
    with open_container(uri) as container:
        if not container.streams.audio:
            raise ValueError("there is no sound track")
        stream = (_tracks(container) or list(container.streams.audio))[track]
        video = video_stream(container)
        origin_s = 0.0
        if video is not None and video.start_time is not None and video.time_base is not None:
            origin_s = float(video.start_time * video.time_base)
        resampler, form = None, None
        time_s = 0.0
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.InvalidDataError:
                continue
            for frame in decoded:
                if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    if resampler is not None:  # the sound changes its form in the middle of the file
                        yield from ((time_s, _channels(out)) for out in resampler.resample(None))
                    layout = frame.layout.name if every_channel else "mono"
                    resampler = av.AudioResampler(format="fltp", layout=layout, rate=SAMPLE_HZ)
                assert resampler is not None
                if frame.pts is not None and frame.time_base is not None:
                    time_s = float(frame.pts * frame.time_base) - origin_s
                frame.pts = None  # The resampler fails on a jump of the time stamps.
                yield from ((time_s, _channels(out)) for out in resampler.resample(frame))
        if resampler is not None:
            yield from ((time_s, _channels(out)) for out in resampler.resample(None))


def _channels(frame: av.AudioFrame) -> np.ndarray:
    return frame.to_ndarray().astype(np.float32)


def _quiet_moment(audio: Float[np.ndarray, "N"]) -> int:
    """Sample at which to cut: the quietest tenth of a second of the last ten seconds."""
    window = SAMPLE_HZ // 10
    tail = audio[-min(len(audio) // 2, 10 * SAMPLE_HZ) :]
    blocks = tail[: len(tail) // window * window].reshape(-1, window)
    if not len(blocks):
        return len(audio)
    return len(audio) - len(tail) + int((blocks**2).mean(1).argmin()) * window + window // 2
