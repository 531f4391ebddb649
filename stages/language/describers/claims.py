"""Extracts the claims of a sentence about a motion: movement, limb, side and direction.

Only explicit statements are read. Negated, planned or likened movements, those of other people, and sides that may be those
of the image are ignored: a missed claim costs nothing, a false one would reject a true sentence.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from stages.language.describers import lexicon
from stages.language.describers.lexicon import CLAUSE_BREAKS, LIMBS, SIDES, VERBS

_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?'?|\d+|[,;:.!?]")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One movement that a sentence names."""

    action: str
    """As in `lexicon.ACTIONS`, or `still`."""
    words: str
    """The words of the sentence from the verb on."""
    limb: str = ""
    """arm, leg or torso; empty: the whole body."""
    sides: tuple[str, ...] = ()
    """Sides of the limb, all of which are claimed; empty: either."""
    direction: str = ""
    """left, right, forward, backward or empty."""
    soft: bool = False
    """Described as small, or possibly only a posture: a missing event does not contradict it."""


@dataclass(frozen=True)
class _Limb:
    limb: str
    sides: tuple[str, ...]
    index: int


def claims_of(sentence: str, part: str = "body") -> list[Claim]:
    """The claims of a sentence in order; in a sentence about a part, the part is the limb where none is named."""
    tokens = _TOKEN.findall(sentence.lower().replace("’", "'"))
    verbs = [index for index in range(len(tokens)) if _is_verb(tokens, index)]
    image_sides = not lexicon.VIEWER_WORDS.isdisjoint(tokens)
    subject = _part_limb(part)
    claims = []
    for number, verb in enumerate(verbs):
        clause = max((i + 1 for i in range(verb) if tokens[i] in CLAUSE_BREAKS), default=0)
        after_previous = verbs[number - 1] + 1 if number else 0
        preceding = _limbs(tokens, clause, verb) if clause >= after_previous or not number else []
        if not preceding and not number and not lexicon.PREPOSITIONS.isdisjoint(tokens[:verb]):
            preceding = _limbs(tokens, 0, verb)  # "With the left hand, the person waves."
        is_subject = preceding and lexicon.PREPOSITIONS.isdisjoint(tokens[clause : preceding[-1].index])
        named = preceding[-1] if is_subject else None
        subject = named or (None if _names_subject(tokens[max(clause, after_previous) : verb]) else subject)
        end = _phrase_end(tokens, verb, verbs[number + 1 :])
        clause_end = next((i for i in range(verb + 1, end) if tokens[i] in CLAUSE_BREAKS), end)
        claim = _claim(
            _VerbPhrase(tokens=tokens, index=verb, end=end, clause_end=clause_end, preceding=preceding, subject=subject)
        )
        if claim is not None and not _is_ignored(tokens, clause, verb):
            claims.append(_without_sides(claim) if image_sides else claim)
    return claims


def _phrase_end(tokens: list[str], verb: int, later_verbs: list[int]) -> int:
    """End of a verb's phrase: at the next verb, or before the limb that is the next verb's subject."""
    if not later_verbs:
        return len(tokens)
    breaks = [i for i in range(verb + 1, later_verbs[0]) if tokens[i] in CLAUSE_BREAKS]
    return breaks[-1] if breaks and _limbs(tokens, breaks[-1], later_verbs[0]) else later_verbs[0]


def _names_subject(words: list[str]) -> bool:
    """Whether words before a verb name a subject, rather than only a time or a manner."""
    return any(word not in lexicon.NON_SUBJECTS and not word.endswith("ly") for word in words if word.isalpha())


@dataclass(frozen=True, kw_only=True)
class _VerbPhrase:
    """A verb with the words that belong to it."""

    tokens: list[str]
    index: int
    """Of the verb."""
    end: int
    clause_end: int
    """End of the verb's own clause, not after `end`."""
    preceding: list[_Limb]
    """Limbs before the verb in its clause."""
    subject: _Limb | None
    """The limb that is the current subject, if any."""

    @property
    def verb(self) -> str:
        return self.tokens[self.index]

    @property
    def after(self) -> list[str]:
        return self.tokens[self.index + 1 : self.end]

    @property
    def words(self) -> str:
        last = max(i for i in range(self.index, self.clause_end) if self.tokens[i] not in CLAUSE_BREAKS)
        return " ".join(self.tokens[self.index : last + 1])

    @property
    def named_limbs(self) -> list[_Limb]:
        return _limbs(self.tokens, self.index + 1, self.end) or self.preceding

    @property
    def limbs(self) -> list[_Limb]:
        return self.named_limbs or ([self.subject] if self.subject is not None else [])

    @property
    def direction(self) -> str:
        return _direction(self.tokens, self.index, self.end)

    @property
    def soft(self) -> bool:
        before = self.tokens[max(0, self.index - 2) : self.index]
        posture = self.verb in lexicon.PARTICIPLES and before[-1:] not in (["has"], ["have"], ["had"])
        return posture or not lexicon.HEDGES.isdisjoint(self.after + before)


def _claim(phrase: _VerbPhrase) -> Claim | None:
    """The claim of a verb, if the rules can check it."""
    action, after = _action(phrase), phrase.after
    if action == "still":
        limbs = phrase.limbs
        return Claim(action=action, words=phrase.words, limb=limbs[0].limb if limbs else "", sides=_sides(limbs))
    if action in ("turn", "spin"):
        return _turn_claim(phrase, action)
    if action in lexicon.LIMB_ACTIONS:
        return _limb_claim(phrase, action)
    if action == "step":
        legs = [limb for limb in phrase.limbs if limb.limb == "leg"]
        if not legs:
            return None
        return Claim(action=action, words=phrase.words, limb="leg", sides=_sides(legs), soft=phrase.soft)
    if action == "lean" and (not phrase.direction or any(limb.limb == "head" for limb in phrase.limbs[:1])):
        return None
    in_place = not {"place", "spot", "treadmill"}.isdisjoint(after)
    if not action or (action in ("walk", "run") and in_place) or (action == "run" and _has_object(phrase)):
        return None
    return Claim(action=action, words=phrase.words, direction=phrase.direction, soft=phrase.soft)


def _action(phrase: _VerbPhrase) -> str:
    """The verb's action, refined by the words after it; empty if it claims nothing."""
    action, after = VERBS[phrase.verb], phrase.after
    if action == "carry":
        return "raise" if "up" in after else "lower" if "down" in after else ""
    if action == "keep":
        still = phrase.verb == "rest" or not lexicon.STILLNESS.isdisjoint(after)
        in_place = "in place" in " ".join(after) and phrase.verb not in lexicon.STAND_VERBS
        return "still" if still or in_place else ""  # A person who stands in place may still wave.
    if action in ("step", "move") and not phrase.named_limbs and not {"sideways", "sidewards"}.isdisjoint(after):
        return "sidestep"
    if action == "move":
        path = " ".join(after)
        if phrase.tokens[max(0, phrase.index - 1)] == "hardly":
            return "still"
        return "wave" if "side to side" in path else "circle" if "circle" in path else "move"
    if action == "bend" and all(limb.limb == "torso" for limb in phrase.limbs):
        return "lean" if phrase.direction in SIDES else "bow"
    return action


def _turn_claim(phrase: _VerbPhrase, action: str) -> Claim | None:
    """A turn of the person or the trunk, or the rotation of a limb."""
    limbs = _limbs(phrase.tokens, phrase.index + 1, phrase.clause_end) or phrase.preceding
    limbs = limbs or ([phrase.subject] if phrase.subject else [])
    if limbs and limbs[0].limb in ("arm", "leg"):
        circles = phrase.verb.startswith("rotat") and limbs[0].limb == "arm"
        return _limb_claim(phrase, "circle" if circles else "move")
    if (limbs and limbs[0].limb == "head") or _has_object(phrase):
        return None
    if action == "turn" and not {"around", "round"}.isdisjoint(phrase.after[:2]):
        action = "spin"
    return Claim(action=action, words=phrase.words, direction=phrase.direction, soft=phrase.soft)


def _limb_claim(phrase: _VerbPhrase, action: str) -> Claim | None:
    default = lexicon.DEFAULT_LIMB.get(action, "")
    limbs = [limb for limb in phrase.limbs if limb.limb in ("arm", "leg") and default in ("", limb.limb)]
    if not limbs:
        if not default or phrase.verb in lexicon.NAMED_LIMB_VERBS:
            return None
        sides = _bare_side(phrase.tokens, phrase.index + 1, phrase.end)
        return Claim(action=action, words=phrase.words, limb=default, sides=sides, soft=phrase.soft)
    same = [limb for limb in limbs if limb.limb == limbs[0].limb]
    return Claim(action=action, words=phrase.words, limb=same[0].limb, sides=_sides(same), soft=phrase.soft)


def _is_verb(tokens: list[str], index: int) -> bool:
    word = tokens[index]
    if word == "rest":
        return tokens[max(0, index - 2) : index] in (["is", "at"], ["are", "at"])
    if word not in VERBS:
        return False
    after = tokens[index + 1] if index + 1 < len(tokens) else ""
    before = tokens[index - 1] if index else ""
    if word.endswith("ing") and after in lexicon.GERUND_NOUNS:
        return False
    if word in lexicon.PARTICIPLES or word in ("lower", "set"):
        # "his raised left arm", "the lower leg", "a set of": an adjective or a noun, not a verb.
        if before in ("his", "her", "their", "its", "the", "a", "an", "with", "left", "right", "of"):
            return False
        # "the right arm is bent", "stays lowered": a posture.
        posture = before in lexicon.STATE_VERBS or before in LIMBS
        return not posture or (word in lexicon.RAISED and before not in lexicon.KEEP_VERBS)
    return not (before in ("of", "in") and word in ("reach", "turns", "turn", "step", "steps", "bow"))


def _is_ignored(tokens: list[str], clause: int, verb: int) -> bool:
    """Whether a verb is negated, not factual, or has another subject than the person described."""
    if clause and tokens[clause - 1] in ("who", "which"):  # "another woman who is sitting"
        clause = max((i + 1 for i in range(clause - 1) if tokens[i] in CLAUSE_BREAKS), default=0)
    before = tokens[clause:verb]
    near = before[-5:]
    if any(word.endswith("n't") for word in before) or not lexicon.NEGATIONS.isdisjoint(near):
        return True
    if "rest of" in " ".join(before) or any(side in SIDES and word == "one" for side, word in pairwise(before)):
        return True
    if verb >= 2 and tokens[verb - 2] == "going" and tokens[verb - 1] == "to":
        return True
    if not lexicon.NON_FACTUAL.isdisjoint(near) or tokens[max(0, verb - 3) : verb].count("if"):
        return True
    nouns = {"person", "man", "woman", "player", "people", "one", "side"}
    other_person = any(word == "other" and after in nouns for word, after in pairwise(before))
    return other_person or not lexicon.OTHER_SUBJECTS.isdisjoint(before)


def _limbs(tokens: list[str], first: int, last: int) -> list[_Limb]:
    """Limbs named in a range of tokens with their sides, in order."""
    found = []
    for index in range(first, last):
        if tokens[index] == "body" and tokens[index - 1] == "upper":
            found.append(_Limb("torso", (), index))
        limb = LIMBS.get(tokens[index], "")
        if not limb:
            continue
        back = index - 1
        sides: set[str] = set()
        either = False
        while back >= first and (tokens[back] in lexicon.LIMB_MODIFIERS or tokens[back] in SIDES):
            # A limb before `and` has its own side: "the left arm and both legs".
            if tokens[back] == "and" and (back == first or LIMBS.get(tokens[back - 1])):
                break
            if tokens[back] in SIDES and not _of_the_image(tokens, back):
                sides.add(tokens[back])
            sides |= set(SIDES) if tokens[back] == "both" else set()
            either |= tokens[back] == "or"
            back -= 1
        found.append(_Limb(limb, () if either else tuple(sorted(sides)), index))
    return found


def _sides(limbs: list[_Limb]) -> tuple[str, ...]:
    return tuple(sorted({side for limb in limbs for side in limb.sides})) if all(limb.sides for limb in limbs) else ()


def _bare_side(tokens: list[str], first: int, last: int) -> tuple[str, ...]:
    """Side without a limb: `waves with his left`, `a left punch`."""
    if first >= 2 and tokens[first - 2] in SIDES:
        return (tokens[first - 2],)
    for index in range(first + 1, last):
        before = tokens[max(first, index - 2) : index]
        if tokens[index] in SIDES and before and before[0] == "with" and before[-1] in ("his", "her", "their", "the"):
            return (tokens[index],)
    return ()


def _direction(tokens: list[str], verb: int, end: int) -> str:
    """The direction of a movement: the person's left or right, forward or backward."""
    if verb and tokens[verb - 1] in SIDES:
        return tokens[verb - 1]  # "a left turn"
    for i in range(verb + 1, end):
        word, before = tokens[i], tokens[i - 1]
        after = tokens[i + 1] if i + 1 < len(tokens) else ""
        if word in ("leftward", "leftwards", "rightward", "rightwards"):
            return word[: -len("wards") if word.endswith("s") else -len("ward")]
        if word in SIDES:
            possessive = before in ("the", "his", "her", "their", "its") or before.endswith("'s")
            to = not {"to", "towards", "toward"}.isdisjoint(tokens[max(verb + 1, i - 3 if possessive else i - 1) : i])
            bare = before == tokens[verb] or before in lexicon.DIRECTION_ADVERBS
            following = tokens[i + 1 : i + 3]
            if (to or bare) and not any(LIMBS.get(word) for word in following) and not _of_the_image(tokens, i):
                if "from" in tokens[verb:i] or after in lexicon.NON_SIDE_FOLLOWERS:
                    continue
                return word
        if word in ("backward", "backwards"):
            return "backward"
        if word in ("forward", "forwards", "ahead"):
            return "forward"
    return ""


def _of_the_image(tokens: list[str], index: int) -> bool:
    """Whether a side is not the person's: `left of the court`, `the left side of the frame`, `camera left`."""
    after = tokens[index + 1 : index + 3]
    region = bool(after) and after[0] in ("side", "edge", "half", "corner", "part", "end") and after[1:] == ["of"]
    return region or after[:1] == ["of"] or (index > 0 and tokens[index - 1] in ("camera", "screen", "stage", "frame"))


def _has_object(phrase: _VerbPhrase) -> bool:
    """Whether the verb has an object other than the body: `turns the page`."""
    after = phrase.tokens[phrase.index + 1 : phrase.index + 3]
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
