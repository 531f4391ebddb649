"""Finds pairs of near-duplicates among many samples without comparing all pairs.

Two copies may be cut at different places, so candidates come from pose windows: those around the speed extrema of each motion,
and its middle, are nearest neighbours in a few principal components (a k-d tree); frames whose image hashes agree in one of
four bands of 16 bits are candidates too. A candidate is a pair of samples and a time in each. It is then measured in full, over
the whole overlap of both.
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
from pipeline.curation.duplicates.signatures import RATE_HZ, FrameHashes, Signature, jaccard

_WINDOW_S = np.linspace(-0.5, 0.5, 9)
"""Times of a pose window relative to its centre, seconds."""
_MAX_OVERHANG_S = 0.15
"""Maximum length of a window beyond the ends of the motion, seconds."""
_PCA_MOTIONS = 2_000
"""Approximate maximum number of motions that the principal components are computed from."""
_WINDOW_MARGIN = 2.0
"""Ratio of the maximum distance of single windows to that of whole motions."""
_BAND_BYTES = 2
_FRAME_STEP = 5
"""Every n-th frame is indexed."""
_MAX_BAND_SAMPLES = 50
"""A band shared by more samples, such as that of black frames, is ignored."""
_MIN_WORD_PAIRS = 8
"""Minimum number of word pairs of a text to compare."""
_MIN_OVERLAP_S = 0.8
"""Minimum overlap, seconds."""
_COARSE_STEP_S, _FINE_STEP_S = 0.4, 0.1
"""Steps between compared poses, seconds."""
_COARSE_MARGIN, _COARSE_TIME_ERROR_S = 1.5, 0.06
"""Tolerances of the coarse comparison: factor on the maximum distance, and error of its times."""
_COARSE_RATIO, _SAME_SHIFT_S, _MAX_ALIGNMENTS = 2.0, 0.2, 4
"""Refined alignments: maximum ratio to the best coarse distance, minimum separation in seconds, and maximum number."""
_ITERATIONS = 5

Candidates = dict[tuple[int, int], set[tuple[float, float]]]
"""Indices of two samples -> pairs of times in them that may show the same, seconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One sample as it is compared."""

    key: str
    subset: str
    split: str
    sources: frozenset[str]
    score: float
    """Lower is better."""
    caption: str
    motion: Signature
    words: frozenset[tuple[str, ...]]
    """Word pairs of speech and descriptions, without sentences of the rules, which derive from the motion."""
    frame_hashes: FrameHashes | None
    """None for motion capture."""
    embedding: Float[np.ndarray, "D"]
    """Image embedding; empty if none was computed."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two near-duplicate samples and their distances."""

    one: str
    other: str
    kind: str
    """`video` if the images match, `text` if the texts do (motions may then differ more), or `motion`."""
    mirrored: bool
    distance_mm: float
    share: float
    """Distance as a share of the joints' deviation from their mean positions."""
    path_m: float
    shift_s: float
    """How much later the other begins within the same movement, seconds."""
    speed: float
    """Speed of the other relative to the one."""
    overlap: float
    """Overlap as a share of the shorter motion."""
    picture_bits: float
    """Share of differing bits; NaN if either has no images."""
    embedding_cosine: float
    """NaN if either has no embedding."""
    text: float
    """Jaccard index of the word pairs; NaN if either has too few."""


def find_pairs(items: Sequence[Item], config: DedupeConfig) -> list[Pair]:
    """All near-duplicates among samples without a common source, sorted by their keys."""
    pairs: dict[tuple[str, str], Pair] = {}
    for mirrored in (False, True):
        candidates: Candidates = defaultdict(set)
        _add_pose_candidates(items, config, mirrored, candidates)
        _add_image_candidates(items, mirrored, candidates)
        for (a, b), times in sorted(candidates.items()):
            one, other = items[a], items[b]
            if one.sources & other.sources or (one.key, other.key) in pairs:
                continue
            pair = compare(one, other, config, times, mirrored=mirrored)
            if pair:
                pairs[one.key, other.key] = pair
    return [pair for _, pair in sorted(pairs.items())]


def _add_pose_candidates(items: Sequence[Item], config: DedupeConfig, mirrored: bool, candidates: Candidates) -> None:
    """Add pairs of motions with close pose windows."""
    if not items:
        return
    rows = np.concatenate([_pose_windows(item.motion)[1] for item in items[:: max(len(items) // _PCA_MOTIONS, 1)]])
    mean = rows.mean(0)
    axes = np.linalg.svd(rows - mean, full_matrices=False)[2][: config.dimensions].T

    def projected(motions: Iterable[Signature]) -> tuple[list[tuple[int, float]], Float[np.ndarray, "N D"]]:
        """Motion index and time of each window, and its components."""
        windows, points = [], []
        for index, motion in enumerate(motions):
            times, rows = _pose_windows(motion)
            windows += [(index, time) for time in times]
            points.append((rows - mean) @ axes)
        return windows, np.concatenate(points)

    windows, points = projected(item.motion for item in items)
    query_windows, queries = projected(item.motion.mirrored() for item in items) if mirrored else (windows, points)
    radius = _WINDOW_MARGIN * config.loosened * config.max_distance_mm / 1000
    neighbours = min(config.neighbours + 1, len(points))
    distances, indices = cKDTree(points).query(queries, k=neighbours, distance_upper_bound=radius)
    distances, indices = (result.reshape(len(queries), neighbours) for result in (distances, indices))
    for query, rank in zip(*np.nonzero(np.isfinite(distances)), strict=True):
        _add_candidate(items, candidates, query_windows[query], windows[indices[query, rank]])


def _pose_windows(motion: Signature) -> tuple[list[float], Float[np.ndarray, "N D"]]:
    """Centre times, and rows whose Euclidean distances are root mean square distances of joints, metres."""
    reach = _WINDOW_S[-1] - _MAX_OVERHANG_S
    extrema = motion.speed_extrema_s()
    inside = extrema[(extrema >= motion.start_s + reach) & (extrema <= motion.end_s - reach)]
    centres = [*map(float, inside), (motion.start_s + motion.end_s) / 2]
    times = np.clip(np.add.outer(centres, _WINDOW_S), motion.start_s, motion.end_s)
    rows = motion.pose_spline()(times.ravel()).astype(np.float32).reshape(len(centres), -1)
    return centres, rows / np.sqrt(rows.shape[1] / 3)


def _add_candidate(
    items: Sequence[Item], candidates: Candidates, one: tuple[int, float], other: tuple[int, float]
) -> None:
    if one[0] != other[0]:
        (a, time_a_s), (b, time_b_s) = sorted((one, other), key=lambda match: items[match[0]].key)
        candidates[a, b].add((time_a_s, time_b_s))


def _add_image_candidates(items: Sequence[Item], mirrored: bool, candidates: Candidates) -> None:
    """Add pairs of samples with frames that share a band of hash bits."""
    index: dict[tuple[int, bytes], dict[int, float]] = defaultdict(dict)
    for number, item in enumerate(items):
        for time_s, band in _bands(item.frame_hashes, _FRAME_STEP):
            index[band].setdefault(number, time_s)
    for number, item in enumerate(items):
        hashes = item.frame_hashes and item.frame_hashes.mirrored() if mirrored else item.frame_hashes
        for time_s, band in _bands(hashes, 1):
            if len(index.get(band, {})) <= _MAX_BAND_SAMPLES:
                for other, other_time_s in index.get(band, {}).items():
                    _add_candidate(items, candidates, (number, time_s), (other, other_time_s))


def _bands(hashes: FrameHashes | None, step: int) -> Iterable[tuple[float, tuple[int, bytes]]]:
    """Time and bands of every `step`-th frame."""
    if hashes is None:
        return
    for frame in range(0, len(hashes.bits), step):
        packed = hashes.bits[frame].tobytes()
        for start in range(0, len(packed), _BAND_BYTES):
            yield frame / RATE_HZ, (start, packed[start : start + _BAND_BYTES])


def compare(
    one: Item, other: Item, config: DedupeConfig, times: Iterable[tuple[float, float]], *, mirrored: bool = False
) -> Pair | None:
    """Compare two samples in full, aligned at candidate times; None if they are not near-duplicates.

    They may be cuts of the same motion at one speed, or the same segment at two speeds: both are refined.
    """
    cosine = text = float("nan")
    if len(one.embedding) and len(one.embedding) == len(other.embedding):
        cosine = float(one.embedding @ other.embedding)
    if min(len(one.words), len(other.words)) >= _MIN_WORD_PAIRS:
        text = jaccard(one.words, other.words)
    other_motion, other_hashes = other.motion, other.frame_hashes
    if mirrored:
        other_motion, other_hashes = other_motion.mirrored(), other_hashes and other_hashes.mirrored()
    aligner = _PairAligner(one.motion, other_motion, config.min_overlap)
    matches = []
    for alignment in aligner.coarse_alignments(times, config.max_speed_ratio):
        bits = _bit_difference(one.frame_hashes, other_hashes, alignment)
        images_match = bits <= config.picture_bits or cosine >= config.embedding_cosine
        texts_match = text >= config.text_likeness
        factor = config.loosened if images_match or texts_match else 1.0
        max_share = float("inf") if images_match or texts_match else config.max_share
        match = aligner.refine(alignment, (factor * config.max_distance_mm / 1000, max_share), config.max_speed_ratio)
        if match and match.path_m <= factor * config.max_path_m:
            kind = "video" if images_match else "text" if texts_match else "motion"
            matches.append((match.distance_m, match.alignment, match, kind, bits))
    if not matches:
        return None
    _, alignment, match, kind, bits = min(matches)
    return Pair(
        one=one.key, other=other.key, kind=kind, mirrored=mirrored, distance_mm=1000 * match.distance_m, share=match.share,
        path_m=match.path_m, shift_s=alignment.time_a_s - alignment.time_b_s, speed=1 / alignment.rate, overlap=match.overlap,
        picture_bits=bits, embedding_cosine=cosine, text=text,
    )  # fmt: skip


@dataclass(frozen=True, order=True)
class _Alignment:
    """Time alignment of motions a and b: time `time_b_s` of b corresponds to `time_a_s` of a, and b takes `rate` times as
    long."""

    time_a_s: float
    time_b_s: float
    rate: float

    def to_b(self, times_a_s: Any) -> Any:
        """Times of b that correspond to times of a."""
        return self.time_b_s + (times_a_s - self.time_a_s) * self.rate


@dataclass(frozen=True, order=True)
class _Match:
    """Distances of two aligned motions."""

    distance_m: float
    share: float
    path_m: float
    overlap: float
    alignment: _Alignment


class _PairAligner:
    """Aligns two motions in time."""

    def __init__(self, a: Signature, b: Signature, min_overlap: float):
        self._a, self._b = a, b
        self._shorter_s = min(motion.end_s - motion.start_s for motion in (a, b))
        self._min_overlap_s = max(min_overlap * self._shorter_s - 1 / RATE_HZ, _MIN_OVERLAP_S)

    def coarse_alignments(self, times: Iterable[tuple[float, float]], max_ratio: float) -> list[_Alignment]:
        """The best few alignments at candidate times, for equal speed and for equal length; empty if the overlap is too short."""
        ratio = self._b.length_s / self._a.length_s
        rates = {1.0, ratio} if max(ratio, 1 / ratio) <= max_ratio else {1.0}
        alignments: list[_Alignment] = []
        for rate in sorted(rates):
            ranked = sorted(
                (self._coarse_distance_m(alignment), alignment)
                for alignment in {_Alignment(*pair, rate) for pair in times}
            )
            best: list[_Alignment] = []
            for distance_m, alignment in ranked:
                # A walk resembles itself one stride later, so the best coarse alignment need not be the best one.
                shifts_s = [abs(alignment.to_b(one.time_a_s) - one.time_b_s) for one in best]
                plausible = distance_m <= _COARSE_RATIO * ranked[0][0] and np.isfinite(distance_m)
                if plausible and min(shifts_s, default=1.0) > _SAME_SHIFT_S:
                    best.append(alignment)
            alignments += best[:_MAX_ALIGNMENTS]
        return alignments

    def _coarse_distance_m(self, alignment: _Alignment) -> float:
        times_a = self._common_times_s(alignment, _COARSE_STEP_S)
        if not len(times_a):
            return float("inf")
        return _rms_distance_m(self._a.pose_at(times_a), self._b.pose_at(alignment.to_b(times_a)))

    def refine(self, alignment: _Alignment, limits: tuple[float, float], max_ratio: float) -> _Match | None:
        """The best match of Gauss-Newton iterations over shift and rate; None if it exceeds the limits of the distance (metres,
        and as a share of the joints' deviation from their mean positions)."""
        times_a = self._common_times_s(alignment, _COARSE_STEP_S)
        poses = self._a.pose_at(times_a)
        speed_m_s = _rms_distance_m(poses[1:], poses[:-1]) / (times_a[1] - times_a[0])
        limit_m = min(limits[0], limits[1] * _spread_m(poses))
        if self._coarse_distance_m(alignment) > _COARSE_MARGIN * limit_m + _COARSE_TIME_ERROR_S * speed_m_s:
            return None
        splines = self._a.pose_spline(), self._b.pose_spline()
        best: _Match | None = None
        for _ in range(_ITERATIONS):
            match, alignment = self._gauss_newton_step(alignment, splines)
            best = min(match, best or match)
            if not 1 / max_ratio <= alignment.rate <= max_ratio or not len(
                self._common_times_s(alignment, _FINE_STEP_S)
            ):
                break
        return best if best and best.distance_m <= limits[0] and best.share <= limits[1] else None

    def _gauss_newton_step(
        self, alignment: _Alignment, splines: tuple[CubicSpline, CubicSpline]
    ) -> tuple[_Match, _Alignment]:
        """Distances of an alignment, and the alignment improved by the velocities of b."""
        times_a = self._common_times_s(alignment, _FINE_STEP_S)
        times_b = alignment.to_b(times_a)
        poses = splines[0](times_a), splines[1](times_b)
        distance_m = _rms_distance_m(*poses)
        spread_m = min(map(_spread_m, poses))
        overlap = min((times_a[-1] - times_a[0]) / self._shorter_s, 1.0)
        path_m = self._path_distance_m(times_a, times_b)
        match = _Match(distance_m, distance_m / max(spread_m, 1e-6), path_m, overlap, alignment)
        velocity = splines[1](times_b, 1)
        columns = np.stack(
            [velocity.ravel(), (velocity * (times_a - alignment.time_a_s)[:, None, None]).ravel()], axis=1
        )
        shift_s, rate = np.linalg.lstsq(columns, (poses[0] - poses[1]).ravel(), rcond=1e-3)[0]
        return match, _Alignment(alignment.time_a_s, alignment.time_b_s + float(shift_s), alignment.rate + float(rate))

    def _path_distance_m(self, times_a: np.ndarray, times_b: np.ndarray) -> float:
        """Root mean square distance of the ground paths under the best rotation, since other cuts have another heading."""
        paths = (path @ np.array([1, 1j]) for path in (self._a.path_at(times_a), self._b.path_at(times_b)))
        first, second = (path - path.mean() for path in paths)
        rotation = np.exp(1j * np.angle(np.vdot(second, first)))
        return float(np.sqrt(np.mean(np.abs(first - rotation * second) ** 2)))

    def _common_times_s(self, alignment: _Alignment, step_s: float) -> Float[np.ndarray, "N"]:
        """Times of a within the overlap; empty if the overlap is too short."""
        edges = (
            alignment.time_a_s + (edge - alignment.time_b_s) / alignment.rate
            for edge in (self._b.start_s, self._b.end_s)
        )
        first, last = max(self._a.start_s, next(edges)), min(self._a.end_s, next(edges))
        enough = last - first >= self._min_overlap_s
        return np.linspace(first, last, int((last - first) / step_s) + 1) if enough else np.zeros(0)


def _spread_m(poses: Float[np.ndarray, "N J 3"]) -> float:
    """Root mean square deviation of joints from their mean positions, metres."""
    return _rms_distance_m(poses, poses.mean(0, keepdims=True))


def _rms_distance_m(one: Float[np.ndarray, "N J 3"], other: Float[np.ndarray, "M J 3"]) -> float:
    """Root mean square distance of joints, metres."""
    return float(np.sqrt(np.mean(np.sum((one - other) ** 2, axis=-1))))


def _bit_difference(one: FrameHashes | None, other: FrameHashes | None, alignment: _Alignment) -> float:
    """Share of differing bits over the common frames; NaN if there are none."""
    if one is None or other is None:
        return float("nan")
    frames = np.arange(len(one.bits))
    other_frames = np.rint(alignment.to_b(frames / RATE_HZ) * RATE_HZ).astype(int)
    inside = (other_frames >= 0) & (other_frames < len(other.bits))
    return (
        float(np.mean(one.bit_difference(frames[inside], other, other_frames[inside])))
        if inside.any()
        else float("nan")
    )


def select_removals(items: Iterable[Item], pairs: Iterable[Pair], config: DedupeConfig) -> dict[str, str]:
    """Key of each sample to remove -> key of the sample kept instead.

    Across splits a sample in train is removed first, then one in val; within a split the one with the worse score, then the
    later key. Every removed sample has a near-duplicate among the kept ones: chains of similar samples are not collapsed.
    """
    near: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        if config.with_mirrored or not pair.mirrored:
            near[pair.one].add(pair.other)
            near[pair.other].add(pair.one)
    priority = {"test": 0, "val": 1, "train": 2}
    ordered = sorted((item for item in items if item.key in near), key=lambda i: (priority[i.split], i.score, i.key))
    rank = {item.key: number for number, item in enumerate(ordered)}
    kept: set[str] = set()
    removals: dict[str, str] = {}
    for item in ordered:
        partners = near[item.key] & kept
        if partners:
            removals[item.key] = min(partners, key=lambda key: rank[key])
        else:
            kept.add(item.key)
    return removals
