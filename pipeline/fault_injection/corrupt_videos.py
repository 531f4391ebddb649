"""Damaged and odd videos by the hundred, from one whole video and a seed, to see that each costs only itself.

    python -m pipeline.fault_injection.corrupt_videos OUT --count 300 --seed 0

writes them with a manifest that `humo ingest` takes as a source. The first few are odd but whole: other containers and codecs,
no frames, no sound, no video at all. All others are one of those with bits turned over, a piece missing, zeroed or moved, or
extreme numbers in a header. The same arguments give the same files.
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
_SOUND_HZ = 16_000


@dataclass(frozen=True, kw_only=True)
class Dress:
    """A container with what lies in it; no codec: no such stream."""

    format: str
    picture: str = "libx264"
    pixels: str = "yuv420p"
    sound: str = "aac"


DRESSES = {
    "mp4": Dress(format="mp4"),
    "mov": Dress(format="mov", picture="mjpeg", pixels="yuvj420p"),
    "mkv": Dress(format="matroska"),
    "avi": Dress(format="avi", picture="mpeg4", sound="pcm_s16le"),
    "ts": Dress(format="mpegts"),
    "webm": Dress(format="webm", picture="libvpx", sound=""),
    "flv": Dress(format="flv"),
    "gif": Dress(format="gif", picture="gif", pixels="rgb8", sound=""),
    "h264": Dress(format="h264", sound=""),
}
"""Ending of the file -> what is in it."""
_MARKS = re.compile(
    b"tkhd|mdhd|mvhd|stts|ctts|stsz|stsc|stco|elst|avc1|avcC|mp4a|esds|avih|strh|strf|idx1|\x16\x54\xae\x6b|\x15\x49\xa9\x66"
)
"""Headers that say sizes, rates, counts and places: of ISO files, AVI, and Matroska's tracks and segment information."""
_EXTREMES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER_BYTES = 96


def flip(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Up to a hundred bits turned over, anywhere."""
    for place in rng.integers(0, len(content), int(rng.integers(1, 100))):
        content[place] ^= 1 << int(rng.integers(8))
    return content


def cut(content: bytearray, rng: np.random.Generator) -> bytearray:
    """The end missing."""
    return content[: int(rng.integers(1, len(content)))]


def behead(content: bytearray, rng: np.random.Generator) -> bytearray:
    """The beginning missing."""
    return content[int(rng.integers(1, len(content) // 2)) :]


def blank(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A stretch of zeros."""
    start, end = _stretch(content, rng)
    content[start:end] = bytes(end - start)
    return content


def scramble(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A stretch of noise."""
    start, end = _stretch(content, rng)
    content[start:end] = rng.bytes(end - start)
    return content


def repeat(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A stretch that comes twice, so that all places behind it are wrong."""
    start, end = _stretch(content, rng)
    content[end:end] = content[start:end]
    return content


def exaggerate(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Extreme numbers in the headers: sizes of pictures, rates, durations, counts, places."""
    marks = [found.end() for found in _MARKS.finditer(content)] or [0]
    for _ in range(int(rng.integers(1, 4))):
        value, width = _EXTREMES[rng.integers(len(_EXTREMES))], int(rng.choice((2, 4)))
        place = min(marks[rng.integers(len(marks))] + 2 * int(rng.integers(_HEADER_BYTES // 2)), len(content) - width)
        order = "little" if content[:4] == b"RIFF" else "big"
        content[place : place + width] = (value & (256**width - 1)).to_bytes(width, order)
    return content


def misjudge(content: bytearray, rng: np.random.Generator) -> bytearray:
    """A box or a chunk whose size is wrong."""
    marks = [found.start() for found in _MARKS.finditer(content)] or [8]
    place = max(0, marks[rng.integers(len(marks))] - 4)
    content[place : place + 4] = _EXTREMES[rng.integers(len(_EXTREMES))].to_bytes(4, "big")
    return content


DAMAGES: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (
    flip, cut, behead, blank, scramble, repeat, exaggerate, misjudge,
)  # fmt: skip


def oddities(pictures: Sequence[TimedFrame], seed: int) -> dict[str, bytes]:
    """Files that are whole but not what is expected, by name; the first are the video itself in every dress."""
    images = [picture.image for picture in pictures]
    rng = np.random.default_rng(seed)
    made = {f"whole.{ending}": wrap(dress, images) for ending, dress in DRESSES.items()}
    made |= {
        "silent.mp4": wrap(Dress(format="mp4", sound=""), images),
        "unseen.mp4": wrap(Dress(format="mp4", picture=""), images),
        "frameless.mp4": wrap(DRESSES["mp4"], []),
        "frameless.mkv": wrap(DRESSES["mkv"], []),
        "single.mp4": wrap(DRESSES["mp4"], images[:1]),
        "soundless.mp4": wrap(DRESSES["mp4"], images, sound_s=0.0),
        "long_sound.mkv": wrap(DRESSES["mkv"], images[:3], sound_s=3.0),
        "slow.mp4": wrap(DRESSES["mp4"], images[:3], fps=Fraction(1, 1000), sound_s=0.5),
        "fast.mp4": wrap(DRESSES["mp4"], images, fps=Fraction(10_000)),
        "tiny.mp4": wrap(DRESSES["mp4"], [image[:2, :2] for image in images]),
        "thin.mp4": wrap(DRESSES["mp4"], [np.repeat(image[:2], 8, 1) for image in images]),
        "empty.mp4": b"",
        "byte.mkv": b"\x1a",
        "noise.mp4": rng.bytes(100_000),
        "text.avi": b"This is no video.\n" * 500,
        "zeros.mov": bytes(100_000),
        "wrong_name.avi": wrap(DRESSES["mkv"], images),
    }
    return made


def wrap(
    dress: Dress, images: Sequence[Image], *, fps: Fraction = Fraction(_FPS), sound_s: float | None = None
) -> bytes:
    """Pictures, with a tone as long as they are or as it is told, in a container."""
    file = io.BytesIO()
    exact = {"flags": "+bitexact"}
    with av.open(file, "w", format=dress.format, options={"fflags": "+bitexact"}) as container:
        picture: Any = container.add_stream(dress.picture, rate=fps, options=exact) if dress.picture else None
        sound: Any = container.add_stream(dress.sound, rate=_SOUND_HZ, options=exact) if dress.sound else None
        if picture is not None:
            height, width = images[0].shape[:2] if images else (240, 320)
            picture.width, picture.height, picture.pix_fmt = width // 2 * 2, height // 2 * 2, dress.pixels
            picture.codec_context.thread_count = 1
        container.start_encoding()
        if picture is not None:
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = number, 1 / fps
                container.mux(picture.encode(frame))
            container.mux(picture.encode())
        if sound is not None:
            _tone(container, sound, len(images) / float(fps) if sound_s is None else sound_s)
    return file.getvalue()


def mutate(pictures: Sequence[TimedFrame], count: int, seed: int) -> dict[str, bytes]:
    """So many files by name, the oddities first."""
    odd = oddities(pictures, seed)
    bases = [name for name in odd if name.startswith("whole.")]
    made = {f"{number:04}-{name}": content for number, (name, content) in enumerate(odd.items()) if number < count}
    for number in range(len(made), count):
        rng = np.random.default_rng([seed, number])
        base, damage = bases[rng.integers(len(bases))], DAMAGES[number % len(DAMAGES)]
        ending = base.rpartition(".")[2]
        made[f"{number:04}-{damage.__name__}.{ending}"] = bytes(damage(bytearray(odd[base]), rng))
    return made


def _stretch(content: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(0, len(content) - 1))
    return start, min(len(content), start + 1 + int(len(content) * 0.2 * rng.random()))


def _tone(container: Any, stream: Any, seconds: float) -> None:
    kind = stream.codec_context.format.name
    wave = 0.3 * np.sin(np.arange(int(_SOUND_HZ * seconds)) * 0.1)
    wave = wave.astype(np.float32) if kind.startswith("flt") else (wave * 32767).astype(np.int16)
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format=kind, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _SOUND_HZ, start, Fraction(1, _SOUND_HZ)
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
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        video = chosen.video or _rendered(chosen.out / "whole", chosen.seed)
        pictures = list(frames(video, end_s=_SECONDS, max_fps=_FPS, scale_to=_SIDE_PX))
    except (av.FFmpegError, OSError) as error:
        return exit_status(HumoError(f"--video: {chosen.video} cannot be read ({error}); name another one"))
    made = mutate(pictures, chosen.count, chosen.seed)
    for name, content in made.items():
        (chosen.out / name).write_bytes(content)
    rows = [json.dumps({"uri": name, "id": name.replace(".", "-")}) for name in made]
    (chosen.out / "manifest.jsonl").write_text("\n".join(rows) + "\n")
    print(f"{chosen.out / 'manifest.jsonl'}: {len(made)} files")
    return 0


def _rendered(folder: Path, seed: int) -> str:
    from stages.synthesis.film import demo_films  # loads torch, which damage to a file does not need

    return str(demo_films(folder, seed=seed, processes=1, names=("run",))[0].path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
