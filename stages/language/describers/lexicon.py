"""Vocabulary of movements, limbs and directions: the rules' own wordings and their synonyms."""

from stages.language.morphology import forms


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


ACTIONS: dict[str, str] = {
    "wave": "wave",
    "raise lift rise elevate": "raise",
    "lower drop sink": "lower",
    "punch jab strike": "punch",
    "reach stretch": "reach",
    "circle": "circle",
    "swing": "swing",
    "bend flex fold": "bend",
    "straighten extend unfold": "extend",
    "kick": "kick",
    "walk stroll pace stride": "walk",
    "run jog sprint": "run",
    "jump leap": "jump",
    "squat crouch": "squat",
    "bow stoop": "bow",
    "roll somersault": "roll",
    "flip backflip": "flip",
    "cartwheel": "cartwheel",
    "sit": "sit",
    "lie": "lie",
    "crawl": "crawl",
    "spin twirl pirouette": "spin",
    "turn rotate pivot twist": "turn",
    "sidestep": "sidestep",
    "step": "step",
    "lean tilt": "lean",
    "move gesture": "move",
    "bring go come put pick set": "carry",
    "keep hold stay remain stand": "keep",
}
"""Verbs -> claimed action. `carry` becomes raise or lower by its particle; `keep` counts only with a word for stillness, and
`step` only with a limb or sideways."""

_IRREGULAR = {
    "rise": "rose risen", "sink": "sank sunk", "strike": "struck", "lie": "lying lain", "sit": "seated", "go": "goes went going",
    "come": "came coming", "bring": "brought", "keep": "kept", "hold": "held", "lean": "leant", "put": "putting",
    "pick": "picks", "set": "setting",
}  # fmt: skip
_INVALID_FORMS = {"lay", "sets", "lowerring"}
PARTICIPLES = _set(
    "raised lifted elevated risen lowered dropped stretched bent flexed folded straightened extended unfolded"
)
"""Applied to a limb, these may describe its posture rather than a movement."""
RAISED = _set("raised lifted elevated risen")
"""The participles whose side is still checked when they describe a posture."""
KEEP_VERBS = _set("remain remains stay stays kept keep keeps held hangs rests rest")
STATE_VERBS = KEEP_VERBS | _set("is are be being was were gets")
"""Before a participle: the posture of a limb."""
PREPOSITIONS = _set("with using by on in of")
"""Before a limb: it is not the subject."""
NON_SUBJECTS = _set(
    "then and it also again finally now later afterwards is are gets which that who repeatedly , ; once twice"
)
"""Words before a verb that do not change the subject."""


def _verb_forms(base: str) -> set[str]:
    """Inflected forms of a verb without agent nouns such as `runner`."""
    agent = base if base.endswith("e") else base + "e"
    inflected = {base, *forms(base), *_IRREGULAR.get(base, "").split()}
    doubled = base + base[-1] + "er"
    return inflected - {agent + "r", agent + "rs", doubled, doubled + "s"} - _INVALID_FORMS


VERBS: dict[str, str] = {
    form: action for bases, action in ACTIONS.items() for base in bases.split() for form in _verb_forms(base)
} | {"sets": "carry", "strikes": "punch", "rest": "keep"}
"""Inflected form of a verb -> its action."""

LIMBS: dict[str, str] = {
    noun: limb
    for limb, nouns in {
        "arm": "arm arms hand hands fist fists elbow elbows wrist wrists forearm forearms palm palms handed",
        "leg": "leg legs foot feet knee knees thigh thighs ankle ankles shin shins heel heels toe toes footed legged",
        "torso": "torso trunk waist hips shoulders chest",
        "head": "head face gaze chin neck eyes shoulder",
    }.items()
    for noun in nouns.split()
}
"""Nouns -> their limb; movements of the head are not detected."""

SIDES = ("left", "right")
LIMB_MODIFIERS = _set(
    "and or both his her their its the a own upper lower straight bent whole outstretched extended raised dominant front "
    "rear leading back s"
)
"""Words that may stand between a side and its limb."""
LIMB_ACTIONS = frozenset(
    {"raise", "lower", "circle", "swing", "bend", "extend", "move", "carry", "reach", "punch", "wave", "kick"}
)
"""Actions of a limb."""
DEFAULT_LIMB = {"wave": "arm", "punch": "arm", "reach": "arm", "kick": "leg"}
"""Limb of an action in a sentence that names none, except `stretch` and `strike`, which need a named limb."""
NAMED_LIMB_VERBS = frozenset({*_verb_forms("stretch"), *_verb_forms("strike"), "strikes"})
STAND_VERBS = frozenset(_verb_forms("stand"))
STILLNESS = _set("still motionless steady rest immobile stationary")
CLAUSE_BREAKS = _set(", ; : . ! ? and but while as when before after then which who whereas")
"""Tokens at which a clause may end."""
NEGATIONS = _set("not never without no nor neither instead unlike rather stops avoids avoiding cannot unable")
"""The verb that follows is not claimed to have happened."""
NON_FACTUAL = _set(
    "about prepare prepares preparing ready almost nearly try tries trying attempt attempts attempting pretend pretends "
    "pretending if though like seem seems seeming appear appears appearing might may could would will should probably "
    "possibly perhaps maybe wants wanting imitates imitating mimics mimicking between"
)
"""The verb that follows is planned, attempted, likened or uncertain, so it is not claimed either."""
HEDGES = _set("slightly little bit small subtle subtly faintly barely hardly briefly partially gently minor")
"""Movements described as small may be below the thresholds of the rules."""
OTHER_SUBJECTS = _set(
    "another else opponent partner camera crowd audience dog cat horse spectators spectator background bystander second "
    "others couple"
)
"""Subjects other than the person described."""
GERUND_NOUNS = _set(
    "shoes outfit clothes clothing suit pants top jersey stance stick track machine bag bags rope room lamp mill "
    "shorts gear path trail club board"
)
"""Before these nouns an -ing form is part of a noun phrase."""
VIEWER_WORDS = _set("viewer viewers camera's viewer's viewers' perspective mirrored reflection seen")
"""In a sentence with these, sides may be those of the image."""
NON_SIDE_FOLLOWERS = _set("away after in at before now behind on there here through across angle angles next over")
"""Before these, `right` is an adverb and `left` a verb."""
DIRECTION_ADVERBS = _set(
    "around round about back slightly sharply quickly slowly halfway again sideways further suddenly"
)
"""Words that may stand between a verb and its direction."""
