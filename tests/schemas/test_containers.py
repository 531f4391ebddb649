"""Where FFmpeg fails for lack of memory, that is not blamed on the file; a file that asks for any size is."""

import errno
import subprocess
import sys
from pathlib import Path

import av
import pytest
from videos import noise_video

from pipeline import PROJECT_ROOT
from schemas import containers
from schemas.containers import CLIP_FORMATS, VIDEO_FORMATS, open_media, raise_shortage


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN])
def test_a_file_that_asks_for_too_much_is_at_fault(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    error = av.FFmpegError(number, "refused")
    raise_shortage(error)
    monkeypatch.setattr(containers, "_LARGEST_REQUEST", 1 << 62)
    with pytest.raises(MemoryError, match="FFmpeg: refused"):
        raise_shortage(error)
    raise_shortage(av.FFmpegError(errno.EIO, "a failing disk"))


def test_names_of_formats() -> None:
    """A name that FFmpeg does not know would be ignored."""
    known = {name for one in av.formats_available for name in one.split(",")} | {"mj2", "m4a"}
    assert known.issuperset(VIDEO_FORMATS)
    assert set(CLIP_FORMATS) <= set(VIDEO_FORMATS)


@pytest.mark.parametrize(("suffix", "codec"), [("y4m", "wrapped_avframe"), ("mjpeg", "mjpeg"), ("mpg", "mpeg2video")])
def test_formats_of_cameras_and_research(suffix: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"v.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame(64, 48, stream.pix_fmt)))
        container.mux(stream.encode(None))
    with open_media(str(path)) as opened:
        assert len(list(opened.decode(video=0))) == 5


PROGRAM = """
import sys
from schemas.records import Source
from pipeline.execution.worker_limits import WorkerLimits
from stages.base import apply
from stages.read_videos import ReadVideos
source = Source(id="one", uri=sys.argv[1])
[video], [] = apply(ReadVideos(), [source])
WorkerLimits(memory_bytes=1 << 20).apply()
[], [rejection] = apply(ReadVideos(), [source])
print(rejection.stage, rejection.reason, rejection.detail)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit does not count what is mapped")
def test_a_good_video_that_finds_no_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(noise_video(tmp_path / "v.mp4"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT_ROOT)
    assert done.stdout.startswith("read_videos out_of_memory MemoryError"), done.stdout + done.stderr
