"""Evaluation of fitters on motions filmed by random static cameras, as exact or noisy keypoints. The metrics are defined in
`stages.training.lifter.metrics.DEFINITIONS`; `humo bench recovery` prints them.
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
from stages.training.lifter.examples import Examples, FocalLengthNoise, film
from stages.training.lifter.metrics import BodyMotion, measure, summarise
from stages.training.lifter.motion_dataset import MotionDataset
from stages.training.lifter.noise import NoiseAmounts
from stages.training.lifter.random_curves import normal

SEED = 20_000
MAX_FRAMES = 300
WIDTH, HEIGHT = 1280, 720
ALL = "all"
"""Name of the group of all cases."""
_PELVIS = joint("pelvis")


@dataclass(frozen=True)
class Case:
    """A filmed motion: the target in the level world of its camera, and the clip that a detector would yield."""

    name: str
    group: str
    clip: Clip
    target: BodyMotion


def make_cases(dataset: MotionDataset, rigs: Rigs, *, noise: float, shape_spread: float = 1.0) -> list[Case]:
    """One case per motion, of at most ten seconds, each with its own body; cameras and bodies do not depend on the noise.

    `shape_spread` is the standard deviation of the betas; 0 leaves the mean body, for which recordings are retargeted.
    """
    cases = []
    for number, name in enumerate(dataset.names):
        rotations, pelvis = (value[:MAX_FRAMES] for value in dataset.motion(number))
        generator = torch.Generator().manual_seed(SEED + number)
        windows = Windows(rotations[None], pelvis[None], torch.ones(1, len(pelvis), dtype=torch.bool))
        betas = normal((1, 10), generator).clamp(-2, 2) * shape_spread
        amounts = NoiseAmounts(strength=noise, clean=0.0)
        examples = film(windows, betas, rigs, 0.0, amounts, FocalLengthNoise(), generator)
        cases.append(_case(name, examples, rigs.body))
    return cases


def _case(name: str, examples: Examples, body: BodyModel) -> Case:
    targets, observation = examples.targets, examples.observation
    to_camera = targets.root_camera[0] @ targets.root_level[0].mT
    rotations = targets.rotations[0].clone()
    rotations[:, _PELVIS] = targets.root_level[0]
    pelvis = (to_camera.mT @ targets.pelvis_camera[0, :, :, None])[..., 0]
    target = BodyMotion(
        rotations=rotations,
        trans=pelvis - body.rest_joints(targets.betas[0])[_PELVIS],
        betas=targets.betas[0],
        to_camera=to_camera.numpy(),
        eye=np.zeros((len(pelvis), 3), np.float32),
        contacts=(targets.contacts[0] > 0.5).numpy(),
    )
    # The video has a known focal length, so that the fitter computes the same rays.
    focal = float(np.hypot(WIDTH, HEIGHT))
    pixels = observation.rays[0] * focal + torch.tensor([WIDTH / 2, HEIGHT / 2])
    keypoints = torch.cat([pixels, observation.confidence[0, ..., None]], dim=-1).numpy().astype(np.float64)
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
    return Case(name, group_of(name), clip, target)


def group_of(name: str) -> str:
    """The action in a file, from its name: `dataset-2_wave-both-hands_active_001` -> `wave-both-hands`."""
    stem = name.rpartition("/")[2]
    match = re.fullmatch(r"dataset-\d+_([^_]+)_.*", stem)
    if match:
        return match[1]
    return re.sub(r"^(train|test|humanoid3d)_|[-_]?\d+$", "", stem) or stem


def body_motion_of(fit: Fit, body: BodyModel) -> BodyMotion:
    """A fit with its camera; contacts that the fitter does not predict are found as in `fit_smpl`."""
    contacts = fit.contacts
    if contacts is None:
        joints, global_rotations = forward_kinematics(fit.rotations, body.rest_joints(fit.betas), fit.trans)
        feet = body.contact_rig().points(global_rotations, joints, fit.betas).numpy()
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
    """`measure` of each case, and the processor time of its fit on one thread.

    Raises HumoError for a case without a fit: all cases show whole people in plain view.
    """
    rows = []
    for case in cases:
        with torch_threads(1):
            start_s = time.process_time()
            fit = fitter.fit([case.clip])[0]
            seconds = time.process_time() - start_s
        if not isinstance(fit, Fit):
            raise HumoError(
                f"{case.name}: {fitter.version} recovered no body: {fit.reason} {fit.detail}; leave that file out"
            )
        rows.append({**measure(body_motion_of(fit, body), case.target, body), "_seconds": seconds})
    return rows


def summary(cases: Sequence[Case], rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Means (see `summarise`) by group of actions, and over all of them."""
    groups: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for case, row in zip(cases, rows, strict=True):
        groups[case.group].append(row)
        groups[ALL].append(row)
    return {name: summarise(groups[name]) for name in [*sorted(groups.keys() - {ALL}), ALL]}


def pick_evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` files, spread as evenly as possible over the groups, and over the files of each group."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[group_of(path.stem)].append(path)
    if count < len(groups):
        names = list(groups)
        groups = {names[index]: groups[names[index]] for index in evenly_spaced(len(names), count)}
    per_group = math.ceil(count / len(groups))
    picked = [
        members[index]
        for members in groups.values()
        for index in evenly_spaced(len(members), min(per_group, len(members)))
    ]
    return [picked[index] for index in evenly_spaced(len(picked), min(count, len(picked)))]


def evenly_spaced(size: int, count: int) -> list[int]:
    """`count` evenly spaced indices of a sequence of `size` elements."""
    return [(2 * number + 1) * size // (2 * count) for number in range(count)]
