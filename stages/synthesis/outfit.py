"""Clothes, hair and a simple face as vertex colours of a body, by each vertex's dominant joint and rest position."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from schemas.body_model import BodyModel
from schemas.skeleton import SMPL_JOINTS, joint, keypoint

Colour = tuple[float, float, float]
"""Red, green, blue, 0 to 1."""

_SKINS = ((0.93, 0.76, 0.65), (0.85, 0.65, 0.52), (0.72, 0.52, 0.39), (0.54, 0.37, 0.27), (0.40, 0.27, 0.20))
_HAIRS = ((0.09, 0.07, 0.06), (0.24, 0.15, 0.09), (0.42, 0.28, 0.15), (0.70, 0.55, 0.32), (0.45, 0.44, 0.43))
_SHIRTS = (
    (0.75, 0.14, 0.14), (0.13, 0.30, 0.65), (0.90, 0.88, 0.84), (0.12, 0.45, 0.30), (0.85, 0.62, 0.15), (0.45, 0.20, 0.50),
    (0.20, 0.60, 0.65), (0.22, 0.22, 0.25), (0.85, 0.45, 0.35),
)  # fmt: skip
_TROUSERS = ((0.14, 0.18, 0.32), (0.10, 0.10, 0.11), (0.45, 0.38, 0.28), (0.30, 0.32, 0.35), (0.25, 0.30, 0.22))
_SHOES = ((0.92, 0.92, 0.92), (0.08, 0.08, 0.08), (0.35, 0.20, 0.12), (0.70, 0.15, 0.12))


@dataclass(frozen=True)
class Outfit:
    """Clothes, skin and hair of one person."""

    shirt: Colour
    trousers: Colour
    shoes: Colour
    skin: Colour
    hair: Colour
    long_sleeves: bool
    shorts: bool
    long_hair: bool

    @classmethod
    def draw(cls, seed: int, *, long_hair: bool | None = None) -> "Outfit":
        """A random outfit."""
        rng = np.random.default_rng([seed, 7])
        shirt, trousers, shoes, skin, hair = (
            pool[rng.integers(len(pool))] for pool in (_SHIRTS, _TROUSERS, _SHOES, _SKINS, _HAIRS)
        )
        sleeves, shorts, long = (bool(rng.random() < chance) for chance in (0.5, 0.25, 0.5))
        long = long if long_hair is None else long_hair
        return cls(shirt, trousers, shoes, skin, hair, long_sleeves=sleeves, shorts=shorts, long_hair=long)


def paint(body: BodyModel, outfit: Outfit) -> Float[np.ndarray, "V 3"]:
    """The colour of each vertex."""
    vertices = body.template.numpy()
    rest = body.joint_template.numpy()
    dominant = body.skinning_weights.argmax(1).numpy()
    names = np.array([name.removeprefix("left_").removeprefix("right_") for name in SMPL_JOINTS])[dominant]
    keypoints = (body.keypoint_regressor @ body.template).numpy()
    colour = np.tile(np.array(outfit.skin), (len(vertices), 1))

    def fill(mask: np.ndarray, value: Colour) -> None:
        colour[mask] = value

    trunk = np.isin(names, ["spine1", "spine2", "spine3", "collar", "shoulder", "pelvis"])
    neckline = (names == "neck") & (vertices[:, 1] < rest[joint("neck"), 1] + 0.01)
    fill(trunk | neckline, outfit.shirt)
    lateral = abs(vertices[:, 0])
    if outfit.long_sleeves:
        fill(names == "elbow", outfit.shirt)
    else:
        sleeve_end = (rest[joint("left_shoulder"), 0] + 1.4 * rest[joint("left_elbow"), 0]) / 2.4
        fill((names == "shoulder") & (lateral > sleeve_end), outfit.skin)
    waist = rest[0, 1] + 0.06
    fill(np.isin(names, ["pelvis", "hip", "spine1"]) & (vertices[:, 1] < waist), outfit.trousers)
    hem = rest[joint("left_knee"), 1] + 0.05
    fill(np.isin(names, ["hip", "knee"]) & ((vertices[:, 1] > hem) | (not outfit.shorts)), outfit.trousers)
    fill(np.isin(names, ["ankle", "foot"]), outfit.shoes)
    _paint_head(vertices, names, keypoints, outfit, fill)
    return colour


def _paint_head(
    vertices: np.ndarray,
    names: np.ndarray,
    keypoints: np.ndarray,
    outfit: Outfit,
    fill: Callable[[np.ndarray, Colour], None],
) -> None:
    """Hair on the top and back of the head; eyes, brows and lips, without which a detector finds no face."""
    head = np.isin(names, ["head", "neck"])
    eyes = keypoints[[keypoint("left_eye"), keypoint("right_eye")]]
    nose = keypoints[keypoint("nose")]
    ears = keypoints[[keypoint("left_ear"), keypoint("right_ear")]].mean(0)
    level, front = eyes[:, 1].mean(), eyes[:, 2].mean()
    # The hairline rises from behind the ears to the forehead.
    slope = (vertices[:, 2] - ears[2]) / (front - ears[2])
    hairline = level - 0.02 + 0.085 * np.clip(slope, 0, 1)
    hair = head & (vertices[:, 1] > hairline) & (slope < 1.2)
    bottom = level - (0.2 if outfit.long_hair else 0.1)
    hair |= head & (slope < -0.1) & (vertices[:, 1] > bottom)
    fill(hair, outfit.hair)
    dark = (0.55 * outfit.hair[0], 0.55 * outfit.hair[1], 0.55 * outfit.hair[2])
    for eye in eyes:
        offset = vertices - eye
        fill(head & (np.linalg.norm(offset * [0.75, 1.4, 0.5], axis=1) < 0.0115), (0.06, 0.05, 0.05))
        brow = (abs(offset[:, 0]) < 0.022) & (abs(offset[:, 1] - 0.021) < 0.0045) & (offset[:, 2] > -0.02)
        fill(head & brow, dark)
    offset = vertices - (nose - [0.0, 0.042, 0.012])
    lips = (abs(offset[:, 0]) < 0.024) & (abs(offset[:, 1]) < 0.009) & (offset[:, 2] > -0.02)
    fill(head & lips, (0.62, 0.25, 0.24))
