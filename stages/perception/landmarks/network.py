"""The landmark network: BlazePose GHUM heavy as its .tflite file, read by OpenVINO, which runs it on a CPU; on CUDA its graph runs
in torch (`stages.perception.landmarks.torch_graph`) with the same weights.

Every crop is predicted together with its mirror image, and the two are averaged: this lowers the error by a third.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from schemas.errors import HumoError
from schemas.skeleton import LANDMARKS, mirror_order
from stages.perception.detector import file_digest
from stages.perception.landmarks.crops import CROP_PX

SHIPPED = Path(__file__).parent / "data" / "pose_landmark_heavy.tflite"
_HEADS = (0, 1, 4)
"""Outputs of the network that are used: landmarks in the crop, person score, metric landmarks; not the mask and the heat maps."""
_POINTS = 39
"""33 landmarks, then two that place the next crop, then four of the hands that are not used."""
NUM_LANDMARKS = len(LANDMARKS)
_MIRROR = [*mirror_order(LANDMARKS), *range(NUM_LANDMARKS, _POINTS)]
_TOGETHER = 32
"""Crops in a batch on CUDA."""


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
    """Runs crops through the network: `start` takes one, `take` returns the outputs that are ready."""

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
        self._batch: list[tuple[int, np.ndarray]] = []
        if backend == "openvino":
            import openvino

            options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
            self._queue = openvino.AsyncInferQueue(_compile(_read(path), options), threads)
            self._queue.set_callback(self._keep)
        else:
            self._graph = load_torch_landmarks(path).to(device)
            self._device = device
            self._batches: list[tuple[list[int], list[Any]]] = []
        self.version = f"{path.stem} {file_digest(path)[:12]}"

    def start(self, number: int, crop: UInt8[np.ndarray, "256 256 3"]) -> None:
        """Begin the prediction of a crop; `number` names it in `take`."""
        pair = np.stack([crop, crop[:, ::-1]])
        if self.backend == "openvino":
            self._queue.start_async({0: pair}, number)
            return
        self._batch.append((number, pair))
        if len(self._batch) == _TOGETHER:
            self._run_torch()

    def take(self, *, wait: bool = False) -> dict[int, CropLandmarks]:
        """Outputs that are ready and were not taken before; `wait`: of all crops."""
        if self.backend == "openvino":
            if wait:
                self._queue.wait_all()
        else:
            if wait:
                self._run_torch()
            self._collect(0 if wait else 1)
        return {number: self._ready.pop(number) for number in list(self._ready)}

    def _keep(self, request: Any, number: int) -> None:
        self._ready[number] = _average(*(request.get_output_tensor(head).data for head in range(len(_HEADS))))

    def _run_torch(self) -> None:
        """The waiting crops in one batch; on CUDA without waiting for it."""
        if not self._batch:
            return
        import torch

        pixels = torch.from_numpy(np.concatenate([pair for _, pair in self._batch]))
        half = torch.device(self._device).type == "cuda"
        if half:
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
            outputs = self._graph(pixels.float() / 255)
        self._batches.append(([number for number, _ in self._batch], outputs))
        self._batch = []

    def _collect(self, running: int) -> None:
        """The outputs of all batches but the last `running`."""
        while len(self._batches) > running:
            numbers, outputs = self._batches.pop(0)
            arrays = [output.float().cpu().numpy() for output in outputs]
            for index, number in enumerate(numbers):
                self._ready[number] = _average(*(array[2 * index : 2 * index + 2] for array in arrays))


def _average(
    landmarks: Float[np.ndarray, "2 195"], person: Float[np.ndarray, "2 1"], metric: Float[np.ndarray, "2 117"]
) -> CropLandmarks:
    """The mean of the outputs for a crop and for its mirror image."""
    rows = landmarks.reshape(2, _POINTS, 5).astype(np.float64)
    metres = metric.reshape(2, _POINTS, 3).astype(np.float64)
    rows[1], metres[1] = rows[1, _MIRROR], metres[1, _MIRROR]
    rows[1, :, 0] = CROP_PX - rows[1, :, 0]
    metres[1, :, 0] *= -1
    probability = (1 / (1 + np.exp(-rows[:, :NUM_LANDMARKS, 3:].clip(-50, 50)))).mean(0)
    return CropLandmarks(
        points=rows[..., :2].mean(0),
        visibility=probability[:, 0],
        presence=probability[:, 1],
        metric=metres.mean(0)[:NUM_LANDMARKS],
        person=float(person.mean()),
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
    """For pairs of 8-bit images."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    model.reshape([2, CROP_PX, CROP_PX, 3])
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
