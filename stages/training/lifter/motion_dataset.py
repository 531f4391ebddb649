"""Motions to train on, concatenated along frames: motion capture, read once and cached in a file, and generated motions.

dataset = join([read_files(find_mocap(folder), body), generate_studio_motions(range(20), body)], [0.75, 0.25])
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
from stages.training.lifter.pelvis import PELVIS, pelvic_pitch_residual, pitch_pelvis

_UPRIGHT_COSINE = 0.9
"""Cosine between the up axes of pelvis and world from which a frame is upright."""
_MIN_FRAMES = 20
_MAX_PELVIS_RADPS = 25.0


@dataclass(frozen=True)
class MotionDataset:
    """M motions over N frames in all, at 30 frames per second, ground at y = 0, for a body of mean shape."""

    rotations: Float[Tensor, "N 24 3 3"]
    """Local; the root's is its orientation in the world."""
    pelvis: Float[Tensor, "N 3"]
    """Metres."""
    starts: Int[Tensor, "M"]
    lengths: Int[Tensor, "M"]
    weights: Float[Tensor, "M"]
    """Relative sampling weight of each frame of a motion."""
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> "MotionDataset":
        """A copy on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return MotionDataset(**moved, names=self.names)

    def probabilities(self) -> Float[Tensor, "M"]:
        """Sampling probability of each motion."""
        share = self.weights * self.lengths
        return share / share.sum()

    def motion(self, index: int) -> tuple[Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"]]:
        """Rotations and pelvis of one motion."""
        frames = slice(int(self.starts[index]), int(self.starts[index] + self.lengths[index]))
        return self.rotations[frames], self.pelvis[frames]

    def save(self, path: Path) -> None:
        """Write as .npz, with rotations as axis-angle."""
        arrays = {name: getattr(self, name).numpy() for name in ("pelvis", "starts", "lengths", "weights")}
        poses = matrix_to_axis_angle(self.rotations).numpy().astype(np.float32)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.stem}.part.npz")
        np.savez(temporary, poses=poses, names=np.array(self.names), **arrays)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "MotionDataset":
        """Read a file written by `save`."""
        with np.load(path, allow_pickle=False) as archive:
            tensors = {name: torch.from_numpy(archive[name]) for name in ("pelvis", "starts", "lengths", "weights")}
            poses, names = torch.from_numpy(archive["poses"]), tuple(str(name) for name in archive["names"])
        return cls(rotations=axis_angle_to_matrix(poses), names=names, **tensors)


def pack(motions: Iterable[tuple[str, Tensor, Tensor]], weight: float = 1.0) -> MotionDataset:
    """Concatenate (name, rotations (T, 24, 3, 3), pelvis (T, 3)); motions that are too short are left out."""
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
    """One dataset in which each of the given ones is sampled with its share of the probability."""
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
    """The same motions, with each source's pelvis pitched so that it is level in the median upright frame.

    Which pitch counts as level depends on who built the skeleton: sources differ by up to ten degrees for the same gait.
    Hips and lowest spine joint rotate back, so that the rest of the body stays as it was.
    """
    rotations = dataset.rotations.clone()
    sources = [name.rpartition("/")[0] for name in dataset.names]
    for source in sorted(set(sources)):
        frames = torch.cat(
            [
                torch.arange(int(start), int(start + length))
                for start, length, motion_source in zip(dataset.starts, dataset.lengths, sources, strict=True)
                if motion_source == source
            ]
        )
        up = rotations[frames, PELVIS, 1]  # the world's up axis in pelvis axes
        upright = up[:, 1] > _UPRIGHT_COSINE
        if not bool(upright.any()):
            continue
        forward_pitch = torch.atan2(-up[upright, 2], up[upright, 1]).median()
        rotations[frames] = pitch_pelvis(rotations[frames], -forward_pitch)
    return replace(dataset, rotations=rotations)


def with_normalised_pelvis_pitch(dataset: MotionDataset) -> MotionDataset:
    """The same motions, with each recording's pelvis pitched so that its median frame has the pitch that the posture implies.

    Recordings without standing or walking stay as they are.
    """
    rotations = dataset.rotations.clone()
    for start, length in zip(dataset.starts.tolist(), dataset.lengths.tolist(), strict=True):
        frames = slice(start, start + length)
        residual, validity = pelvic_pitch_residual(rotations[frames])
        if int((validity == 1).sum()) >= _MIN_FRAMES:
            rotations[frames] = pitch_pelvis(rotations[frames], -residual[validity == 1].median())
    return replace(dataset, rotations=rotations)


def generate_studio_motions(seeds: Sequence[int], body: BodyModel, seconds: float = 5.0) -> MotionDataset:
    """Every action of the studio, once per seed."""
    rest = body.rest_joints(torch.zeros(10))[PELVIS]
    generated = (
        (f"studio/{action}-{seed}", generate(action, seconds, seed, body=body, betas=torch.zeros(10)))
        for seed in seeds
        for action in ACTIONS
    )
    return pack((name, motion.rotations, motion.trans + rest) for name, motion in generated)


def read_files(paths: Sequence[Path], body: BodyModel, cache: Path | None = None) -> MotionDataset:
    """Motion capture in any format that `stages.mocap` reads; cached in the folder `cache` under a hash of paths and body."""
    if not paths:
        raise HumoError("lifter: there is no motion capture in the folders named; correct their paths")
    digest = hashlib.sha256("\n".join([body.id, *map(str, paths)]).encode()).hexdigest()[:12]
    cached = cache / f"dataset-{digest}.npz" if cache else None
    if cached and cached.is_file():
        return MotionDataset.load(cached)
    dataset = with_level_pelvis(pack(_read(paths, body)))
    if cached:
        dataset.save(cached)
    return dataset


def find_mocap(folder: Path) -> list[Path]:
    """Motion-capture files under a folder, in order."""
    from stages.mocap import SUFFIXES

    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _read(paths: Sequence[Path], body: BodyModel) -> Iterable[tuple[str, Tensor, Tensor]]:
    from stages.mocap import read_motion

    rest = body.rest_joints(torch.zeros(10))[PELVIS]
    for path in paths:
        motion = read_motion(path, body=body)
        for number, frames in enumerate(_split_at_flips(motion.rotations[:, PELVIS])):
            name = f"{path.parent.name}/{path.stem}" + (f"-{number}" if number else "")
            yield name, motion.rotations[frames], motion.trans[frames] + rest


def _split_at_flips(root: Float[Tensor, "T 3 3"]) -> list[slice]:
    """Segments between frames in which the pelvis rotates faster than humanly possible."""
    speed = matrix_to_axis_angle(root[:-1].mT @ root[1:]).norm(dim=-1) * FPS
    cuts = [0, *((speed > _MAX_PELVIS_RADPS).nonzero()[:, 0] + 1).tolist(), len(root)]
    return [slice(begin, end) for begin, end in pairwise(cuts) if end > begin]
