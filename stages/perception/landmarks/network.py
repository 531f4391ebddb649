"""The landmark network: BlazePose GHUM heavy as its .tflite file, read by OpenVINO, which runs it on a CPU; on CUDA its graph runs
in torch (`stages.perception.landmarks.torch_graph`) with the same weights.

The network errs in opposite ways on a crop and on its mirror image: averaging both (`average`) lowers the error by a third.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from schemas.errors import HumoError
from schemas.skeleton import LANDMARKS, mirror_order
from schemas.storage import file_digest
from stages.perception.landmarks.crops import CROP_PX

SHIPPED = Path(__file__).parent / "data" / "pose_landmark_heavy.tflite"
_HEADS = (0, 1, 4)
"""Outputs of the network that are used: landmarks in the crop, person score, metric landmarks; not the mask and the heat maps."""
_POINTS = 39
"""33 landmarks, then two that place the next crop, then four of the hands that are not used."""
NUM_LANDMARKS = len(LANDMARKS)
_MIRROR = [*mirror_order(LANDMARKS), *range(NUM_LANDMARKS, _POINTS)]
_BATCH = {"openvino": 2, "torch": 32}
"""Crops in a batch."""


@dataclass(frozen=True, eq=False)
class CropLandmarks:
    """Output of the network for one crop, in its pixels."""

    points: Float[np.ndarray, "39 2"]
    visibility: Float[np.ndarray, "33"]
    """Probability that the landmark is in the image and not hidden by anything."""
    presence: Float[np.ndarray, "33"]
    """Probability that the landmark is in the image."""
    metric: Float[np.ndarray, "33 3"]
    """Metres, about the middle of the hips; x right and y down in the crop, z away from the camera."""
    person: float
    """Probability that the crop shows a person."""


class LandmarkNetwork:
    """Runs crops through the network in batches: `start` takes one, `take` returns the outputs that are ready."""

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        device: str = "cpu",
        backend: Literal["openvino", "torch"] = "openvino",
        threads: int = 1,
    ) -> None:
        """Raises HumoError for a file that holds another network."""
        path = Path(weights) if weights else SHIPPED
        self.backend = backend
        self._ready: dict[int, CropLandmarks] = {}
        self._waiting: list[tuple[int, np.ndarray, bool]] = []
        if backend == "openvino":
            options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
            # Requests that are waited for, not callbacks: OpenVINO's threads then never wait for Python's lock.
            compiled = _compile(_read(path), options)
            self._idle = [compiled.create_infer_request() for _ in range(threads)]
            self._running: deque[tuple[list[tuple[int, bool]], Any]] = deque()
        else:
            self._graph = load_torch_landmarks(path).to(device)
            self._device = device
            self._batches: list[tuple[list[tuple[int, bool]], list[Any]]] = []
        self.version = f"{path.stem} {file_digest(path)[:12]}"

    def start(self, number: int, crop: UInt8[np.ndarray, "256 256 3"], *, mirrored: bool = False) -> None:
        """Take a crop; `number` names it in `take`. `mirrored`: predict its mirror image and mirror the output."""
        self._waiting.append((number, crop[:, ::-1] if mirrored else crop, mirrored))
        if len(self._waiting) == _BATCH[self.backend]:
            self._run()

    def take(self, *, wait: bool = False) -> dict[int, CropLandmarks]:
        """Outputs that are ready and were not taken before; `wait`: of all crops."""
        if wait and self._waiting:
            self._run()
        if self.backend == "torch":
            self._collect(0 if wait else 1)
        else:
            while self._running and (wait or self._running[0][1].wait_for(0)):
                self._finish_oldest()
        return {number: self._ready.pop(number) for number in list(self._ready)}

    def _run(self) -> None:
        """The waiting crops in one batch; without waiting for it."""
        crops = [crop for _, crop, _ in self._waiting]
        names = [(number, mirrored) for number, _, mirrored in self._waiting]
        self._waiting = []
        if self.backend == "openvino":
            crops += [np.zeros_like(crops[0])] * (_BATCH["openvino"] - len(crops))
            if not self._idle:
                self._finish_oldest()
            request = self._idle.pop()
            request.start_async({0: np.stack(crops)})
            self._running.append((names, request))
            return
        import torch

        pixels = torch.from_numpy(np.stack(crops))
        half = torch.device(self._device).type == "cuda"
        if half:
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
            outputs = self._graph(pixels.float() / 255)
        self._batches.append((names, outputs))

    def _finish_oldest(self) -> None:
        names, request = self._running.popleft()
        request.wait()
        self._store(names, [request.get_output_tensor(head).data for head in range(len(_HEADS))])
        self._idle.append(request)

    def _collect(self, running: int) -> None:
        """The outputs of all batches but the last `running`."""
        while len(self._batches) > running:
            names, outputs = self._batches.pop(0)
            self._store(names, [output.float().cpu().numpy() for output in outputs])

    def _store(self, names: list[tuple[int, bool]], heads: Sequence[np.ndarray]) -> None:
        for index, (number, mirrored) in enumerate(names):
            self._ready[number] = _decode(*(head[index] for head in heads), mirrored=mirrored)


def _decode(
    landmarks: Float[np.ndarray, "195"],
    person: Float[np.ndarray, "1"],
    metric: Float[np.ndarray, "117"],
    *,
    mirrored: bool,
) -> CropLandmarks:
    rows, metres = landmarks.reshape(_POINTS, 5).astype(np.float64), metric.reshape(_POINTS, 3).astype(np.float64)
    if mirrored:
        rows, metres = rows[_MIRROR], metres[_MIRROR]
        rows[:, 0] = CROP_PX - rows[:, 0]
        metres[:, 0] *= -1
    probability = 1 / (1 + np.exp(-rows[:NUM_LANDMARKS, 3:].clip(-50, 50)))
    return CropLandmarks(rows[:, :2], probability[:, 0], probability[:, 1], metres[:NUM_LANDMARKS], float(person[0]))


def average(outputs: Sequence[CropLandmarks]) -> CropLandmarks:
    """The mean of several outputs for one crop."""
    return CropLandmarks(
        points=np.mean([output.points for output in outputs], 0),
        visibility=np.mean([output.visibility for output in outputs], 0),
        presence=np.mean([output.presence for output in outputs], 0),
        metric=np.mean([output.metric for output in outputs], 0),
        person=float(np.mean([output.person for output in outputs])),
    )


def load_torch_landmarks(weights: str | Path | None = None) -> Any:
    """The network as a torch module: images (N, 256, 256, 3), 0 to 1, to its outputs."""
    from stages.perception.landmarks.torch_graph import TorchGraph

    return TorchGraph(_read(Path(weights) if weights else SHIPPED)).eval()


def _read(path: Path) -> Any:
    """The network with the outputs that are used."""
    import openvino

    try:
        model = openvino.Core().read_model(path)
        outputs = [model.output(head) for head in _HEADS]
        sizes = [int(output.get_partial_shape()[1].get_length()) for output in outputs]
    except (RuntimeError, OSError, IndexError) as error:
        raise HumoError(
            f"{path}: no landmark network ({str(error).splitlines()[0][:200]}); give a BlazePose .tflite file with metric "
            f"landmarks in track_people.landmark_weights, or leave it empty for the shipped one"
        ) from error
    if sizes != [5 * _POINTS, 1, 3 * _POINTS]:
        raise HumoError(
            f"{path}: outputs of sizes {sizes}, not those of BlazePose {[5 * _POINTS, 1, 3 * _POINTS]}; leave "
            f"track_people.landmark_weights empty for the shipped network"
        )
    return openvino.Model(outputs, model.get_parameters())


def _compile(model: Any, options: dict[str, Any]) -> Any:
    """For batches of 8-bit images."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    model.reshape([_BATCH["openvino"], CROP_PX, CROP_PX, 3])
    prepare = PrePostProcessor(model)
    prepare.input().tensor().set_element_type(openvino.Type.u8)
    prepare.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    return openvino.Core().compile_model(prepare.build(), "CPU", options)


def predict(network: LandmarkNetwork, crops: Sequence[UInt8[np.ndarray, "256 256 3"]]) -> list[CropLandmarks]:
    """Outputs for crops, in order."""
    for number, crop in enumerate(crops):
        network.start(number, crop)
    outputs = network.take(wait=True)
    return [outputs[number] for number in range(len(crops))]
