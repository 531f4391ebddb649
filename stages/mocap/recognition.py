"""Which joints of an unknown skeleton are those of a body: by their names, and where these fail by the shape of the tree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from stages.mocap.names import Reading, read_names
from stages.mocap.take import MocapError, Take
from stages.mocap.tree import Tree

_LEG, _ARM = ("hip", "knee", "ankle", "foot"), ("collar", "shoulder", "elbow", "wrist", "hand")
_LIMBS = {"leg": _LEG, "arm": _ARM}
_NEEDED = {"leg": ("hip", "knee", "ankle"), "arm": ("shoulder", "elbow", "wrist")}
_SIDES = ("left", "right")
_PAIRED = 0.15
"""Most difference in length between a left limb and a right one, as a fraction."""
_HALVES = (0.4, 2.5)
"""Range of the ratio of a limb's two long bones."""
_ARM_TO_LEG = (0.3, 1.35)
"""Range of the ratio of shoulder-elbow-wrist to hip-knee-ankle."""
_FROM_TRUNK = {"leg": 0.3, "arm": 0.6}
"""Distance of hip and shoulder from where the limbs branch off, as a fraction of thigh and upper arm."""
_WORST_LIMB = 1.6
"""Highest cost (see `_halves`) of three joints that count as a limb."""


@dataclass(frozen=True)
class Found:
    """The joints of a body in a tree."""

    tree: Tree
    readings: Sequence[Reading]
    limbs: Mapping[str, int]
    """SMPL joint of a limb (`left_hip` ...) -> joint of the tree."""
    pelvis: int
    chest: int
    """Where the arms branch off."""
    spine: tuple[int, ...]
    """From above the pelvis to the chest, which is the last; empty where arms and legs hang on one joint."""
    neck: tuple[int, ...]
    head: int | None
    by: Mapping[str, str] = field(default_factory=dict)
    """SMPL joint -> `name` or `shape`."""


def find_joints(name: str, take: Take) -> Found:
    """The joints of a body. `name` is for messages. Raises MocapError where the skeleton is not that of a whole human."""
    tree = Tree(take)
    readings = read_names(take.names)
    limbs: dict[str, int] = {}
    by: dict[str, str] = {}
    for limb in ("leg", "arm"):
        named = {
            f"{side}_{joint}": index for side in _SIDES for joint, index in _by_name(tree, readings, limb, side).items()
        }
        if named and _plausible(tree, named, limb):
            limbs |= named
            by |= dict.fromkeys(named, "name")
    kinds = [limb for limb in ("leg", "arm") if f"left_{_NEEDED[limb][0]}" not in limbs]
    if kinds:
        shaped = _by_shape(tree, readings, limbs)
        limbs |= shaped
        by |= dict.fromkeys(shaped, "shape")
    missing = [
        f"{side}_{joint}"
        for limb in _LIMBS
        for side in _SIDES
        for joint in _NEEDED[limb]
        if f"{side}_{joint}" not in limbs
    ]
    if missing:
        raise MocapError("unknown_skeleton", _no_human(name, take, missing))
    pelvis = tree.common_ancestor([limbs["left_hip"], limbs["right_hip"]])
    chest = tree.common_ancestor([limbs["left_shoulder"], limbs["right_shoulder"]])
    if pelvis is None or chest is None or (pelvis != chest and tree.common_ancestor([pelvis, chest]) is None):
        raise MocapError(
            "unknown_skeleton",
            f"{name}: legs and arms hang on different roots of the tree; export the skeleton as one hierarchy",
        )
    arm_to_leg = _limb_length(tree, limbs, "arm") / _limb_length(tree, limbs, "leg")
    if not _ARM_TO_LEG[0] <= arm_to_leg <= _ARM_TO_LEG[1]:
        raise MocapError(
            "unknown_skeleton",
            f"{name}: arms are {arm_to_leg:.2f} times as long as legs, a human's {_ARM_TO_LEG[0]} to {_ARM_TO_LEG[1]} times;"
            " it is no human skeleton, or name its joints in read_mocap.joint_map",
        )
    spine = [joint for joint in tree.between(pelvis, chest) if not readings[joint].helper]
    neck, head, head_by = _head(tree, readings, limbs, pelvis, chest)
    if pelvis != chest:
        spine.append(chest)
    by |= {"pelvis": "name" if readings[pelvis].pelvis else "shape"}
    by |= {
        "spine": "name" if spine and all(readings[joint].trunk for joint in spine) else "shape",
        "neck": head_by,
        "head": head_by,
    }
    return Found(
        tree=tree, readings=readings, limbs=limbs, pelvis=pelvis, chest=chest, spine=tuple(spine), neck=neck, head=head, by=by
    )  # fmt: skip


def _by_name(tree: Tree, readings: Sequence[Reading], limb: str, side: str) -> dict[str, int]:
    """The joints of a limb: the best reading of a path from a root to a leaf in which they follow one another."""
    order = _LIMBS[limb]
    best: tuple[float, dict[str, int]] = (0.0, {})
    leaves = [joint for joint in range(tree.count) if not tree.children[joint]]
    for leaf in leaves:
        path = [
            joint
            for joint in reversed(tree.ancestors(leaf))
            if readings[joint].side == side and set(readings[joint].limb) & set(order)
        ]
        # Best weight of the path so far whose last joint is order[k]: joints ascend along both.
        table: list[tuple[float, dict[str, int]]] = [(0.0, {})] * (len(order) + 1)
        for joint in path:
            new = list(table)
            for place, part in enumerate(order, start=1):
                if part in readings[joint].limb:
                    weight = readings[joint].limb[part] + 0.5 * (part in _NEEDED[limb])
                    before = max(table[:place], key=lambda one: one[0])
                    if before[0] + weight > new[place][0]:
                        new[place] = (before[0] + weight, {**before[1], part: joint})
            table = new
        best = max([best, *table], key=lambda one: one[0])
    joints = best[1]
    outer, inner = _NEEDED[limb][-1], _NEEDED[limb][-2]
    if outer not in joints and inner in joints:
        # The bone's end alone tells where the wrist is.
        ends = [child for child in tree.children[joints[inner]] if child in tree.take.ends]
        joints |= {outer: ends[0]} if len(ends) == 1 else {}
    return joints if all(part in joints for part in _NEEDED[limb]) else {}


def _plausible(tree: Tree, joints: Mapping[str, int], limb: str) -> bool:
    """Whether both limbs are there, of about the same length, with two long bones each."""
    if any(f"{side}_{part}" not in joints for side in _SIDES for part in _NEEDED[limb]):
        return False
    totals = []
    for side in _SIDES:
        first, middle, last = (joints[f"{side}_{part}"] for part in _NEEDED[limb])
        upper, lower = tree.distance(first, middle), tree.distance(middle, last)
        if min(upper, lower) <= tree.tiny or not _HALVES[0] <= upper / lower <= _HALVES[1]:
            return False
        totals.append(upper + lower)
    return abs(totals[0] - totals[1]) <= 2 * _PAIRED * max(totals)


def _limb_length(tree: Tree, joints: Mapping[str, int], limb: str) -> float:
    first, middle, last = (joints[f"left_{part}"] for part in _NEEDED[limb])
    return tree.distance(first, middle) + tree.distance(middle, last)


@dataclass(frozen=True)
class _Pair:
    """Two like limbs that branch off one joint: for each its path from there and the places of its three joints."""

    branch: int
    paths: tuple[list[int], list[int]]
    places: Mapping[str, tuple[int, int, int]]
    """`leg` and `arm` -> places of the three joints, if it is one."""
    length: float


def _by_shape(tree: Tree, readings: Sequence[Reading], known: Mapping[str, int]) -> dict[str, int]:
    """The limbs that are not yet known: pairs of branches of the same bones. Legs are longer than arms."""
    pairs = sorted(_pairs(tree), key=lambda pair: -pair.length)
    pairs = [pair for pair in pairs if pair.length > 0.3 * pairs[0].length]
    found: dict[str, int] = {}
    known_legs, known_arms = "left_hip" in known, "left_shoulder" in known
    taken = {joint for index in known.values() for joint in tree.ancestors(index)}
    free = [pair for pair in pairs if not {path[1] for path in pair.paths} & taken]
    for limb, wanted in (("leg", not known_legs), ("arm", not known_arms)):
        if not wanted or not free:
            continue
        pair = free[0]
        # Limbs branch off once: what shares a joint with these is a part of them.
        used = {joint for path in pair.paths for joint in path[1:]}
        free = [other for other in free[1:] if not used & {joint for path in other.paths for joint in path[1:]}]
        for number, path in enumerate(pair.paths):
            # Which is the left one is not known here: `rest_pose` turns the sides by the direction of the toes.
            side = _SIDES[number]
            first, _, last = pair.places[limb]
            found |= {
                f"{side}_{part}": path[place] for part, place in zip(_NEEDED[limb], pair.places[limb], strict=True)
            }
            outer = [
                joint
                for joint in path[last + 1 :]
                if joint not in tree.take.ends and tree.distance(path[last], joint) > tree.tiny
            ]
            if limb == "leg" and outer:
                found[f"{side}_foot"] = outer[0]
            inner = [joint for joint in path[1:first] if tree.distance(joint, path[first]) > tree.tiny]
            if limb == "arm" and inner:
                found[f"{side}_collar"] = inner[0]
    return found


def _pairs(tree: Tree) -> list[_Pair]:
    pairs = []
    for branch in range(tree.count):
        mains = [
            max(([branch, *path] for path in tree.paths_below(child)), key=tree.path_length)
            for child in tree.children[branch]
        ]
        for one, other in combinations([path for path in mains if len(path) >= 4], 2):
            lengths = tree.path_length(one), tree.path_length(other)
            if abs(lengths[0] - lengths[1]) > _PAIRED * max(lengths) or max(lengths) <= 0:
                continue
            short, long = sorted((one, other), key=len)
            best: dict[str, tuple[float, tuple[int, int, int]]] = {}
            for limb in _LIMBS:
                options = [
                    (_halves(tree, short, places, limb) + _halves(tree, long, places, limb), places)
                    for places in combinations(range(1, len(short)), 3)
                    if places[0] <= 5 and _alike(tree, short, long, places)
                ]
                if options:
                    # Of joints in one place the last one turns the bone.
                    best[limb] = min(options, key=lambda option: (round(option[0], 3), -option[1][0], -option[1][1]))
            if best and min(cost for cost, _ in best.values()) / 2 <= _WORST_LIMB:
                places = best["leg"][1]
                length = sum(tree.distance(one[places[i]], one[places[i + 1]]) for i in (0, 1))
                pairs.append(_Pair(branch, (one, other), {limb: found for limb, (_, found) in best.items()}, length))
    return pairs


def _alike(tree: Tree, one: Sequence[int], other: Sequence[int], places: tuple[int, ...]) -> bool:
    for i in (0, 1):
        first, second = (tree.distance(path[places[i]], path[places[i + 1]]) for path in (one, other))
        if min(first, second) <= tree.tiny or abs(first - second) > _PAIRED * max(first, second):
            return False
    return True


def _halves(tree: Tree, path: Sequence[int], places: tuple[int, ...], limb: str) -> float:
    """How little three joints of a path look like those of a limb: halves of unequal length, a bend inside a half, joints inside
    a half that are no twist joints, length of the path outside, and a first joint too near to the trunk or too far from it."""
    first, middle, last = places
    halves = path[first : middle + 1], path[middle : last + 1]
    upper, lower = (max(tree.distance(half[0], half[-1]), 1e-9) for half in halves)
    slack = [tree.slack(half) for half in halves]
    inner = sum(
        max(len([joint for joint in half[1:-1] if tree.distance(half[0], joint) > tree.tiny]), 0)
        for half, one in zip(halves, slack, strict=True)
        if one.max() > 0.004
    )
    outside = -np.log((upper + lower) / max(tree.path_length(path), 1e-9))
    root = max(tree.distance(path[0], path[first]), 0.01 * upper) / (_FROM_TRUNK[limb] * upper)
    bends = 3 * sum(one.mean() for one in slack) + 0.5 * inner
    return float(abs(np.log(upper / lower)) + bends + 1.5 * outside + 0.3 * abs(np.log(root)))


def _head(
    tree: Tree, readings: Sequence[Reading], limbs: Mapping[str, int], pelvis: int, chest: int
) -> tuple[tuple[int, ...], int | None, str]:
    """Neck joints from the chest upwards, the head, and by what it was found."""
    other = {joint for index in (*limbs.values(), pelvis) for joint in tree.ancestors(index)} | set(limbs.values())
    above = [
        joint
        for child in tree.children[chest]
        if child not in other
        for joint in tree.subtree(child)
        if joint not in tree.take.ends
    ]
    named = [joint for joint in above if readings[joint].head]
    if named:
        head, by = named[0], "name"
    else:
        branches = [child for child in tree.children[chest] if child in above and not readings[child].helper]
        paths = [
            [joint for joint in path if joint not in tree.take.ends]
            for child in branches
            for path in tree.paths_below(child)
        ]
        if not paths:
            return (), None, "shape"
        path, by = max(paths, key=lambda one: tree.path_length([chest, *one])), "shape"
        path = [joint for joint in path if not readings[joint].helper] or path
        # A leaf that never turns marks the top of the head.
        still = len(path) > 1 and np.ptp(tree.take.rotations[tree.frames, path[-1]], axis=0).max() < 1e-6
        head = path[-2] if still and len(path) > 2 else path[-1]
    neck = [joint for joint in tree.between(chest, head) if not readings[joint].helper]
    return tuple(neck), head, by


def _no_human(name: str, take: Take, missing: Sequence[str]) -> str:
    names = ", ".join(take.names[:60])
    return (
        f"{name}: no human skeleton: no joint was found for {', '.join(missing[:6])}{' and others' if len(missing) > 6 else ''},"
        f" neither by name nor by the shape of the tree; it has {names}. If it is one, write a YAML file with `joints:` from SMPL"
        " joints to these and set its path in read_mocap.joint_map"
    )
