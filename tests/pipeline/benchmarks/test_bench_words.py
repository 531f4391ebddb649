"""The words about labelled people: kept, false, missing, on a small dataset and on made samples."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_helpers import HEIGHT, WIDTH, make_dataset
from typer.testing import CliRunner

from pipeline.benchmarks.words import Label, Told, bench, bench_text, judge, read_labels
from pipeline.commands.bench import bench_app
from schemas.dataset import iterate_samples
from schemas.errors import UsageError
from schemas.sample import decode_npz
from schemas.storage import Storage

PLACE: dict[str, Any] = {"video": "street.mp4", "size": [100, 50], "at_s": 11.0, "x": 0.5, "y": 0.5}


def label(**changes: Any) -> Label:
    values = {**PLACE, "size": (100.0, 50.0), "must": (), "never": frozenset(), "unseen": frozenset(), "keep": False}
    return Label(**{**values, **changes})


def told(**changes: Any) -> Told:
    values: dict[str, Any] = {
        "key": "a", "uri": "/in/street.mp4", "start_s": 10.0, "end_s": 12.0, "boxes": np.tile([20.0, 10, 80, 40], (60, 1)),
        "events": (("body", "walk"), ("left_arm", "wave"), ("torso", "rest")), "body": ("A person walks forward.",),
        "parts": {"left_leg": ("The left leg takes two steps.",)}, "instructions": (("p2t", frozenset({"left_leg"})),),
    }  # fmt: skip
    return Told(**{**values, **changes})


def test_what_must_and_must_not_be_told() -> None:
    seen = judge(
        label(must=(frozenset({"walk", "run"}), frozenset({"left_arm:wave"})), never=frozenset({"sit"})), [told()]
    )
    assert (seen["kept"], seen["false"], seen["missing"], seen["movements"]) == (True, [], [], 2)
    wrong = judge(label(must=(frozenset({"right_arm:wave"}),), never=frozenset({"wave", "walk"})), [told()])
    assert wrong["false"] == ["walk", "wave"]
    assert wrong["missing"] == ["right_arm:wave"]
    words_only = told(events=(("body", "turn_left"),), body=("A person turns, then squats down.",))
    assert judge(label(never=frozenset({"squat"})), [words_only])["false"] == ["squat"]


def test_nothing_may_be_told_of_what_cannot_be_seen() -> None:
    one_leg = judge(label(unseen=frozenset({"left_leg"})), [told(events=(("left_leg", "rest"),))])
    assert one_leg["false"] == ["instruction:p2t", "left_leg:rest", "left_leg:sentence"]
    legs = frozenset({"left_leg", "right_leg"})
    hidden = told(parts={part: (f"The {part} is out of view.",) for part in legs}, instructions=())
    assert judge(label(unseen=legs), [hidden])["false"] == ["walk"]
    still = replace(hidden, events=(("left_arm", "wave"),), body=("Someone waves with the left hand.",))
    assert judge(label(unseen=legs), [still])["false"] == []


def test_a_label_means_the_smallest_box_at_its_time() -> None:
    large = told(key="large", boxes=np.tile([0.0, 0, 100, 50], (60, 1)), body=("A person stands.",))
    assert judge(label(), [large, told()])["key"] == "a"
    for away in (label(at_s=9.9), label(at_s=12.1), label(x=0.1)):
        assert not judge(away, [told()])["kept"]
    assert judge(label(at_s=9.96), [told()])["kept"]
    moving = told(boxes=np.linspace([0.0, 0, 10, 50], [90.0, 0, 100, 50], 60))
    assert judge(label(at_s=11.95, x=0.97), [moving])["kept"]
    assert judge(label(x=0.1, keep=True), [told()])["missing"] == ["person"]


def test_a_dataset_is_judged_by_the_command(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set", video=2, mocap=2)
    samples = [members for _, _, members in iterate_samples(Storage(dataset)) if "keypoints.npz" in members]
    meta = json.loads(samples[0]["meta.json"])
    left, top, right, bottom = decode_npz(samples[0]["keypoints.npz"])["boxes"][30]
    place = {"video": meta["uri"].rsplit("/", 1)[-1], "size": [WIDTH, HEIGHT], "at_s": meta["start_s"] + 1.0,
             "x": float(left + right) / 2 / WIDTH, "y": float(top + bottom) / 2 / HEIGHT}  # fmt: skip
    labels = tmp_path / "labels.json"
    rows = [
        {**place, "must": [["walk"], ["left_arm:raise"]], "never": ["sit"], "keep": True},
        {**place, "must": [["jump"]], "never": ["walk"]},
        {**place, "video": "absent.mp4", "keep": True},
        {**place, "x": 0.001, "y": 0.001},
    ]
    labels.write_text(json.dumps({"labels": rows}))
    report = bench(dataset, str(labels))
    totals = {name: report[name] for name in ("labels", "kept", "false", "missing", "movements")}
    assert totals == {"labels": 4, "kept": 2, "false": 1, "missing": 2, "movements": 2.0}
    text = bench_text(report)
    assert text.splitlines()[-1] == "labels 4, kept 2, false 1, missing 2, movements 2.0"
    assert "FALSE walk; MISSING jump" in text
    printed = CliRunner().invoke(bench_app, ["words", dataset, str(labels), "--json"])
    assert printed.exit_code == 0
    assert json.load(io.StringIO(printed.stdout))["false"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON", "labels.json"),
        ('{"labels": []}', "no labels"),
        ('{"labels": [{"video": "a.mp4"}]}', "label 0"),
        (json.dumps({"labels": [PLACE, {**PLACE, "unseen": ["tail"]}]}), "label 1: unseen"),
    ],
)
def test_files_without_labels_are_rejected(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_labels(path)
