"""Motions to train on, as one long strip of frames: motion capture read once and kept in a file, and made-up motions.

dataset = join(read_folder("mocap/cmu"), make_studio(seeds=range(20)))
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.records import FPS
from schemas.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from stages.synthesis.motions import ACTIONS, generate
from stages.training.lifter.pelvis import PELVIS, off_rhythm, pitch

_UPRIGHT = 0.9
"""Cosine between the pelvis' up and the world's."""
_MIN_FRAMES = 20
_FLIP_RADPS = 25.0


@dataclass(frozen=True)
class MotionDataset:
    """M motions over N frames in all, at 30 frames a second, ground at y = 0, for a body of mean shape."""

    rotations: Float[Tensor, "N 24 3 3"]
    """Local; the root's is its orientation in the world."""
    pelvis: Float[Tensor, "N 3"]
    """Metres."""
    starts: Int[Tensor, "M"]
    lengths: Int[Tensor, "M"]
    weights: Float[Tensor, "M"]
    """How often a motion is drawn, a frame of it compared with a frame of another."""
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> "MotionDataset":
        """A copy on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return MotionDataset(**moved, names=self.names)

    def chances(self) -> Float[Tensor, "M"]:
        """Of each motion to be drawn."""
        share = self.weights * self.lengths
        return share / share.sum()

    def motion(self, index: int) -> tuple[Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"]]:
        """Rotations and pelvis of one motion."""
        frames = slice(int(self.starts[index]), int(self.starts[index] + self.lengths[index]))
        return self.rotations[frames], self.pelvis[frames]

    def save(self, path: Path) -> None:
        """As .npz, with rotations as axis-angle."""
        arrays = {name: getattr(self, name).numpy() for name in ("pelvis", "starts", "lengths", "weights")}
        poses = matrix_to_axis_angle(self.rotations).numpy().astype(np.float32)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.stem}.part.npz")
        np.savez(aside, poses=poses, names=np.array(self.names), **arrays)
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> "MotionDataset":
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            tensors = {name: torch.from_numpy(archive[name]) for name in ("pelvis", "starts", "lengths", "weights")}
            poses, names = torch.from_numpy(archive["poses"]), tuple(str(name) for name in archive["names"])
        return cls(rotations=axis_angle_to_matrix(poses), names=names, **tensors)


def pack(motions: Iterable[tuple[str, Tensor, Tensor]], weight: float = 1.0) -> MotionDataset:
    """(name, rotations (T, 24, 3, 3), pelvis (T, 3)) one after another; too short ones are left out."""
    kept = [motion for motion in motions if len(motion[1]) >= _MIN_FRAMES]
    if not kept:
        raise HumoError(
            f"lifter: no motion of at least {_MIN_FRAMES} frames to train on; name folders of motion capture"
        )
    lengths = torch.tensor([len(rotations) for _, rotations, _ in kept])
    return MotionDataset(
        rotations=torch.cat([rotations for _, rotations, _ in kept]).float(),
        pelvis=torch.cat([pelvis for _, _, pelvis in kept]).float(),
        starts=lengths.cumsum(0) - lengths,
        lengths=lengths,
        weights=torch.full((len(kept),), weight),
        names=tuple(name for name, _, _ in kept),
    )


def join(datasets: Sequence[MotionDataset], shares: Sequence[float]) -> MotionDataset:
    """One dataset in which each of the given ones is drawn as often as its share says."""
    parts: list[MotionDataset] = list(datasets)
    offsets = np.cumsum([0, *(len(dataset.pelvis) for dataset in parts)])
    weights = [
        dataset.weights * (share / float((dataset.weights * dataset.lengths).sum()))
        for dataset, share in zip(parts, shares, strict=True)
    ]
    return MotionDataset(
        rotations=torch.cat([dataset.rotations for dataset in parts]),
        pelvis=torch.cat([dataset.pelvis for dataset in parts]),
        starts=torch.cat([dataset.starts + int(offset) for dataset, offset in zip(parts, offsets, strict=False)]),
        lengths=torch.cat([dataset.lengths for dataset in parts]),
        weights=torch.cat(weights),
        names=tuple(name for dataset in parts for name in dataset.names),
    )


def with_level_pelvis(dataset: MotionDataset) -> MotionDataset:
    """The same movement, with each source's pelvis pitched so that it is level in the middle one of its upright frames.

    What counts as a level pelvis is a habit of whoever built the skeleton: sources differ by up to ten degrees while people
    walk alike. Hips and lowest spine joint turn the other way, so that the rest of the body stays as it was.
    """
    rotations = dataset.rotations.clone()
    sources = [name.rpartition("/")[0] for name in dataset.names]
    for source in sorted(set(sources)):
        frames = torch.cat(
            [
                torch.arange(int(start), int(start + length))
                for start, length, theirs in zip(dataset.starts, dataset.lengths, sources, strict=True)
                if theirs == source
            ]
        )
        up = rotations[frames, PELVIS, 1]
        upright = up[:, 1] > _UPRIGHT
        if not bool(upright.any()):
            continue
        leaning = torch.atan2(-up[upright, 2], up[upright, 1]).median()
        rotations[frames] = pitch(rotations[frames], -leaning)
    return replace(dataset, rotations=rotations)


def with_pelvis_in_rhythm(dataset: MotionDataset) -> MotionDataset:
    """The same movement, with each recording's pelvis pitched so that the middle one of its frames is as its posture goes with.

    Recordings in which nobody stands or walks stay as they are.
    """
    rotations = dataset.rotations.clone()
    for start, length in zip(dataset.starts.tolist(), dataset.lengths.tolist(), strict=True):
        frames = slice(start, start + length)
        off, share = off_rhythm(rotations[frames])
        if int((share == 1).sum()) >= _MIN_FRAMES:
            rotations[frames] = pitch(rotations[frames], -off[share == 1].median())
    return replace(dataset, rotations=rotations)


def make_studio(seeds: Sequence[int], body: BodyModel, seconds: float = 5.0) -> MotionDataset:
    """Every action of the studio once a seed."""
    rest = body.rest_joints(torch.zeros(10))[PELVIS]
    made = (
        (f"studio/{action}-{seed}", generate(action, seconds, seed, body=body, betas=torch.zeros(10)))
        for seed in seeds
        for action in ACTIONS
    )
    return pack((name, motion.rotations, motion.trans + rest) for name, motion in made)


def read_files(paths: Sequence[Path], body: BodyModel, cache: Path | None = None) -> MotionDataset:
    """Motion capture of any kind that `stages.mocap` reads; kept in `cache`, named by the paths and the body."""
    if not paths:
        raise HumoError("lifter: there is no motion capture in the folders named; correct their paths")
    digest = hashlib.sha256("\n".join([body.id, *map(str, paths)]).encode()).hexdigest()[:12]
    kept = cache / f"dataset-{digest}.npz" if cache else None
    if kept and kept.is_file():
        return MotionDataset.load(kept)
    dataset = with_level_pelvis(pack(_read(paths, body)))
    if kept:
        dataset.save(kept)
    return dataset


def find_mocap(folder: Path) -> list[Path]:
    """Files of motion capture under a folder, in order."""
    from stages.mocap import SUFFIXES

    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _read(paths: Sequence[Path], body: BodyModel) -> Iterable[tuple[str, Tensor, Tensor]]:
    from stages.mocap import read_motion

    rest = body.rest_joints(torch.zeros(10))[PELVIS]
    for path in paths:
        motion = read_motion(path, body=body)
        for number, frames in enumerate(_without_flips(motion.rotations[:, PELVIS])):
            name = f"{path.parent.name}/{path.stem}" + (f"-{number}" if number else "")
            yield name, motion.rotations[frames], motion.trans[frames] + rest


def _without_flips(root: Float[Tensor, "T 3 3"]) -> list[slice]:
    """Stretches between frames in which a recording's pelvis turns faster than anybody can."""
    speed = matrix_to_axis_angle(root[:-1].mT @ root[1:]).norm(dim=-1) * FPS
    cuts = [0, *((speed > _FLIP_RADPS).nonzero()[:, 0] + 1).tolist(), len(root)]
    return [slice(begin, end) for begin, end in pairwise(cuts) if end > begin]
