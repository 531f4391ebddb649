"""What the names of motion-capture files say is done in them, as far as caption rules can be held to it.

Bandai-Namco's files are `dataset-N_CONTENT_STYLE_NUMBER`, DeepMimic's `humanoid3d_CONTENT`, CMU's are either numbers of a
subject and a take, whose content its index tells, or `test_CONTENT_NUMBER`. A name says what was asked of an actor. What
the actor did besides it does not say, so little is forbidden: the other arm, the other direction, another gait.
"""

import re
from dataclasses import dataclass

from schemas.skeleton import swap_sides

_GAITS = frozenset({"walk", "walk_backward", "run", "crawl"})
_NOT_WALKED = frozenset({"walk", "walk_backward", "sidestep_left", "sidestep_right"})
_ARMS = ("left_arm", "right_arm")
_OF_ARMS = {"wave": ("wave",), "raise": ("raise", "lower"), "reach": ("reach",), "punch": ("punch",)}


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is to be found in a motion and said about it. A kind is that of an event: `walk` for one of the body, `walk>left`
    for one to a side, `raise:left_arm` for one of a part."""

    group: str
    """What motions are counted together as, the content in the file's name."""
    kinds: tuple[frozenset[str], ...]
    """Of each set one kind at least has to be found."""
    never: frozenset[str] = frozenset()
    """Kinds that must not be found."""
    arms: frozenset[str] = frozenset()
    """The arms that sentences about the body have to name, and no other; empty: any."""

    def mirrored(self) -> "Expected":
        """The same of the motion in a mirror, under the same group."""
        return Expected(
            group=self.group,
            kinds=tuple(frozenset(map(_mirrored, kinds)) for kinds in self.kinds),
            never=frozenset(map(_mirrored, self.never)),
            arms=frozenset(map(swap_sides, self.arms)),
        )


def expected_of(stem: str) -> Expected | None:
    """What the name of a file without its ending says; None where it is none of the known ones or says nothing."""
    bandai = re.fullmatch(r"dataset-\d_([a-z-]+)_[a-z-]+_\d+", stem)
    deepmimic = re.fullmatch(r"humanoid3d_([a-z_]+?)\d*", stem)
    cmu = re.fullmatch(r"(?:test|train)_([a-z_]+?)_\d+", stem)
    if bandai:
        return _of_arms(bandai[1]) or _BANDAI_NAMCO.get(bandai[1])
    if deepmimic:
        return _DEEPMIMIC.get(deepmimic[1])
    return _CMU.get(cmu[1] if cmu else stem)


def expected_of_action(action: str) -> Expected:
    """What is done in a made-up motion (see `stages.synthesis.motions`)."""
    stem, _, side = action.rpartition("_")
    if side not in ("left", "right", "both"):
        return _one(action, action, never=_GAITS)
    gaits = {"turn": (f"turn_{side}",), "side_step": (f"sidestep_{side}",), "walk_turn": ("walk", f"turn_{side}")}
    if stem in gaits:
        return _one(action, *gaits[stem])
    if stem == "kick":
        return _one(action, f"kick:{side}_leg", never=_GAITS)
    arms = _ARMS if side == "both" else (f"{side}_arm",)
    kinds = [f"{kind}:{arm}" for kind in _OF_ARMS[stem.removeprefix("walk_")] for arm in arms]
    return _one(action, *(["walk"] if stem.startswith("walk_") else []), *kinds)


def _of_arms(content: str) -> Expected | None:
    """`raise-up-left-hand`, `wave-both-hands` and their like."""
    found = re.fullmatch(r"(raise|wave)(?:-up)?-(left|right|both)-hands?", content)
    if found is None:
        return None
    kind, arms = found[1], _ARMS if found[2] == "both" else (f"{found[2]}_arm",)
    others = [arm for arm in _ARMS if arm not in arms]
    return Expected(
        group=content,
        kinds=tuple(frozenset({f"{kind}:{arm}"}) for arm in arms),
        never=frozenset(f"{kind}:{arm}" for kind in ("raise", "wave") for arm in others),
        arms=frozenset(arms),
    )


def _either(kind: str, limb: str) -> frozenset[str]:
    return frozenset({f"{kind}:left_{limb}", f"{kind}:right_{limb}"})


def _one(group: str, *kinds: str | frozenset[str], never: frozenset[str] = frozenset()) -> Expected:
    sets = tuple(frozenset({kind}) if isinstance(kind, str) else kind for kind in kinds)
    return Expected(group=group, kinds=sets, never=never - frozenset().union(*sets))


def _mirrored(kind: str) -> str:
    for side, other in (("left", "right"), ("right", "left")):
        if kind.endswith(side):
            return kind.removesuffix(side) + other
    one, colon, part = kind.partition(":")
    return one + colon + swap_sides(part)


_BANDAI_NAMCO = {
    one.group: one
    for one in (
        _one("walk", "walk", never=_GAITS | {"jump"}),
        _one("run", "run", never=frozenset({"walk_backward", "crawl", "jump"})),
        _one("dash", "run", never=frozenset({"walk_backward", "crawl", "jump"})),
        _one("walk-turn-left", "walk", "turn_left", never=frozenset({"turn_right", "run", "jump"})),
        _one("walk-turn-right", "walk", "turn_right", never=frozenset({"turn_left", "run", "jump"})),
        _one("walk-back", "walk_backward", never=_GAITS),
        _one("walk-left", frozenset({"sidestep_left", "walk>left"}), never=frozenset({"sidestep_right", "run"})),
        _one("walk-right", frozenset({"sidestep_right", "walk>right"}), never=frozenset({"sidestep_left", "run"})),
        _one("bow", "bow", never=frozenset({"squat", "run"})),
        _one("kick", _either("kick", "leg")),
        _one("punch", _either("punch", "arm")),
        _one("slash", _either("swing", "arm") | _either("lower", "arm")),
        _one("bye", _either("wave", "arm") | _either("raise", "arm")),
        _one("byebye", _either("wave", "arm")),
        _one("call", _either("wave", "arm") | _either("raise", "arm")),
        _one("respond", _either("raise", "arm")),
        _one("guide", _either("raise", "arm") | _either("reach", "arm") | _either("swing", "arm")),
    )
}  # fmt: skip
_DEEPMIMIC = {
    one.group: one
    for one in (
        _one("walk", "walk", never=_GAITS),
        _one("long_walk", "walk", never=_GAITS),
        _one("stealthy_walk", "walk", never=frozenset({"run", "crawl"})),
        _one("zombie_walk", "walk", never=_GAITS),
        _one("long_zombie", "walk", never=_GAITS),
        _one("run", "run", never=_GAITS),
        _one("jog", "run", never=_GAITS),
        _one("jump", "jump", never=_NOT_WALKED),
        _one("backflip", frozenset({"flip", "jump"}), never=_NOT_WALKED),
        _one("sideflip", frozenset({"flip", "jump"})),
        _one("cartwheel", "cartwheel", never=_NOT_WALKED),
        _one("roll", "roll", never=_NOT_WALKED),
        _one("spin", frozenset({"spin", "turn_left", "turn_right"}), never=_NOT_WALKED),
        _one("dance_spin", frozenset({"spin", "turn_left", "turn_right"})),
        _one("spinkick", _either("kick", "leg")),
        _one("kick", _either("kick", "leg")),
        _one("punch", _either("punch", "arm")),
        _one("crawl", "crawl", never=_NOT_WALKED),
        _one("getup_facedown", "get_up", never=_NOT_WALKED),
        _one("getup_faceup", "get_up", never=_NOT_WALKED),
    )
}  # fmt: skip
_CMU = {
    "walking": _one("walking", "walk", never=frozenset({"run", "jump", "crawl"})),
    "running": _one("running", "run", never=frozenset({"walk_backward", "crawl", "jump"})),
    "jumping": _one("jumping", "jump"),
    "soccer": _one("soccer", _either("kick", "leg")),
    "directing_traffic": _one("directing_traffic", _either("raise", "arm") | _either("wave", "arm")),
    "02_01": _one("walking", "walk", never=_GAITS),
    "02_02": _one("walking", "walk", never=_GAITS),
    "02_03": _one("running", "run", never=_GAITS),
    "02_04": _one("jumping", "jump"),
    "02_05": _one("punching", _either("punch", "arm")),
    "02_06": _one("bending over", "bow"),
    "03_01": _one("walking", "walk", never=frozenset({"run"})),
    "03_02": _one("walking", "walk", never=frozenset({"run"})),
    "03_03": _one("walking", "walk", never=frozenset({"run"})),
    "03_04": _one("walking", "walk", never=frozenset({"run"})),
}
