"""Pairs of near-duplicates among many samples, without comparing each with each.

Candidates are the nearest neighbours of each motion in a few principal components, in a k-d tree, and the samples whose
picture hashes agree in any of 16 bands of 16 bits. Each candidate is then measured in full.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from pipeline.duplicates.config import DedupeConfig
from pipeline.duplicates.signatures import FRAMES, HASH_BITS, Signature, likeness
from schemas.curves import between

_COARSE = 8
"""Every so many-th moment is enough to find neighbours by."""
_FITTED_ON = 20_000
_BAND_BITS = 16
_MOST_ALIKE = 50
"""A band that more samples share than this, such as that of black pictures, tells nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One sample as it is compared."""

    key: str
    subset: str
    split: str
    sources: frozenset[str]
    score: float
    """The lower the better."""
    caption: str
    motion: Signature
    words: frozenset[tuple[str, ...]]
    picture: tuple[Bool[np.ndarray, "256"], Bool[np.ndarray, "256"]] | None
    """Hash of the pictures and of their mirror image; none for motion capture."""
    embedding: Float[np.ndarray, "D"]
    """Of the pictures; no numbers where nobody looked."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two samples that are near each other, and how near."""

    one: str
    other: str
    kind: str
    """`motion`, or `video` where the pictures agree and so the motion may be further off."""
    mirrored: bool
    distance_mm: float
    share: float
    """Distance as a share of how far the joints move."""
    path_m: float
    shift_s: float
    """The other begins so much later within the same movement, seconds."""
    speed: float
    """Length of the one over that of the other."""
    picture_bits: float
    """Share of differing bits; NaN where either has no pictures."""
    embedding_cosine: float
    """NaN where either has none."""
    text: float
    """Likeness of the captions; it decides nothing, for rules say the same of many motions."""


def find_pairs(items: Sequence[Item], config: DedupeConfig) -> list[Pair]:
    """All near-duplicates among samples that have no source in common, in the order of their keys."""
    found: dict[tuple[str, str], Pair] = {}
    for mirrored in (False, True):
        for a, b in sorted(_neighbours(items, config, mirrored) | _alike_pictures(items, mirrored)):
            one, other = sorted((items[a], items[b]), key=lambda item: item.key)
            if one.sources & other.sources or (one.key, other.key) in found:
                continue
            pair = compare(one, other, config, mirrored=mirrored)
            if pair:
                found[one.key, other.key] = pair
    return [pair for _, pair in sorted(found.items())]


def _neighbours(items: Sequence[Item], config: DedupeConfig, mirrored: bool) -> set[tuple[int, int]]:
    """Pairs of places whose motions may be near enough."""
    if len(items) < 2:
        return set()
    rows = np.stack([_coarse(item.motion) for item in items])
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _FITTED_ON)).astype(int)]
    mean = some.mean(0)
    axes = np.linalg.svd(some - mean, full_matrices=False)[2][: config.dimensions].T
    tree = cKDTree((rows - mean) @ axes)
    reach = _net(config) * config.loosened * config.max_distance_mm / 1000
    found = set()
    half = config.max_shift / 2
    for start, end in ((0.0, 1.0), (half, 1.0), (0.0, 1 - half), (2 * half, 1.0), (0.0, 1 - 2 * half)):
        asked = rows if (start, end, mirrored) == (0.0, 1.0, False) else _asked(items, start, end, mirrored)
        distances, places = tree.query(
            (asked - mean) @ axes, k=min(config.neighbours + 1, len(items)), distance_upper_bound=reach
        )
        for place, number in zip(*np.nonzero(np.isfinite(distances)), strict=True):
            other = int(places[place, number])
            if other != place:
                found.add((min(int(place), other), max(int(place), other)))
    return found


def _net(config: DedupeConfig) -> float:
    """How much wider than the limits is looked for candidates: half a step of `max_shift` sets motions so far apart."""
    return 1 + config.max_shift / 0.08


def _asked(items: Sequence[Item], start: float, end: float, mirrored: bool) -> Float[np.ndarray, "N D"]:
    """The motions between two shares of their length, as if they had been cut so."""
    places = np.linspace(start, end, FRAMES) * (FRAMES - 1)
    motions = (item.motion.mirrored() if mirrored else item.motion for item in items)
    return np.stack([_row(between(motion.pose_m, places)) for motion in motions])


def _coarse(motion: Signature) -> Float[np.ndarray, "D"]:
    """A motion as one row whose Euclidean distances are root mean square distances of joints, metres."""
    return _row(motion.pose_m)


def _row(pose_m: np.ndarray) -> Float[np.ndarray, "D"]:
    rows = pose_m[_COARSE // 2 :: _COARSE].astype(np.float32)
    return rows.reshape(-1) / np.sqrt(rows.shape[0] * rows.shape[1])


def _alike_pictures(items: Sequence[Item], mirrored: bool) -> set[tuple[int, int]]:
    bands: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    asked: list[tuple[int, list[tuple[int, bytes]]]] = []
    for place, item in enumerate(items):
        if item.picture is not None:
            for band in _bands(item.picture[0]):
                bands[band].append(place)
            asked.append((place, list(_bands(item.picture[int(mirrored)]))))
    shared = ((place, bands[band]) for place, some in asked for band in some if len(bands.get(band, [])) <= _MOST_ALIKE)
    return {(min(place, other), max(place, other)) for place, others in shared for other in others if other != place}


def _bands(bits: Bool[np.ndarray, "256"]) -> Iterable[tuple[int, bytes]]:
    packed = np.packbits(bits).tobytes()
    step = _BAND_BITS // 8
    return ((start, packed[start : start + step]) for start in range(0, HASH_BITS // 8, step))


def compare(one: Item, other: Item, config: DedupeConfig, *, mirrored: bool = False) -> Pair | None:
    """Two samples measured in full; none where they are not near enough."""
    speed = one.motion.length_s / other.motion.length_s
    if max(speed, 1 / speed) > config.max_speed_ratio:
        return None
    seen_as = other.motion.mirrored() if mirrored else other.motion
    far_m = config.loosened * config.max_distance_mm / 1000
    distance, path, shift = _apart(one.motion, seen_as, config.max_shift, far_m)
    moved = min(_movement(one.motion), _movement(other.motion))
    bits = cosine = float("nan")
    if one.picture is not None and other.picture is not None:
        bits = float(np.mean(one.picture[0] != other.picture[int(mirrored)]))
    if len(one.embedding) and len(one.embedding) == len(other.embedding):
        cosine = float(one.embedding @ other.embedding)
    seen = bits <= config.picture_bits or cosine >= config.embedding_cosine
    wider = config.loosened if seen else 1.0
    share = distance / max(moved, 1e-6)
    too_far = 1000 * distance > wider * config.max_distance_mm or path > wider * config.max_path_m
    if too_far or (share > config.max_share and not seen):
        return None
    return Pair(
        one=one.key, other=other.key, kind="video" if seen else "motion", mirrored=mirrored, distance_mm=1000 * distance,
        share=share, path_m=path, shift_s=float(shift), speed=speed, picture_bits=bits,
        embedding_cosine=cosine, text=likeness(one.words, other.words),
    )  # fmt: skip


def _apart(one: Signature, other: Signature, max_shift: float, far_m: float) -> tuple[float, float, float]:
    """Least distance (metres) over the shifts, distance of the paths (metres) there, and the shift (seconds).

    Both may have been cut otherwise at the same speed, or be the same stretch at two speeds: both are tried. What is
    much further apart than `far_m` is not looked at closely.
    """
    best = (float("inf"), 0.0, 1.0)
    most = max_shift * (FRAMES - 1)
    for rate in (one.length_s / other.length_s, 1.0):
        for shift in sorted(np.arange(-np.floor(most), most + 1), key=abs):
            best = min(best, (_gap(one, other, shift, rate, _COARSE), shift, rate))
    coarse, shift, rate = best
    if coarse > 2 * far_m:
        return coarse, float("inf"), 0.0
    best = (_gap(one, other, shift, rate), shift, rate)
    for step in (0.5, 0.25, 0.125, 0.0625, 0.03125):
        _, centre, rate = best
        for shift in (centre - step, centre + step):
            best = min(best, (_gap(one, other, shift, rate), shift, rate))
    distance, shift, rate = best
    here, there = _common(one, other, shift, rate)
    first, second = (path @ np.array([1, 1j]) for path in (between(one.path_m, here), between(other.path_m, there)))
    first, second = first - first.mean(), second - second.mean()
    # The best turn about the vertical: cut elsewhere, they face another way.
    turn = np.exp(1j * np.angle(np.vdot(second, first)))
    gap_m = float(np.sqrt(np.mean(np.abs(first - turn * second) ** 2)))
    return distance, gap_m, shift * one.seconds / (FRAMES - 1)


def _gap(one: Signature, other: Signature, shift: float, rate: float, every: int = 2) -> float:
    here, there = _common(one, other, shift, rate)
    if len(here) < FRAMES // 2:
        return float("inf")
    apart = between(one.pose_m, here[::every]) - between(other.pose_m, there[::every])
    return float(np.sqrt(np.mean(np.sum(apart**2, axis=-1))))


def _common(one: Signature, other: Signature, shift: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Moments of the one and of the other that show the same, where the other begins `shift` moments of the one later and plays
    `rate` times as slowly as the one."""
    here = np.arange(FRAMES, dtype=np.float64)
    there = (here - shift) * (one.seconds / other.seconds) / rate
    inside = (there >= 0) & (there <= FRAMES - 1)
    return here[inside], there[inside]


def _movement(motion: Signature) -> float:
    """Root mean square distance of the joints from their mean place about the pelvis, metres."""
    pose = motion.pose_m.astype(np.float32)
    return float(np.sqrt(np.mean(np.sum((pose - pose.mean(0)) ** 2, axis=-1))))


def chosen(items: Iterable[Item], pairs: Iterable[Pair], config: DedupeConfig) -> dict[str, str]:
    """Key of each sample that should go -> key of the one that stays in its place.

    Of two splits the sample in train goes, then that in val; of one split the one with the worse score, then the later key.
    Whatever goes has a near-duplicate of its own among what stays: chains of alike samples do not swallow one another.
    """
    near: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        if config.with_mirrored or not pair.mirrored:
            near[pair.one].add(pair.other)
            near[pair.other].add(pair.one)
    rank = {"test": 0, "val": 1, "train": 2}
    ordered = sorted((item for item in items if item.key in near), key=lambda i: (rank[i.split], i.score, i.key))
    place = {item.key: number for number, item in enumerate(ordered)}
    kept: set[str] = set()
    gone: dict[str, str] = {}
    for item in ordered:
        partners = near[item.key] & kept
        if partners:
            gone[item.key] = min(partners, key=lambda key: place[key])
        else:
            kept.add(item.key)
    return gone
