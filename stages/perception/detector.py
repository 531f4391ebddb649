"""Detection of people and their COCO-17 keypoints in single frames: ultralytics pose weights, run by OpenVINO on a CPU, by
torch on CUDA.

On a CPU every frame is a separate request on one thread, so the results do not depend on the number of parallel requests.
"""

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from schemas.devices import torch_threads
from schemas.errors import HumoError
from schemas.offline import cache_folder, enforce_offline
from schemas.pose_weights import default_weights, load_pose_network
from schemas.storage import file_digest
from schemas.torchvision_ops import ensure_operators
from stages.media.decoding import Image
from stages.media.prefetch import prefetch

STRIDE = 32
_MAX_IOU = 0.7
"""Intersection over union above which the lower-scored of two boxes is suppressed."""
_MAX_PEOPLE = 300
"""In one frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """People detected in one frame, in its pixels."""

    boxes: Float[np.ndarray, "P 4"]
    scores: Float[np.ndarray, "P"]
    keypoints: Float[np.ndarray, "P 17 3"]


@dataclass(frozen=True, eq=False)
class _StartedBatch:
    """A batch on its way through the network."""

    output: Any
    """Output of the network, (B, 56, A), on the CPU; complete once `copied`."""
    copied: Any
    """The event of its copy from CUDA; None elsewhere."""


class PoseDetector:
    """Loads the weights once; `detect` takes a stream of frames and yields the detections of each, in order."""

    def __init__(
        self,
        weights: str = "",
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        backend: Literal["auto", "openvino", "torch"] = "auto",
        picture_px: int = 640,
        min_score: float = 0.1,
        threads: int = 0,
        batch: int = 16,
    ) -> None:
        """`picture_px`: longer side of the network's input; `threads`: 0 for the worker's cores; `batch`: frames per batch on
        CUDA."""
        self.weights = Path(weights) if weights else default_weights("track_people.weights")
        if not self.weights.is_file():
            raise HumoError(
                f"pose weights: {self.weights} does not exist; give a YOLO pose file (.pt) in track_people.weights"
            )
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise HumoError("track_people.device: cuda is not available to torch; use auto or cpu")
        self.device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        self.backend = ("torch" if self.device == "cuda" else "openvino") if backend == "auto" else backend
        self.picture_px, self.min_score = picture_px, min_score
        self.threads = threads or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        self.batch = batch if self.device == "cuda" else 1
        self._compiled: dict[tuple[int, int], Any] = {}
        enforce_offline()
        if self.backend == "openvino":
            import openvino

            self._core = openvino.Core()
            self._exported = export_openvino(self.weights)
        else:
            self._model = load_pose_network(self.weights, self.device)

    @property
    def version(self) -> str:
        """Name and hash of the weights, and the backend."""
        return f"{self.weights.stem} {file_digest(self.weights)[:12]} {self.backend}"

    def detect(self, images: Iterable[Image], picture_px: int = 0) -> Iterator[Detections]:
        """Detections of each image, in their order; all images have the same size. `picture_px`: 0 for the constructor's."""
        picture_px = picture_px or self.picture_px
        if self.backend != "openvino":
            yield from self._detect_torch(images, picture_px)
            return
        with torch_threads(1):  # torch has little left to do, and its threads would compete with the network's
            yield from self._detect_openvino(images, picture_px)

    def _detect_openvino(self, images: Iterable[Image], picture_px: int) -> Iterator[Detections]:
        # Requests that are waited for, not callbacks: OpenVINO's threads then never wait for Python's lock.
        letterbox: Letterbox | None = None
        idle: list[Any] = []
        running: deque[Any] = deque()

        def oldest() -> Detections:
            assert letterbox is not None
            request = running.popleft()
            request.wait()
            idle.append(request)
            return self._postprocess(self._candidates(request.get_output_tensor(0).data[0]), letterbox)

        try:
            for image in images:
                if letterbox is None:
                    letterbox = Letterbox(image.shape[0], image.shape[1], picture_px)
                    compiled = self._compile(letterbox)
                    idle = [compiled.create_infer_request() for _ in range(self.threads)]
                if not idle:
                    yield oldest()
                request = idle.pop()
                request.start_async({0: letterbox.apply(image)[None]})
                running.append(request)
            while running:
                yield oldest()
        finally:
            for request in running:
                request.wait()

    def _compile(self, letterbox: "Letterbox") -> Any:
        if letterbox.shape not in self._compiled:
            import openvino
            from openvino.preprocess import PrePostProcessor

            model = self._core.read_model(self._exported)
            model.reshape([1, 3, *letterbox.shape])
            prepare = PrePostProcessor(model)
            prepare.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
            prepare.input().model().set_layout(openvino.Layout("NCHW"))
            prepare.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
            options = {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "NUM_STREAMS": self.threads,
                "INFERENCE_NUM_THREADS": self.threads,
            }
            self._compiled[letterbox.shape] = self._core.compile_model(prepare.build(), "CPU", options)
        return self._compiled[letterbox.shape]

    def _detect_torch(self, images: Iterable[Image], picture_px: int) -> Iterator[Detections]:
        """On CUDA, images are decoded ahead by a thread, and a batch is evaluated while the device computes the next one."""
        letterbox: Letterbox | None = None

        def inputs() -> Iterator[np.ndarray]:
            nonlocal letterbox
            for image in images:
                letterbox = letterbox or Letterbox(image.shape[0], image.shape[1], picture_px)
                yield letterbox.apply(image)

        started: _StartedBatch | None = None
        for batch in _batches(prefetch(inputs(), 2 * self.batch) if self.device == "cuda" else inputs(), self.batch):
            assert letterbox is not None
            before, started = started, self._start_batch(batch)
            yield from self._finish_batch(before, letterbox)
        if letterbox:
            yield from self._finish_batch(started, letterbox)

    def _start_batch(self, batch: list[np.ndarray]) -> "_StartedBatch":
        """Send a batch to the network; on CUDA without waiting for it."""
        import torch

        pixels = torch.from_numpy(np.stack(batch))
        if self.device == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        pixels = pixels.permute(0, 3, 1, 2)
        with torch.inference_mode():
            output = self._model((pixels.half() if self.device == "cuda" else pixels.float()) / 255)
        raw = output[0] if isinstance(output, (tuple, list)) else output
        if self.device != "cuda":
            return _StartedBatch(raw.float(), None)
        host = torch.empty(raw.shape, dtype=raw.dtype, pin_memory=True)
        host.copy_(raw, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return _StartedBatch(host, copied)

    def _finish_batch(self, batch: "_StartedBatch | None", letterbox: "Letterbox") -> list[Detections]:
        """Detections of a batch that was started; none of None."""
        if batch is None:
            return []
        if batch.copied is not None:
            batch.copied.synchronize()
        return [self._postprocess(self._candidates(raw).astype(np.float32), letterbox) for raw in batch.output.numpy()]

    def _candidates(self, raw: Float[np.ndarray, "56 A"]) -> Float[np.ndarray, "K 56"]:
        """A copy of the candidates above the lowest score: dozens out of thousands."""
        return raw[:, raw[4].astype(np.float32) > self.min_score].T

    def _postprocess(self, rows: Float[np.ndarray, "K 56"], letterbox: "Letterbox") -> Detections:
        """Candidates (box centre and size, score, keypoints) to detections in the frame's pixels, by non-maximum suppression."""
        # OpenCV's suppression: torchvision's would load torch's compiler, three times as long as everything else here
        corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], axis=1)
        outlines = np.concatenate([corners[:, :2], rows[:, 2:4]], axis=1).astype(np.float64)
        best_first = cv2.dnn.NMSBoxes(outlines, rows[:, 4].astype(np.float32), 0.0, _MAX_IOU)  # type: ignore[arg-type]
        kept = np.array(best_first, np.int64)[:_MAX_PEOPLE]
        keypoints = rows[kept, 5:].reshape(-1, 17, 3).copy()
        keypoints[..., :2] = letterbox.undo(keypoints[..., :2])
        boxes = letterbox.undo(corners[kept].reshape(-1, 2, 2)).reshape(-1, 4)
        return Detections(boxes=boxes, scores=rows[kept, 4].copy(), keypoints=keypoints)


class Letterbox:
    """Scales an image to the network's input size and pads it grey to a multiple of the stride; `undo` inverts this for points."""

    def __init__(self, height: int, width: int, picture_px: int) -> None:
        self.scale = picture_px / max(height, width)
        self.inner = (max(1, round(height * self.scale)), max(1, round(width * self.scale)))
        self.shape = (-(-self.inner[0] // STRIDE) * STRIDE, -(-self.inner[1] // STRIDE) * STRIDE)
        self.top, self.left = ((outer - inner) // 2 for outer, inner in zip(self.shape, self.inner, strict=True))
        self.height, self.width = height, width

    def apply(self, image: Image) -> UInt8[np.ndarray, "h w 3"]:
        import cv2

        height, width = self.inner
        out = np.full((*self.shape, 3), 114, np.uint8)
        method = cv2.INTER_AREA if self.scale < 0.5 else cv2.INTER_LINEAR
        out[self.top : self.top + height, self.left : self.left + width] = cv2.resize(
            image, (width, height), interpolation=method
        )
        return out

    def undo(self, points: Float[np.ndarray, "*B 2"]) -> Float[np.ndarray, "*B 2"]:
        """Points of the network's input in the frame, clipped to it."""
        unscaled = (points - np.array([self.left, self.top], np.float32)) / np.float32(self.scale)
        return np.clip(unscaled, 0, np.array([self.width, self.height], np.float32))


def _batches(images: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Lists of `size` images; the last one may be shorter."""
    iterator = iter(images)
    while batch := list(islice(iterator, size)):
        yield batch


def export_openvino(weights: Path) -> Path:
    """Export the weights to an OpenVINO network with dynamic image size, kept in the cache."""
    import openvino

    def build(work: Path) -> Path:
        ensure_operators()
        from ultralytics import YOLO

        copy = work / weights.name
        shutil.copy(weights, copy)
        return Path(YOLO(str(copy), task="pose").export(format="openvino", dynamic=True, imgsz=640, verbose=False))

    name = f"{file_digest(weights)[:16]}-{openvino.get_version().split('-')[0]}"
    return build_once(cache_folder() / "openvino" / name, f"{weights.stem}.xml", build)


def build_once(folder: Path, name: str, build: Callable[[Path], Path]) -> Path:
    """A file in a folder of the cache; on first use `build` creates the folder's contents inside a work folder.

    Workers that start together each build their own folder; the first to move it into place wins.
    """
    if (folder / name).exists():
        return folder / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        built = build(Path(work))
        try:
            built.rename(folder)
        except OSError:
            if not (folder / name).exists():
                raise
    return folder / name
