"""The closer look at people who were found: run by OpenVINO on a CPU, by torch on CUDA, like the detector."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from schemas.errors import HumoError
from schemas.offline import cache_folder
from stages.module_commands import run_command
from stages.perception.closeup.crops import into_crop, square_about, warp
from stages.perception.closeup.network import CROP_PX, MIRROR, Head
from stages.perception.closeup.trunk import Trunk, load_trunk
from stages.perception.detector import build_once, file_digest

SHIPPED = Path(__file__).parent / "data" / "closeup.safetensors"
_NETWORK = "closeup.xml"
_TOGETHER = 64
"""Crops at once on CUDA."""
_MIRROR = list(MIRROR)


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen of one person in one picture, in its pixels."""

    places: Float[np.ndarray, "17 2"]
    depths: Float[np.ndarray, "17"]
    """Away from the camera, from the middle depth of the keypoints, times the focal length over that depth."""
    off: Float[np.ndarray, "17 2"]
    """Expected absolute errors of a coordinate in the picture and of the depth."""


@dataclass(frozen=True)
class HeadFile:
    """A head and what is known of it."""

    head: Head
    trunk: str
    """SHA-256 of the detector's weights whose trunk it was trained on."""
    version: str


def load_head(path: str | Path | None = None) -> HeadFile:
    """A head as `export` wrote it; the shipped one where no file is named. Raises HumoError for a file that holds none."""
    from safetensors import safe_open

    path = Path(path) if path else SHIPPED
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        head = Head(**about["shape"])
        head.load_state_dict(weights)
        if not all(bool(value.isfinite().all()) for value in weights.values()):
            raise ValueError("some weights are not finite")
        trunk = str(about["trunk"])
    except Exception as error:
        raise HumoError(
            f"{path}: holds no closer look ({type(error).__name__}: {error}); train one with "
            f"`python -m stages.training.closeup.train`, or leave it out for the shipped one"
        ) from error
    return HeadFile(head.eval().requires_grad_(False), trunk, f"closeup {file_digest(path)[:12]}")


def fits(detector_weights: Path, head: str | Path | None = None) -> bool:
    """Whether a head (the shipped one where no file is named) was trained on the trunk of these weights."""
    return load_head(head).trunk == file_digest(detector_weights)


class CloseLook:
    """Looks at crops; `begin` hands one in, `finish` gives what was seen in all of them, in order."""

    def __init__(
        self,
        detector_weights: Path,
        *,
        head: str | Path | None = None,
        device: str = "cpu",
        backend: Literal["openvino", "torch"] = "openvino",
        threads: int = 1,
    ) -> None:
        """Raises HumoError where the head was trained on another detector's trunk."""
        path = Path(head) if head else SHIPPED
        loaded = load_head(path)
        digest = file_digest(detector_weights)
        if loaded.trunk != digest:
            raise HumoError(
                f"{path}: this closer look reads the trunk of the detector {loaded.trunk[:12]}, not of {detector_weights} "
                f"({digest[:12]}); set track_people.closeup to never, or train one with `python -m stages.training.closeup.train`"
            )
        self.version, self.device, self.backend = loaded.version, device, backend
        self._squares: list[tuple[np.ndarray, float]] = []
        self._waiting: list[np.ndarray] = []
        self._outputs: list[tuple[Tensor, Tensor]] = []
        self._said: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if backend == "openvino":
            import openvino

            network = _exported(detector_weights, path, loaded.head)
            options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
            self._queue = openvino.AsyncInferQueue(_compiled(network, options), threads)
            self._queue.set_callback(self._keep)
        else:
            self._whole = CropNetwork(load_trunk(detector_weights), loaded.head).to(device)

    def begin(self, image: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, "4"]) -> None:
        """A person in a picture; the crop is made at once, so the picture may go."""
        centre, side = square_about(box)
        crop = warp(image, into_crop(centre, side))
        self._squares.append((centre, side))
        if self.backend == "openvino":
            self._queue.start_async({0: crop[None]}, len(self._squares) - 1)
            return
        self._waiting.append(crop)
        if len(self._waiting) == _TOGETHER:
            self._run_torch()

    def finish(self) -> list[Look]:
        """What was seen in all crops since the last call."""
        if self.backend == "openvino":
            self._queue.wait_all()
        else:
            self._run_torch()
            self._collect()
        looks = [self._look(*self._said[number], *square) for number, square in enumerate(self._squares)]
        self._squares, self._said = [], {}
        return looks

    def _keep(self, request: Any, number: int) -> None:
        points, log_sigma = (request.get_output_tensor(place).data[0].copy() for place in (0, 1))
        self._said[number] = points, log_sigma

    def _run_torch(self) -> None:
        """The network over the waiting crops; on CUDA without waiting for it."""
        if not self._waiting:
            return
        crops = torch.from_numpy(np.stack(self._waiting))
        half = torch.device(self.device).type == "cuda"
        if half:
            crops = crops.pin_memory().to(self.device, non_blocking=True)
        values = crops.permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
            points, log_sigma = self._whole(values)
        self._outputs.append((points.float(), log_sigma.float()))
        self._waiting = []

    def _collect(self) -> None:
        """The outputs of all batches, in one copy from the device."""
        if self._outputs:
            points, log_sigma = (torch.cat(parts).cpu().numpy() for parts in zip(*self._outputs, strict=True))
            self._said = dict(enumerate(zip(points, log_sigma, strict=True)))
            self._outputs = []

    def _look(
        self, points: Float[np.ndarray, "17 3"], log_sigma: Float[np.ndarray, "17 2"], centre: np.ndarray, side: float
    ) -> Look:
        half = side / 2
        return Look(centre + half * points[:, :2], half * points[:, 2], half * np.exp(log_sigma))


class CropNetwork(nn.Module):
    """Crops (RGB, 0 to 1) to points and logs of expected errors, the mean of what is said of them and of their mirror images."""

    def __init__(self, trunk: Trunk, head: Head) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        count = pixels.shape[0]
        said = self.head(*self.trunk(torch.cat([pixels, pixels.flip(-1)])))
        points = said.points[count:, _MIRROR] * said.points.new_tensor([-1.0, 1.0, 1.0])
        log_sigma = (said.log_sigma[:count] + said.log_sigma[count:, _MIRROR]) / 2
        return (said.points[:count] + points) / 2, log_sigma


def _compiled(network: Path, options: dict[str, Any]) -> Any:
    import openvino
    from openvino.preprocess import PrePostProcessor

    core = openvino.Core()
    prepare = PrePostProcessor(core.read_model(network))
    prepare.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    prepare.input().model().set_layout(openvino.Layout("NCHW"))
    prepare.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    return core.compile_model(prepare.build(), "CPU", options)


def _exported(detector_weights: Path, head_path: Path, head: Head) -> Path:
    """Trunk and head as one OpenVINO network, kept in the cache."""
    import openvino

    def make(work: Path) -> Path:
        whole = CropNetwork(load_trunk(detector_weights), head).eval()
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of shapes that it takes for constants, as they are
            model = openvino.convert_model(whole, example_input=torch.zeros(1, 3, CROP_PX, CROP_PX))
        model.reshape([1, 3, CROP_PX, CROP_PX])
        made = work / "made"
        made.mkdir()
        openvino.save_model(model, made / _NETWORK)
        return made

    name = f"{file_digest(detector_weights)[:16]}-{file_digest(head_path)[:16]}-{openvino.get_version().split('-')[0]}"
    return build_once(cache_folder() / "openvino" / name, _NETWORK, make)


def export(checkpoint: str | Path, path: str | Path = SHIPPED) -> None:
    """The averaged weights of a training in half precision, with the head's shape and the trunk that it reads."""
    from safetensors.torch import save_file

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    left_out = ("output", "pictures", "start", "weights")
    training = {name: value for name, value in state["config"].items() if name not in left_out}
    about = {name: state[name] for name in ("shape", "trunk", "step", "measured")} | {"training": training}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in state["average"].items()}
    save_file(weights, path, {"about": json.dumps(about, sort_keys=True)})


def main(arguments: Sequence[str]) -> int:
    """`python -m stages.perception.closeup.look CHECKPOINT [OUT]`: export the weights of a training."""
    usage = "closeup: no checkpoint; use `python -m stages.perception.closeup.look runs/closeup/checkpoint.pt`"
    return run_command(arguments, usage, lambda given: export(*given[:2]))


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
