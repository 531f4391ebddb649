"""The commands as a user types them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from audit_helpers import make_dataset
from typer.testing import CliRunner

from pipeline.commands import main as cli
from pipeline.commands.doctor import doctor_text, examine
from pipeline.commands.options import print_result
from schemas.errors import HumoError, UsageError

runner = CliRunner()


def run(*words: str) -> str:
    result = runner.invoke(cli.app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("cli") / "data")


@pytest.mark.parametrize(
    "words",
    [
        (), ("demo",), ("plan",), ("ingest",), ("pack",), ("verify",), ("stats",), ("query",), ("report",), ("view",),
        ("train", "tokenizer"), ("train", "llm"), ("train", "evaluator"), ("evaluate", "tokenizer"), ("evaluate", "llm"),
        ("evaluate", "motions"), ("evaluate", "texts"), ("generate",),
        ("doctor",), ("bench", "track"), ("bench", "loader"), ("bench", "evaluator"), ("bench", "control"), ("bench", "decoding"),
    ],
)  # fmt: skip
def test_every_command_has_help(words: tuple[str, ...]) -> None:
    assert "Usage" in run(*words, "--help")


def test_plan_needs_only_a_config(films: Path, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(f"sources: [{{path: {films}}}]\noutput: {tmp_path / 'data'}\n")
    plan = json.loads(run("plan", str(config), "--json"))
    assert plan["sources"]["to_do"] == 3
    assert plan["media_hours"]["value"] == pytest.approx(9 / 3600, rel=0.05)
    assert plan["estimate"] is None
    assert not (tmp_path / "data").exists()
    assert "track_people" in run("plan", str(config))


def test_query_stats_and_report(dataset: str, tmp_path: Path) -> None:
    rows = json.loads(run("query", dataset, "select count(*) as n from samples", "--json"))
    assert rows == [{"n": 8}]
    statistics = json.loads(run("stats", dataset, "--json"))
    assert statistics
    with np.load(Path(dataset) / "statistics" / "features.npz") as features:
        assert features["mean"].shape == features["std"].shape == (263,)
    page = json.loads(run("report", dataset, "--out", str(tmp_path / "report.html"), "--json"))["path"]
    assert Path(page).stat().st_size > 10_000


def test_errors_are_printed_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, status in ((HumoError("nothing there; look elsewhere"), 1), (UsageError("odd key; spell it"), 2)):

        def fail(error: HumoError = error) -> None:
            raise error

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == status
        assert capsys.readouterr().err == f"humo: {error}\n"


def test_doctor_reports_what_is_available_and_missing() -> None:
    sections = examine()
    assert all(item["ok"] for items in sections.values() for item in items if item["needed"])
    assert {"SMPL", "humo-anny-1"} <= {item["name"] for item in sections["body models"]}
    text = doctor_text(sections)
    assert "AGPL-3.0" in text
    assert "MISSING" not in text


def test_json_results_have_null_for_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_result({"exchange": math.nan, "rows": [{"share": 0.5}, {"share": math.inf}]}, True, "")
    assert json.loads(capsys.readouterr().out) == {"exchange": None, "rows": [{"share": 0.5}, {"share": None}]}
