"""Sentences about a part from its events in order of time."""

import re
from collections.abc import Sequence
from random import Random

from schemas.ids import digest
from stages.language.rules.movements import Movement
from stages.language.rules.phrases import OUT_OF_VIEW, in_sequence, number, phrase, times
from stages.language.rules.relations import action_key, all_same_action, same_action, time_order

_MAX_CLAUSES = 8


def part_sentences(part: str, events: Sequence[Movement], seed: str) -> tuple[str, ...]:
    """One or two sentences about a part: one with the part as the subject, one with the person."""
    name = part.replace("_", " ")
    # Both sides draw alike, so that mirroring a motion mirrors its text.
    rng = Random(digest("part", seed, part.split("_")[-1]))
    own = [event for event in events if event.part == part]
    if own[0].text == OUT_OF_VIEW:
        return (f"The {name} {OUT_OF_VIEW}.",)
    runs = _runs(own)
    as_part = in_sequence([_part_words(run, rng) for run in runs], rng)
    as_person = in_sequence(_with_pronouns([_person_words(run, rng) for run in runs], name.split(" ")[0]), rng)
    return tuple(dict.fromkeys((f"The {name} {as_part}.", f"The person {as_person}.")))


def _runs(events: Sequence[Movement]) -> list[list[Movement]]:
    """Runs of consecutive events of one kind; repeated pairs (bend, straighten, bend, straighten) form a run too."""
    ordered = sorted(events, key=time_order)
    runs: list[list[Movement]] = []
    for event in ordered:
        if runs and same_action(runs[-1][0], event) and len({action_key(e) for e in runs[-1]}) == 1:
            runs[-1].append(event)
        else:
            runs.append([event])
    paired: list[list[Movement]] = []
    i = 0
    while i < len(runs):
        pair = runs[i : i + 2]
        repeats = 1
        while len(pair) == 2 and [action_key(r[0]) for r in runs[i + 2 * repeats : i + 2 * repeats + 2]] == [
            action_key(r[0]) for r in pair
        ]:
            repeats += 1
        if repeats > 1:
            paired.append([event for run in runs[i : i + 2 * repeats] for event in run[:1]])
            i += 2 * repeats
            if i < len(runs) and action_key(runs[i][0]) == action_key(pair[0][0]) and pair[0][0].part == "torso":
                i += 1
        else:
            paired.append(runs[i])
            i += 1
    return paired[:_MAX_CLAUSES]


def _with_pronouns(items: list[str], side: str) -> list[str]:
    """Repeated mentions of a limb replaced by `it`: `bends the left leg and straightens it`."""
    result, last = [], ""
    for item in items:
        pieces = []
        for piece in item.split(" and "):
            match = re.search(rf"the {side} [a-z]+", piece)
            limb = match.group() if match else ""
            repeated = limb and limb == last and f"with {limb}" not in piece
            pieces.append(piece.replace(limb, "it") if repeated else piece)
            last = limb
        result.append(" and ".join(pieces))
    return result


def _part_words(run: list[Movement], rng: Random) -> str:
    first = run[0]
    if first.kind == "step" and len(run) > 1 and all_same_action(run):
        return f"takes {number(len(run))} steps"
    return _run_words(run, rng, as_part=True)


def _person_words(run: list[Movement], rng: Random) -> str:
    first = run[0]
    if first.kind == "step" and len(run) > 1 and all_same_action(run):
        return f"takes {number(len(run))} steps with the {first.side} foot"
    return _run_words(run, rng, as_part=False)


def _run_words(run: list[Movement], rng: Random, *, as_part: bool) -> str:
    if all_same_action(run):
        words = phrase(run[0], rng, as_part=as_part)
        uncounted = (run[0].kind == "swing" and run[0].part != "torso") or (
            run[0].kind == "extend" and run[0].part == "torso"
        )
        return words if uncounted else f"{words} {times(len(run))}".strip()
    if run[0].part == "torso" and {run[0].side, run[1].side} == {"left", "right"} and run[0].kind == run[1].kind:
        return f"{'leans' if run[0].kind == 'bend' else 'twists'} from side to side {times(len(run) // 2)}".strip()
    one, other = (phrase(event, rng, as_part=as_part) for event in run[:2])
    return f"{one} and {other} {times(len(run) // 2)}".strip()
