"""How far a recovered motion is from the true one: by frame, over the ground, and by body part.

Joints are SMPL's without the hands. Definitions follow WHAM's evaluation (Shin et al. 2024): PA aligns each frame by a
similarity, W aligns pieces of 100 frames by their first two frames and WA by all of them, both rigidly (no scale).
"""

import numpy as np
from jaxtyping import Float

from schemas.records import FPS
from schemas.skeleton import joint

NUM_MEASURED = 22
PIECE_FRAMES = 100
_WRISTS = [joint("left_wrist"), joint("right_wrist")]


def similarity(
    source: Float[np.ndarray, "N K 3"], target: Float[np.ndarray, "N K 3"], *, scale: bool
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N 3 3"], Float[np.ndarray, "N 3"]]:
    """Scale, rotation and shift that bring source points nearest to target points (Umeyama 1991)."""
    mean_s, mean_t = source.mean(1, keepdims=True), target.mean(1, keepdims=True)
    a, b = source - mean_s, target - mean_t
    u, s, vt = np.linalg.svd(np.einsum("nki,nkj->nij", b, a))
    sign = np.ones_like(s)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    factor = (s * sign).sum(-1) / np.maximum((a**2).sum((1, 2)), 1e-12) if scale else np.ones(len(source))
    shift = mean_t[:, 0] - factor[:, None] * (rotation @ mean_s[:, 0, :, None])[..., 0]
    return factor, rotation, shift


def _apply(points: np.ndarray, factor: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return factor[:, None, None] * np.einsum("nij,nkj->nki", rotation, points) + shift[:, None]


def pa_mpjpe(said: Float[np.ndarray, "T J 3"], truth: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T"]:
    """Millimetres a frame, after a similarity."""
    return 1000 * np.linalg.norm(_apply(said, *similarity(said, truth, scale=True)) - truth, axis=-1).mean(-1)


def world_mpjpe(said: Float[np.ndarray, "T J 3"], truth: Float[np.ndarray, "T J 3"], *, first: int | None) -> float:
    """Millimetres, in pieces of 100 frames that are aligned rigidly by their `first` frames (None: by all)."""
    errors = []
    for start in range(0, len(said), PIECE_FRAMES):
        a, b = said[start : start + PIECE_FRAMES], truth[start : start + PIECE_FRAMES]
        if start and len(a) < PIECE_FRAMES // 2:
            continue
        here = slice(None, first)
        move = similarity(a[here].reshape(1, -1, 3), b[here].reshape(1, -1, 3), scale=False)
        errors.append(1000 * np.linalg.norm(_apply(a.reshape(1, -1, 3), *move)[0] - b.reshape(-1, 3), axis=-1))
    return float(np.concatenate(errors).mean())


def measure(
    said: Float[np.ndarray, "T 24 3"],
    truth: Float[np.ndarray, "T 24 3"],
    said_root: Float[np.ndarray, "T 3 3"],
    true_root: Float[np.ndarray, "T 3 3"],
    to_camera: tuple[Float[np.ndarray, "T 3 3"], Float[np.ndarray, "T 3 3"]],
) -> dict[str, float]:
    """All errors of one motion. Joints and roots are each in their own level world; `to_camera` (said, true) lead from
    there to the camera, in whose axes the pelvis-aligned errors are taken."""
    said, truth = said[:, :NUM_MEASURED].astype(np.float64), truth[:, :NUM_MEASURED].astype(np.float64)
    in_camera = [
        (points - points[:, :1]) @ turn.swapaxes(-1, -2) for points, turn in zip((said, truth), to_camera, strict=True)
    ]
    apart = 1000 * np.linalg.norm(in_camera[0] - in_camera[1], axis=-1)
    bodies = [(points - points[:, :1]) @ root for points, root in ((said, said_root), (truth, true_root))]
    level = 1000 * np.linalg.norm((said - said[:, :1]) - (truth - truth[:, :1]), axis=-1).mean()
    cosine = (said_root[:, 1] * true_root[:, 1]).sum(-1).clip(-1, 1)
    relative = [turn @ root for turn, root in zip(to_camera, (said_root, true_root), strict=True)]
    trace = np.einsum("tij,tij->t", *relative)
    steps = [np.diff(points[:, 0], axis=0) for points in (said, truth)]
    move = similarity(said[:2].reshape(1, -1, 3), truth[:2].reshape(1, -1, 3), scale=False)
    aligned = _apply(said[:, :1].reshape(1, -1, 3), *move)[0]
    whole = similarity(said[None, :, 0], truth[None, :, 0], scale=False)
    off = np.linalg.norm(_apply(said[None, :, 0], *whole)[0] - truth[:, 0], axis=-1).mean()
    return {
        "pa_mpjpe": float(pa_mpjpe(said, truth).mean()),
        "mpjpe": float(apart.mean()),
        "mpjpe_level": float(level),
        "body": float(1000 * np.linalg.norm(bodies[0] - bodies[1], axis=-1).mean()),
        "wrists": float(apart[:, _WRISTS].mean()),
        "tilt": float(np.degrees(np.arccos(cosine)).mean()),
        "root": float(np.degrees(np.arccos(((trace - 1) / 2).clip(-1, 1))).mean()),
        "w_mpjpe100": world_mpjpe(said, truth, first=2),
        "wa_mpjpe100": world_mpjpe(said, truth, first=None),
        "speed": float(np.linalg.norm(steps[0] - _turned(steps[0], steps[1], move), axis=-1).mean() * FPS),
        "rte_m": float(off),
        "end_m": float(np.linalg.norm(aligned[-1] - truth[-1, 0])),
        "path_m": float(np.linalg.norm(steps[1], axis=-1).sum()),
    }


def _turned(said: np.ndarray, truth: np.ndarray, move: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """True steps in the axes of the said ones."""
    return truth @ move[1][0]
