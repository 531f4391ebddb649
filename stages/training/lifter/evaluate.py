"""What fitters are measured on: motions filmed by made-up cameras that stand still, as keypoints, clean or through the noise
model. What the figures mean is in `stages.training.lifter.metrics.DEFINITIONS`; `humo bench recovery` prints them.
"""

import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from schemas.body_model import BodyModel
from schemas.devices import torch_threads
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.records import Clip, Shot, Source, Track, Video
from schemas.skeleton import joint
from stages.geometry.contacts import find_contacts, ground_height
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.protocol import Fit, Fitter
from stages.training.lifter.augment import Windows
from stages.training.lifter.examples import Examples, Lenses, film
from stages.training.lifter.metrics import BodyMotion, measure, summarise
from stages.training.lifter.motion_dataset import MotionDataset
from stages.training.lifter.noise import NoiseAmounts
from stages.training.lifter.random_curves import normal

SEED = 20_000
MAX_FRAMES = 300
WIDTH, HEIGHT = 1280, 720
ALL = "all"
"""The group that holds every case."""
_PELVIS = joint("pelvis")


@dataclass(frozen=True)
class Case:
    """A motion as it was filmed, in the level world of its camera, and as a detector would hand it on."""

    name: str
    group: str
    clip: Clip
    truth: BodyMotion


def make_cases(dataset: MotionDataset, rigs: Rigs, *, noise: float, shape_spread: float = 1.0) -> list[Case]:
    """One a motion, of at most ten seconds, on a body of its own; the same cameras and bodies with noise and without.

    `shape_spread` is the standard deviation of the betas; 0 leaves the mean body, for which recordings are retargeted.
    """
    cases = []
    for number, name in enumerate(dataset.names):
        rotations, pelvis = (value[:MAX_FRAMES] for value in dataset.motion(number))
        generator = torch.Generator().manual_seed(SEED + number)
        windows = Windows(rotations[None], pelvis[None], torch.ones(1, len(pelvis), dtype=torch.bool))
        betas = normal((1, 10), generator).clamp(-2, 2) * shape_spread
        amounts = NoiseAmounts(strength=noise, clean=0.0)
        examples = film(windows, betas, rigs, 0.0, amounts, Lenses(), generator)
        cases.append(_case(name, examples, rigs.body))
    return cases


def _case(name: str, examples: Examples, body: BodyModel) -> Case:
    truth, seen = examples.truth, examples.seen
    to_camera = truth.root_camera[0] @ truth.root_level[0].mT
    rotations = truth.rotations[0].clone()
    rotations[:, _PELVIS] = truth.root_level[0]
    pelvis = (to_camera.mT @ truth.pelvis_camera[0, :, :, None])[..., 0]
    figure = BodyMotion(
        rotations=rotations,
        trans=pelvis - body.rest_joints(truth.betas[0])[_PELVIS],
        betas=truth.betas[0],
        to_camera=to_camera.numpy(),
        eye=np.zeros((len(pelvis), 3), np.float32),
        contacts=(truth.contacts[0] > 0.5).numpy(),
    )
    # Told to the fitter, so that the rays are what the film had.
    focal = float(np.hypot(WIDTH, HEIGHT))
    pixels = seen.rays[0] * focal + torch.tensor([WIDTH / 2, HEIGHT / 2])
    keypoints = torch.cat([pixels, seen.confidence[0, ..., None]], dim=-1).numpy().astype(np.float64)
    boxes = np.concatenate([keypoints[..., :2].min(1), keypoints[..., :2].max(1)], axis=-1)
    video = Video(
        source=Source(id="evaluation", uri=name), sha256="", width=WIDTH, height=HEIGHT, fps=30.0, duration_s=10.0,
        has_audio=False, focal_px=focal,
    )  # fmt: skip
    end_s = len(keypoints) / 30
    track = Track(
        shot=Shot(video=video, index=0, start_s=0.0, end_s=end_s), person=0, times_s=np.arange(len(keypoints)) / 30,
        boxes=boxes, keypoints=keypoints, models={},
    )  # fmt: skip
    clip = Clip(track=track, start_s=0.0, end_s=end_s, boxes=boxes, keypoints=keypoints)
    return Case(name, group_of(name), clip, figure)


def group_of(name: str) -> str:
    """What is done in a file, from its name: `dataset-2_wave-both-hands_active_001` -> `wave-both-hands`."""
    stem = name.rpartition("/")[2]
    found = re.fullmatch(r"dataset-\d+_([^_]+)_.*", stem)
    if found:
        return found[1]
    return re.sub(r"^(train|test|humanoid3d)_|[-_]?\d+$", "", stem) or stem


def body_motion_of(fit: Fit, body: BodyModel) -> BodyMotion:
    """A fit with its camera; contacts are found as `fit_smpl` does where the fitter says nothing of them."""
    contacts = fit.contacts
    if contacts is None:
        joints, turns = forward_kinematics(fit.rotations, body.rest_joints(fit.betas), fit.trans)
        feet = body.contact_rig().points(turns, joints, fit.betas).numpy()
        contacts = find_contacts(feet, ground_height(feet) if fit.ground_m is None else fit.ground_m)
    return BodyMotion(
        rotations=fit.rotations,
        trans=fit.trans,
        betas=fit.betas,
        to_camera=fit.camera.rotation,
        eye=fit.camera.position,
        contacts=contacts.astype(bool),
    )


def evaluate(fitter: Fitter, cases: Sequence[Case], body: BodyModel) -> list[dict[str, float]]:
    """What `measure` says of each case, and the processor time of its fit on one thread.

    Raises HumoError for a case that the fitter leaves without a body: these are whole people in plain view.
    """
    rows = []
    for case in cases:
        with torch_threads(1):
            began = time.process_time()
            fit = fitter.fit([case.clip])[0]
            seconds = time.process_time() - began
        if not isinstance(fit, Fit):
            raise HumoError(
                f"{case.name}: {fitter.version} gave no body: {fit.reason} {fit.detail}; leave that file out"
            )
        rows.append({**measure(body_motion_of(fit, body), case.truth, body), "_seconds": seconds})
    return rows


def summary(cases: Sequence[Case], rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Means (see `summarise`) by what is done in the motions, and over all of them."""
    groups: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for case, row in zip(cases, rows, strict=True):
        groups[case.group].append(row)
        groups[ALL].append(row)
    return {name: summarise(groups[name]) for name in [*sorted(groups.keys() - {ALL}), ALL]}


def pick(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` files, as evenly over what is done in them, and over each group's files, as can be."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[group_of(path.stem)].append(path)
    if count < len(groups):
        names = list(groups)
        groups = {names[place]: groups[names[place]] for place in spread(len(names), count)}
    each = math.ceil(count / len(groups))
    chosen = [members[place] for members in groups.values() for place in spread(len(members), min(each, len(members)))]
    return [chosen[place] for place in spread(len(chosen), min(count, len(chosen)))]


def spread(count: int, take: int) -> list[int]:
    """Of `count` places `take`, evenly."""
    return [(2 * number + 1) * count // (2 * take) for number in range(take)]
