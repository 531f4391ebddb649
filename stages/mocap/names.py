"""What the name of a joint says: its side and which joints of the body it may stand for.

Tools name either the joint (`LeftHip`, `L_Knee`) or the bone that begins there (`LeftUpLeg`, `shin.L`), so many words have
two readings: `LeftShoulder` is a clavicle before `LeftArm` and a shoulder before `LeftElbow`. `recognition` decides by the
chain that they form.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_READINGS: Sequence[tuple[str, Mapping[str, float]]] = (
    ("upleg upperleg thigh femur legupper legup uleg thighbend uplegs 上腿 足", {"hip": 1.0}),
    ("hip hips hipsocket coxa", {"hip": 0.9}),
    ("hipjoint buttock pelvis", {"hip": 0.3}),
    ("leg", {"knee": 1.0, "hip": 0.8}),
    ("lowleg lowerleg loleg legl leglower shin shinbend calf tibia shank knee crus ひざ", {"knee": 1.0}),
    ("ankle talus 足首", {"ankle": 1.1}),
    ("foot", {"ankle": 1.0, "foot": 0.8}),
    ("toe toes toebase ball football forefoot toejoint metatarsal foottoe つま先", {"foot": 1.0}),
    ("clavicle collar innershoulder scapula clav collarbone sternoclavicular 肩", {"collar": 1.0}),
    ("shoulder", {"collar": 0.9, "shoulder": 0.8}),
    ("shldr", {"shoulder": 0.9, "collar": 0.6}),
    ("arm", {"shoulder": 1.0, "elbow": 0.3}),
    ("shldrbend uparm upperarm armupper uarm humerus armup 腕", {"shoulder": 1.0}),
    ("forearm lowarm lowerarm armlower loarm farm radius ulna elbow forearmbend ひじ", {"elbow": 1.0}),
    ("wrist 手首", {"wrist": 1.1}),
    ("hand", {"wrist": 1.0, "hand": 0.8}),
    ("palm knuckle handend", {"hand": 0.5}),
)
LIMB_READINGS: Mapping[str, Mapping[str, float]] = {
    word: readings for words, readings in _READINGS for word in words.split()
}
"""Word of a limb -> joints that it may stand for, and how firmly."""
PELVIS = frozenset({"hips", "hip", "pelvis", "lowerbody", "下半身", "hipcenter", "hipscenter", "spinebase"})
HEAD = frozenset({"head", "skull", "頭", "headbase", "cranium"})
NECK = frozenset({"neck", "lowerneck", "upperneck", "neckbase", "cervical", "首", "necklower", "neckupper"})
TRUNK = frozenset({
    "spine", "chest", "lowerback", "upperback", "thorax", "back", "torso", "abdomen", "waist", "upperchest", "belly", "lumbar",
    "lowerchest", "midspine", "spinemid", "spinechest", "spinenaval", "spineshoulder", "上半身", "abdomenlower", "abdomenupper",
    "chestlower", "chestupper", "ab", "stomach", "trunk", "sternum", "ribcage", "spinelower", "spineupper",
})  # fmt: skip
_HELPERS = re.compile(
    r"twist|roll|thumb|index|middle|ring|pinky|little|finger|helper|corrective|muscle|nub|end|site|tip|ik|fk|pole|target|ctrl|"
    r"control|effector|eye|jaw|tongue|teeth|breast|bust|hair|skirt|cloth|cape|weapon|prop|sword|gun|camera|light|socket|marker|"
    r"attach|null|locator|metacarpal|carpal|phalanx|adjust|dummy|heel|share|bigtoe|smalltoe|trajectory|motion|ground|origin|world"
)
_HELPER_WORDS = {"ik", "fk", "end", "tip", "ring", "site", "roll", "gun", "prop", "null", "eye"}
"""Words of the pattern above that also occur inside others: they count as whole words alone."""
_NOISE = {
    "bip", "biped", "j", "def", "cc", "base", "mixamorig", "character", "valve", "jnt", "jt", "joint", "bone", "skel", "skeleton",
    "rig", "b", "ref", "m", "bn", "sk", "org", "mch", "char", "actor", "human", "body", "player", "subject", "c", "bvh", "armature",
}  # fmt: skip
_LEFT, _RIGHT = {"left", "l", "lft", "lf", "lt", "左"}, {"right", "r", "rgt", "rt", "rht", "右"}
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[左右]|[^\W\d_a-zA-Z左右]+")
_SPINE_LEVELS = re.compile(r"^[ltc]\d{1,2}$", re.IGNORECASE)
"""Vertebrae, as inertial suits name the joints of the trunk: L5, T8."""


@dataclass(frozen=True)
class Reading:
    """What a name says."""

    side: str = ""
    """`left`, `right`, or empty."""
    word: str = ""
    """The part of the body in lower case, without side, numbers and prefixes."""
    helper: bool = False
    """Fingers, twist and roll joints, props, ends: nothing that drives a joint of the body."""
    limb: Mapping[str, float] = field(default_factory=dict)
    """Joints of a limb that the word may stand for -> how firmly."""

    @property
    def neck(self) -> bool:
        return not self.side and self.word in NECK

    @property
    def head(self) -> bool:
        return not self.side and self.word in HEAD

    @property
    def pelvis(self) -> bool:
        return not self.side and self.word in PELVIS

    @property
    def trunk(self) -> bool:
        return not self.side and self.word in TRUNK


def read_names(names: Sequence[str]) -> list[Reading]:
    """Readings of the names of one skeleton; a prefix that all of them share is ignored."""
    bare = [re.split(r"[:|]", name)[-1].strip() for name in names]
    words = [[word.lower() for word in _WORDS.findall(name)] for name in bare]
    shared = 0
    longer = [each for each in words if len(each) > 1]
    while len(longer) > 3 and len({each[shared] if len(each) > shared + 1 else "" for each in longer}) == 1:
        shared += 1
    return [
        Reading(word="spine") if _SPINE_LEVELS.match(name) else _read(each[shared:] if len(each) > shared else each)
        for name, each in zip(bare, words, strict=True)
    ]


def _read(words: Sequence[str]) -> Reading:
    kept = [word for word in words if word not in _NOISE] or list(words)
    helper = any(word in _HELPER_WORDS for word in kept) or any(
        match.group() not in _HELPER_WORDS for word in kept for match in _HELPERS.finditer(word)
    )
    side, rest = _side(kept)
    # `hipjoint` and `upperleg` are one word for the vocabulary, however the name writes them.
    word = "".join(rest)
    if helper and word not in LIMB_READINGS:
        return Reading(side=side, word=word, helper=True)
    return Reading(side=side, word=word, limb=LIMB_READINGS.get(word, {}) if side else {})


def _side(words: Sequence[str]) -> tuple[str, list[str]]:
    """The side and the other words; a letter for the side may be joined to the word (`lfemur`, `RUArm`, `thighl`)."""
    for side, marks in (("left", _LEFT), ("right", _RIGHT)):
        for index, word in enumerate(words):
            if word in marks and len(words) > 1:
                return side, [*words[:index], *words[index + 1 :]]
    joined = "".join(words)
    for side, marks in (("left", _LEFT), ("right", _RIGHT)):
        for mark in sorted(marks, key=len, reverse=True):
            for rest in (joined.removeprefix(mark), joined.removesuffix(mark)):
                if rest != joined and rest in LIMB_READINGS and joined not in LIMB_READINGS:
                    return side, [rest]
    return "", list(words)
