"""What gates drop adds up: by the ledger, and by the scores against a count by hand."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from audit_helpers import make_dataset
from typer.testing import CliRunner

from pipeline.audit.query import Questions
from pipeline.audit.report import write_report
from pipeline.audit.waterfall import ledger_waterfall, preset_waterfall, preset_waterfalls, waterfall_text
from pipeline.chain.presets import preset_names, preset_stages
from pipeline.chain.stage_order import STAGES, StageSettings
from pipeline.commands.main import app
from schemas.config import parse_config
from schemas.dataset import TOMBSTONES, read_table, write_table
from schemas.errors import UsageError
from schemas.storage import Storage
from stages.score_motion import limits_of


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data") / "set", video=3, mocap=8)


def rows(dataset: str) -> list[dict]:
    storage = Storage(dataset)
    return [row for path in storage.list("catalogue", ".parquet") for row in read_table(storage, path).to_pylist()]


def test_what_goes_out_of_a_stage_comes_to_the_next(dataset: str) -> None:
    with Questions(dataset) as questions:
        falls = ledger_waterfall(questions)
        accepted = questions.rows("SELECT count(*) AS n FROM ledger WHERE outcome = 'accepted'")[0]["n"]
        decided = questions.rows("SELECT count(*) AS n FROM ledger")[0]["n"]
    assert [fall.stage for fall in falls] == ["keep_human_text", "track_people", "cut_clips", "score_motion"]
    assert [list(STAGES).index(fall.stage) for fall in falls] == sorted(
        list(STAGES).index(fall.stage) for fall in falls
    )
    assert falls[0].came == decided
    assert falls[-1].went == accepted
    for fall, following in pairwise(falls):
        assert fall.went == following.came
    for fall in falls:
        assert fall.came - fall.went == sum(reason.count for reason in fall.reasons)
    assert [(reason.name, reason.count, reason.limit) for reason in falls[2].reasons] == [("too_short", 2, 2.0)]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_drops_what_its_limits_say(dataset: str, name: str) -> None:
    stages = preset_stages(name)
    limits = limits_of(parse_config(stages, StageSettings, name).score_motion)  # type: ignore[attr-defined]

    def first_gate(row: dict) -> str:
        video = row["subset"] == "video"
        if video and row["source_fps"] < stages.get("read_videos", {}).get("min_fps", 0):
            return "source_fps"
        clips = stages.get("cut_clips", {})
        if video and not clips.get("min_s", 0) <= row["seconds"] <= clips.get("max_s", math.inf):
            return "seconds"
        for score, (low, high) in limits.items():
            value = row.get(f"score_{score}")
            if value is not None and not low <= value <= high:
                return score
        return ""

    expected = [first_gate(row) for row in rows(dataset)]
    with Questions(dataset) as questions:
        found = preset_waterfall(questions, name)
    assert (found.samples, found.kept) == (len(expected), expected.count(""))
    dropped: dict[str, int] = {}
    for gate in found.gates:
        dropped[gate.name] = dropped.get(gate.name, 0) + gate.came - gate.went
        assert gate.alone >= gate.came - gate.went
    assert {gate: count for gate, count in dropped.items() if count} == {
        gate: expected.count(gate) for gate in set(expected) - {""}
    }
    assert found.kept_hours <= found.hours
    assert next(gate for gate in found.gates if gate.name == "physical").unknown == found.samples


def test_only_what_can_be_judged_is(dataset: str) -> None:
    with Questions(dataset) as questions:
        assert preset_waterfall(questions, "motionmillion").not_judged == ["cut_clips.min_height_share"]
        assert [fall.preset for fall in preset_waterfalls(questions)] == preset_names()
        with pytest.raises(UsageError, match="presets: mbench"):
            preset_waterfall(questions, "amass")


def test_removed_samples_do_not_count(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set")
    gone = rows(dataset)[0]["key"]
    write_table(Storage(dataset), TOMBSTONES, pa.table({"key": [gone]}))
    with Questions(dataset) as questions:
        assert preset_waterfall(questions, "romo").samples == len(rows(dataset)) - 1


def test_command_text_and_page(dataset: str) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["waterfall", dataset, *words], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    found = json.loads(run("--json"))
    assert [fall["preset"] for fall in found["presets"]] == preset_names()
    assert found["stages"][0]["stage"] == "keep_human_text"
    assert "preset mbench would keep" in run()
    alone = run("--preset", "mbench")
    assert "jitter <= 0.0089" in alone
    assert "romo" not in alone
    page = Path(write_report(dataset)).read_text()
    assert "What others" in page
    assert "foot slide ≤ 0.0067" in page


def test_nothing_dropped_is_said() -> None:
    assert "nothing was turned away" in waterfall_text([], [], gates=True)
