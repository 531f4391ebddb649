"""The overhead benchmark: it runs, counts all items, and rejects invalid arguments. Speeds are in BENCHMARKS.md."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.benchmarks.overhead import bench, bench_text, trivial_chain, write_plain
from pipeline.chain.work_item import WorkItem, advance
from pipeline.commands.main import app
from schemas.errors import UsageError
from schemas.records import Source


@pytest.mark.parametrize("sources_per_commit", [1, 8])
def test_inline_by_size(sources_per_commit: int) -> None:
    report = bench("9,20", sources_per_commit=sources_per_commit, isolate=False)
    assert [run["items"] for run in report["runs"]] == [9, 20]
    for run in report["runs"]:
        assert run["ms"] > run["overhead_ms"] > 0
        assert run["plain_ms"] > 0
    assert len(bench_text(report).splitlines()) == 4


def test_both_programs_give_the_same_content(tmp_path: Path) -> None:
    work_item = WorkItem.of(Source(id="one", uri="bench:1", kind="mocap"))
    write_plain(tmp_path, [work_item])
    (sample,) = advance(trivial_chain(), work_item).samples
    assert (tmp_path / "one.bin").read_bytes() == b"".join(sample.members.values())
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("sizes", ["", "0", "1000,500", "500,500", "101,two", "100,1000"])
def test_sizes_must_increase(sizes: str) -> None:
    with pytest.raises(UsageError, match="--sizes"):
        bench(sizes)


def test_unknown_engines_are_rejected() -> None:
    with pytest.raises(UsageError, match="inline"):
        bench("500", engine="spark")


def test_the_command() -> None:
    result = CliRunner().invoke(
        app, ["bench", "overhead", "--sizes", "3,6", "--sources-per-commit", "2", "--no-isolate", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert [run["items"] for run in json.loads(result.stdout)["runs"]] == [3, 6]
