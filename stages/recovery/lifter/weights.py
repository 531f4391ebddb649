"""Weights of the lifter: the shipped file, checkpoints of a training, and their export."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from schemas.errors import HumoError, UsageError
from stages.module_commands import run_command
from stages.recovery.lifter.network import Lifter, NetworkConfig, with_all_features
from stages.recovery.lifter.refine import NUM_ROTATION_PARAMETERS

SHIPPED_WEIGHTS = Path(__file__).parent / "data" / "lifter.safetensors"
_PRECISION = "errors.precision"


@dataclass(frozen=True)
class Weights:
    """A trained lifter."""

    model: Lifter
    window: int
    """Window length in frames."""
    precision: Float[Tensor, "48 48"] | None
    """Inverse covariance of its errors (`stages.recovery.lifter.refine`); written at the end of training."""
    body_model: str
    """Id of the body that its rotations and shapes refer to."""
    version: str


def load_weights(path: str | Path | None = None) -> Weights:
    """Load exported weights (.safetensors), the checkpoint of a training (.pt), or the shipped weights.

    Raises HumoError for a file that is missing or not a lifter.
    """
    path = Path(path) if path else SHIPPED_WEIGHTS
    if not path.is_file():
        raise HumoError(f"{path}: no lifter weights there; train them with `python -m stages.training.lifter.train`")
    try:
        if path.suffix == ".pt":
            state = torch.load(path, map_location="cpu", weights_only=True)
            shape, window, weights = state["network"], state["window"], state["average"]
            precision, body_id = state.get("precision"), str(state["body_model"])
        else:
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["about"])
                weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            shape, window, precision = about["network"], about["window"], weights.pop(_PRECISION)
            body_id = str(about["body_model"])
        model = Lifter(NetworkConfig.model_validate(shape))
        model.load_state_dict(with_all_features(weights))
        numbers = [*weights.values(), *([] if precision is None else [precision])]
        if not all(bool(value.isfinite().all()) for value in numbers):
            raise ValueError("some weights are not finite")
        if precision is not None and precision.shape != (NUM_ROTATION_PARAMETERS, NUM_ROTATION_PARAMETERS):
            n = NUM_ROTATION_PARAMETERS
            raise ValueError(f"the precision matrix of its errors is {tuple(precision.shape)}, not {n} by {n}")
    except Exception as error:
        raise HumoError(
            f"{path}: holds no lifter ({type(error).__name__}: {error}); train it again, or leave it out for the shipped one"
        ) from error
    return Weights(
        model.eval(), int(window), precision, body_id, f"lifter {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    )


def export(checkpoint: str | Path, path: str | Path = SHIPPED_WEIGHTS, share: float = 1.0) -> None:
    """Write the averaged weights of a finished training in half precision, with the network's size, the training config and the
    precision matrix of its errors.

    A `share` below 1 interpolates between the weights that the training started from (0) and its result (1), which reduces the
    errors of fine-tuned weights on data that neither was trained on (Wortsman et al. 2022, Robust fine-tuning of zero-shot
    models).
    """
    from safetensors.torch import save_file

    if not Path(checkpoint).is_file():
        raise UsageError(
            f"{checkpoint}: does not exist; name the checkpoint of a training, such as runs/lifter/checkpoint.pt"
        )
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if "precision" not in state:
        raise HumoError(f"{checkpoint}: its training has not ended; run the command again, it resumes where it stopped")
    average, precision = state["average"], state["precision"]
    if share != 1:
        if not 0 <= share < 1 or not state["config"]["start"]:
            raise UsageError(
                f"share is {share}: give a number from 0 to 1, for a training that began with other weights (`start`)"
            )
        initial = load_weights(state["config"]["start"])
        if initial.precision is None:
            raise HumoError(f"{state['config']['start']}: its training has not ended; export it first")
        average = {name: torch.lerp(value, average[name], share) for name, value in initial.model.state_dict().items()}
        precision = torch.lerp(initial.precision, precision, share)
    config = {name: value for name, value in state["config"].items() if name not in ("output", "cache")}
    config |= {"mocap": [Path(folder).name for folder in config["mocap"]], "start": Path(config["start"]).name}
    about: dict[str, Any] = {
        "network": state["network"], "window": state["window"], "steps": state["step"], "training": config,
        "body_model": state["body_model"], "share": share,
    }  # fmt: skip
    half = {name: value.half().contiguous() for name, value in average.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({**half, _PRECISION: precision.contiguous()}, path, {"about": json.dumps(about, sort_keys=True)})


def main(arguments: Sequence[str]) -> int:
    """`python -m stages.recovery.lifter.weights CHECKPOINT [OUT [SHARE]]`: export the weights of a training."""
    usage = "lifter: no checkpoint; use `python -m stages.recovery.lifter.weights runs/lifter/checkpoint.pt`"
    return run_command(arguments, usage, lambda given: _export(*given[:3]))


def _export(checkpoint: str, path: str = str(SHIPPED_WEIGHTS), share: str = "1") -> None:
    try:
        value = float(share)
    except ValueError as error:
        raise UsageError(f"share is {share!r}: give a number from 0 to 1") from error
    export(checkpoint, path, value)


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
