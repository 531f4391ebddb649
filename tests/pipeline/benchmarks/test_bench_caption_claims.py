"""Claims of captions against what people wrote: the reading of texts, the choice of takes, the judgement, and a whole run."""

import json
from pathlib import Path

import pytest

from pipeline.benchmarks.caption_claims import HALVES, ToldTake, bench, bench_text, chosen, in_half, judged
from pipeline.benchmarks.human_texts import JUDGED, told_by
from schemas.body_model import BodyModel
from schemas.errors import UsageError
from schemas.human_texts import Sentence, Texts, read_texts
from schemas.records import Event
from stages.synthesis.motions import generate
from tests.mocap_files import write_known_bvh


def event(kind: str, part: str = "body") -> Event:
    return Event(part=part, joint="", kind=kind, side="none", start_s=0, end_s=1, amount=1, speed=1, text="")


def test_words_state_allow_and_rule_out() -> None:
    walk = told_by(["A person walks forward."])
    assert walk is not None
    assert walk.must == (frozenset({"walk"}),)
    assert walk.ruled_out == JUDGED - {"walk"}
    jump = told_by(["13_11 forward jump"])
    assert jump is not None
    assert "squat" not in jump.ruled_out
    assert "wave" in jump.ruled_out
    both = told_by(["walks to a chair", "sits down"])
    assert both is not None
    assert set(both.must) == {frozenset({"walk"}), frozenset({"sit"})}
    assert told_by(["a holiday"]) is None
    for words, group in (
        ("train_basketball_signal_3", "signals"),
        ("train_basketball_3", "basketball"),
        ("trunk", None),
    ):
        told = told_by([words])
        assert (told and told.group) == group


def test_texts_of_three_kinds_of_files(tmp_path: Path) -> None:
    trials, index, names = tmp_path / "trials.json", tmp_path / "index.tsv", tmp_path / "names.json"
    trials.write_text(
        json.dumps(
            {"01_01": {"cmu_description": "jump", "kitml": {"texts": ["hops"]}, "h": [{"id": "7", "texts": ["up"]}]}}
        )
    )
    index.write_text("motion\tdescription\tsubject\n01_01\tjump\tnobody\n01_02\twalk\tnobody\n")
    names.write_text(json.dumps({"walk_a": {"trial": "01_02", "speed_corr": 0.9}}))
    texts = read_texts([str(trials), str(index), str(names)])
    assert texts.of("01_01") == ("jump", "hops", "up")
    assert texts.of("walk_a") == ("walk",)
    assert texts.trial_of("walk_a") == "01_02"
    assert texts.of("directing_traffic_1") == ("directing traffic 1",)
    for content in ("[1]", "no JSON"):
        trials.write_text(content)
        with pytest.raises(UsageError, match=r"trials\.json"):
            read_texts([str(trials)])
    with pytest.raises(UsageError, match=r"absent\.json"):
        read_texts([str(tmp_path / "absent.json")])


def test_one_file_a_trial_and_every_trial_in_one_half() -> None:
    texts = Texts({f"01_{i:02d}": (Sentence("walk", ""),) for i in range(40)}, {"walking_7": "01_07"})
    files = [Path(f"a/01_{i:02d}.bvh") for i in range(40)] + [Path("a/walking_7.bvh"), Path("a/holiday.bvh")]
    picked = [path.stem for path, _ in chosen(files, texts)]
    assert sorted(picked) == sorted(f"01_{i:02d}" for i in range(40))
    assert picked != sorted(picked)
    assert picked == [path.stem for path, _ in chosen(files[::-1], texts)]
    halves = {half: {name for name in picked if in_half(name, half)} for half in HALVES}
    assert halves["development"] | halves["held_back"] == halves["both"] == set(picked)
    assert not halves["development"] & halves["held_back"]
    assert min(map(len, halves.values())) > 10


def test_claims_are_false_where_no_word_allows_them() -> None:
    walk, jump = told_by(["walk"]), told_by(["jump"])
    assert walk is not None
    assert jump is not None
    takes = [ToldTake("a", walk, ()), ToldTake("b", jump, ())]
    events = {
        "a": [
            event("walk"),
            event("wave", "left_arm"),
            event("raise", "left_arm"),
            event("sidestep_left"),
            event("stand"),
        ],
        "b": [event("squat"), event("rest", "torso")],
    }
    result = judged(takes, events)
    assert (result["claims"], result["false"]) == (4, 2)
    assert result["kinds"]["sidestep"] == {"claims": 1, "false": 1}
    assert result["kinds"]["walk"] == {"claims": 1, "false": 0}
    assert result["recall"] == {"jump": {"takes": 1, "recall": 0.0}, "walk": {"takes": 1, "recall": 1.0}}
    assert result["groups"]["walk"] == {"takes": 1, "claims": 3, "false": 2}
    assert len(result["wrong"]) == 1


def test_files_are_read_judged_and_never_counted_twice(tmp_path: Path) -> None:
    body = BodyModel.load()
    for name, action in (("02_01", "walk"), ("02_02", "squat"), ("walking_again", "walk")):
        write_known_bvh(tmp_path / f"{name}.bvh", generate(action, 3.0, 5, body=body), "cmu_bvh")
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps({"02_01": ["walks"], "02_02": ["walks slowly"]}))
    report = bench(mocap=str(tmp_path), texts=[str(texts)], half="both")
    assert report["takes"] == 2
    assert report["recall"]["walk"]["recall"] == 0.5
    assert report["kinds"]["squat"]["false"] == report["false"] > 0
    assert report["wrong"][0].startswith("02_02 (walk): squat")
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert f"claims {report['claims']}, false {report['false']}" in bench_text(report)


def test_invalid_arguments_are_rejected(tmp_path: Path) -> None:
    texts = tmp_path / "texts.json"
    texts.write_text("{}")
    for mocap, half, words in (
        ("", "both", "--mocap"),
        (str(tmp_path), "third", "--half third"),
        (str(tmp_path), "both", "no take"),
    ):
        with pytest.raises(UsageError, match=words):
            bench(mocap=mocap, texts=[str(texts)], half=half)
