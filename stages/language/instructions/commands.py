"""Descriptions of one person's movements as commands: `a man lifts his arm, then walks` -> `lift your arm, then walk`."""

import re

_VERBS = (
    "balance bend bow bounce box bring cartwheel catch circle clap climb come crawl crouch dance dive do drop duck extend fall "
    "flex flip fold gesture get go grab hang hit hold hop jab jog jump keep kick kneel lean leap let lie lift look lower lunge "
    "make march move nod pace pedal perform pick place point pull punch push put raise reach remain repeat return rise roll "
    "rotate rub run scratch set shake shift shuffle sidestep sink sit skip slide spin squat stamp stand start stay step stoop stop "
    "straighten stretch strike stroll swim swing swivel take throw thrust tilt touch turn twirl twist unfold walk wave wheel wipe"
)
_SUBJECT = re.compile(
    r"(?:(?:a|an|the|this|one) (?:young |old )?(?:person|man|woman|boy|girl|child|guy|lady|human|figure|character)"
    r"|someone|somebody|he|she|they)\s+"
)
_OWN = {"his": "your", "her": "your", "their": "your", "its": "your", "himself": "yourself", "herself": "yourself"}
_OTHERS = frozenset({
    "he", "she", "they", "person", "man", "woman", "someone", "somebody", "who", "which", "that", "him", "them", "people", "is",
    "are", "was", "were", "has",
})  # fmt: skip
"""Words after which verbs may be those of others, or which are verbs that no command has."""
_PREPOSITIONS = frozenset(
    {"of", "behind", "above", "below", "beside", "around", "to", "on", "with", "before", "from", "near"}
)
_LINKS = frozenset({"and", "then", "or", "but", "again", "also"})
_OWN_LIMB = re.compile(r"\bthe (left|right) (arm|hand|fist|elbow|leg|foot|knee)\b")


def _third_person(verb: str) -> str:
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if verb.endswith("y") and verb[-2] not in "aeiou" else f"{verb}s"


_BASES = {_third_person(verb): verb for verb in _VERBS.split()}


def command_of(description: str) -> str:
    """A single statement about a person as a command without capital and full stop; empty where it is none, or has a verb that is
    not known."""
    text = " ".join(description.split()).rstrip(".")
    text = text[:1].lower() + text[1:]
    subject = _SUBJECT.match(text)
    if not subject or re.search(r"[.!?;:]", text):
        return ""
    words: list[str] = []
    may_be_verb, verbs = True, 0
    for word in text[subject.end() :].split():
        bare = word.rstrip(",")
        lower = bare.lower()
        if lower in _OTHERS and (lower != "them" or not words or words[-1] in _PREPOSITIONS):  # `them` may be arms
            return ""
        if may_be_verb and lower in _BASES:
            word, verbs = _BASES[lower] + word[len(bare) :], verbs + 1
        elif may_be_verb and lower.endswith("s") and not lower.endswith("ss"):
            return ""  # a verb that is not known, or a noun of a list
        elif lower in _OWN:
            word = _OWN[lower] + word[len(bare) :]
        words.append(word)
        # An adverb may stand before the verb.
        may_be_verb = word.endswith(",") or lower in _LINKS or (may_be_verb and lower.endswith("ly"))
        if not verbs and not may_be_verb:
            return ""
    return " ".join(words) if verbs else ""


def with_own_limbs(command: str) -> str:
    """The command with limbs as one names them to their owner: `raise your left arm`."""
    return _OWN_LIMB.sub(r"your \1 \2", command)
