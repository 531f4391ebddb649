"""Measure the lifter: `python -m stages.lifting.evaluate CHECKPOINT --mocap FOLDER [--clips 60] [--optimise 4] [--json]`.

Motions are filmed by made-up cameras that stand still, their keypoints shown once as they are and once through the noise
model. Joint errors are in mm, tilt and root in degrees, speed in m/s; drift is how far off the way ends, in percent of it.
"""

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.errors import HumoError, UsageError
from schemas.kinematics import forward_kinematics
from schemas.records import Clip, Shot, Source, Track, Video
from stages.fitting.fit import Fitter
from stages.lifting import bank as banks
from stages.lifting.augment import Windows
from stages.lifting.bank import Bank
from stages.lifting.draw import normal
from stages.lifting.examples import Examples, Rigs, film
from stages.lifting.fitter import LiftFitter
from stages.lifting.metrics import measure
from stages.lifting.noise import NoiseAmounts

SEED = 20_000
MAX_FRAMES = 300
WIDTH, HEIGHT = 1280, 720
SHOWN = (
    "pa_mpjpe",
    "mpjpe",
    "body",
    "wrists",
    "tilt",
    "root",
    "w_mpjpe100",
    "wa_mpjpe100",
    "speed",
    "drift",
    "rte",
    "clips",
)


@dataclass(frozen=True)
class Case:
    """A motion as it was filmed, in the level world of its camera, and as a detector would hand it on."""

    name: str
    group: str
    clip: Clip
    joints: Float[Tensor, "T 24 3"]
    root: Float[Tensor, "T 3 3"]
    to_camera: Float[Tensor, "T 3 3"]


def make_cases(bank: Bank, rigs: Rigs, *, noise: float, shape_spread: float = 1.0) -> list[Case]:
    """One a motion, of at most ten seconds, on a body of its own; the same cameras and bodies with noise and without."""
    cases = []
    for number, name in enumerate(bank.names):
        rotations, pelvis = (value[:MAX_FRAMES] for value in bank.motion(number))
        generator = torch.Generator().manual_seed(SEED + number)
        windows = Windows(rotations[None], pelvis[None], torch.ones(1, len(pelvis), dtype=torch.bool))
        betas = normal((1, 10), generator).clamp(-2, 2) * shape_spread
        amounts = NoiseAmounts(strength=noise, clean=0.0)
        examples = film(windows, betas, rigs, 0.0, amounts, 0.0, generator)
        cases.append(_case(name, examples))
    return cases


def _case(name: str, examples: Examples) -> Case:
    truth, seen = examples.truth, examples.seen
    to_camera = truth.root_camera[0] @ truth.root_level[0].mT
    pelvis = (to_camera.mT @ truth.pelvis_camera[0, :, :, None])[..., 0]
    joints = truth.joints[0] @ truth.root_level[0].mT + pelvis[:, None]
    # The focal length that a fitter assumes, so that the rays are what the film had.
    focal = float(np.hypot(WIDTH, HEIGHT))
    pixels = seen.rays[0] * focal + torch.tensor([WIDTH / 2, HEIGHT / 2])
    keypoints = torch.cat([pixels, seen.confidence[0, ..., None]], dim=-1).numpy().astype(np.float64)
    boxes = np.concatenate([keypoints[..., :2].min(1), keypoints[..., :2].max(1)], axis=-1)
    video = Video(
        source=Source(id="evaluation", uri=name), sha256="", width=WIDTH, height=HEIGHT, fps=30.0, duration_s=10.0,
        has_audio=False,
    )  # fmt: skip
    end_s = len(keypoints) / 30
    track = Track(
        shot=Shot(video=video, index=0, start_s=0.0, end_s=end_s), person=0, times_s=np.arange(len(keypoints)) / 30,
        boxes=boxes, keypoints=keypoints, models={},
    )  # fmt: skip
    clip = Clip(track=track, start_s=0.0, end_s=end_s, boxes=boxes, keypoints=keypoints)
    return Case(name, group_of(name), clip, joints, truth.root_level[0], to_camera)


def group_of(name: str) -> str:
    """What is done in a file, from its name: `dataset-2_wave-both-hands_active_001` -> `wave-both-hands`."""
    stem = name.rpartition("/")[2]
    found = re.fullmatch(r"dataset-\d+_([^_]+)_.*", stem)
    if found:
        return found[1]
    return re.sub(r"^(train|test|humanoid3d)_|[-_]?\d+$", "", stem) or stem


def evaluate(fitter: Fitter, cases: Sequence[Case], body: BodyModel) -> list[dict[str, float]]:
    """What `measure` says of each case."""
    rows = []
    for case in cases:
        fit = fitter.fit([case.clip])[0]
        joints, _ = forward_kinematics(fit.rotations, body.rest_joints(fit.betas), fit.trans)
        to_camera = (fit.camera.rotation, case.to_camera.numpy())
        rows.append(
            measure(joints.numpy(), case.joints.numpy(), fit.rotations[:, 0].numpy(), case.root.numpy(), to_camera)
        )
    return rows


def summary(cases: Sequence[Case], rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Means over the motions, by what is done in them and over all; drift over those that go at least two metres."""
    groups: dict[str, list[dict[str, float]]] = defaultdict(list)
    for case, row in zip(cases, rows, strict=True):
        groups[case.group].append(row)
        groups["all"].append(row)
    return {name: _mean(members) for name, members in sorted(groups.items())}


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    far = [row for row in rows if row["path_m"] >= 2]
    ways = {"drift": "end_m", "rte": "rte_m"}
    shares = {
        name: 100 * float(np.mean([row[of] / row["path_m"] for row in far])) if far else float("nan")
        for name, of in ways.items()
    }
    return {**means, **shares, "clips": float(len(rows))}


def pick(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` files, as many of each group as can be."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[group_of(path.stem)].append(path)
    each = max(1, -(-count // len(groups)))
    spread = [np.unique(np.linspace(0, len(members) - 1, each).round().astype(int)) for members in groups.values()]
    chosen = [members[i] for members, places in zip(groups.values(), spread, strict=True) for i in places]
    return chosen


def table(summaries: dict[str, dict[str, float]]) -> str:
    """A line a group."""
    head = f"{'':22}" + "".join(f"{name:>11}" for name in SHOWN)
    rows = [f"{name:22}" + "".join(f"{row[name]:11.2f}" for name in SHOWN) for name, row in summaries.items()]
    return "\n".join([head, *rows])


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m stages.lifting.evaluate", description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", help="checkpoint.pt of a training, exported .safetensors, or `shipped`")
    parser.add_argument("--mocap", required=True, help="folder of motions that were not trained on")
    parser.add_argument("--clips", type=int, default=100, help="how many of them, spread over what is done")
    parser.add_argument("--optimise", type=int, default=0, help="compare with optimisation alone on so many")
    parser.add_argument("--no-mirror", action="store_true", help="look once instead of also at the mirror image")
    parser.add_argument("--json", action="store_true", help="numbers as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        report = _report(options)
    except HumoError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    if options.json:
        print(json.dumps(report))
        return 0
    for name, part in report.items():
        print(name)
        print(table(part) if isinstance(part, dict) else part)
    return 0


def _report(options: argparse.Namespace) -> dict[str, object]:
    body = BodyModel.load()
    rigs = Rigs.of(body)
    weights = None if options.checkpoint == "shipped" else options.checkpoint
    fitter = LiftFitter(body, weights=weights, mirror=not options.no_mirror)
    folder = Path(options.mocap)
    files = banks.find_mocap(folder) if folder.is_dir() else []
    if not files:
        raise UsageError(f"--mocap {folder}: holds no motion capture; name a folder with some")
    bank = banks.read_files(pick(files, options.clips), body)
    report: dict[str, object] = {}
    clean = make_cases(bank, rigs, noise=0.0)
    for name, cases in (("clean", clean), ("noisy", make_cases(bank, rigs, noise=1.0))):
        began = time.perf_counter()
        report[name] = summary(cases, evaluate(fitter, cases, body))
        frames = sum(len(case.joints) for case in cases)
        report[f"{name}, frames a second"] = round(frames / (time.perf_counter() - began))
    if options.optimise:
        from stages.fitting.optimise import OptimiseFitter

        some = clean[:: max(1, len(clean) // options.optimise)][: options.optimise]
        alone = OptimiseFitter(body, coarse_steps=150, fine_steps=100)
        report["optimisation alone"] = summary(some, evaluate(alone, some, body))
        report["the lifter on the same"] = summary(some, evaluate(fitter, some, body))
    return report


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
