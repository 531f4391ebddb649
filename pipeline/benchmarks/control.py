"""humo bench control: whether generated motions do what they were told, by the events of the caption rules.

Wordings of each action are given for the left side; prompts about the right are their mirror images. A motion is right if it
has every event that the action implies and none that it rules out, nor the same event of the other side. The rules know nothing
of the model: they look at the body.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.benchmarks.captions import event_names
from pipeline.benchmarks.labelled_mocap import Expected, expected_of_action
from schemas.devices import torch_threads
from schemas.records import FPS, Captions, Motion, Provenance, ScoredMotion, Source
from stages.write_captions import WriteCaptions

DEFINITIONS = {
    "right": "share of motions with every event that the action implies, none that it rules out and none of the other side",
    "exchange": "share of prompts about a side of which both the prompt and its mirror image are right, with the same seed",
    "spread_m": "mean distance of joints, relative to the pelvis, between seeds for the same prompt; 0: no variety; null: one seed",
}
WORDINGS: dict[str, tuple[str, ...]] = {
    "raise_left": (
        "raise the left hand",
        "raise your left hand",
        "lift the left arm up",
        "a man puts his left hand up in the air",
        "someone holds their left arm high above the head",
        "the left arm goes up",
        "hand up, the left one",
        "she raises her left arm and lowers it again",
        "put up your left arm like in school",
        "lifting the left hand over the head",
    ),
    "walk_wave_left": (
        "walk while waving the left hand",
        "a person walks and waves with the left hand",
        "walk forward, waving your left hand",
        "someone waves with their left arm as they walk ahead",
        "he is walking and waving his left hand at the same time",
        "go forward and wave to someone with the left hand",
        "strolling along while greeting with a wave of the left hand",
        "a woman walks straight, her left hand waving",
        "keep walking and wave the left arm",
        "wave with the left hand while you walk",
    ),
    "wave_left": (
        "wave with the left hand",
        "wave your left hand",
        "a person waves hello with the left hand",
        "someone stands and waves with his left arm",
        "say goodbye by waving the left hand",
        "he waves at a friend using his left hand",
        "the left hand waves from side to side",
        "greet somebody: wave the left hand",
        "standing still, a woman waves her left hand",
        "waving with the left arm",
    ),
    "punch_left": (
        "punch with the left fist",
        "throw a punch with the left hand",
        "a person punches forward with the left arm",
        "someone hits with his left fist",
        "a boxer jabs with the left",
        "strike ahead with your left fist",
        "he punches the air using the left hand",
        "left hand punch",
        "do a few left punches",
        "punching with the left arm",
    ),
    "kick_left": (
        "kick with the left leg",
        "kick forward with your left foot",
        "a person kicks something with the left foot",
        "someone does a kick with his left leg",
        "the left leg kicks",
        "he kicks a ball with the left foot",
        "left foot kick",
        "a fighter kicks out with her left leg",
        "do a front kick, left leg",
        "kicking with the left foot",
    ),
    "turn_left": (
        "turn left",
        "turn to the left on the spot",
        "a person turns around to the left",
        "someone stands and turns left",
        "rotate your body to the left",
        "he turns to his left",
        "spin around to the left slowly",
        "make a left turn without walking away",
        "she turns left in place",
        "turning to the left",
    ),
    "side_step_left": (
        "step to the left",
        "sidestep to the left",
        "a person steps sideways to the left",
        "someone shuffles to the left",
        "move sideways to your left",
        "he takes several side steps to the left",
        "go left without turning",
        "she sidesteps left",
        "walk sideways to the left",
        "stepping sideways, to the left",
    ),
    "bow": (
        "bow",
        "take a bow",
        "a person bows",
        "someone bends forward at the waist and comes back up",
        "bow politely",
        "he bows to the audience",
        "greet with a bow",
        "a woman leans forward in a deep bow",
        "do a respectful bow",
        "bowing forward",
    ),
    "squat": (
        "squat",
        "do a squat",
        "a person squats down and stands up",
        "someone bends the knees and gets down low",
        "crouch down",
        "he does squats",
        "go down into a squat and come up again",
        "a woman is squatting",
        "do some knee bends",
        "squatting down",
    ),
    "jump": (
        "jump",
        "jump up and down",
        "a person jumps in place",
        "someone leaps up",
        "jump as high as you can",
        "he hops up with both feet",
        "do a jump",
        "a woman jumps into the air",
        "jumps on the spot",
        "jumping",
    ),
    "walk_backward": (
        "walk backward",
        "walk backwards",
        "a person walks backward",
        "someone steps back",
        "go back without turning around",
        "he moves backwards slowly",
        "take some steps backward",
        "a woman walks in reverse",
        "back up a few steps",
        "walking backward",
    ),
    "run": (
        "run",
        "run forward",
        "a person runs",
        "someone is jogging",
        "run straight ahead fast",
        "he runs forward",
        "go for a run",
        "a woman sprints ahead",
        "jog along",
        "running",
    ),
}
"""Action of `stages.synthesis.motions` -> wordings that no training text has."""


@dataclass(frozen=True, kw_only=True)
class _Trial:
    action: str
    wording: str
    mirrored: bool
    seed: int
    problem: str
    """Empty for a motion that is right."""


def bench(generator: Any, *, seeds: int = 3, wordings: int = 10, seconds: float = 4.0, guidance: float = 2.0,
          actions: Sequence[str] = ()) -> dict[str, Any]:  # fmt: skip
    """Generate `seeds` motions of each wording, both sides, and judge them."""
    from model.data.text import mirror_text

    trials: list[_Trial] = []
    spreads: dict[str, list[float]] = defaultdict(list)
    with torch_threads(1):
        writer = WriteCaptions()
        writer.setup()
        for action in actions or WORDINGS:
            expected = _without_lowering(expected_of_action(action))
            for wording in WORDINGS[action][:wordings]:
                for mirrored in (False, True) if mirror_text(wording) != wording else (False,):
                    wanted = expected.mirrored() if mirrored else expected
                    text = mirror_text(wording) if mirrored else wording
                    made = []
                    for seed in range(seeds):
                        motion = generator.generate(text, seconds=seconds, seed=seed, guidance=guidance)
                        made.append(generator.local_joints(motion.motion).numpy())
                        captions = captions_of(motion, writer)
                        trials.append(_Trial(action=action, wording=text, mirrored=mirrored, seed=seed,
                                             problem=problem_of(captions, wanted)))  # fmt: skip
                    spreads[action].extend(_distances(made))
    return {
        "definitions": DEFINITIONS,
        "seeds": seeds,
        "seconds": seconds,
        "guidance": guidance,
        **_summary(trials, spreads),
    }


def captions_of(motion: Any, writer: WriteCaptions) -> Captions:
    """What the rules say of a generated motion."""
    length_s = len(motion.motion.poses) / FPS
    origin = Provenance(source=Source(id="generated", uri="generated", kind="mocap"), sha256="0" * 64, person=0, start_s=0.0,
                        end_s=length_s, source_fps=float(FPS))  # fmt: skip
    arrays = {
        name: getattr(motion.motion, name) for name in ("poses", "trans", "betas", "contacts", "joint_confidence")
    }
    record = Motion(
        provenance=origin, footage=None, to_source=np.eye(4), body_model=motion.body_model, models={}, **arrays
    )
    (captioned,) = writer.run(ScoredMotion(motion=record, scores={}))
    return captioned.captions


def problem_of(captions: Captions, expected: Expected) -> str:
    """Why a motion is not what was asked for; empty if it is."""
    kinds = {name for one in captions.events for name in event_names(one.part, one.kind, one.side)}
    missing = [" or ".join(sorted(options)) for options in expected.kinds if not options & kinds]
    implied = frozenset().union(*expected.kinds)
    other_side = frozenset().union(*expected.mirrored().kinds) - implied
    wrong = sorted((expected.forbidden | _main(other_side)) & kinds)
    return "; ".join([f"no {one}" for one in missing] + [f"has {one}" for one in wrong])


def _without_lowering(expected: Expected) -> Expected:
    """An arm that was told to be raised may stay up."""
    return replace(expected, kinds=tuple(options for options in expected.kinds if _main(options)))


def _main(kinds: frozenset[str]) -> frozenset[str]:
    """Without lowering, which an arm may do at any time."""
    return frozenset(kind for kind in kinds if not kind.startswith("lower"))


def _distances(made: Sequence[np.ndarray]) -> Iterator[float]:
    for first, second in itertools.pairwise(made):
        yield float(np.linalg.norm(first - second, axis=-1).mean())


def _summary(trials: Sequence[_Trial], spreads: dict[str, list[float]]) -> dict[str, Any]:
    from model.data.text import mirror_text

    by_action: dict[str, list[_Trial]] = defaultdict(list)
    pairs: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for trial in trials:
        by_action[trial.action].append(trial)
        wording = mirror_text(trial.wording) if trial.mirrored else trial.wording
        pairs[wording, trial.seed].append(not trial.problem)
    exchanged = [all(both) for both in pairs.values() if len(both) == 2]
    return {
        "motions": len(trials),
        "right": float(np.mean([not one.problem for one in trials])),
        "exchange": float(np.mean(exchanged)) if exchanged else None,
        "exchange_prompts": len(exchanged),
        "actions": {
            action: {"right": float(np.mean([not one.problem for one in group])),
                     "spread_m": float(np.mean(spreads[action])) if spreads[action] else None}
            for action, group in by_action.items()
        },
        "wrong": [f"{one.wording} (seed {one.seed}): {one.problem}" for one in trials if one.problem],
    }  # fmt: skip


def bench_text(result: dict[str, Any]) -> str:
    """The report for people."""
    exchange = (
        "" if result["exchange"] is None else f", exchange {result['exchange']:.1%} of {result['exchange_prompts']}"
    )
    lines = [f"{result['motions']} motions: right {result['right']:.1%}{exchange}"]
    lines += [
        f"  {action:16} {row['right']:6.1%}" + ("" if row["spread_m"] is None else f"  spread {row['spread_m']:.3f} m")
        for action, row in result["actions"].items()
    ]
    return "\n".join([*lines, *(f"  {one}" for one in result["wrong"][:40])])
