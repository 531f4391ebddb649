"""Descriptions as commands."""

import pytest

from stages.language.instructions.commands import command_of, with_own_limbs
from stages.language.rules import phrases


@pytest.mark.parametrize(
    ("description", "command"),
    [
        ("A person raises the left arm.", "raise the left arm"),
        ("someone walks forward while waving the right hand", "walk forward while waving the right hand"),
        ("The man slowly lifts his arms, lowers them again, and then squats down.",
         "slowly lift your arms, lower them again, and then squat down"),
        ("A young woman carries on", ""),
        ("One person stretches and then catches a ball.", "stretch and then catch a ball"),
        ("Someone steps to the left, then again sidesteps to the right.", "step to the left, then again sidestep to the right"),
        ("A person walks with arms and legs spread.", ""),
        ("A person is walking.", ""),
        ("A person sits on a chair behind them.", ""),
        ("A person walks to a man who waves.", ""),
        ("A person walks. He waves.", ""),
        ("Maria waves.", ""),
        ("Walking forward.", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_commands(description: str, command: str) -> None:
    assert command_of(description) == command


def test_limbs_are_the_listeners_own() -> None:
    assert with_own_limbs("raise the left arm and the right knee") == "raise your left arm and your right knee"
    assert with_own_limbs("step to the left and raise both arms") == "step to the left and raise both arms"


def test_all_wordings_of_the_caption_rules_that_are_verbs_become_commands() -> None:
    slots = dict.fromkeys(("arm", "hand", "fist", "elbow", "leg", "foot", "knee"), "the left hand") | {
        "side": "left",
        "how": "",
    }
    for wordings in phrases.BODY.values():
        for wording in wordings:
            text = f"A person {wording.format(**slots)}."
            assert command_of(text) or " is " in text, text
