"""humo bench vision: whether a vision tower's tokens tell the posture, by a linear probe on frames whose motion is known.

Ridge regression from a frame's tokens to the 21 body joints about the pelvis, turned to the body's own heading: what an image has
to tell a model that continues the motion. Folds hold whole sources out, so no film is in training and test.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.rotations import axis_angle_to_matrix, heading_rad, yaw_matrix

FOLDS = 5
_STRENGTHS = (3e-3, 3e-2, 0.3, 3.0)
"""Of the ridge, as shares of the kernel's mean diagonal; the best on the training folds is taken."""
_JOINTS = slice(1, 22)
"""Body joints without the pelvis and the hands."""
_SEED = 0


def bench(
    dataset: str, *, vision: Any, splits: tuple[str, ...] = ("train", "val", "test"), fps: float = 2.0, limit: int = 0
) -> dict[str, Any]:
    """`vision` is a model.vision.config.VisionConfig; `fps` the frames per second of a clip that are looked at; `limit` the most
    samples, 0 for all."""
    frames = _collect(dataset, vision, splits, fps, limit)
    report = {
        "dataset": dataset, "tower": frames.tower, "samples": len(np.unique(frames.samples)),
        "sources": len(np.unique(frames.sources)),
    }  # fmt: skip
    first = frames.numbers == 0
    variants = {
        "all_tokens": frames.tokens.reshape(len(frames.tokens), -1),
        "mean_token": frames.tokens.mean(1),
        "summary_token": frames.tokens[:, 0],
    }
    for name, kept in (("every_frame", np.ones(len(first), bool)), ("first_frame", first)):
        report[name] = {"frames": int(kept.sum())} | {
            variant: probe(values[kept], frames.joints_m[kept], frames.sources[kept])
            for variant, values in variants.items()
        }
    return report


def bench_text(report: dict[str, Any]) -> str:
    """The results for a terminal."""
    lines = [
        f"{report['tower']}: {report['samples']} samples of {report['sources']} sources, held out in {FOLDS} folds"
    ]
    for name in ("every_frame", "first_frame"):
        rows = report[name]
        lines.append(f"{name.replace('_', ' ')}, {rows['frames']} frames")
        for variant, row in rows.items():
            if variant != "frames":
                lines.append(
                    f"  {variant.replace('_', ' '):14s} joints {row['error_m'] * 100:5.2f} cm, mean pose "
                    f"{row['mean_pose_m'] * 100:5.2f} cm; right picture likelier than another film's "
                    f"{row['right_picture']:.1%} [{row['right_picture_low']:.1%}, {row['right_picture_high']:.1%}]"
                )
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frames:
    """Frames of all films, one row each."""

    tower: str
    tokens: Float[np.ndarray, "n t width"]
    joints_m: Float[np.ndarray, "n 21 3"]
    numbers: Int[np.ndarray, "n"]
    """In their clips."""
    sources: Shaped[np.ndarray, "n"]
    samples: Shaped[np.ndarray, "n"]


def _collect(dataset: str, vision: Any, splits: tuple[str, ...], fps: float, limit: int) -> _Frames:
    from model.data.dataset import MotionDataset, NoSamples
    from model.vision.frame_tokens import FrameRequest, FrameTokens

    seeing = FrameTokens.open(vision.model_copy(update={"clip_fps": fps}))
    body = BodyModel.load()
    tokens: list[np.ndarray] = []
    joints_m: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    sources: list[str] = []
    keys: list[str] = []
    for split in splits:
        try:
            samples = MotionDataset(dataset, split=split, subsets=["video"], frames=seeing.reader())
        except NoSamples:
            continue
        for sample in samples:
            if sample.frames is None or (limit and len(tokens) == limit):
                continue
            at = sample.frames.numbers
            tokens.append(seeing.of_frames([FrameRequest(frames=sample.frames, numbers=at)])[0].cpu().numpy())
            joints_m.append(joints_in_heading(sample.motion, body, at))
            numbers.append(at)
            sources += [str(sample.meta["source_id"])] * len(at)
            keys += [sample.key] * len(at)
    if len(set(sources)) < 2 * FOLDS:
        raise HumoError(
            f"{dataset}: films of {len(set(sources))} sources; the probe needs {2 * FOLDS}: ingest more, for example with "
            "configs/studio.yaml"
        )
    return _Frames(
        tower=seeing.tower.name, tokens=np.concatenate(tokens), joints_m=np.concatenate(joints_m),
        numbers=np.concatenate(numbers), sources=np.array(sources), samples=np.array(keys),
    )  # fmt: skip


def joints_in_heading(motion: Any, body: BodyModel, numbers: np.ndarray) -> Float[np.ndarray, "n 21 3"]:
    """Body joints of some frames of a motion, metres from the pelvis, x to the body's left and z ahead."""
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses[numbers]))
    joints, _ = forward_kinematics(
        rotations, body.rest_joints(torch.from_numpy(motion.betas)), torch.from_numpy(motion.trans[numbers])
    )
    turned = (joints - joints[:, :1]) @ yaw_matrix(heading_rad(rotations[:, 0]))
    return turned[:, _JOINTS].numpy()


def probe(
    features: Float[np.ndarray, "n d"], joints_m: Float[np.ndarray, "n 21 3"], sources: np.ndarray
) -> dict[str, float]:
    """Errors of held-out frames, metres, and how often the posture is nearer to what its own picture says than to what a picture of
    another source says, with the 95% interval over resampled sources."""
    names = np.unique(sources)
    folds = dict(zip(names, np.random.default_rng(_SEED).permutation(len(names)) % FOLDS, strict=True))
    fold = np.array([folds[name] for name in sources])
    target = joints_m.reshape(len(joints_m), -1).astype(np.float64)
    predicted, mean = np.zeros_like(target), np.zeros_like(target)
    for held_out in range(FOLDS):
        train = fold != held_out
        mean[~train] = target[train].mean(0)
        inner = fold[train] == (held_out + 1) % FOLDS
        errors = {
            strength: np.square(
                _ridge(features[train][~inner], target[train][~inner], features[train][inner], strength)
                - target[train][inner]
            ).mean()
            for strength in _STRENGTHS
        }
        predicted[~train] = _ridge(
            features[train], target[train], features[~train], min(errors, key=errors.__getitem__)
        )
    wins, pairs = _right_pictures(predicted, target, sources, fold)
    rng = np.random.default_rng(_SEED)
    per_source = np.array([[wins[sources == name].sum(), pairs[sources == name].sum()] for name in names])
    drawn = [per_source[rng.integers(0, len(names), len(names))].sum(0) for _ in range(1000)]
    low, high = np.quantile([won / all_pairs for won, all_pairs in drawn], (0.025, 0.975))
    return {
        "error_m": _joint_error(predicted, target), "mean_pose_m": _joint_error(mean, target),
        "right_picture": float(wins.sum() / pairs.sum()), "right_picture_low": float(low),
        "right_picture_high": float(high),
    }  # fmt: skip


def _ridge(features: np.ndarray, target: np.ndarray, unseen: np.ndarray, strength: float) -> np.ndarray:
    """Predictions for unseen rows, from standardised features, solved in the space of rows."""
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    rows, new = (features - mean) / deviation, (unseen - mean) / deviation
    kernel = rows @ rows.T
    kernel[np.diag_indices_from(kernel)] += strength * np.trace(kernel) / len(kernel)
    weights = np.linalg.solve(kernel.astype(np.float64), target - target.mean(0))
    return new @ (rows.T @ weights) + target.mean(0)


def _joint_error(predicted: np.ndarray, target: np.ndarray) -> float:
    return float(np.linalg.norm((predicted - target).reshape(len(target), -1, 3), axis=-1).mean())


def _right_pictures(
    predicted: np.ndarray, target: np.ndarray, sources: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each frame: pictures of other sources whose prediction is further from its posture than that of its own picture, and
    their number. They are of the same fold: the predictions of other folds have been trained on this posture."""
    wins, pairs = np.zeros(len(target)), np.zeros(len(target))
    for row, posture in enumerate(target):
        distances = np.square(predicted - posture).sum(1)
        others = (sources != sources[row]) & (fold == fold[row])
        wins[row], pairs[row] = (distances[others] > distances[row]).sum(), others.sum()
    return wins, pairs
