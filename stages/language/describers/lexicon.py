"""Words by which sentences name movements, limbs and directions: the rules' own wordings and what others call the same."""

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
"""Verbs -> what they claim. `carry` becomes raise or lower by its particle, `keep` counts only together with a word for
stillness, and `step` only with a limb or sideways."""

_IRREGULAR = {
    "rise": "rose risen", "sink": "sank sunk", "strike": "struck", "lie": "lying lain", "sit": "seated", "go": "goes went going",
    "come": "came coming", "bring": "brought", "keep": "kept", "hold": "held", "lean": "leant", "put": "putting",
    "pick": "picks", "set": "setting",
}  # fmt: skip
_NO_FORM_OF_IT = {"lay", "sets", "lowerring"}
PARTICIPLES = _set(
    "raised lifted elevated risen lowered dropped stretched bent flexed folded straightened extended unfolded"
)
"""Of a limb these may tell how it is held rather than what it does."""
UP = _set("raised lifted elevated risen")
"""Of these alone it is worth knowing on which side."""
KEPT = _set("remain remains stay stays kept keep keeps held hangs rests rest")
HELD = KEPT | _set("is are be being was were gets")
"""Before a participle: how a limb is held."""
BY = _set("with using by on in of")
"""Before a limb: it is no subject."""
NO_SUBJECT = _set(
    "then and it also again finally now later afterwards is are gets which that who repeatedly , ; once twice"
)
"""Words before a verb that leave the subject as it was."""


def _verb_forms(base: str) -> set[str]:
    """Without the doer: who runs is a runner, who drops is no dropper."""
    doer = base if base.endswith("e") else base + "e"
    found = {base, *forms(base), *_IRREGULAR.get(base, "").split()}
    doubled = base + base[-1] + "er"
    return found - {doer + "r", doer + "rs", doubled, doubled + "s"} - _NO_FORM_OF_IT


VERBS: dict[str, str] = {
    form: action for bases, action in ACTIONS.items() for base in bases.split() for form in _verb_forms(base)
} | {"sets": "carry", "strikes": "punch", "rest": "keep"}
"""Every form of a verb -> its action."""

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
"""Nouns -> the limb that they belong to; nothing is known about a head."""

SIDES = ("left", "right")
BETWEEN = _set(
    "and or both his her their its the a own upper lower straight bent whole outstretched extended raised dominant front "
    "rear leading back s"
)
"""What may stand between a side and its limb."""
NEED_LIMB = frozenset(
    {"raise", "lower", "circle", "swing", "bend", "extend", "move", "carry", "reach", "punch", "wave", "kick"}
)
"""Actions of a limb."""
OWN_LIMB = {"wave": "arm", "punch": "arm", "reach": "arm", "kick": "leg"}
"""Limb of an action whose sentence names none; `stretch` and `strike` do without one only where it is named."""
LIMB_NAMED = frozenset({*_verb_forms("stretch"), *_verb_forms("strike"), "strikes"})
STANDING = frozenset(_verb_forms("stand"))
STILL = _set("still motionless steady rest immobile stationary")
BREAKS = _set(", ; : . ! ? and but while as when before after then which who whereas")
"""Where a clause may end."""
NO = _set("not never without no nor neither instead unlike rather stops avoids avoiding cannot unable")
"""What comes after is not claimed to have happened."""
PERHAPS = _set(
    "about prepare prepares preparing ready almost nearly try tries trying attempt attempts attempting pretend pretends "
    "pretending if though like seem seems seeming appear appears appearing might may could would will should probably "
    "possibly perhaps maybe wants wanting imitates imitating mimics mimicking between"
)
"""Nor after these."""
HEDGES = _set("slightly little bit small subtle subtly faintly barely hardly briefly partially gently minor")
"""Movements that are called small may lie under the rules' limits."""
OTHERS = _set(
    "another else opponent partner camera crowd audience dog cat horse spectators spectator background bystander second "
    "others couple"
)
"""Subjects that are not the person whose motion it is."""
NOUNS_AFTER = _set(
    "shoes outfit clothes clothing suit pants top jersey stance stick track machine bag bags rope room lamp mill "
    "shorts gear path trail club board"
)
"""After these an -ing form names a thing."""
VIEWERS = _set("viewer viewers camera's viewer's viewers' perspective mirrored reflection seen")
"""Sides in such a sentence may be those of the picture."""
NOT_THE_SIDE = _set("away after in at before now behind on there here through across angle angles next over")
"""After `right` these make an adverb of it, after `left` a verb."""
ADVERBS = _set("around round about back slightly sharply quickly slowly halfway again sideways further suddenly")
"""May stand between a verb and its direction."""
