"""Writes hundreds of corrupted and unusual videos from one intact video and a seed, to test that each affects only itself.

    python -m pipeline.fault_injection.corrupt_videos OUT --count 300 --seed 0

writes them with a manifest that `humo ingest` takes as a source. The first few are intact but unusual: other containers and codecs,
no frames, no sound, no video at all. All others are one of those with flipped bits, a piece missing, zeroed or moved, or extreme
numbers in a header. The same arguments give the same files.
"""

import argparse
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from schemas.errors import HumoError, exit_status
from stages.media.decoding import Image, TimedFrame, frames

_SECONDS = 2.5
_FPS = 30
_SIDE_PX = 320
_AUDIO_HZ = 16_000


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A container and its streams; no codec: no such stream."""

    format: str
    video_codec: str = "libx264"
    pixel_format: str = "yuv420p"
    audio_codec: str = "aac"


ENCODINGS = {
    "mp4": Encoding(format="mp4"),
    "mov": Encoding(format="mov", video_codec="mjpeg", pixel_format="yuvj420p"),
    "mkv": Encoding(format="matroska"),
    "avi": Encoding(format="avi", video_codec="mpeg4", audio_codec="pcm_s16le"),
    "ts": Encoding(format="mpegts"),
    "webm": Encoding(format="webm", video_codec="libvpx", audio_codec=""),
    "flv": Encoding(format="flv"),
    "gif": Encoding(format="gif", video_codec="gif", pixel_format="rgb8", audio_codec=""),
    "h264": Encoding(format="h264", audio_codec=""),
}
"""File extension -> encoding."""
_HEADER_TAGS = re.compile(
    b"tkhd|mdhd|mvhd|stts|ctts|stsz|stsc|stco|elst|avc1|avcC|mp4a|esds|avih|strh|strf|idx1|\x16\x54\xae\x6b|\x15\x49\xa9\x66"
)
"""Headers with sizes, rates, counts and offsets: of ISO files, AVI, and Matroska's tracks and segment information."""
_EXTREMES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER_BYTES = 96


def flip(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Flips up to a hundred bits, anywhere."""
    for offset in rng.integers(0, len(content), int(rng.integers(1, 100))):
        content[offset] ^= 1 << int(rng.integers(8))
    return content


def cut(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Removes the end."""
    return content[: int(rng.integers(1, len(content)))]


def behead(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Removes the beginning."""
    return content[int(rng.integers(1, len(content) // 2)) :]


def blank(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Zeroes a range."""
    start, end = _random_range(content, rng)
    content[start:end] = bytes(end - start)
    return content


def scramble(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Overwrites a range with noise."""
    start, end = _random_range(content, rng)
    content[start:end] = rng.bytes(end - start)
    return content


def repeat(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Duplicates a range, so that all later offsets are wrong."""
    start, end = _random_range(content, rng)
    content[end:end] = content[start:end]
    return content


def exaggerate(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Writes extreme numbers into headers: frame sizes, rates, durations, counts, offsets."""
    tags = [match.end() for match in _HEADER_TAGS.finditer(content)] or [0]
    for _ in range(int(rng.integers(1, 4))):
        value, width = _EXTREMES[rng.integers(len(_EXTREMES))], int(rng.choice((2, 4)))
        offset = min(tags[rng.integers(len(tags))] + 2 * int(rng.integers(_HEADER_BYTES // 2)), len(content) - width)
        byte_order = "little" if content[:4] == b"RIFF" else "big"
        content[offset : offset + width] = (value & (256**width - 1)).to_bytes(width, byte_order)
    return content


def misjudge(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Writes a wrong size into a box or chunk."""
    tags = [match.start() for match in _HEADER_TAGS.finditer(content)] or [8]
    offset = max(0, tags[rng.integers(len(tags))] - 4)
    content[offset : offset + 4] = _EXTREMES[rng.integers(len(_EXTREMES))].to_bytes(4, "big")
    return content


CORRUPTIONS: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (
    flip, cut, behead, blank, scramble, repeat, exaggerate, misjudge,
)  # fmt: skip


def unusual_files(timed_frames: Sequence[TimedFrame], seed: int) -> dict[str, bytes]:
    """Intact but unexpected files by name; the first are the video itself in every encoding."""
    images = [timed_frame.image for timed_frame in timed_frames]
    rng = np.random.default_rng(seed)
    files = {f"whole.{extension}": encode(encoding, images) for extension, encoding in ENCODINGS.items()}
    files |= {
        "silent.mp4": encode(Encoding(format="mp4", audio_codec=""), images),
        "unseen.mp4": encode(Encoding(format="mp4", video_codec=""), images),
        "frameless.mp4": encode(ENCODINGS["mp4"], []),
        "frameless.mkv": encode(ENCODINGS["mkv"], []),
        "single.mp4": encode(ENCODINGS["mp4"], images[:1]),
        "soundless.mp4": encode(ENCODINGS["mp4"], images, audio_s=0.0),
        "long_sound.mkv": encode(ENCODINGS["mkv"], images[:3], audio_s=3.0),
        "slow.mp4": encode(ENCODINGS["mp4"], images[:3], fps=Fraction(1, 1000), audio_s=0.5),
        "fast.mp4": encode(ENCODINGS["mp4"], images, fps=Fraction(10_000)),
        "tiny.mp4": encode(ENCODINGS["mp4"], [image[:2, :2] for image in images]),
        "thin.mp4": encode(ENCODINGS["mp4"], [np.repeat(image[:2], 8, 1) for image in images]),
        "empty.mp4": b"",
        "byte.mkv": b"\x1a",
        "noise.mp4": rng.bytes(100_000),
        "text.avi": b"This is no video.\n" * 500,
        "zeros.mov": bytes(100_000),
        "wrong_name.avi": encode(ENCODINGS["mkv"], images),
    }
    return files


def encode(
    encoding: Encoding, images: Sequence[Image], *, fps: Fraction = Fraction(_FPS), audio_s: float | None = None
) -> bytes:
    """Images, with a tone of their duration or of `audio_s` seconds, in a container."""
    buffer = io.BytesIO()
    bitexact = {"flags": "+bitexact"}
    with av.open(buffer, "w", format=encoding.format, options={"fflags": "+bitexact"}) as container:
        video: Any = (
            container.add_stream(encoding.video_codec, rate=fps, options=bitexact) if encoding.video_codec else None
        )
        audio: Any = (
            container.add_stream(encoding.audio_codec, rate=_AUDIO_HZ, options=bitexact)
            if encoding.audio_codec
            else None
        )
        if video is not None:
            height, width = images[0].shape[:2] if images else (240, 320)
            video.width, video.height, video.pix_fmt = width // 2 * 2, height // 2 * 2, encoding.pixel_format
            video.codec_context.thread_count = 1
        container.start_encoding()
        if video is not None:
            for index, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = index, 1 / fps
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio is not None:
            _encode_tone(container, audio, len(images) / float(fps) if audio_s is None else audio_s)
    return buffer.getvalue()


def make_files(timed_frames: Sequence[TimedFrame], count: int, seed: int) -> dict[str, bytes]:
    """`count` files by name, the unusual ones first."""
    unusual = unusual_files(timed_frames, seed)
    bases = [name for name in unusual if name.startswith("whole.")]
    files = {f"{index:04}-{name}": content for index, (name, content) in enumerate(unusual.items()) if index < count}
    for index in range(len(files), count):
        rng = np.random.default_rng([seed, index])
        base, corruption = bases[rng.integers(len(bases))], CORRUPTIONS[index % len(CORRUPTIONS)]
        extension = base.rpartition(".")[2]
        files[f"{index:04}-{corruption.__name__}.{extension}"] = bytes(corruption(bytearray(unusual[base]), rng))
    return files


def _random_range(content: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(0, len(content) - 1))
    return start, min(len(content), start + 1 + int(len(content) * 0.2 * rng.random()))


def _encode_tone(container: Any, stream: Any, seconds: float) -> None:
    sample_format = stream.codec_context.format.name
    samples = 0.3 * np.sin(np.arange(int(_AUDIO_HZ * seconds)) * 0.1)
    samples = samples.astype(np.float32) if sample_format.startswith("flt") else (samples * 32767).astype(np.int16)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format=sample_format, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _AUDIO_HZ, start, Fraction(1, _AUDIO_HZ)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def main(arguments: list[str]) -> int:
    """Write the files, and `manifest.jsonl` that lists them."""
    parser = argparse.ArgumentParser(
        prog="pipeline.fault_injection.corrupt_videos", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("out", type=Path, help="folder that they go to")
    parser.add_argument("--video", default="", help="the whole video; empty: one is rendered")
    parser.add_argument("--count", type=int, default=300, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the damage, and of the rendered video")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        video = options.video or _render_video(options.out / "whole", options.seed)
        timed_frames = list(frames(video, end_s=_SECONDS, max_fps=_FPS, scale_to=_SIDE_PX))
    except (av.FFmpegError, OSError) as error:
        return exit_status(HumoError(f"--video: {options.video} cannot be read ({error}); name another one"))
    files = make_files(timed_frames, options.count, options.seed)
    for name, content in files.items():
        (options.out / name).write_bytes(content)
    rows = [json.dumps({"uri": name, "id": name.replace(".", "-")}) for name in files]
    (options.out / "manifest.jsonl").write_text("\n".join(rows) + "\n")
    print(f"{options.out / 'manifest.jsonl'}: {len(files)} files")
    return 0


def _render_video(folder: Path, seed: int) -> str:
    from stages.synthesis.film import demo_films  # imports torch, which is only needed to render

    return str(demo_films(folder, seed=seed, processes=1, names=("run",))[0].path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
