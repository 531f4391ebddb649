"""Words for events: verb phrases in the third person, without a subject. Several wordings a kind, the first is the plain one.

`{arm}`, `{hand}`, `{fist}`, `{elbow}`, `{leg}`, `{foot}`, `{knee}` become the side's limb ("the left arm", "both arms");
`{side}` becomes left or right.
"""

from random import Random

from schemas.records import Event

BODY: dict[str, tuple[str, ...]] = {
    "stand": ("stands", "stands in place", "remains standing"),
    "walk": ("walks forward", "walks ahead", "walks straight on"),
    "walk_backward": ("walks backward", "steps backward", "moves backward"),
    "sidestep_left": ("steps sideways to the left", "sidesteps to the left", "moves sideways to the left"),
    "sidestep_right": ("steps sideways to the right", "sidesteps to the right", "moves sideways to the right"),
    "run": ("runs forward", "runs ahead", "jogs forward"),
    "jump": ("jumps", "jumps up", "leaps up"),
    "turn_left": ("turns left", "turns to the left", "makes a turn to the left"),
    "turn_right": ("turns right", "turns to the right", "makes a turn to the right"),
    "squat": ("squats", "squats down", "crouches down"),
    "bow": ("bows", "bows forward", "bends forward from the hips"),
    "sit": ("sits", "is seated", "remains seated"),
    "lie": ("lies on the ground", "lies down low", "stays lying on the ground"),
    "crawl": ("crawls", "crawls on hands and knees", "moves on all fours"),
    "get_up": ("gets up", "stands up", "rises to standing"),
    "spin": ("spins to the {side}", "spins around to the {side}", "turns all the way around to the {side}"),
}
ARM: dict[str, tuple[str, ...]] = {
    "wave": ("waves with {hand}", "waves {hand}", "moves {hand} from side to side"),
    "raise": ("raises {arm}", "lifts {arm}", "brings {arm} up"),
    "lower": ("lowers {arm}", "brings {arm} down", "drops {arm}"),
    "swing": ("swings {arm}", "lets {arm} swing", "moves {arm} back and forth"),
    "punch": ("punches with {fist}", "throws a punch with {fist}", "strikes forward with {fist}"),
    "reach": ("reaches forward with {hand}", "reaches out with {hand}", "stretches {arm} out in front"),
    "circle": ("circles {arm}", "moves {arm} in a circle", "rotates {arm}"),
    "bend": ("bends {elbow}", "flexes {elbow}", "folds {arm}"),
    "extend": ("straightens {elbow}", "straightens {arm}", "extends {arm}"),
    "stir": ("moves {arm} only a little", "moves {arm} slightly"),
    "rest": ("keeps {arm} still", "holds {arm} still", "keeps {arm} at rest"),
}
LEG: dict[str, tuple[str, ...]] = {
    "step": ("steps with {foot}", "moves {foot}", "sets {foot} down anew"),
    "kick": ("kicks with {foot}", "kicks with {leg}", "throws a kick with {leg}"),
    "swing": ("swings {leg}", "moves {leg} out and back", "swings {foot} away and back"),
    "raise": ("raises {foot}", "lifts {foot}", "picks {foot} up"),
    "lower": ("lowers {foot}", "puts {foot} down", "sets {foot} down"),
    "bend": ("bends {knee}", "flexes {knee}", "bends {leg}"),
    "extend": ("straightens {knee}", "straightens {leg}", "extends {leg}"),
    "stir": ("moves {leg} only a little", "moves {leg} slightly"),
    "rest": ("keeps {leg} still", "holds {leg} still", "keeps {leg} in place"),
}
TORSO: dict[str, tuple[str, ...]] = {
    "bend": ("leans forward", "bends forward", "tilts forward"),
    "bend_back": ("leans back", "bends backward", "tilts backward"),
    "bend_side": ("leans to the {side}", "bends to the {side}", "tilts to the {side}"),
    "extend": ("straightens up", "comes back up", "returns upright"),
    "swing": ("twists to the {side}", "turns the shoulders to the {side}", "rotates the upper body to the {side}"),
    "stir": ("moves the torso only a little", "moves the torso slightly"),
    "rest": ("keeps the upper body steady", "holds the torso steady", "keeps the torso still"),
}
PART_ARM: dict[str, tuple[str, ...]] = {
    "wave": ("waves", "waves from side to side"),
    "raise": ("rises", "goes up"),
    "lower": ("comes down", "sinks"),
    "swing": ("swings", "swings to and fro"),
    "punch": ("punches forward", "strikes forward"),
    "reach": ("reaches forward", "stretches out in front"),
    "circle": ("circles", "moves in a circle"),
    "bend": ("bends at the elbow", "folds"),
    "extend": ("straightens", "unfolds"),
    "stir": ("moves only a little", "moves slightly"),
    "rest": ("stays still", "hardly moves", "is at rest"),
}
"""The same with the part as the subject."""
PART_LEG: dict[str, tuple[str, ...]] = {
    "step": ("takes a step", "makes a step"),
    "kick": ("kicks forward", "kicks"),
    "swing": ("swings out and back", "swings away and back"),
    "raise": ("lifts off the ground", "rises"),
    "lower": ("comes down", "returns to the ground"),
    "bend": ("bends at the knee", "bends"),
    "extend": ("straightens", "stretches"),
    "stir": ("moves only a little", "moves slightly"),
    "rest": ("stays still", "stays in place", "hardly moves"),
}
PART_TORSO = TORSO | {
    "swing": ("twists to the {side}", "turns to the {side}"),
    "stir": ("moves only a little", "moves slightly"),
    "rest": ("stays steady", "holds steady", "hardly moves"),
}
_GERUNDS = {
    "stands": "standing", "remains": "remaining", "walks": "walking", "steps": "stepping", "moves": "moving",
    "sidesteps": "sidestepping", "runs": "running", "jogs": "jogging", "jumps": "jumping", "leaps": "leaping",
    "turns": "turning", "rotates": "rotating", "squats": "squatting", "crouches": "crouching", "bows": "bowing",
    "bends": "bending", "sits": "sitting", "is": "being", "lies": "lying", "stays": "staying", "crawls": "crawling",
    "gets": "getting", "rises": "rising", "spins": "spinning", "waves": "waving", "raises": "raising", "lifts": "lifting",
    "brings": "bringing", "lowers": "lowering", "drops": "dropping", "swings": "swinging", "lets": "letting",
    "punches": "punching", "throws": "throwing", "strikes": "striking", "reaches": "reaching", "stretches": "stretching",
    "circles": "circling", "flexes": "flexing", "folds": "folding", "straightens": "straightening",
    "extends": "extending", "keeps": "keeping", "holds": "holding", "sets": "setting", "kicks": "kicking",
    "picks": "picking", "puts": "putting", "leans": "leaning", "tilts": "tilting", "comes": "coming",
    "returns": "returning", "twists": "twisting", "makes": "making",
}  # fmt: skip
_LIMBS = {
    "hand": "hands",
    "arm": "arms",
    "fist": "fists",
    "elbow": "elbows",
    "leg": "legs",
    "foot": "feet",
    "knee": "knees",
}
_STIR_M = 0.12
"""A resting part that strays farther than this from its mean place is said to move a little."""
_COUNTS = ("", "once", "twice", "three times", "four times", "five times", "six times", "seven times", "eight times")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def phrase(event: Event, rng: Random | None = None, *, as_part: bool = False) -> str:
    """What is done, from the third person's verb on; with the part as the subject on request.

    Without a random generator it is the plain wording.
    """
    table, kind = _table(event, as_part), event.kind
    if event.part == "torso" and kind == "bend":
        kind = "bend_back" if event.joint == "neck" else "bend_side" if event.side in ("left", "right") else "bend"
    if kind == "rest" and event.amount > _STIR_M:
        kind = "stir"
    wordings = table[kind]
    wording = wordings[0] if rng is None else wordings[rng.randrange(len(wordings))]
    limbs = {one: f"both {many}" if event.side == "both" else f"the {event.side} {one}" for one, many in _LIMBS.items()}
    return wording.format(side=event.side, **limbs)


def gerund(verb_phrase: str) -> str:
    """`walks forward` -> `walking forward`."""
    verb, _, rest = verb_phrase.partition(" ")
    return f"{_GERUNDS[verb]} {rest}".strip()


def times(count: int) -> str:
    """`three times`; nothing for once."""
    if count < 2:
        return ""
    return _COUNTS[count] if count < len(_COUNTS) else "many times"


def _table(event: Event, as_part: bool) -> dict[str, tuple[str, ...]]:
    if event.part.endswith("_arm"):
        return PART_ARM if as_part else ARM
    if event.part.endswith("_leg"):
        return PART_LEG if as_part else LEG
    if event.part == "torso":
        return PART_TORSO if as_part else TORSO
    return BODY
