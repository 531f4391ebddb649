"""Makes the shipped evaluator from a training run: `python -m model.evaluation.ship_evaluator RUN [FOLDER]`.

Weights become half precision; of the settings remain those that say what the evaluator is and what it was trained on, without
paths of the machine.
"""

import json
import sys
from pathlib import Path

from model import checkpoints
from model.evaluation.motion_text_model import KIND, SHIPPED
from schemas.errors import HumoError


def ship_evaluator(checkpoint: str | Path, folder: Path = SHIPPED) -> None:
    """Write the evaluator of a run to a folder. Raises HumoError if the run holds none."""
    source, description = checkpoints.find(checkpoint, KIND)
    if not (source / checkpoints.TRAINING).is_file():
        raise HumoError(f"{checkpoint}: no checkpoint of a training; pass the output folder of humo train evaluator")
    training = description.pop("training")
    description["texts"] = sorted(Path(one).name for one in training["texts"])
    description["steps"] = json.loads((source / checkpoints.TRAINING).read_text())["step"]
    checkpoints.save_model(folder, description, checkpoints.halved(checkpoints.read_state(source)))


if __name__ == "__main__":
    ship_evaluator(sys.argv[1], *map(Path, sys.argv[2:]))
