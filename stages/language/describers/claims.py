"""What a sentence claims about a motion: which movement, of which limb, on which side, in which direction.

Only what is named plainly is read. What is negated, planned, likened or somebody else's, and sides that may be those of the
picture, are passed over: a claim that is not found costs nothing, one that was never made would cost a true sentence.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from stages.language.describers import lexicon
from stages.language.describers.lexicon import BREAKS, LIMBS, SIDES, VERBS

_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?'?|\d+|[,;:.!?]")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One movement that a sentence names."""

    action: str
    """As in `lexicon.ACTIONS`, or `still`."""
    words: str
    """The sentence's own, from the verb on."""
    limb: str = ""
    """arm, leg, torso, or nothing: the whole body."""
    sides: tuple[str, ...] = ()
    """Which of the two limbs, each of them; none: either will do."""
    direction: str = ""
    """left, right, forward or backward."""
    soft: bool = False
    """Called small, or perhaps only how a limb is held: that the rules saw nothing does not contradict it."""


@dataclass(frozen=True)
class _Limb:
    limb: str
    sides: tuple[str, ...]
    at: int


def claims_of(sentence: str, part: str = "body") -> list[Claim]:
    """The claims of a sentence in its order; in a sentence about a part, that part is meant where no limb is named."""
    tokens = _TOKEN.findall(sentence.lower().replace("’", "'"))
    verbs = [at for at in range(len(tokens)) if _is_verb(tokens, at)]
    picture_sides = not lexicon.VIEWERS.isdisjoint(tokens)
    subject = _part_limb(part)
    found = []
    for number, at in enumerate(verbs):
        clause = max((i + 1 for i in range(at) if tokens[i] in BREAKS), default=0)
        before = verbs[number - 1] + 1 if number else 0
        lead = _limbs(tokens, clause, at) if clause >= before or not number else []
        if not lead and not number and not lexicon.BY.isdisjoint(tokens[:at]):
            lead = _limbs(tokens, 0, at)  # "With the left hand, the person waves."
        named = lead[-1] if lead and lexicon.BY.isdisjoint(tokens[clause : lead[-1].at]) else None
        subject = named or (None if _somebody(tokens[max(clause, before) : at]) else subject)
        until = _end(tokens, at, verbs[number + 1 :])
        near = next((i for i in range(at + 1, until) if tokens[i] in BREAKS), until)
        claim = _claim(_Said(tokens=tokens, at=at, until=until, near=near, lead=lead, subject=subject))
        if claim is not None and not _passed_over(tokens, clause, at):
            found.append(_without_sides(claim) if picture_sides else claim)
    return found


def _end(tokens: list[str], at: int, later: list[int]) -> int:
    """Where the words that belong to a verb end: at the next verb, or before the limb that does what that one says."""
    if not later:
        return len(tokens)
    breaks = [i for i in range(at + 1, later[0]) if tokens[i] in BREAKS]
    return breaks[-1] if breaks and _limbs(tokens, breaks[-1], later[0]) else later[0]


def _somebody(words: list[str]) -> bool:
    """Whether words before a verb name a subject, rather than only say when and how."""
    return any(word not in lexicon.NO_SUBJECT and not word.endswith("ly") for word in words if word.isalpha())


@dataclass(frozen=True, kw_only=True)
class _Said:
    """A verb with the words that belong to it."""

    tokens: list[str]
    at: int
    until: int
    near: int
    """Where its own clause ends, at `until` at the latest."""
    lead: list[_Limb]
    """Limbs before the verb, in its clause."""
    subject: _Limb | None
    """The limb that the sentence has been about, if it is one."""

    @property
    def verb(self) -> str:
        return self.tokens[self.at]

    @property
    def after(self) -> list[str]:
        return self.tokens[self.at + 1 : self.until]

    @property
    def words(self) -> str:
        last = max(i for i in range(self.at, self.near) if self.tokens[i] not in BREAKS)
        return " ".join(self.tokens[self.at : last + 1])

    @property
    def named(self) -> list[_Limb]:
        return _limbs(self.tokens, self.at + 1, self.until) or self.lead

    @property
    def limbs(self) -> list[_Limb]:
        return self.named or ([self.subject] if self.subject is not None else [])

    @property
    def direction(self) -> str:
        return _direction(self.tokens, self.at, self.until)

    @property
    def soft(self) -> bool:
        before = self.tokens[max(0, self.at - 2) : self.at]
        held = self.verb in lexicon.PARTICIPLES and before[-1:] not in (["has"], ["have"], ["had"])
        return held or not lexicon.HEDGES.isdisjoint(self.after + before)


def _claim(said: _Said) -> Claim | None:
    """What a verb claims, if it claims anything that the rules can tell."""
    action, after = _action(said), said.after
    if action == "still":
        limbs = said.limbs
        return Claim(action=action, words=said.words, limb=limbs[0].limb if limbs else "", sides=_sides(limbs))
    if action in ("turn", "spin"):
        return _turning(said, action)
    if action in lexicon.NEED_LIMB:
        return _of_a_limb(said, action)
    if action == "step":
        legs = [one for one in said.limbs if one.limb == "leg"]
        return Claim(action=action, words=said.words, limb="leg", sides=_sides(legs), soft=said.soft) if legs else None
    if action == "lean" and (not said.direction or any(one.limb == "head" for one in said.limbs[:1])):
        return None
    in_place = not {"place", "spot", "treadmill"}.isdisjoint(after)
    if not action or (action in ("walk", "run") and in_place) or (action == "run" and _has_object(said)):
        return None
    return Claim(action=action, words=said.words, direction=said.direction, soft=said.soft)


def _action(said: _Said) -> str:
    """The verb's action, as the words after it make it more exact; empty where it claims nothing."""
    action, after = VERBS[said.verb], said.after
    if action == "carry":
        return "raise" if "up" in after else "lower" if "down" in after else ""
    if action == "keep":
        still = said.verb == "rest" or not lexicon.STILL.isdisjoint(after)
        in_place = "in place" in " ".join(after) and said.verb not in lexicon.STANDING
        return "still" if still or in_place else ""  # Who stands in place may well wave.
    if action in ("step", "move") and not said.named and not {"sideways", "sidewards"}.isdisjoint(after):
        return "sidestep"
    if action == "move":
        way = " ".join(after)
        if said.tokens[max(0, said.at - 1)] == "hardly":
            return "still"
        return "wave" if "side to side" in way else "circle" if "circle" in way else "move"
    if action == "bend" and all(one.limb == "torso" for one in said.limbs):
        return "lean" if said.direction in SIDES else "bow"
    return action


def _turning(said: _Said, action: str) -> Claim | None:
    """Of the person or the trunk, or of a limb that is turned."""
    limbs = _limbs(said.tokens, said.at + 1, said.near) or said.lead or ([said.subject] if said.subject else [])
    if limbs and limbs[0].limb in ("arm", "leg"):
        return _of_a_limb(said, "circle" if said.verb.startswith("rotat") and limbs[0].limb == "arm" else "move")
    if (limbs and limbs[0].limb == "head") or _has_object(said):
        return None
    if action == "turn" and not {"around", "round"}.isdisjoint(said.after[:2]):
        action = "spin"
    return Claim(action=action, words=said.words, direction=said.direction, soft=said.soft)


def _of_a_limb(said: _Said, action: str) -> Claim | None:
    own = lexicon.OWN_LIMB.get(action, "")
    limbs = [one for one in said.limbs if one.limb in ("arm", "leg") and own in ("", one.limb)]
    if not limbs:
        if not own or said.verb in lexicon.LIMB_NAMED:
            return None
        sides = _bare_side(said.tokens, said.at + 1, said.until)
        return Claim(action=action, words=said.words, limb=own, sides=sides, soft=said.soft)
    same = [one for one in limbs if one.limb == limbs[0].limb]
    return Claim(action=action, words=said.words, limb=same[0].limb, sides=_sides(same), soft=said.soft)


def _is_verb(tokens: list[str], at: int) -> bool:
    word = tokens[at]
    if word == "rest":
        return tokens[max(0, at - 2) : at] in (["is", "at"], ["are", "at"])
    if word not in VERBS:
        return False
    after = tokens[at + 1] if at + 1 < len(tokens) else ""
    before = tokens[at - 1] if at else ""
    if word.endswith("ing") and after in lexicon.NOUNS_AFTER:
        return False
    if word in lexicon.PARTICIPLES or word in ("lower", "set"):
        # "his raised left arm", "the lower leg", "a set of": an adjective or a noun before what it belongs to.
        if before in ("his", "her", "their", "its", "the", "a", "an", "with", "left", "right", "of"):
            return False
        # "the right arm is bent", "stays lowered": how it is held.
        held = before in lexicon.HELD or before in LIMBS
        return not held or (word in lexicon.UP and before not in lexicon.KEPT)
    return not (before in ("of", "in") and word in ("reach", "turns", "turn", "step", "steps", "bow"))


def _passed_over(tokens: list[str], clause: int, at: int) -> bool:
    """Negated, not yet or never done, or done by somebody else."""
    if clause and tokens[clause - 1] in ("who", "which"):  # "another woman who is sitting"
        clause = max((i + 1 for i in range(clause - 1) if tokens[i] in BREAKS), default=0)
    ahead = tokens[clause:at]
    near = ahead[-5:]
    if any(word.endswith("n't") for word in ahead) or not lexicon.NO.isdisjoint(near):
        return True
    if "rest of" in " ".join(ahead) or any(one in SIDES and other == "one" for one, other in pairwise(ahead)):
        return True
    if at >= 2 and tokens[at - 2] == "going" and tokens[at - 1] == "to":
        return True
    if not lexicon.PERHAPS.isdisjoint(near) or tokens[max(0, at - 3) : at].count("if"):
        return True
    other = {"person", "man", "woman", "player", "people", "one", "side"}
    followed = any(word == "other" and after in other for word, after in pairwise(ahead))
    return followed or not lexicon.OTHERS.isdisjoint(ahead)


def _limbs(tokens: list[str], first: int, last: int) -> list[_Limb]:
    """Limb phrases with their sides, in order."""
    found = []
    for at in range(first, last):
        if tokens[at] == "body" and tokens[at - 1] == "upper":
            found.append(_Limb("torso", (), at))
        limb = LIMBS.get(tokens[at], "")
        if not limb:
            continue
        back = at - 1
        sides: set[str] = set()
        loose = False
        while back >= first and (tokens[back] in lexicon.BETWEEN or tokens[back] in SIDES):
            # A limb of its own before `and` has its own side: "the left arm and both legs".
            if tokens[back] == "and" and (back == first or LIMBS.get(tokens[back - 1])):
                break
            if tokens[back] in SIDES and not _of_the_picture(tokens, back):
                sides.add(tokens[back])
            sides |= set(SIDES) if tokens[back] == "both" else set()
            loose |= tokens[back] == "or"
            back -= 1
        found.append(_Limb(limb, () if loose else tuple(sorted(sides)), at))
    return found


def _sides(limbs: list[_Limb]) -> tuple[str, ...]:
    return tuple(sorted({side for one in limbs for side in one.sides})) if all(one.sides for one in limbs) else ()


def _bare_side(tokens: list[str], first: int, last: int) -> tuple[str, ...]:
    """`waves with his left`, or `a left punch`."""
    if first >= 2 and tokens[first - 2] in SIDES:
        return (tokens[first - 2],)
    for at in range(first + 1, last):
        near = tokens[max(first, at - 2) : at]
        if tokens[at] in SIDES and near and near[0] == "with" and near[-1] in ("his", "her", "their", "the"):
            return (tokens[at],)
    return ()


def _direction(tokens: list[str], at: int, until: int) -> str:
    """Where to, as the sentence says it: the person's left or right, forward or backward."""
    if at and tokens[at - 1] in SIDES:
        return tokens[at - 1]  # "a left turn"
    for i in range(at + 1, until):
        word, before = tokens[i], tokens[i - 1]
        after = tokens[i + 1] if i + 1 < len(tokens) else ""
        if word in ("leftward", "leftwards", "rightward", "rightwards"):
            return word[: -len("wards") if word.endswith("s") else -len("ward")]
        if word in SIDES:
            own = before in ("the", "his", "her", "their", "its") or before.endswith("'s")
            to = not {"to", "towards", "toward"}.isdisjoint(tokens[max(at + 1, i - 3 if own else i - 1) : i])
            bare = before == tokens[at] or before in lexicon.ADVERBS
            ahead = tokens[i + 1 : i + 3]
            if (to or bare) and not any(LIMBS.get(one) for one in ahead) and not _of_the_picture(tokens, i):
                if "from" in tokens[at:i] or after in lexicon.NOT_THE_SIDE:
                    continue
                return word
        if word in ("backward", "backwards"):
            return "backward"
        if word in ("forward", "forwards", "ahead"):
            return "forward"
    return ""


def _of_the_picture(tokens: list[str], at: int) -> bool:
    """`left of the court`, `the left side of the frame`, `camera left`."""
    after = tokens[at + 1 : at + 3]
    named = bool(after) and after[0] in ("side", "edge", "half", "corner", "part", "end") and after[1:] == ["of"]
    return named or after[:1] == ["of"] or (at > 0 and tokens[at - 1] in ("camera", "screen", "stage", "frame"))


def _has_object(said: _Said) -> bool:
    """`turns the page`: not the person turns."""
    after = said.tokens[said.at + 1 : said.at + 3]
    if len(after) < 2 or after[0] not in ("the", "a", "an", "his", "her", "their", "its", "off", "on"):
        return False
    return after[1] not in ("body", "upper", "whole", "torso", "shoulders", "hips", "trunk", "waist", "spot")


def _part_limb(part: str) -> _Limb | None:
    side, _, limb = part.rpartition("_")
    return None if part == "body" else _Limb(limb, (side,) if side else (), -1)


def _without_sides(claim: Claim) -> Claim:
    direction = "" if claim.direction in SIDES else claim.direction
    return Claim(
        action=claim.action, words=claim.words, limb=claim.limb, sides=(), direction=direction, soft=claim.soft
    )
