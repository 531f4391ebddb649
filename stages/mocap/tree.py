"""The joints of a take as a tree with measured bones: paths, common ancestors, distances over time."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from stages.mocap.take import Take

_SAMPLED = 120
"""Most frames that are looked at: distances between joints need no more."""


class Tree:
    """A take's joints, their paths and their positions in at most `_SAMPLED` frames."""

    def __init__(self, take: Take) -> None:
        self.take = take
        self.count = len(take.names)
        self.parents = take.parents
        self.children: list[list[int]] = [[] for _ in range(self.count)]
        for index, parent in enumerate(take.parents):
            if parent >= 0:
                self.children[parent].append(index)
        self.frames = np.unique(np.linspace(0, len(take.times_s) - 1, _SAMPLED).round().astype(int))
        self.rotations, self.positions = take.frames(self.frames).global_poses
        """(S, J, 3, 3) and (S, J, 3): global poses of the sampled frames."""
        size = float(np.median(np.ptp(self.positions, axis=1).max(-1))) if self.count else 0.0
        self.tiny = 1e-3 * size
        """Shorter bones count as none: a thousandth of the skeleton's extent."""

    def ancestors(self, joint: int) -> list[int]:
        """The joint, its parent, and so on to the root."""
        path = [joint]
        while self.parents[path[-1]] >= 0:
            path.append(self.parents[path[-1]])
        return path

    def common_ancestor(self, joints: Sequence[int]) -> int | None:
        """The nearest joint above all of them, or one of them; None where they hang on different roots."""
        shared = set(self.ancestors(joints[0])).intersection(*(self.ancestors(joint) for joint in joints[1:]))
        return next((joint for joint in self.ancestors(joints[0]) if joint in shared), None)

    def between(self, start: int, end: int) -> list[int]:
        """Joints on the way from one to another, without the two, in either direction of the tree."""
        up, down = self.ancestors(start), self.ancestors(end)
        shared = set(up) & set(down)
        if not shared:
            return []
        top = next(joint for joint in up if joint in shared)
        way = [*up[: up.index(top) + 1], *reversed(down[: down.index(top)])]
        return [joint for joint in way if joint not in (start, end)]

    def subtree(self, joint: int) -> list[int]:
        """The joint and all below it, parents first."""
        found = [joint]
        for one in found:
            found.extend(self.children[one])
        return found

    def paths_below(self, joint: int) -> list[list[int]]:
        """Paths from the joint to each of its leaves."""
        if not self.children[joint]:
            return [[joint]]
        return [[joint, *path] for child in self.children[joint] for path in self.paths_below(child)]

    def path_length(self, path: Sequence[int]) -> float:
        """Sum of the distances along a path."""
        return sum(self.distance(a, b) for a, b in pairwise(path))

    def distance(self, first: int, second: int) -> float:
        """Median distance between two joints over the frames."""
        return float(np.median(self.distances(first, second)))

    def distances(self, first: int, second: int) -> Float[np.ndarray, "S"]:
        """Distance between two joints in each sampled frame."""
        return np.linalg.norm(self.positions[:, first] - self.positions[:, second], axis=-1)

    def slack(self, path: Sequence[int]) -> Float[np.ndarray, "S"]:
        """How much shorter the straight way is than the path, as a fraction: 0 for a straight limb with twist joints in it."""
        along = sum((self.distances(a, b) for a, b in pairwise(path)), np.zeros(len(self.frames)))
        return 1 - self.distances(path[0], path[-1]) / np.maximum(along, 1e-12)
