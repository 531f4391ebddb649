"""From decoded frames to the images that a player shows, with FFmpeg's filters where decoding alone does not give them."""

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator

import av
import numpy as np
from jaxtyping import UInt8

from schemas.picture import Picture
from stages.media.tone_mapping import lookup_table

Image = UInt8[np.ndarray, "H W 3"]
_BACKGROUND = 255
"""What transparent pixels are shown on: white, as on a page, and as FFmpeg itself does for GIF."""
_TIME_BASE = "1/1000"
_MATRICES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 9: "bt2020nc", 10: "bt2020c"}
"""AVColorSpace -> its name in a graph; others are given as unknown."""


class Display:
    """Makes images of frames; the longer side of an image has at most `scale_to` pixels."""

    def __init__(self, picture: Picture, scale_to: int | None = None) -> None:
        self.picture = picture
        longest = max(picture.width, picture.height)
        self._shrink = min(1.0, scale_to / longest) if scale_to else 1.0
        self._tone_mapper: tuple[tuple[object, ...], av.filter.Graph] | None = None

    def image(self, frame: av.VideoFrame) -> Image:
        """The upright image of a frame."""
        picture = self.picture
        image = self.oriented(self._pixels(frame))
        if not any(picture.borders):
            return image
        left, top, _, _ = (round(side * self._shrink) for side in picture.borders)
        width, height = (max(2, round(side * self._shrink)) for side in (picture.width, picture.height))
        return np.ascontiguousarray(image[top : top + height, left : left + width])

    def oriented(self, image: np.ndarray) -> np.ndarray:
        """Turned and mirrored as the file says."""
        picture = self.picture
        if not (picture.transposed or picture.flip_x or picture.flip_y):
            return image
        image = image.swapaxes(0, 1) if picture.transposed else image
        return np.ascontiguousarray(image[:: -1 if picture.flip_y else 1, :: -1 if picture.flip_x else 1])

    def _pixels(self, frame: av.VideoFrame) -> np.ndarray:
        """RGB in the stored orientation, of one size whatever the frame's."""
        full = (self.picture.full_width, self.picture.full_height)
        width, height = full[::-1] if self.picture.transposed else full
        target = (max(2, round(width * self._shrink)), max(2, round(height * self._shrink)))
        own = (frame.width * self.picture.aspect, float(frame.height))
        fit = min(width / own[0], height / own[1]) * self._shrink
        fitted = (max(2, round(own[0] * fit)), max(2, round(own[1] * fit)))
        if max(abs(fitted[0] - target[0]), abs(fitted[1] - target[1])) <= 1:
            return self._rgb(frame, *target)
        image = np.zeros((target[1], target[0], 3), np.uint8)
        fitted = (min(fitted[0], target[0]), min(fitted[1], target[1]))
        left, top = (target[0] - fitted[0]) // 2, (target[1] - fitted[1]) // 2
        image[top : top + fitted[1], left : left + fitted[0]] = self._rgb(frame, *fitted)
        return image

    def _rgb(self, frame: av.VideoFrame, width: int, height: int) -> Image:
        if self.picture.transfer != "sdr":
            return self._tone_mapped(frame, width, height)
        if self.picture.alpha and has_alpha(frame):
            rgba = frame.to_ndarray(format="rgba", width=width, height=height).astype(np.uint16)
            opacity = rgba[..., 3:]
            return ((rgba[..., :3] * opacity + _BACKGROUND * (255 - opacity) + 127) // 255).astype(np.uint8)
        return frame.to_ndarray(format="rgb24", width=width, height=height)

    def _tone_mapped(self, frame: av.VideoFrame, width: int, height: int) -> Image:
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, width, height)
        if self._tone_mapper is None or self._tone_mapper[0] != key:
            with tempfile.NamedTemporaryFile("w", suffix=".cube") as file:  # only read while the graph is configured
                file.write(lookup_table(self.picture.transfer))
                file.flush()
                filters = (
                    ("scale", f"w={width}:h={height}:flags=bilinear:out_range=pc"),
                    ("format", "pix_fmts=gbrp16le"),
                    ("lut3d", f"file={file.name}"),
                    ("format", "pix_fmts=rgb24"),
                )
                self._tone_mapper = (key, _graph(frame, filters))
        graph = self._tone_mapper[1]
        frame.pts = None
        graph.push(frame)
        mapped = graph.pull()
        assert isinstance(mapped, av.VideoFrame)
        return mapped.to_ndarray(format="rgb24")


def deinterlaced(frames: Iterable[tuple[float, av.VideoFrame]]) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with their times; those marked as interlaced get whole pictures from FFmpeg's `bwdif`, one for each frame."""
    times: deque[float] = deque()
    graph, key = None, None
    for number, (time_s, frame) in enumerate(frames):
        if key != (key := (frame.width, frame.height, frame.format.name)):
            yield from _rest(graph, times)
            graph = _graph(frame, (("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),))
        assert graph is not None
        times.append(time_s)
        frame.pts = number
        graph.push(frame)
        yield from _available(graph, times)
    yield from _rest(graph, times)


def _rest(graph: av.filter.Graph | None, times: deque[float]) -> Iterator[tuple[float, av.VideoFrame]]:
    if graph is not None:
        graph.push(None)
        yield from _available(graph, times)
    times.clear()


def _available(graph: av.filter.Graph, times: deque[float]) -> Iterator[tuple[float, av.VideoFrame]]:
    while times:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        yield times.popleft(), frame


def _graph(frame: av.VideoFrame, filters: Iterable[tuple[str, str]]) -> av.filter.Graph:
    """A configured graph for frames like this one."""
    colours = f":colorspace={_MATRICES[frame.colorspace]}" if frame.colorspace in _MATRICES else ""
    colours += f":range={'pc' if frame.color_range == 2 else 'tv'}"
    graph = av.filter.Graph()
    last = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={_TIME_BASE}:pixel_aspect=1/1"
        + colours,
    )
    for name, arguments in (*filters, ("buffersink", None)):
        added = graph.add(name, arguments)
        last.link_to(added)
        last = added
    graph.configure()
    return graph


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether the frame's format has an alpha channel."""
    return any(component.is_alpha for component in frame.format.components)
