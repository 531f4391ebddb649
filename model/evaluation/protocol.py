"""The measures of text-to-motion papers on vectors of motions and texts (Guo et al. 2022; Heusel et al. 2017 for FID).

R-precision@k    texts of batches of 32: share whose own motion is among the k of the batch with the highest cosine
MM-Dist          mean distance of a text's and its motion's vectors, both of length one (0 to 2)
FID              Frechet distance of the normal distributions of two sets of vectors, which are not normalised
diversity        mean distance of 300 random pairs of motions, vectors not normalised
multimodality    the same for pairs of motions of one text

Everything random is repeated 20 times; a figure is the mean with its 95% interval, 1.96 deviations over the root of the
repetitions. Figures depend on the evaluator: compare only those of the same one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from schemas.errors import HumoError

BATCH = 32
REPEATS = 20
SAME_MEANING = 0.7
"""Cosine of sentences of equal sides above which a batch holds only one of them."""
DIVERSITY_PAIRS = 300
MULTIMODALITY_PAIRS = 10
VECTORS_PER_WIDTH = 5
"""Motions for each number of a vector below which FID is mostly the error of its covariances."""
_RANKS = 3


@dataclass(frozen=True)
class Interval:
    """A mean over repetitions and half the width of its 95% interval."""

    mean: float
    half_width: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        deviation = float(np.std(values)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), 1.96 * deviation / math.sqrt(len(values)))


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Retrieval of motions by their texts in small batches."""

    batch: float
    """Pairs of a batch: 32, or the mean number where there are fewer."""
    chance: float
    """R@1 of random vectors."""
    r_precision: tuple[Interval, Interval, Interval]
    """R@1, R@2, R@3."""
    mm_dist: Interval


def retrieval(
    motions: Float[Tensor, "N L"],
    texts: Float[Tensor, "N L"],
    same: Bool[Tensor, "N N"] | None = None,
    *,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Retrieval:
    """Ranks of the own motion of each text in random batches of pairs, of which row i of both arguments is one.

    `same[i, j]` says that texts i and j mean the same: only one of them comes into a batch, so that no true answer counts as
    false. Without it batches are drawn from all pairs, as papers do. Batches shorter than the first are left out.
    Raises HumoError if no batch has two pairs.
    """
    _check(motions, "motions")
    _check(texts, "texts")
    motions, texts = (torch.nn.functional.normalize(one.float(), dim=-1) for one in (motions, texts))
    rng = np.random.default_rng(seed)
    hits, distances, sizes = np.zeros((repeats, _RANKS)), np.zeros(repeats), np.zeros(repeats)
    for repeat in range(repeats):
        batches = _batches(rng.permutation(len(motions)), None if same is None else same.numpy())
        sizes[repeat] = batches.shape[1]
        if batches.shape[1] < 2:
            raise HumoError(
                f"{len(motions)} pairs of one meaning or fewer than two: retrieval needs two; give more motions or texts"
            )
        cosines = texts[batches] @ motions[batches].mT
        own = cosines.diagonal(dim1=1, dim2=2)
        # Equal cosines count against the evaluator: constant vectors must not look perfect.
        better = (cosines >= own[..., None]).sum(-1) - 1
        hits[repeat] = [(better <= rank).float().mean().item() for rank in range(_RANKS)]
        distances[repeat] = (texts[batches] - motions[batches]).norm(dim=-1).mean().item()
    first, second, third = (Interval.of(hits[:, rank].tolist()) for rank in range(_RANKS))
    return Retrieval(
        batch=float(sizes.mean()),
        chance=float((1 / sizes).mean()),
        r_precision=(first, second, third),
        mm_dist=Interval.of(distances.tolist()),
    )


def _batches(order: Int[np.ndarray, "N"], same: Bool[np.ndarray, "N N"] | None) -> Int[Tensor, "B b"]:
    """Batches of equal size from pairs in random order, each filled with the next pairs that mean something else."""
    left = [int(number) for number in order]
    batches: list[list[int]] = []
    while left:
        batch: list[int] = []
        for number in left:
            if len(batch) < BATCH and (same is None or not same[number, batch].any()):
                batch.append(number)
        if batches and len(batch) < len(batches[0]):
            break
        batches.append(batch)
        taken = set(batch)
        left = [number for number in left if number not in taken]
    return torch.tensor(batches).reshape(len(batches), -1)


def fid(first: Float[Tensor, "N L"], second: Float[Tensor, "M L"]) -> float:
    """Frechet distance of two sets of vectors: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), at least 0.

    The trace of the root is that of (R C2 R)^(1/2) with R the symmetric root of C1, whose eigenvalues are real.
    """
    _check(first, "first set")
    _check(second, "second set")
    (mean, covariance), (other_mean, other_covariance) = _moments(first), _moments(second)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ other_covariance @ root).clip(min=0)
    distance = np.square(mean - other_mean).sum() + np.trace(covariance) + np.trace(other_covariance)
    return max(0.0, float(distance - 2 * np.sqrt(eigenvalues).sum()))


def split_fid(vectors: Float[Tensor, "N L"], *, repeats: int = REPEATS, seed: int = 0) -> Interval:
    """FID of random halves of one set: what motions of one distribution reach at half the number."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        order = torch.from_numpy(rng.permutation(len(vectors)))
        half = len(vectors) // 2
        values.append(fid(vectors[order[:half]], vectors[order[half : 2 * half]]))
    return Interval.of(values)


def fid_warning(motions: int, width: int) -> str:
    """What is wrong with the FID of so few motions; "" if nothing is."""
    needed = VECTORS_PER_WIDTH * width
    if motions >= needed:
        return ""
    return f"FID of {motions} motions is not to be trusted: vectors of {width} numbers need {needed}"


def diversity(vectors: Float[Tensor, "N L"], *, repeats: int = REPEATS, seed: int = 0) -> Interval:
    """Mean distance of random pairs of different motions, 300 or half as many as there are motions."""
    _check(vectors, "motions")
    if len(vectors) < 2:
        raise HumoError(f"{len(vectors)} motion: diversity needs two")
    pairs = min(DIVERSITY_PAIRS, len(vectors) // 2)

    def draw(rng: np.random.Generator) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
        order = rng.permutation(len(vectors))
        return order[:pairs], order[pairs : 2 * pairs]

    return _mean_distance(vectors, draw, repeats, seed)


def multimodality(groups: Sequence[Float[Tensor, "_ L"]], *, repeats: int = REPEATS, seed: int = 0) -> Interval | None:
    """Mean distance of random pairs of motions of the same text, ten pairs a text or as many as it has; None if no text has two
    motions."""
    several = [one for one in groups if len(one) > 1]
    if not several:
        return None
    vectors = torch.cat(list(several))
    starts = np.cumsum([0, *[len(one) for one in several[:-1]]])

    def draw(rng: np.random.Generator) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
        first, second = [], []
        for start, one in zip(starts, several, strict=True):
            order = start + rng.permutation(len(one))
            pairs = min(MULTIMODALITY_PAIRS, len(one) // 2)
            first.append(order[:pairs])
            second.append(order[pairs : 2 * pairs])
        return np.concatenate(first), np.concatenate(second)

    return _mean_distance(vectors, draw, repeats, seed)


def _mean_distance(
    vectors: Float[Tensor, "N L"],
    draw: Callable[[np.random.Generator], tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]],
    repeats: int,
    seed: int,
) -> Interval:
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        first, second = draw(rng)
        values.append((vectors[first] - vectors[second]).norm(dim=-1).mean().item())
    return Interval.of(values)


def _moments(vectors: Float[Tensor, "N L"]) -> tuple[Float[np.ndarray, "L"], Float[np.ndarray, "L L"]]:
    values = vectors.double().numpy()
    if len(values) < 2:
        raise HumoError(f"{len(values)} motion: FID needs two on each side")
    return values.mean(0), np.cov(values, rowvar=False).reshape(values.shape[1], values.shape[1])


def _check(vectors: Float[Tensor, "N L"], name: str) -> None:
    bad = (~torch.isfinite(vectors).all(-1)).nonzero()
    if len(bad):
        raise HumoError(f"{name}: vector {bad[0].item()} holds NaN or infinity; leave that motion out")
