"""A body's skeleton as a MuJoCo model: one capsule per segment, masses by anthropometry.

Masses and centres of mass are those of de Leva, "Adjustments to Zatsiorsky-Seluyanov's segment inertia parameters" (J.
Biomechanics 29, 1996, table 4), averaged over women and men. The trunk's three parts are distributed over the joints of the
spine; the volume of a capsule follows from its mass at the density of water.
"""

import math

import numpy as np
from jaxtyping import Float

from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS, joint

DENSITY = 1000.0
"""kg/m^3."""
BODY_MASS_INDEX = 22.0
"""kg/m^2, for the mass of a body of a given stature. Scores are shares of the body weight, so it has little influence."""
GRAVITY = 9.81
"""m/s^2."""
_HEAD_TOP_M = 0.17
"""Distance from the head's joint to the crown, metres."""

_SEGMENTS: dict[str, tuple[float, str, float]] = {
    "pelvis": (0.1182, "spine1", 0.4),
    "spine1": (0.0700, "spine2", 0.5),
    "spine2": (0.0849, "spine3", 0.5),
    "spine3": (0.1271, "neck", 0.5),
    "neck": (0.0120, "head", 0.5),
    "head": (0.0561, "crown", 0.5),
    "collar": (0.0150, "shoulder", 0.5),
    "shoulder": (0.0263, "elbow", 0.577),
    "elbow": (0.0150, "wrist", 0.457),
    "wrist": (0.0042, "hand", 0.6),
    "hand": (0.00165, "fingers", 0.5),
    "hip": (0.1447, "knee", 0.385),
    "knee": (0.0457, "ankle", 0.444),
    "ankle": (0.0100, "foot", 0.4),
    "foot": (0.0033, "toes", 0.5),
}
"""Joint -> mass share of its segment, end of that segment, centre of mass as a share of the distance to the end. Limbs are
listed for one side; with both sides, the shares sum to one."""


def stature(rest: Float[np.ndarray, "24 3"]) -> float:
    """Height of a body at rest from the soles to the crown, metres; a foot's joint is about 2 cm above the sole."""
    ground = rest[[joint("left_foot"), joint("right_foot")], 1].mean() - 0.02
    return float(rest[joint("head"), 1] + _HEAD_TOP_M - ground)


def body_mass(rest: Float[np.ndarray, "24 3"]) -> float:
    """Mass in kg of a body of that stature and average build."""
    return BODY_MASS_INDEX * stature(rest) ** 2


def mjcf(rest: Float[np.ndarray, "24 3"]) -> str:
    """MuJoCo's XML of a body: Y up, a free joint at the pelvis, ball joints elsewhere, no contacts; MuJoCo numbers joints depth
    first.

    The zero pose is the body's; `rest` are its joints there, metres.
    """
    mass = body_mass(rest)
    children: dict[int, list[int]] = {index: [] for index in range(len(SMPL_JOINTS))}
    for index, parent in enumerate(SMPL_PARENTS):
        if parent >= 0:
            children[parent].append(index)

    def body(index: int) -> str:
        name, parent = SMPL_JOINTS[index], SMPL_PARENTS[index]
        offset = np.zeros(3) if parent < 0 else rest[index] - rest[parent]
        kind = "<freejoint/>" if parent < 0 else '<joint type="ball"/>'
        subtree = "".join(body(child) for child in children[index])
        return f'<body name="{name}" pos="{_text(offset)}">{kind}{_capsule(name, rest, mass)}{subtree}</body>'

    return (
        f'<mujoco><option gravity="0 {-GRAVITY} 0"><flag contact="disable"/></option>'
        f'<default><geom type="capsule" contype="0" conaffinity="0"/></default><worldbody>{body(0)}</worldbody></mujoco>'
    )


def _capsule(name: str, rest: Float[np.ndarray, "24 3"], body_kg: float) -> str:
    side, _, bare = name.partition("_")
    has_side = side in ("left", "right")
    mass_share, end_name, com_share = _SEGMENTS[bare if has_side else name]
    start = rest[joint(name)]
    end = f"{side}_{end_name}" if has_side else end_name
    axis = _end_offset(name, rest) if end not in SMPL_JOINTS else rest[joint(end)] - start
    kg, length = mass_share * body_kg, float(np.linalg.norm(axis))
    volume = kg / DENSITY
    # A capsule of radius r and overall length L has the volume pi r^2 (L - 2r) + 4/3 pi r^3; short ones become spheres.
    radius = _radius(volume, length)
    half = max((length - 2 * radius) / 2, 1e-3)
    direction = axis / max(length, 1e-6)
    return f'<geom pos="{_text(axis * com_share)}" zaxis="{_text(direction)}" size="{radius:.6f} {half:.6f}" mass="{kg:.6f}"/>'


def _end_offset(name: str, rest: Float[np.ndarray, "24 3"]) -> Float[np.ndarray, "3"]:
    """Offset to the end of a segment without a child joint."""
    if name == "head":
        return np.array([0.0, _HEAD_TOP_M, 0.02])
    if name.endswith("hand"):
        arm = rest[joint(name)] - rest[SMPL_PARENTS[joint(name)]]
        return arm / max(float(np.linalg.norm(arm)), 1e-6) * 0.08
    return np.array([0.0, 0.0, 0.06])


def _radius(volume: float, length: float) -> float:
    """Radius, metres, of the capsule of that volume and overall length, or of the sphere if the length is too short."""
    sphere = (3 * volume / (4 * math.pi)) ** (1 / 3)
    if 2 * sphere >= length:
        return sphere
    low, high = 0.0, sphere
    for _ in range(30):
        middle = (low + high) / 2
        capsule_volume = math.pi * middle**2 * (length - 2 * middle) + 4 / 3 * math.pi * middle**3
        low, high = (middle, high) if capsule_volume < volume else (low, middle)
    return (low + high) / 2


def _text(values: Float[np.ndarray, "3"]) -> str:
    return " ".join(f"{value:.6f}" for value in values)
