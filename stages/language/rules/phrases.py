"""Wordings of events: verb phrases in the third person without a subject, several for each kind, the first the plain one.

A key is a kind, or a kind and a manner. `{arm}`, `{hand}`, `{fist}`, `{elbow}`, `{leg}`, `{foot}` and `{knee}` are replaced
by the side's limb ("the left arm", "both arms"), `{side}` by left or right, `{how}` by an adverb or nothing.
"""

from random import Random

from schemas.records import Event
from stages.language.rules.movements import Movement

BODY: dict[str, tuple[str, ...]] = {
    "stand": ("stands", "stands in place", "remains standing"),
    "walk": ("walks {how}forward", "walks {how}ahead", "walks {how}straight on"),
    "walk diagonal": (
        "walks {how}forward and to the {side}",
        "walks {how}diagonally to the {side}",
        "walks {how}forward at an angle to the {side}",
    ),
    "walk unsure": ("walks", "walks along", "goes on foot"),
    "walk turning": ("walks {how}forward", "walks {how}along", "walks {how}onward"),
    "walk_backward": ("walks {how}backward", "steps {how}backward", "moves {how}backward"),
    "sidestep_left": (
        "steps {how}sideways to the left",
        "sidesteps {how}to the left",
        "moves {how}sideways to the left",
    ),
    "sidestep_right": (
        "steps {how}sideways to the right",
        "sidesteps {how}to the right",
        "moves {how}sideways to the right",
    ),
    "run": ("runs {how}forward", "runs {how}ahead", "runs {how}straight on"),
    "run unsure": ("runs", "runs along"),
    "run turning": ("runs {how}forward", "runs {how}along", "runs {how}onward"),
    "run diagonal": ("runs {how}forward and to the {side}", "runs {how}diagonally to the {side}"),
    "run slow": ("jogs {how}forward", "jogs {how}ahead", "runs {how}forward"),
    "jump": ("jumps", "jumps up", "leaps up"),
    "jump ahead": ("jumps forward", "leaps forward"),
    "turn_left": ("turns left", "turns to the left", "makes a turn to the left"),
    "turn_right": ("turns right", "turns to the right", "makes a turn to the right"),
    "turn_left around": ("turns around to the left", "wheels around to the left"),
    "turn_right around": ("turns around to the right", "wheels around to the right"),
    "squat": ("squats", "squats down", "crouches down"),
    "bow": ("bows", "bows forward", "bends forward from the hips"),
    "bow deep": ("bows deeply", "bows low", "bends far forward from the hips"),
    "bow down": ("bends down", "stoops down", "bends down low"),
    "stay": ("stays in place", "remains in place"),
    "kneel": ("kneels", "is kneeling", "stays kneeling"),
    "pick_up": (
        "bends down to the ground as if to pick something up",
        "reaches down to the ground and comes back up",
        "reaches down to the ground as if to pick something up",
    ),
    "climb": ("climbs up", "climbs", "climbs upward"),
    "climb down": ("climbs down", "climbs downward"),
    "hang": ("hangs by the hands", "hangs from both hands"),
    "ride": ("pedals", "moves the legs as on a bicycle"),
    "handstand": ("does a handstand", "stands on the hands"),
    "dance": ("dances", "dances about", "moves in dance steps"),
    "sit": ("sits", "is seated", "remains seated"),
    "lie": ("lies on the ground", "is lying down", "stays lying on the ground"),
    "crawl": ("crawls", "crawls along the ground", "moves along on all fours"),
    "get_up": ("gets up", "stands up", "rises to standing"),
    "spin": ("spins to the {side}", "spins around to the {side}", "turns all the way around to the {side}"),
    "roll": ("rolls over the ground", "does a roll", "rolls over"),
    "roll front": ("rolls forward over the ground", "does a forward roll"),
    "roll back": ("rolls backward over the ground", "does a backward roll"),
    "flip": ("does a flip", "flips over in the air"),
    "flip front": ("does a front flip", "flips forward in the air"),
    "flip back": ("does a backflip", "flips backward in the air"),
    "cartwheel": ("does a cartwheel", "turns a cartwheel", "cartwheels over the hands"),
    "stir": ("moves the upper body", "moves the upper body a little"),
    "rest": ("keeps nearly still", "stays nearly still", "holds almost still"),
}
ARM: dict[str, tuple[str, ...]] = {
    "wave": ("waves with {hand}", "waves {hand}", "waves {hand} from side to side"),
    "raise": ("raises {arm}", "lifts {arm}", "brings {arm} up"),
    "raise high": ("raises {arm} high", "lifts {arm} up high", "raises {hand} above the head"),
    "raise shoulder": ("raises {hand} to the shoulder", "brings {hand} up to shoulder height", "lifts {hand}"),
    "raise shoulders": ("raises {hand} to the shoulders", "brings {hand} up to shoulder height", "lifts {hand}"),
    "raise front": ("raises {arm} to the front", "lifts {arm} in front of the body", "raises {arm} forward"),
    "raise side": ("raises {arm} out to the side", "lifts {arm} sideways", "raises {arm} sideways"),
    "raise sides": ("raises {arm} out to the sides", "lifts {arm} sideways", "raises {arm} sideways"),
    "lower": ("lowers {arm}", "brings {arm} down", "drops {arm}"),
    "swing": ("swings {arm}", "moves {arm} through the air"),
    "swing to and fro": ("swings {arm}", "lets {arm} swing", "swings {arm} back and forth"),
    "swing side": ("swings {arm} outward", "moves {arm} outward"),
    "swing side back": ("swings {arm} inward", "moves {arm} inward"),
    "swing front": ("swings {arm} forward", "moves {arm} forward"),
    "swing front back": ("swings {arm} back", "moves {arm} back"),
    "punch": ("punches with {fist}", "throws a punch with {fist}", "strikes forward with {fist}"),
    "punch s": ("pushes {hand} forward", "thrusts {fist} forward"),
    "punch side": ("punches with {fist}", "throws a punch with {fist}", "strikes out with {fist}"),
    "reach": ("reaches forward with {hand}", "reaches out with {hand}", "stretches {arm} out in front"),
    "clap": ("claps with {hand}",),
    "clap s": ("claps", "claps the hands", "claps the hands together"),
    "throw": ("throws with {hand}", "makes a throw with {hand}", "swings {arm} forward as if to throw"),
    "hand_to_face": ("brings {hand} to the face", "holds {hand} to the face", "raises {hand} to the face"),
    "circle": ("circles {arm}", "moves {arm} in a circle", "rotates {arm}"),
    "bend": ("bends {elbow}", "flexes {elbow}", "folds {arm}"),
    "extend": ("straightens {elbow}", "straightens {arm}", "extends {arm}"),
    "stir": ("moves {arm} only a little", "moves {arm} slightly"),
    "rest": ("keeps {arm} still", "holds {arm} still", "keeps {arm} at rest"),
}
LEG: dict[str, tuple[str, ...]] = {
    "step": ("steps with {foot}", "moves {foot}", "sets {foot} down anew"),
    "kick": ("kicks with {foot}", "kicks forward with {leg}", "throws a kick with {leg}"),
    "kick high": ("kicks high with {leg}", "throws a high kick with {leg}", "kicks up high with {foot}"),
    "kick side": ("kicks sideways with {leg}", "throws a side kick with {leg}", "kicks out to the side with {foot}"),
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
    "bend down": ("bends down", "bends far forward", "leans far forward"),
    "bend back": ("leans back", "bends back", "tilts back"),
    "bend side": ("leans to the {side}", "bends to the {side}", "tilts to the {side}"),
    "extend": ("straightens up", "comes back up", "returns upright"),
    "swing": ("twists to the {side}", "turns the shoulders to the {side}", "rotates the upper body to the {side}"),
    "stir": ("moves the torso only a little", "moves the torso slightly"),
    "rest": ("keeps the upper body steady", "holds the torso steady", "keeps the torso still"),
}
PART_ARM: dict[str, tuple[str, ...]] = {
    "wave": ("waves", "waves from side to side"),
    "raise": ("rises", "goes up"),
    "raise high": ("rises high", "goes up above the head"),
    "raise shoulder": ("rises to shoulder height", "comes up, bent, to the shoulder"),
    "raise front": ("rises to the front", "goes up in front of the body"),
    "raise side": ("rises out to the side", "goes up sideways"),
    "lower": ("comes down", "sinks"),
    "swing": ("swings", "moves through the air"),
    "swing to and fro": ("swings", "swings to and fro"),
    "swing side": ("swings outward", "moves outward"),
    "swing side back": ("swings inward", "moves inward"),
    "swing front": ("swings forward", "moves forward"),
    "swing front back": ("swings back", "moves back"),
    "punch": ("punches forward", "strikes forward"),
    "punch side": ("strikes out", "punches"),
    "reach": ("reaches forward", "stretches out in front"),
    "clap": ("claps",),
    "throw": ("throws", "swings forward as in a throw"),
    "hand_to_face": ("goes to the face", "comes up to the face"),
    "circle": ("circles", "moves in a circle"),
    "bend": ("bends at the elbow", "folds"),
    "extend": ("straightens", "unfolds"),
    "stir": ("moves only a little", "moves slightly"),
    "rest": ("stays still", "hardly moves", "is at rest"),
}
"""Wordings with the part as the subject."""
PART_LEG: dict[str, tuple[str, ...]] = {
    "step": ("takes a step", "makes a step"),
    "kick": ("kicks forward", "kicks"),
    "kick high": ("kicks high", "kicks up high"),
    "kick side": ("kicks sideways", "kicks out to the side"),
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
    "returns": "returning", "pushes": "pushing", "thrusts": "thrusting", "twists": "twisting", "makes": "making",
    "stoops": "stooping", "kneels": "kneeling", "claps": "clapping", "climbs": "climbing", "hangs": "hanging",
    "pedals": "pedalling", "dances": "dancing", "goes": "going", "rolls": "rolling",
    "does": "doing", "wheels": "wheeling", "flips": "flipping", "cartwheels": "cartwheeling",
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
OUT_OF_VIEW = "is out of view"
"""Text of a part with too low a confidence."""
_STIR_M = 0.12
"""A resting part that moves farther than this from its mean position is described as moving a little."""
_COUNTS = ("", "once", "twice", "three times", "four times", "five times", "six times", "seven times", "eight times")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def phrase(event: Event, rng: Random | None = None, *, as_part: bool = False, how: str = "") -> str:
    """Verb phrase of an event; with the part as the subject on request, with an adverb where the wording has a slot.

    Without a random generator it is the plain wording.
    """
    table, key = _table(event, as_part), event.kind
    manner = event.manner if isinstance(event, Movement) else ""
    if key == "rest" and event.amount > _STIR_M:
        key = "stir"
    if event.side == "both" and f"{key} {manner}s" in table:
        manner += "s"
    wordings = table.get(f"{key} {manner}", table[key])
    wording = wordings[0] if rng is None else wordings[rng.randrange(len(wordings))]
    limbs = {
        limb: f"both {plural}" if event.side == "both" else f"the {event.side} {limb}"
        for limb, plural in _LIMBS.items()
    }
    return wording.format(side=event.side, how=f"{how} " if how else "", **limbs)


def takes_adverb(event: Event) -> bool:
    """Whether the wordings of an event have a slot for an adverb."""
    return "{how}" in _table(event, False)[event.kind][0]


def gerund(verb_phrase: str) -> str:
    """`walks forward` -> `walking forward`."""
    verb, _, rest = verb_phrase.partition(" ")
    return f"{_GERUNDS[verb]} {rest}".strip()


def times(count: int) -> str:
    """`three times`; empty for once."""
    if count < 2:
        return ""
    return _COUNTS[count] if count < len(_COUNTS) else "many times"


def in_sequence(items: list[str], rng: Random) -> str:
    """Verb phrases joined as a sequence."""
    if len(items) == 1:
        return items[0]
    last = ("then", "and then", "and finally")[rng.randrange(3 if len(items) > 2 else 2)]
    if len(items) == 2:
        return f"{items[0]}, {last} {items[1]}" if last == "then" else f"{items[0]} {last} {items[1]}"
    return (
        f"{', '.join(items[:-1])} {last} {items[-1]}"
        if last != "then"
        else f"{', '.join(items[:-1])}, then {items[-1]}"
    )


def number(count: int) -> str:
    """`three`; digits above twelve."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _table(event: Event, as_part: bool) -> dict[str, tuple[str, ...]]:
    if event.part.endswith("_arm"):
        return PART_ARM if as_part else ARM
    if event.part.endswith("_leg"):
        return PART_LEG if as_part else LEG
    if event.part == "torso":
        return PART_TORSO if as_part else TORSO
    return BODY
