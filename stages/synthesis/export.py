"""Generated motions as files, so that a job without a renderer takes them in as motion capture.

    python -m stages.synthesis.export FOLDER COUNT [SEED]

Writes COUNT motions of every action, and as many sequences of two actions, in AMASS's layout: `poses` (T, 156) axis-angle,
`trans` (T, 3) metres, Z up, `mocap_framerate`. A job reads the folder as `kind: mocap`. The same seed gives the same files.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from schemas.body_model import BodyModel
from schemas.errors import UsageError
from schemas.rotations import matrix_to_axis_angle
from schemas.sample import encode_npz
from stages.module_commands import run_command
from stages.synthesis.motions import ACTIONS, LabelledMotion, sequence

_SECONDS = (2.2, 7.0)
"""Shortest and longest motion; sequences are twice as long at least as the shortest."""
_Z_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_BODY_JOINTS, _AMASS_JOINTS = 22, 52


def write_motions(folder: str | Path, count: int, seed: int = 0) -> list[Path]:
    """Write `count` motions of each action and `count` times as many sequences of two; the files' paths."""
    body, folder = BodyModel.load(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(seed, seed + count):
        rng = np.random.default_rng([number, 47])
        for action in ACTIONS:
            motion = sequence([(action, float(rng.uniform(*_SECONDS)))], number, body=body)
            paths.append(_write(folder / f"{action}_{number:04d}.npz", motion, body))
        for first in ACTIONS:
            pair = [(name, float(rng.uniform(2.2, 4.0))) for name in (first, str(rng.choice(ACTIONS)))]
            motion = sequence(pair, number, body=body)
            paths.append(_write(folder / f"{first}_then_{pair[1][0]}_{number:04d}.npz", motion, body))
    return paths


def _write(path: Path, motion: LabelledMotion, body: BodyModel) -> Path:
    rotations = motion.rotations.clone()
    rotations[:, 0] = _Z_UP @ rotations[:, 0]
    pelvis = body.rest_joints(motion.betas)[0]
    poses = np.zeros((len(motion), 3 * _AMASS_JOINTS))
    poses[:, : 3 * _BODY_JOINTS] = matrix_to_axis_angle(rotations).numpy()[:, :_BODY_JOINTS].reshape(len(motion), -1)
    trans = (motion.trans + pelvis) @ _Z_UP.T - pelvis
    arrays = {"poses": poses, "trans": trans.numpy(), "mocap_framerate": np.array(motion.fps)}
    path.write_bytes(encode_npz(arrays))
    return path


def _command(arguments: Sequence[str]) -> None:
    if len(arguments) not in (2, 3) or not all(number.isdigit() for number in arguments[1:]):
        raise UsageError("use: python -m stages.synthesis.export FOLDER COUNT [SEED]")
    print(f"{len(write_motions(arguments[0], *map(int, arguments[1:])))} motions in {arguments[0]}")


if __name__ == "__main__":
    usage = "use: python -m stages.synthesis.export FOLDER COUNT [SEED]"
    sys.exit(run_command(sys.argv[1:], usage, _command))
