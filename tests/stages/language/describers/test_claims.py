"""Claims of sentences and contradictions by events: hand-written sentences, and those of the rules and their mirror images."""

import re
from dataclasses import replace

import numpy as np
import pytest

from schemas.body_model import BodyModel
from schemas.records import Captions, Event
from schemas.skeleton import PARTS, swap_sides
from stages.language.describers.checks import OUT_OF_VIEW, check_claims, judge
from stages.language.describers.claims import claims_of
from stages.language.rules.rules import describe
from stages.language.rules.thresholds import Thresholds
from stages.synthesis.motions import ACTIONS, LabelledMotion, generate

BODY = BodyModel.load()


def captions_of(motion: LabelledMotion, seed: str = "s", confidence: np.ndarray | None = None) -> Captions:
    confidence = np.ones((len(motion), 24)) if confidence is None else confidence
    rest = BODY.rest_joints(motion.betas)
    return describe(motion.rotations, motion.trans, rest, confidence, Thresholds(), seed=seed)


def event(part: str, kind: str, start_s: float = 0.5, end_s: float = 2.0, side: str = "", speed: float = 0.8) -> Event:
    own = part.split("_")[0] if "_" in part else "none"
    return Event(
        part=part, joint="pelvis", kind=kind, side=side or own, start_s=start_s, end_s=end_s, amount=speed * (end_s - start_s),
        speed=speed, text=kind,
    )  # fmt: skip


def scene(*events: Event) -> list[Event]:
    """Events of a four-second motion in which all other parts rest."""
    busy = {one.part for one in events}
    resting = [event(part, "rest", 0.0, 4.0) for part in PARTS if part not in busy]
    return [*events, *resting] + ([] if "body" in busy else [event("body", "stand", 0.0, 4.0)])


WAVE_LEFT = scene(
    event("left_arm", "raise", 0.2, 0.6), event("left_arm", "wave", 0.6, 2.4), event("left_arm", "lower", 2.4, 3)
)
WALK = scene(
    event("body", "walk", 0, 4, speed=1.1), *(event(f"{s}_leg", "step") for s in ("left", "right")),
    *(event(f"{s}_arm", "swing", 0, 4) for s in ("left", "right")),
)  # fmt: skip
KICK_RIGHT = scene(event("right_leg", "kick"), event("left_arm", "raise"))
TURN_LEFT = scene(event("body", "turn_left", side="left"), *(event(f"{s}_leg", "step") for s in ("left", "right")))
SIT = scene(event("body", "sit", 0, 4))
JUMP = scene(event("body", "jump", 1, 1.8), *(event(part, "raise") for part in PARTS if part != "torso"))
PUNCH = scene(event("right_arm", "punch", 0.5, 1.1), event("left_arm", "bend"), event("torso", "swing", side="left"))
BOW = scene(event("body", "bow", 0.5, 2.5), event("torso", "bend"))
RIGHT_ARM_HIDDEN = [
    *(one for one in WAVE_LEFT if one.part != "right_arm"),
    replace(event("right_arm", "rest", 0, 4), text=OUT_OF_VIEW),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "events"),
    [
        ("A person waves with the left hand.", WAVE_LEFT),
        ("The man raises his left arm and waves to somebody on the right.", WAVE_LEFT),
        ("A woman lifts her left hand, waving, while the right arm stays at her side.", WAVE_LEFT),
        ("With the left hand, the person waves; the right arm remains still.", WAVE_LEFT),
        ("Somebody greets with a left-handed wave.", WAVE_LEFT),
        ("She waves with her left and then drops it.", WAVE_LEFT),
        ("The left hand is raised and waved.", WAVE_LEFT),
        ("The person does not raise the right arm.", WAVE_LEFT),
        ("The person waves without moving the right arm.", WAVE_LEFT),
        ("Facing the camera, the man waves with one hand.", WAVE_LEFT),
        ("From the viewer's perspective the person waves with the right hand.", WAVE_LEFT),
        ("The person on the right side of the frame waves.", WAVE_LEFT),
        ("He stands right in front of a door and waves.", WAVE_LEFT),
        ("A person waves while another person kicks a ball.", WAVE_LEFT),
        ("The person waves as if about to jump.", WAVE_LEFT),
        ("The person looks to the right and turns the head to the right while waving.", WAVE_LEFT),
        ("The person shifts slightly and bends the right knee a little.", WAVE_LEFT),
        ("He smiles, points at something and holds a cup in his right hand.", WAVE_LEFT),
        ("The man in running shoes waves.", WAVE_LEFT),
        ("Someone waves either with the left or right hand.", WAVE_LEFT),
        ("The right arm waves.", RIGHT_ARM_HIDDEN),
        ("A person walks forward, swinging both arms.", WALK),
        ("The person strides ahead at a steady pace.", WALK),
        ("The person walks to the left of the picture.", WALK),
        ("She strolls along, her arms swinging naturally.", WALK),
        ("The right foot steps forward.", WALK),
        ("He turns the page while he walks.", WALK),
        ("A person kicks with the right foot while raising the left arm.", KICK_RIGHT),
        ("A right-footed kick, thrown with the left arm raised.", KICK_RIGHT),
        ("The player swings his right leg and strikes the ball.", KICK_RIGHT),
        ("The person turns left.", TURN_LEFT),
        ("The person rotates the body to their left side.", TURN_LEFT),
        ("Taking a few steps, she pivots around to the left.", TURN_LEFT),
        ("A person is seated and hardly moves.", SIT),
        ("The person remains sitting, hands on the knees.", SIT),
        (
            "The individual stands upright with feet shoulder-width apart, lifting their left arm to "
            "shoulder height and moving it side to side in a greeting gesture.",
            WAVE_LEFT,
        ),
        (
            "Starting from a neutral stance, the person extends the left arm upward, bends the elbow, and "
            "waves the hand in a friendly manner before returning it to the side.",
            WAVE_LEFT,
        ),
        ("The right arm hangs relaxed at the side throughout, while the left arm performs a waving motion.", WAVE_LEFT),
        (
            "The torso remains upright and stable, with a slight lean to the right to counterbalance the raised arm.",
            WAVE_LEFT,
        ),
        ("The person's weight is evenly distributed on both legs, which remain stationary.", WAVE_LEFT),
        ("Her right hand rests on her hip as the left one is waved.", WAVE_LEFT),
        ("The subject lowers the left arm and comes to a standstill.", WAVE_LEFT),
        ("Both legs are straight and stay planted on the ground.", WAVE_LEFT),
        ("The left arm is bent at the elbow with the palm facing forward; the right arm stays down.", WAVE_LEFT),
        ("The person gestures with the left hand as though turning a steering wheel to the right.", WAVE_LEFT),
        ("A man in a running outfit stands with his right foot set slightly forward and waves.", WAVE_LEFT),
        ("The right leg is extended slightly backward for balance.", WAVE_LEFT),
        ("The person stands with the right knee slightly bent.", WAVE_LEFT),
        ("The person looks around and shifts the weight from the left to the right foot.", WAVE_LEFT),
        ("They keep their right arm lowered.", WAVE_LEFT),
        ("The right arm remains lowered along the body.", WAVE_LEFT),
        ("The person has their right arm bent.", WAVE_LEFT),
        ("With arms at the sides at first, the person then raises one arm and waves goodbye.", WAVE_LEFT),
        ("The legs move very little; the knees bend slightly.", WAVE_LEFT),
        ("The person sets off a friendly wave.", WAVE_LEFT),
        ("Only the left arm moves; the rest of the body remains still.", WAVE_LEFT),
        ("The person takes several steps forward, alternating the left and right legs.", WALK),
        ("The right leg swings forward, followed by the left leg, in a natural gait cycle.", WALK),
        ("Arms swing in opposition to the legs as the person advances.", WALK),
        ("The left arm swings forward as the right leg steps ahead.", WALK),
        ("The person moves from left to right across the frame at a brisk pace.", WALK),
        ("The knees bend and straighten with each stride, lifting the feet off the floor.", WALK),
        ("The person walks toward the right side of the court with a relaxed posture.", WALK),
        ("The left leg bears the weight while the right leg lifts and swings forward.", WALK),
        ("The torso rotates slightly left and right with each step.", WALK),
        ("The player runs a hand through the hair while walking.", WALK),
        ("The person does not run or jump.", WALK),
        ("The right foot pushes off the ground and the heel raises.", WALK),
        ("The person pivots on the right foot, turning to face left.", TURN_LEFT),
        ("The body rotates counterclockwise.", TURN_LEFT),
        ("The right foot steps across to support a turn to the left.", TURN_LEFT),
        ("The shoulders rotate to the left, followed by the hips.", TURN_LEFT),
        ("Balancing on the left leg, the person swings the right foot up in a kicking motion.", KICK_RIGHT),
        ("The left leg stays planted while the right leg kicks forward.", KICK_RIGHT),
        ("The left arm lifts to keep balance during the kick, and the right leg is extended.", KICK_RIGHT),
        ("The person performs a front kick with the right leg, then lowers it.", KICK_RIGHT),
        ("The person sits on a chair with both feet on the floor and hands resting on the thighs.", SIT),
        ("Seated, the person remains still with legs bent at the knees.", SIT),
        ("The legs are bent and the arms are folded.", SIT),
        (
            "A woman in a blue shirt stands facing the viewer and waves energetically with one arm above her head.",
            WAVE_LEFT,
        ),
        ("The left forearm moves rapidly from side to side.", WAVE_LEFT),
        (
            "The person brings the left hand up to head level, waves it a few times, and lets it fall back down.",
            WAVE_LEFT,
        ),
        ("The individual remains in place with minimal lower body movement.", WAVE_LEFT),
        ("The left shoulder lifts as the arm goes up.", WAVE_LEFT),
        ("The left elbow flexes and extends repeatedly.", WAVE_LEFT),
        ("No movement is visible in the right arm.", WAVE_LEFT),
        ("The right leg supports the body and doesn't move.", WAVE_LEFT),
        ("Her head tilts to the right while she waves.", WAVE_LEFT),
        ("The person leans a bit to one side while waving.", WAVE_LEFT),
        ("He waves his left hand in front of his chest and then puts it in his pocket.", WAVE_LEFT),
        ("The hands start at the sides and only one of them rises.", WAVE_LEFT),
        ("Standing tall, the person lifts an arm and swings the hand back and forth.", WAVE_LEFT),
        ("She stretches out her left arm and drops it again.", WAVE_LEFT),
        ("The person crouches slightly, swings both arms up and leaps into the air.", JUMP),
        ("With knees bent, the athlete springs upward and lands softly on both feet.", JUMP),
        ("Both feet leave the ground as the arms are thrown upward.", JUMP),
        ("The legs extend during takeoff and bend on landing.", JUMP),
        ("In a boxing stance, the person throws a straight right punch.", PUNCH),
        ("The right fist shoots forward and is pulled back, the left hand guards the face.", PUNCH),
        ("The upper body twists to the left as the right arm extends.", PUNCH),
        ("The person jabs with the right hand, keeping the left one bent near the chin.", PUNCH),
        ("The person bows politely and returns to an upright position.", BOW),
        ("The torso tilts forward from the hips while the legs stay straight.", BOW),
        ("He leans down as if picking something up from the floor.", BOW),
        ("Both arms hang down loosely as the upper body bends.", BOW),
        ("Someone walks at a normal speed, head held high.", WALK),
        ("The person marches ahead without turning.", WALK),
        ("The right hand holds a phone while the person walks.", WALK),
        ("She walks past another woman who is sitting on a bench.", WALK),
        ("The left and right legs alternate in steps.", WALK),
        ("The arms are bent at the elbows and swing beside the body.", WALK),
        ("A small step with the right foot begins a left turn.", TURN_LEFT),
        ("He turns around to his left, pushing off with the right leg.", TURN_LEFT),
        ("A man sits at a table and turns his head to the left.", SIT),
        ("The person sits with the right leg crossed over the left.", SIT),
        ("The arms lie on the armrests.", SIT),
    ],
)
def test_true_sentences_pass(sentence: str, events: list[Event]) -> None:
    assert check_claims(sentence, events) == []


@pytest.mark.parametrize(
    ("sentence", "events", "evidence"),
    [
        ("A person waves with the right hand.", WAVE_LEFT, "left_arm wave 0.6-2.4 s"),
        ("He raises his right arm above his head.", WAVE_LEFT, "left_arm raise"),
        ("She waves with her right.", WAVE_LEFT, "left_arm wave"),
        ("Somebody greets with a right-handed wave.", WAVE_LEFT, "right_arm rest"),
        ("The person waves with both hands.", WAVE_LEFT, "right_arm rest"),
        ("The left arm stays still while the person stands.", WAVE_LEFT, "left_arm wave"),
        ("A person kicks with the left leg.", WAVE_LEFT, "no kick"),
        ("The person waves and then jumps.", WAVE_LEFT, "no jump"),
        ("A person runs forward, waving.", WAVE_LEFT, "nothing as fast as a run"),
        ("The person squats down.", WAVE_LEFT, "no squat"),
        ("The person walks forward.", WAVE_LEFT, "no step"),
        ("The person walks backward.", WALK, "only body walk"),
        ("The person sprints across the room.", WALK, "body walk"),
        ("The person waves while walking.", WALK, "no wave"),
        ("The person stands still.", WALK, "not still"),
        ("A person punches with the left fist.", KICK_RIGHT, "no punch"),
        ("A person kicks with the left foot.", KICK_RIGHT, "right_leg kick"),
        ("The left foot kicks a ball.", KICK_RIGHT, "right_leg kick"),
        ("The person turns to the right.", TURN_LEFT, "the other way: body turn_left"),
        ("The person spins around to their right.", TURN_LEFT, "the other way"),
        ("The person sits down.", WALK, "no sit"),
        ("The person crawls on the floor.", SIT, "no crawl"),
    ],
)
def test_false_sentences_are_contradicted_with_evidence(sentence: str, events: list[Event], evidence: str) -> None:
    found = check_claims(sentence, events)
    assert found
    assert evidence in "; ".join(one.evidence for one in found)


@pytest.mark.parametrize(
    ("sentence", "events"),
    [
        (
            "The individual lifts their right arm to shoulder height and moves it side to side in a greeting gesture.",
            WAVE_LEFT,
        ),
        ("Starting from a neutral stance, the person extends the right arm upward and waves the hand.", WAVE_LEFT),
        ("The left arm hangs relaxed at the side throughout, while the right arm performs a waving motion.", WAVE_LEFT),
        ("The person takes several steps forward, walking briskly.", WAVE_LEFT),
        ("Using the right hand, the person waves goodbye.", WAVE_LEFT),
        ("A tennis player runs to the net and swings the right arm.", WAVE_LEFT),
        ("The person squats down and then stands up again.", WAVE_LEFT),
        ("The person is standing still, waving with the left hand.", WALK),
        ("The person jogs backward.", WALK),
        ("She kicks a ball with her right foot.", WALK),
        ("Turning to the right, the person looks over the shoulder.", TURN_LEFT),
        ("The body rotates to the person's right.", TURN_LEFT),
        ("Balancing on the right leg, the person swings the left foot up in a kicking motion.", KICK_RIGHT),
        ("The right leg stays planted while the left leg kicks forward.", KICK_RIGHT),
        ("The person jumps up with both arms raised.", SIT),
        ("A left punch is thrown.", PUNCH),
        ("The left fist shoots forward in a punch.", PUNCH),
        ("The person jumps for joy.", BOW),
        ("A person waves both arms.", BOW),
        ("He lies on the floor.", WALK),
        ("The man walks across the room.", SIT),
        ("A quick turn to the right follows.", TURN_LEFT),
        ("The right hand is waved.", WAVE_LEFT),
        ("His right hand goes up and waves.", WAVE_LEFT),
    ],
)
def test_false_paraphrases_are_contradicted(sentence: str, events: list[Event]) -> None:
    assert check_claims(sentence, events)


def test_only_the_false_half_is_quoted() -> None:
    (found,) = check_claims("A person walks ahead and kicks with the left foot.", WALK)
    assert found.claim.startswith("kicks")


def test_a_sentence_about_a_part_means_that_part() -> None:
    assert check_claims("Waves from side to side.", WAVE_LEFT, "left_arm") == []
    assert check_claims("Waves from side to side.", WAVE_LEFT, "right_arm")
    assert judge("Waves.", WAVE_LEFT, "left_arm").verdict == "supported"
    assert judge("A person in a red dress.", WAVE_LEFT).verdict == "unknown"


@pytest.mark.parametrize(
    ("sentence", "action", "sides"),
    [
        ("raises the left arm and the right arm", "raise", ("left", "right")),
        ("lifts left and right hands", "raise", ("left", "right")),
        ("raises her straight left upper arm", "raise", ("left",)),
        ("brings the right hand up", "raise", ("right",)),
        ("puts the left foot down", "lower", ("left",)),
        ("kicks with a leg", "kick", ()),
    ],
)
def test_sides_are_read(sentence: str, action: str, sides: tuple[str, ...]) -> None:
    (claim,) = claims_of(f"A person {sentence}.")
    assert (claim.action, claim.sides) == (action, sides)


def test_each_verb_has_its_own_limb() -> None:
    raised, lowered, walked = claims_of(
        "A person raises the left arm and the right arm comes down while walking forward."
    )
    assert (raised.sides, lowered.sides) == (("left",), ("right",))
    assert walked.direction == "forward"


def swapped(text: str) -> str:
    other = {"left": "right", "right": "left"}
    return re.sub(r"\b(left|right)\b", lambda found: other[found.group()], text)


@pytest.mark.parametrize("action", ACTIONS)
def test_sentences_of_the_rules_pass_and_mirrored_ones_do_not(action: str) -> None:
    for seed in (1, 2):
        captions = captions_of(generate(action, 3.5, seed, body=BODY), f"{seed}")
        for part, lines in (("body", captions.body), *captions.parts.items()):
            for line in lines:
                assert check_claims(line, captions.events, part) == [], line
                if action.startswith(("wave_", "kick_", "turn_", "raise_")) and one_sided(captions, part, line):
                    assert check_claims(swapped(line), captions.events, part if part == "body" else swap_sides(part)), (
                        line
                    )


def one_sided(captions: Captions, part: str, line: str) -> bool:
    """Whether a sentence names a side, and the other side has no event that it could refer to."""
    if not re.search(r"\b(left|right)\b", line):
        return False
    active = {(one.part, one.side) for one in captions.events if one.kind != "rest"}
    if part == "body":
        named = {
            (one.part, one.side) for one in captions.events if one.part != "torso" and one.kind not in ("rest", "swing")
        }
        return not any(
            (swap_sides(p) if p != "body" else p, swapped(side)) in named
            for p, side in named
            if side in ("left", "right")
        )
    return part != "torso" and any(p == part for p, _ in active) and not any(p == swap_sides(part) for p, _ in active)
