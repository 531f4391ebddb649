"""Expected events of motion-capture files, derived from their names as far as caption rules can be tested with them.

Bandai-Namco's files are `dataset-N_CONTENT_STYLE_NUMBER`, DeepMimic's `humanoid3d_CONTENT`, CMU's are either numbers of a subject
and a take, with the content in its index, or `test_CONTENT_NUMBER`. A name gives what an actor was asked to do, not what else the
actor did, so few kinds are forbidden: the other arm, the other direction, another gait.
"""

import re
from dataclasses import dataclass

from schemas.skeleton import swap_sides

_GAITS = frozenset({"walk", "walk_backward", "run", "crawl"})
_WALKING_KINDS = frozenset({"walk", "walk_backward", "sidestep_left", "sidestep_right"})
_ARMS = ("left_arm", "right_arm")
_ARM_KINDS = {"wave": ("wave",), "raise": ("raise", "lower"), "reach": ("reach",), "punch": ("punch",)}


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Events and sentences that a motion should have. An event kind is `walk` for one of the body, `walk>left` for one to a side,
    `raise:left_arm` for one of a part."""

    group: str
    """Group for which results are averaged: the content in the file's name."""
    kinds: tuple[frozenset[str], ...]
    """At least one kind of each set must be present."""
    forbidden: frozenset[str] = frozenset()
    """Kinds that must not be present."""
    arms: frozenset[str] = frozenset()
    """The arms that sentences about the body must name, and no others; empty: any."""

    def mirrored(self) -> "Expected":
        """The expectation for the mirrored motion, in the same group."""
        return Expected(
            group=self.group,
            kinds=tuple(frozenset(map(_mirror_kind, kinds)) for kinds in self.kinds),
            forbidden=frozenset(map(_mirror_kind, self.forbidden)),
            arms=frozenset(map(swap_sides, self.arms)),
        )


def expected_of(stem: str) -> Expected | None:
    """The expectation for a file name without extension; None for an unknown name or content."""
    bandai = re.fullmatch(r"dataset-\d_([a-z-]+)_[a-z-]+_\d+", stem)
    deepmimic = re.fullmatch(r"humanoid3d_([a-z_]+?)\d*", stem)
    cmu = re.fullmatch(r"(?:test|train)_([a-z_]+?)_\d+", stem)
    if bandai:
        return _arm_expectation(bandai[1]) or _BANDAI_NAMCO.get(bandai[1])
    if deepmimic:
        return _DEEPMIMIC.get(deepmimic[1])
    return _CMU.get(cmu[1] if cmu else stem)


def expected_of_action(action: str) -> Expected:
    """The expectation for a synthetic motion (see `stages.synthesis.motions`)."""
    stem, _, side = action.rpartition("_")
    if side not in ("left", "right", "both"):
        return _expect(action, action, forbidden=_GAITS)
    gaits = {"turn": (f"turn_{side}",), "side_step": (f"sidestep_{side}",), "walk_turn": ("walk", f"turn_{side}")}
    if stem in gaits:
        return _expect(action, *gaits[stem])
    if stem == "kick":
        return _expect(action, f"kick:{side}_leg", forbidden=_GAITS)
    arms = _ARMS if side == "both" else (f"{side}_arm",)
    kinds = [f"{kind}:{arm}" for kind in _ARM_KINDS[stem.removeprefix("walk_")] for arm in arms]
    return _expect(action, *(["walk"] if stem.startswith("walk_") else []), *kinds)


def _arm_expectation(content: str) -> Expected | None:
    """For `raise-up-left-hand`, `wave-both-hands` and similar."""
    match = re.fullmatch(r"(raise|wave)(?:-up)?-(left|right|both)-hands?", content)
    if match is None:
        return None
    kind, arms = match[1], _ARMS if match[2] == "both" else (f"{match[2]}_arm",)
    other_arms = [arm for arm in _ARMS if arm not in arms]
    return Expected(
        group=content,
        kinds=tuple(frozenset({f"{kind}:{arm}"}) for arm in arms),
        forbidden=frozenset(f"{kind}:{arm}" for kind in ("raise", "wave") for arm in other_arms),
        arms=frozenset(arms),
    )


def _either_side(kind: str, limb: str) -> frozenset[str]:
    return frozenset({f"{kind}:left_{limb}", f"{kind}:right_{limb}"})


def _expect(group: str, *kinds: str | frozenset[str], forbidden: frozenset[str] = frozenset()) -> Expected:
    sets = tuple(frozenset({kind}) if isinstance(kind, str) else kind for kind in kinds)
    return Expected(group=group, kinds=sets, forbidden=forbidden - frozenset().union(*sets))


def _mirror_kind(kind: str) -> str:
    for side, other in (("left", "right"), ("right", "left")):
        if kind.endswith(side):
            return kind.removesuffix(side) + other
    prefix, colon, part = kind.partition(":")
    return prefix + colon + swap_sides(part)


_BANDAI_NAMCO = {
    one.group: one
    for one in (
        _expect("walk", "walk", forbidden=_GAITS | {"jump"}),
        _expect("run", "run", forbidden=frozenset({"walk_backward", "crawl", "jump"})),
        _expect("dash", "run", forbidden=frozenset({"walk_backward", "crawl", "jump"})),
        _expect("walk-turn-left", "walk", "turn_left", forbidden=frozenset({"turn_right", "run", "jump"})),
        _expect("walk-turn-right", "walk", "turn_right", forbidden=frozenset({"turn_left", "run", "jump"})),
        _expect("walk-back", "walk_backward", forbidden=_GAITS),
        _expect("walk-left", frozenset({"sidestep_left", "walk>left"}), forbidden=frozenset({"sidestep_right", "run"})),
        _expect("walk-right", frozenset({"sidestep_right", "walk>right"}), forbidden=frozenset({"sidestep_left", "run"})),
        _expect("bow", "bow", forbidden=frozenset({"squat", "run"})),
        _expect("kick", _either_side("kick", "leg")),
        _expect("punch", _either_side("punch", "arm")),
        _expect("slash", _either_side("swing", "arm") | _either_side("lower", "arm")),
        _expect("bye", _either_side("wave", "arm") | _either_side("raise", "arm")),
        _expect("byebye", _either_side("wave", "arm")),
        _expect("call", _either_side("wave", "arm") | _either_side("raise", "arm")),
        _expect("respond", _either_side("raise", "arm")),
        _expect("guide", _either_side("raise", "arm") | _either_side("reach", "arm") | _either_side("swing", "arm")),
    )
}  # fmt: skip
_DEEPMIMIC = {
    one.group: one
    for one in (
        _expect("walk", "walk", forbidden=_GAITS),
        _expect("long_walk", "walk", forbidden=_GAITS),
        _expect("stealthy_walk", "walk", forbidden=frozenset({"run", "crawl"})),
        _expect("zombie_walk", "walk", forbidden=_GAITS),
        _expect("long_zombie", "walk", forbidden=_GAITS),
        _expect("run", "run", forbidden=_GAITS),
        _expect("jog", "run", forbidden=_GAITS),
        _expect("jump", "jump", forbidden=_WALKING_KINDS),
        _expect("backflip", frozenset({"flip", "jump"}), forbidden=_WALKING_KINDS),
        _expect("sideflip", frozenset({"flip", "jump"})),
        _expect("cartwheel", "cartwheel", forbidden=_WALKING_KINDS),
        _expect("roll", "roll", forbidden=_WALKING_KINDS),
        _expect("spin", frozenset({"spin", "turn_left", "turn_right"}), forbidden=_WALKING_KINDS),
        _expect("dance_spin", frozenset({"spin", "turn_left", "turn_right"})),
        _expect("spinkick", _either_side("kick", "leg")),
        _expect("kick", _either_side("kick", "leg")),
        _expect("punch", _either_side("punch", "arm")),
        _expect("crawl", "crawl", forbidden=_WALKING_KINDS),
        _expect("getup_facedown", "get_up", forbidden=_WALKING_KINDS),
        _expect("getup_faceup", "get_up", forbidden=_WALKING_KINDS),
    )
}  # fmt: skip
_CMU = {
    "walking": _expect("walking", "walk", forbidden=frozenset({"run", "jump", "crawl"})),
    "running": _expect("running", "run", forbidden=frozenset({"walk_backward", "crawl", "jump"})),
    "jumping": _expect("jumping", "jump"),
    "soccer": _expect("soccer", _either_side("kick", "leg")),
    "directing_traffic": _expect("directing_traffic", _either_side("raise", "arm") | _either_side("wave", "arm")),
    "02_01": _expect("walking", "walk", forbidden=_GAITS),
    "02_02": _expect("walking", "walk", forbidden=_GAITS),
    "02_03": _expect("running", "run", forbidden=_GAITS),
    "02_04": _expect("jumping", "jump"),
    "02_05": _expect("punching", _either_side("punch", "arm")),
    "02_06": _expect("bending over", "bow"),
    "03_01": _expect("walking", "walk", forbidden=frozenset({"run"})),
    "03_02": _expect("walking", "walk", forbidden=frozenset({"run"})),
    "03_03": _expect("walking", "walk", forbidden=frozenset({"run"})),
    "03_04": _expect("walking", "walk", forbidden=frozenset({"run"})),
}
