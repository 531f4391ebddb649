"""Labelled synthetic human motion, made by rule: no recording behind it, exact labels, any body.

    motion = generate("walk_wave_left", 4.0, seed=1, body=BodyModel.load())

Gaits lay footprints and swing feet between them (`gait`), gestures move the rest (`gestures`), and `solver` turns both
into SMPL rotations. Everything comes from the seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import start_at_origin
from schemas.skeleton import CONTACT_POINTS, SMPL_JOINTS, mirror_order, swap_sides
from stages.synthesis import MIN_SECONDS, gestures
from stages.synthesis.controls import LEFT, RIGHT, Controls, Style, join, still
from stages.synthesis.gait import BACKWARD, RUN, SHUFFLE, WALK, travel
from stages.synthesis.solver import foot_shapes, solve

_SIDE_WORDS = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Label:
    """Something that is done in a motion. `part` is one of PARTS, or "body"; `side` is left, right, both or none."""

    kind: str
    side: str
    part: str
    start_s: float
    end_s: float
    text: str

    def mirrored(self) -> "Label":
        """The same for the other side."""
        words = [_SIDE_WORDS.get(word, word) for word in self.text.split(" ")]
        side, part = _SIDE_WORDS.get(self.side, self.side), swap_sides(self.part)
        return replace(self, side=side, part=part, text=" ".join(words))


@dataclass(frozen=True)
class LabelledMotion:
    """SMPL motion in the world (Y up, ground y = 0, metres) with what happens in it."""

    rotations: Float[Tensor, "T 24 3 3"]
    """Local rotation matrices, the root's its orientation in the world."""
    trans: Float[Tensor, "T 3"]
    """The pelvis is at rest_joints[pelvis] + trans."""
    betas: Float[Tensor, "10"]
    fps: float
    labels: tuple[Label, ...]
    contacts: Bool[Tensor, "T 4"]
    """Which of CONTACT_POINTS are planted."""

    def __len__(self) -> int:
        return len(self.trans)

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self) / self.fps


_Block = tuple[Controls, list[Label]]
_Builder = Callable[[float, float, Style, np.random.Generator], _Block]


def _gesture(gesture: gestures.Gesture, kind: str, side: str, part: str, text: str, *, both: bool = False) -> _Builder:
    def build(seconds: float, fps: float, style: Style, rng: np.random.Generator) -> _Block:
        controls = still(round(seconds * fps), style)
        return controls, _perform(controls, fps, style, rng, gesture, kind, side, part, text, both=both)

    return build


def _perform(
    controls: Controls,
    fps: float,
    style: Style,
    rng: np.random.Generator,
    gesture: gestures.Gesture,
    kind: str,
    side: str,
    part: str,
    text: str,
    *,
    both: bool = False,
) -> list[Label]:
    t = np.arange(len(controls)) / fps
    spans = gesture(controls, t, style, rng)
    if both:
        controls.arm[:, RIGHT], controls.hold[:, RIGHT] = controls.arm[:, LEFT], controls.hold[:, LEFT]
        controls.spine[:, 1:] = 0
    return [Label(kind, side, part, round(float(a), 3), round(float(min(b, t[-1])), 3), text) for a, b in spans]


def _gait(kind: str, text: str, *, side: str = "none", overlay: Callable[..., list[Label]] | None = None) -> _Builder:
    def build(seconds: float, fps: float, style: Style, rng: np.random.Generator) -> _Block:
        controls = _GAITS[kind](seconds, fps, style, rng)
        labels = [Label(kind, side, "body", 0.0, len(controls) / fps, text)]
        if overlay:
            labels += overlay(controls, fps, style, rng)
        return controls, labels

    return build


def _walk(seconds: float, fps: float, style: Style, rng: np.random.Generator, turn_rad: float = 0.0) -> Controls:
    speed = rng.uniform(1.0, 1.4) * style.tempo
    cadence = 1.85 * np.sqrt(speed / 1.25) * rng.uniform(0.95, 1.05)
    first = int(rng.integers(2))
    turn = turn_rad + rng.normal(0, 0.06)
    return travel(seconds, fps, style, WALK, velocity=(0.0, speed), cadence=cadence, turn_rad=turn, first=first)


def _run(seconds: float, fps: float, style: Style, rng: np.random.Generator) -> Controls:
    speed = rng.uniform(2.2, 3.2) * style.tempo
    cadence = 2.65 * (speed / 2.7) ** 0.35
    turn, first = rng.normal(0, 0.08), int(rng.integers(2))
    return travel(seconds, fps, style, RUN, velocity=(0.0, speed), cadence=cadence, turn_rad=turn, first=first)


def _walk_backward(seconds: float, fps: float, style: Style, rng: np.random.Generator) -> Controls:
    speed = rng.uniform(0.55, 0.85) * style.tempo
    first = int(rng.integers(2))
    return travel(seconds, fps, style, BACKWARD, velocity=(0.0, -speed), cadence=1.6 * style.tempo, first=first)


def _turn_left(seconds: float, fps: float, style: Style, rng: np.random.Generator) -> Controls:
    turn = min(rng.uniform(1.3, 3.1), 1.1 * seconds)
    return travel(seconds, fps, style, SHUFFLE, velocity=(0.0, 0.0), cadence=1.8 * style.tempo, turn_rad=turn)


def _walk_turn_left(seconds: float, fps: float, style: Style, rng: np.random.Generator) -> Controls:
    return _walk(seconds, fps, style, rng, turn_rad=min(rng.uniform(1.0, 1.9), 0.5 * seconds))


def _side_step_left(seconds: float, fps: float, style: Style, rng: np.random.Generator) -> Controls:
    wide = replace(style, gait_m=style.stance_m + 0.04)
    speed = rng.uniform(0.3, 0.45) * style.tempo
    return travel(seconds, fps, wide, SHUFFLE, velocity=(speed, 0.0), cadence=1.9 * style.tempo)


_GAITS: dict[str, Callable[[float, float, Style, np.random.Generator], Controls]] = {
    "walk": _walk, "run": _run, "walk_backward": _walk_backward, "turn": _turn_left, "walk_turn": _walk_turn_left,
    "side_step": _side_step_left,
}  # fmt: skip
_CYCLIC = ("walk", "run", "walk_backward", "side_step", "walk_wave")
"""May begin and end in the middle of going."""


def _waving(controls: Controls, fps: float, style: Style, rng: np.random.Generator) -> list[Label]:
    return _perform(controls, fps, style, rng, gestures.wave, "wave", "left", "left_arm", "waves with the left hand")


def _one_sided(name: str, builder: _Builder) -> dict[str, _Builder]:
    """The left version as written, and its mirror image."""

    def right(seconds: float, fps: float, style: Style, rng: np.random.Generator) -> _Block:
        controls, labels = builder(seconds, fps, style, rng)
        return controls.mirrored(), [label.mirrored() for label in labels]

    return {f"{name}_left": builder, f"{name}_right": right}


_BUILDERS: dict[str, _Builder] = {
    "stand": _gesture(gestures.shift_weight, "stand", "none", "body", "stands"),
    "walk": _gait("walk", "walks forward"),
    "run": _gait("run", "runs forward"),
    "walk_backward": _gait("walk_backward", "walks backward"),
    **_one_sided("turn", _gait("turn", "turns left on the spot", side="left")),
    **_one_sided("walk_turn", _gait("walk_turn", "walks in a curve to the left", side="left")),
    **_one_sided("side_step", _gait("side_step", "steps to the left", side="left")),
    **_one_sided("wave", _gesture(gestures.wave, "wave", "left", "left_arm", "waves with the left hand")),
    "wave_both": _gesture(gestures.wave, "wave", "both", "body", "waves with both hands", both=True),
    **_one_sided("raise", _gesture(gestures.raise_arm, "raise", "left", "left_arm", "raises the left arm")),
    "raise_both": _gesture(gestures.raise_arm, "raise", "both", "body", "raises both arms", both=True),
    **_one_sided("reach", _gesture(gestures.reach, "reach", "left", "left_arm", "reaches out with the left hand")),
    **_one_sided("punch", _gesture(gestures.punch, "punch", "left", "left_arm", "punches with the left fist")),
    **_one_sided("kick", _gesture(gestures.kick, "kick", "left", "left_leg", "kicks with the left foot")),
    "squat": _gesture(gestures.squat, "squat", "none", "body", "squats down and stands up"),
    "jump": _gesture(gestures.jump, "jump", "none", "body", "jumps up"),
    "bow": _gesture(gestures.bow, "bow", "none", "torso", "bows"),
    **_one_sided("walk_wave", _gait("walk", "walks forward", overlay=_waving)),
}
ACTIONS: tuple[str, ...] = tuple(_BUILDERS)
"""Everything that `generate` knows."""


def generate(
    action: str,
    seconds: float,
    seed: int,
    *,
    body: BodyModel,
    betas: Float[Tensor, "10"] | None = None,
    fps: float = 30.0,
) -> LabelledMotion:
    """One action, from x = z = 0 and facing +Z. Without `betas` the seed draws a body.

    Raises HumoError for an unknown action or less than `MIN_SECONDS`.
    """
    rng = np.random.default_rng([seed, _index(action)])
    _check_time(action, seconds)
    if not action.startswith(_CYCLIC) or rng.random() < 0.4 or action.startswith("walk_turn"):
        return sequence([(action, seconds)], seed, body=body, betas=betas, fps=fps)
    # Half of the gaits are cut out of a longer way, so that they are under way from the first frame.
    extra = 1.1
    return _assemble([(action, seconds + 2 * extra)], seed, body, betas, fps, trim_s=extra)


def sequence(
    actions: Sequence[tuple[str, float]],
    seed: int,
    *,
    body: BodyModel,
    betas: Float[Tensor, "10"] | None = None,
    fps: float = 30.0,
) -> LabelledMotion:
    """Several (action, seconds), one after another; each starts where and as the one before it came to stand."""
    return _assemble(actions, seed, body, betas, fps, trim_s=0.0)


def _index(action: str) -> int:
    if action not in ACTIONS:
        raise HumoError(f"action {action!r} is not known; use one of: {', '.join(ACTIONS)}")
    return ACTIONS.index(action)


def _check_time(action: str, seconds: float) -> None:
    if seconds < MIN_SECONDS:
        raise HumoError(f"{action}: {seconds} s is too short to do anything; give it at least {MIN_SECONDS} s")


def _assemble(
    actions: Sequence[tuple[str, float]],
    seed: int,
    body: BodyModel,
    betas: Float[Tensor, "10"] | None,
    fps: float,
    trim_s: float,
) -> LabelledMotion:
    rng = np.random.default_rng([seed, *(_index(name) for name, _ in actions)])
    style = Style.draw(rng)
    shape = torch.as_tensor(rng.normal(0, 0.7, 10).clip(-1.5, 1.5), dtype=torch.float32) if betas is None else betas
    blocks, labels, begin = [], [], 0.0
    for name, seconds in actions:
        _check_time(name, seconds)
        controls, said = _BUILDERS[name](seconds, fps, style, rng)
        blocks.append(controls)
        labels += [replace(s, start_s=s.start_s + begin, end_s=s.end_s + begin) for s in said]
        begin += len(controls) / fps
    controls = join(blocks)
    cut = round(trim_s * fps)
    rest, vertices, weights = _resting(body, shape)
    rotations, trans, contacts = solve(controls, style, rest, foot_shapes(rest, vertices, weights), fps, rng)
    keep = slice(cut, len(trans) - cut)
    shown_s = (len(trans) - 2 * cut) / fps
    kept = [
        replace(s, start_s=max(0.0, s.start_s - cut / fps), end_s=min(shown_s, s.end_s - cut / fps)) for s in labels
    ]
    motion = LabelledMotion(
        rotations=torch.as_tensor(rotations[keep].copy(), dtype=torch.float32),
        trans=torch.as_tensor(trans[keep].copy(), dtype=torch.float32),
        betas=shape.to(torch.float32),
        fps=fps,
        labels=tuple(s for s in kept if s.end_s > s.start_s),
        contacts=torch.as_tensor(contacts[keep].copy()),
    )
    pelvis_at_rest = torch.as_tensor(rest[0], dtype=torch.float32)
    turned, moved, _ = start_at_origin(motion.rotations, motion.trans, pelvis_at_rest)
    return replace(motion, rotations=turned, trans=moved)


def _resting(
    body: BodyModel, betas: Float[Tensor, "10"]
) -> tuple[Float[np.ndarray, "24 3"], Float[np.ndarray, "V 3"], Float[np.ndarray, "V 24"]]:
    with torch.no_grad():
        vertices = body.vertices(torch.eye(3).expand(24, 3, 3), betas, torch.zeros(3))
        rest = body.rest_joints(betas)
    return rest.double().numpy(), vertices.double().numpy(), np.asarray(body.skinning_weights)


def mirror(motion: LabelledMotion) -> LabelledMotion:
    """Left and right exchanged, in the motion and in what is said about it."""
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    rotations = flip @ motion.rotations[:, list(mirror_order(SMPL_JOINTS))] @ flip
    return replace(
        motion,
        rotations=rotations,
        trans=motion.trans * torch.tensor([-1.0, 1.0, 1.0]),
        labels=tuple(label.mirrored() for label in motion.labels),
        contacts=motion.contacts[:, list(mirror_order(CONTACT_POINTS))],
    )
