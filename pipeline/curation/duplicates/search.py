"""Pairs of near-duplicates among many samples, without comparing each with each.

Two copies may have been cut at different places, so candidates are found by stretches: those around the moments at which a
motion is fastest or slowest, and each motion's middle, are neighbours in a few principal components (a k-d tree); frames
whose picture hashes agree in one of four bands of 16 bits are candidates too. A candidate is two samples and a time in each
of them. It is then measured in full, over all that both have in common.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from pipeline.curation.duplicates.config import DedupeConfig
from pipeline.curation.duplicates.signatures import RATE_HZ, Pictures, Signature, likeness

_STRETCH_S = np.linspace(-0.5, 0.5, 9)
"""Moments around a marked one that it is known by, seconds."""
_CLIPPED_S = 0.15
"""So much of it may lie beyond the ends."""
_FITTED_ON = 2_000
"""Motions that the principal components are taken from, or somewhat more."""
_NET = 2.0
"""How much further apart than whole motions single stretches may be."""
_BAND_BYTES = 2
_EVERY = 5
"""Every so many-th frame is looked up."""
_MOST_ALIKE = 50
"""A band that more samples share than this, such as that of black pictures, tells nothing."""
_FEWEST_WORDS = 8
"""Pairs of words that a text must have to tell anything."""
_LEAST_S = 0.8
"""A shorter common stretch tells nothing, seconds."""
_ROUGHLY_S, _CLOSELY_S = 0.4, 0.1
"""Between the moments that two motions are compared at, seconds."""
_ROUGHLY, _ROUGHLY_OFF_S = 1.5, 0.06
"""How much further apart than asked a rough look may find two motions that are worth a close one, and how far its times are off."""
_AMBIGUOUS, _SAME_S, _TRIED = 2.0, 0.2, 4
"""So many places are looked at closely that are further apart than this, seconds, and not so many times worse than the best."""
_STEPS = 5

Places = dict[tuple[int, int], set[tuple[float, float]]]
"""Two samples by their numbers -> times in the one and the other at which both may show the same, seconds."""


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
    """Pairs of words of what people said or wrote; what rules wrote is the motion in other words."""
    pictures: Pictures | None
    """None for motion capture."""
    embedding: Float[np.ndarray, "D"]
    """Of the pictures; no numbers where nobody looked."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two samples that are near each other, and how near."""

    one: str
    other: str
    kind: str
    """`video` where the pictures agree and `text` where the words do, so that the motion may be further off, or `motion`."""
    mirrored: bool
    distance_mm: float
    share: float
    """Distance as a share of how far the joints move."""
    path_m: float
    shift_s: float
    """The other begins so much later within the same movement, seconds."""
    speed: float
    """How many times as fast the other is."""
    overlap: float
    """Share of the shorter one that both have in common."""
    picture_bits: float
    """Share of differing bits; NaN where either has no pictures."""
    embedding_cosine: float
    """NaN where either has none."""
    text: float
    """Likeness of the words; NaN where either has too few."""


def find_pairs(items: Sequence[Item], config: DedupeConfig) -> list[Pair]:
    """All near-duplicates among samples that have no source in common, in the order of their keys."""
    found: dict[tuple[str, str], Pair] = {}
    for mirrored in (False, True):
        places: Places = defaultdict(set)
        _near_stretches(items, config, mirrored, places)
        _alike_pictures(items, mirrored, places)
        for (a, b), times in sorted(places.items()):
            one, other = items[a], items[b]
            if one.sources & other.sources or (one.key, other.key) in found:
                continue
            pair = compare(one, other, config, times, mirrored=mirrored)
            if pair:
                found[one.key, other.key] = pair
    return [pair for _, pair in sorted(found.items())]


def _near_stretches(items: Sequence[Item], config: DedupeConfig, mirrored: bool, places: Places) -> None:
    """Stretches of two motions that may be near enough, into `places`."""
    if not items:
        return
    some = np.concatenate([_stretches(item.motion)[1] for item in items[:: max(len(items) // _FITTED_ON, 1)]])
    mean = some.mean(0)
    axes = np.linalg.svd(some - mean, full_matrices=False)[2][: config.dimensions].T

    def projected(motions: Iterable[Signature]) -> tuple[list[tuple[int, float]], Float[np.ndarray, "N D"]]:
        """Of each stretch its motion's number and its time, and its components."""
        whose, points = [], []
        for number, motion in enumerate(motions):
            times, rows = _stretches(motion)
            whose += [(number, time) for time in times]
            points.append((rows - mean) @ axes)
        return whose, np.concatenate(points)

    whose, points = projected(item.motion for item in items)
    asked_whose, asked = projected(item.motion.mirrored() for item in items) if mirrored else (whose, points)
    reach = _NET * config.loosened * config.max_distance_mm / 1000
    neighbours = min(config.neighbours + 1, len(points))
    distances, numbers = cKDTree(points).query(asked, k=neighbours, distance_upper_bound=reach)
    distances, numbers = (found.reshape(len(asked), neighbours) for found in (distances, numbers))
    for place, rank in zip(*np.nonzero(np.isfinite(distances)), strict=True):
        _note(items, places, asked_whose[place], whose[numbers[place, rank]])


def _stretches(motion: Signature) -> tuple[list[float], Float[np.ndarray, "N D"]]:
    """Around when, and as rows whose Euclidean distances are root mean square distances of joints, metres."""
    reach = _STRETCH_S[-1] - _CLIPPED_S
    marked = motion.marked_s()
    inside = marked[(marked >= motion.start_s + reach) & (marked <= motion.end_s - reach)]
    times = [*map(float, inside), (motion.start_s + motion.end_s) / 2]
    moments = np.clip(np.add.outer(times, _STRETCH_S), motion.start_s, motion.end_s)
    rows = motion.pose_between()(moments.ravel()).astype(np.float32).reshape(len(times), -1)
    return times, rows / np.sqrt(rows.shape[1] / 3)


def _note(items: Sequence[Item], places: Places, one: tuple[int, float], other: tuple[int, float]) -> None:
    if one[0] != other[0]:
        (a, here), (b, there) = sorted((one, other), key=lambda found: items[found[0]].key)
        places[a, b].add((here, there))


def _alike_pictures(items: Sequence[Item], mirrored: bool, places: Places) -> None:
    """Frames that may show the same, into `places`."""
    bands: dict[tuple[int, bytes], dict[int, float]] = defaultdict(dict)
    for number, item in enumerate(items):
        for time, band in _bands(item.pictures, _EVERY):
            bands[band].setdefault(number, time)
    for number, item in enumerate(items):
        for time, band in _bands(item.pictures and item.pictures.mirrored() if mirrored else item.pictures, 1):
            if len(bands.get(band, {})) <= _MOST_ALIKE:
                for other, then in bands.get(band, {}).items():
                    _note(items, places, (number, time), (other, then))


def _bands(pictures: Pictures | None, every: int) -> Iterable[tuple[float, tuple[int, bytes]]]:
    """Each band of every so many-th frame's bits, and when it is."""
    if pictures is None:
        return
    for frame in range(0, len(pictures.bits), every):
        packed = pictures.bits[frame].tobytes()
        for start in range(0, len(packed), _BAND_BYTES):
            yield frame / RATE_HZ, (start, packed[start : start + _BAND_BYTES])


def compare(
    one: Item, other: Item, config: DedupeConfig, times: Iterable[tuple[float, float]], *, mirrored: bool = False
) -> Pair | None:
    """Two samples measured in full, laid over one another at such times; none where they are not near enough.

    They may be cuts of the same at one speed, or the same stretch at two speeds: from both it goes on.
    """
    cosine = text = float("nan")
    if len(one.embedding) and len(one.embedding) == len(other.embedding):
        cosine = float(one.embedding @ other.embedding)
    if min(len(one.words), len(other.words)) >= _FEWEST_WORDS:
        text = likeness(one.words, other.words)
    seen_as, pictures = other.motion, other.pictures
    if mirrored:
        seen_as, pictures = seen_as.mirrored(), pictures and pictures.mirrored()
    two = _Two(one.motion, seen_as, config.min_overlap)
    found = []
    for laid in two.roughly(times, config.max_speed_ratio):
        bits = _unlike(one.pictures, pictures, laid)
        seen = bits <= config.picture_bits or cosine >= config.embedding_cosine
        told = text >= config.text_likeness
        wider = config.loosened if seen or told else 1.0
        limits = wider * config.max_distance_mm / 1000, float("inf") if seen or told else config.max_share
        nearest = two.closely(laid, limits, config.max_speed_ratio)
        if nearest and nearest.path_m <= wider * config.max_path_m:
            found.append(
                (nearest.distance_m, nearest.laid, nearest, "video" if seen else "text" if told else "motion", bits)
            )
    if not found:
        return None
    _, laid, nearest, kind, bits = min(found)
    return Pair(
        one=one.key, other=other.key, kind=kind, mirrored=mirrored, distance_mm=1000 * nearest.distance_m, share=nearest.share,
        path_m=nearest.path_m, shift_s=laid.here_s - laid.there_s, speed=1 / laid.rate, overlap=nearest.overlap,
        picture_bits=bits, embedding_cosine=cosine, text=text,
    )  # fmt: skip


@dataclass(frozen=True, order=True)
class _Laid:
    """How one motion lies over another: time `there_s` of the other shows what `here_s` of the one does, and from there on
    the other takes `rate` times as long."""

    here_s: float
    there_s: float
    rate: float

    def there(self, here_s: Any) -> Any:
        """Times of the other that show the same."""
        return self.there_s + (here_s - self.here_s) * self.rate


@dataclass(frozen=True, order=True)
class _Near:
    """How near two motions are where they are laid over one another."""

    distance_m: float
    share: float
    path_m: float
    overlap: float
    laid: _Laid


class _Two:
    """Two motions that are laid over one another."""

    def __init__(self, one: Signature, other: Signature, min_overlap: float):
        self._one, self._other = one, other
        self._shorter_s = min(motion.end_s - motion.start_s for motion in (one, other))
        self._least_s = max(min_overlap * self._shorter_s - 1 / RATE_HZ, _LEAST_S)

    def roughly(self, times: Iterable[tuple[float, float]], max_ratio: float) -> list[_Laid]:
        """The best few of some places for each of the two speeds; none where there is too little in common."""
        ratio = self._other.length_s / self._one.length_s
        rates = {1.0, ratio} if max(ratio, 1 / ratio) <= max_ratio else {1.0}
        found: list[_Laid] = []
        for rate in sorted(rates):
            gaps = sorted((self._rough_gap_m(laid), laid) for laid in {_Laid(*both, rate) for both in times})
            best: list[_Laid] = []
            for gap_m, laid in gaps:
                # A stride later a walk looks alike, so the nearest at a rough look need not be the nearest.
                apart_s = [abs(laid.there(one.here_s) - one.there_s) for one in best]
                if gap_m <= _AMBIGUOUS * gaps[0][0] and np.isfinite(gap_m) and min(apart_s, default=1.0) > _SAME_S:
                    best.append(laid)
            found += best[:_TRIED]
        return found

    def _rough_gap_m(self, laid: _Laid) -> float:
        here = self._common_s(laid, _ROUGHLY_S)
        if not len(here):
            return float("inf")
        return _apart_m(self._one.pose_near(here), self._other.pose_near(laid.there(here)))

    def closely(self, laid: _Laid, limits: tuple[float, float], max_ratio: float) -> _Near | None:
        """The nearest that Gauss-Newton steps of time and speed lead to; none where it is beyond the limits of the distance
        (metres, and as a share of how far the joints move)."""
        here = self._common_s(laid, _ROUGHLY_S)
        poses = self._one.pose_near(here)
        speed_m_s = _apart_m(poses[1:], poses[:-1]) / (here[1] - here[0])
        limit_m = min(limits[0], limits[1] * _spread_m(poses))
        if self._rough_gap_m(laid) > _ROUGHLY * limit_m + _ROUGHLY_OFF_S * speed_m_s:
            return None
        curves = self._one.pose_between(), self._other.pose_between()
        best: _Near | None = None
        for _ in range(_STEPS):
            near, laid = self._step(laid, curves)
            best = min(near, best or near)
            if not 1 / max_ratio <= laid.rate <= max_ratio or not len(self._common_s(laid, _CLOSELY_S)):
                break
        return best if best and best.distance_m <= limits[0] and best.share <= limits[1] else None

    def _step(self, laid: _Laid, curves: tuple[CubicSpline, CubicSpline]) -> tuple[_Near, _Laid]:
        """How near they are, and where the other's velocities say that they are nearer."""
        here = self._common_s(laid, _CLOSELY_S)
        there = laid.there(here)
        poses = curves[0](here), curves[1](there)
        distance_m = _apart_m(*poses)
        moved_m = min(map(_spread_m, poses))
        overlap = min((here[-1] - here[0]) / self._shorter_s, 1.0)
        near = _Near(distance_m, distance_m / max(moved_m, 1e-6), self._paths_m(here, there), overlap, laid)
        velocity = curves[1](there, 1)
        columns = np.stack([velocity.ravel(), (velocity * (here - laid.here_s)[:, None, None]).ravel()], axis=1)
        later_s, longer = np.linalg.lstsq(columns, (poses[0] - poses[1]).ravel(), rcond=1e-3)[0]
        return near, _Laid(laid.here_s, laid.there_s + float(later_s), laid.rate + float(longer))

    def _paths_m(self, here: np.ndarray, there: np.ndarray) -> float:
        """Root mean square distance of the ways over the ground at their best turn: cut elsewhere, they face another way."""
        ways = (way @ np.array([1, 1j]) for way in (self._one.path_near(here), self._other.path_near(there)))
        first, second = (way - way.mean() for way in ways)
        turn = np.exp(1j * np.angle(np.vdot(second, first)))
        return float(np.sqrt(np.mean(np.abs(first - turn * second) ** 2)))

    def _common_s(self, laid: _Laid, every_s: float) -> Float[np.ndarray, "N"]:
        """Times of the one that the other has too; none where they are too few."""
        theirs = (laid.here_s + (edge - laid.there_s) / laid.rate for edge in (self._other.start_s, self._other.end_s))
        first, last = max(self._one.start_s, next(theirs)), min(self._one.end_s, next(theirs))
        enough = last - first >= self._least_s
        return np.linspace(first, last, int((last - first) / every_s) + 1) if enough else np.zeros(0)


def _spread_m(poses: Float[np.ndarray, "N J 3"]) -> float:
    """How far the joints move about their mean place, metres."""
    return _apart_m(poses, poses.mean(0, keepdims=True))


def _apart_m(one: Float[np.ndarray, "N J 3"], other: Float[np.ndarray, "M J 3"]) -> float:
    """Root mean square distance of joints, metres."""
    return float(np.sqrt(np.mean(np.sum((one - other) ** 2, axis=-1))))


def _unlike(one: Pictures | None, other: Pictures | None, laid: _Laid) -> float:
    """Share of differing bits over the frames that both have; NaN where there are none."""
    if one is None or other is None:
        return float("nan")
    here = np.arange(len(one.bits))
    there = np.rint(laid.there(here / RATE_HZ) * RATE_HZ).astype(int)
    inside = (there >= 0) & (there < len(other.bits))
    return float(np.mean(one.unlike(here[inside], other, there[inside]))) if inside.any() else float("nan")


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
