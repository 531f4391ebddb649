"""Waterfall counts are consistent: those of the ledger, and those of presets with an independent count."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from audit_helpers import make_dataset
from typer.testing import CliRunner

from pipeline.audit.query import QuerySession
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


def test_counts_of_consecutive_stages_are_consistent(dataset: str) -> None:
    with QuerySession(dataset) as session:
        stages = ledger_waterfall(session)
        accepted = session.rows("SELECT count(*) AS n FROM ledger WHERE outcome = 'accepted'")[0]["n"]
        decisions = session.rows("SELECT count(*) AS n FROM ledger")[0]["n"]
    assert [stage.stage for stage in stages] == ["keep_human_text", "track_people", "cut_clips", "score_motion"]
    assert [list(STAGES).index(stage.stage) for stage in stages] == sorted(
        list(STAGES).index(stage.stage) for stage in stages
    )
    assert stages[0].entered == decisions
    assert stages[-1].passed == accepted
    for stage, following in pairwise(stages):
        assert stage.passed == following.entered
    for stage in stages:
        assert stage.entered - stage.passed == sum(reason.count for reason in stage.reasons)
    assert [(reason.name, reason.count, reason.limit) for reason in stages[2].reasons] == [("too_short", 2, 2.0)]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_drops_samples_beyond_its_limits(dataset: str, name: str) -> None:
    stages = preset_stages(name)
    limits = limits_of(parse_config(stages, StageSettings, name).score_motion)  # type: ignore[attr-defined]

    def first_violated_limit(row: dict) -> str:
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

    expected = [first_violated_limit(row) for row in rows(dataset)]
    with QuerySession(dataset) as session:
        counts = preset_waterfall(session, name)
    assert (counts.samples, counts.kept) == (len(expected), expected.count(""))
    dropped: dict[str, int] = {}
    for limit in counts.limits:
        dropped[limit.name] = dropped.get(limit.name, 0) + limit.entered - limit.passed
        assert limit.dropped_alone >= limit.entered - limit.passed
    assert {name: count for name, count in dropped.items() if count} == {
        name: expected.count(name) for name in set(expected) - {""}
    }
    assert counts.kept_hours <= counts.hours
    assert next(limit for limit in counts.limits if limit.name == "physical").unknown == counts.samples


def test_settings_without_a_column_are_not_judged(dataset: str) -> None:
    with QuerySession(dataset) as session:
        assert preset_waterfall(session, "motionmillion").not_judged == ["cut_clips.min_height_share"]
        assert [preset.preset for preset in preset_waterfalls(session)] == preset_names()
        with pytest.raises(UsageError, match="presets: mbench"):
            preset_waterfall(session, "amass")


def test_removed_samples_do_not_count(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set")
    removed = rows(dataset)[0]["key"]
    write_table(Storage(dataset), TOMBSTONES, pa.table({"key": [removed]}))
    with QuerySession(dataset) as session:
        assert preset_waterfall(session, "romo").samples == len(rows(dataset)) - 1


def test_command_text_and_page(dataset: str) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["waterfall", dataset, *words], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    result = json.loads(run("--json"))
    assert [preset["preset"] for preset in result["presets"]] == preset_names()
    assert result["stages"][0]["stage"] == "keep_human_text"
    assert "preset mbench would keep" in run()
    detailed = run("--preset", "mbench")
    assert "jitter <= 0.0089" in detailed
    assert "romo" not in detailed
    page = Path(write_report(dataset)).read_text()
    assert "What other datasets" in page
    assert "foot slide ≤ 0.0067" in page


def test_text_without_rejections() -> None:
    assert "nothing was rejected" in waterfall_text([], [], detailed=True)
