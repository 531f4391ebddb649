"""Failures of jobs: quarantine, retries, the failure limit, concurrent jobs, signals, a full disk, changed settings."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mocap_files import body_motion, write_known_bvh

from pipeline import PROJECT_ROOT
from pipeline.chain.config import IngestConfig
from pipeline.dataset.commits import done_sources
from pipeline.dataset.lease import LEASE, Lease
from pipeline.dataset.maintenance import run_maintenance
from pipeline.dataset.verify import verify
from pipeline.job.history import recorded_jobs
from pipeline.job.ingest import ingest, make_worklist
from pipeline.job.retry import retry
from schemas.config import parse_config
from schemas.dataset import read_description
from schemas.errors import HumoError, UsageError
from schemas.ledger import read_history, read_ledger
from schemas.storage import PARTIAL, Storage

QUICK = {"kind": "inline", "isolate": False}


@pytest.fixture(scope="module")
def mocap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short motion captures."""
    folder = tmp_path_factory.mktemp("mocap")
    for name, action in (("good", "walk"), ("bad", "wave_left"), ("other", "squat")):
        write_known_bvh(folder / f"{name}.bvh", body_motion(action, 3.0), "cmu_bvh")
    return folder


def job(sources: Path, output: Path, **more: object) -> IngestConfig:
    named = {"sources": [{"kind": "mocap", "path": str(sources)}], "output": str(output), "splits": {"train": 1.0}}
    return parse_config({**named, "engine": QUICK, **more}, IngestConfig, "job.yaml")


def shards(dataset: str | Path) -> dict[str, bytes]:
    return {one.path: (Path(dataset) / one.path).read_bytes() for one in read_description(Storage(dataset)).shards}


@pytest.fixture
def failed(mocap_folder: Path, tmp_path: Path) -> IngestConfig:
    """A job whose sources all exceed the time limit."""
    config = job(
        mocap_folder, tmp_path / "data", faults={"time_limit_s": 0.001, "retries": 0}, engine={"isolate": True}
    )
    report = ingest(config)
    assert len(report.failed) == 3
    return config


def test_failures_are_quarantined_and_retried(failed: IngestConfig, mocap_folder: Path, tmp_path: Path) -> None:
    rows = read_ledger(Storage(failed.output)).to_pylist()
    assert {(row["outcome"], row["stage"], row["reason"]) for row in rows} == {
        ("quarantined", "read_mocap", "timed_out")
    }
    assert len(ingest(failed).worklist.done) == 3, "it is decided: only humo retry processes it again"
    one = rows[0]["source_id"]
    limits = ["faults.time_limit_s=0", "engine.isolate=false"]
    (report,) = retry(failed.output, sources=[one], overrides=limits)
    assert (report.samples, report.failed) == (1, [])
    (report,) = retry(failed.output, reasons=["read_mocap:timed_out"], overrides=limits)
    assert report.samples == 2
    assert retry(failed.output) == []
    ingest(job(mocap_folder, tmp_path / "undisturbed"))
    assert shards(failed.output) == shards(tmp_path / "undisturbed")
    assert verify(failed.output).problems == []
    history = read_history(Storage(failed.output)).to_pylist()
    assert (
        sorted((row["generation"], row["outcome"]) for row in history)
        == [(0, "quarantined")] * 3 + [(1, "accepted")] * 3
    )


def test_retry_reports_unknown_reasons_and_sources(failed: IngestConfig) -> None:
    with pytest.raises(UsageError, match=r"rejected for too_short; known reasons: .*timed_out"):
        retry(failed.output, reasons=["too_short"])
    with pytest.raises(UsageError, match="no source nobody"):
        retry(failed.output, sources=["nobody"])
    for path in (Path(failed.output) / "jobs").iterdir():
        path.unlink()
    with pytest.raises(HumoError, match="listed by no job"):
        retry(failed.output)


def test_a_job_stops_when_too_many_sources_fail(mocap_folder: Path, tmp_path: Path) -> None:
    limits = {"time_limit_s": 0.001, "retries": 0, "max_failures": 1}
    with pytest.raises(HumoError, match=r"2 sources failed, more than max_failures \(1\).*read_mocap: timed_out"):
        ingest(job(mocap_folder, tmp_path / "data", faults=limits, engine={"isolate": True}))
    assert len(done_sources(Storage(tmp_path / "data"))) == 2
    assert not (tmp_path / "data" / LEASE).exists()


def test_sources_under_other_settings_are_kept_or_recomputed(mocap_folder: Path, tmp_path: Path) -> None:
    first = job(mocap_folder, tmp_path / "data")
    ingest(first)
    second = job(mocap_folder, tmp_path / "data", stages={"score_motion": {"max_jitter": 123.0}})
    kept = make_worklist(second)
    assert (len(kept.pending), kept.done_under_other_settings) == (0, 3)
    assert kept.changes[0].startswith("3 sources: stages.score_motion.max_jitter: ")
    assert kept.changes[0].endswith("-> 123.0")
    again = make_worklist(second, recompute=True)
    assert (len(again.pending), again.recomputed, again.done_under_other_settings) == (3, 3, 0)
    assert ingest(second, worklist=again).samples == 3
    assert set(done_sources(Storage(second.output)).values()) == {second.digest}
    assert verify(second.output).problems == []
    assert {one.digest for one in recorded_jobs(Storage(second.output))} == {first.digest, second.digest}
    reverted = make_worklist(first)
    assert reverted.done_under_other_settings == 3


def test_two_commits_of_one_source_count_once(mocap_folder: Path, tmp_path: Path) -> None:
    """As from two concurrent jobs with batches of different size."""
    ingest(job(mocap_folder, tmp_path / "one"))
    ingest(job(mocap_folder, tmp_path / "two", sources_per_commit=3))
    for folder in ("parts", "ledger"):
        for path in (tmp_path / "two" / folder).iterdir():
            path.rename(tmp_path / "one" / folder / path.name)
    storage = Storage(tmp_path / "one")
    assert len(read_history(storage)) == 6
    assert len(read_ledger(storage)) == 3
    ingest(job(mocap_folder, tmp_path / "one"))
    assert shards(tmp_path / "one") == shards(tmp_path / "two")


class TestMaintenance:
    """Orphaned files, and a ledger of very many files."""

    def test_old_orphans_are_deleted(self, mocap_folder: Path, tmp_path: Path) -> None:
        ingest(job(mocap_folder, tmp_path / "data"))
        folder = tmp_path / "data" / "parts"
        orphan, unfinished = folder / "0123-4567.tar", folder / f".0123.tar.7-8{PARTIAL}"
        for path in (orphan, unfinished):
            path.write_bytes(b"x")
        storage = Storage(tmp_path / "data")
        assert run_maintenance(storage).swept == []
        for path in (orphan, unfinished):
            os.utime(path, (1.0, 1.0))
        assert len(run_maintenance(storage).swept) == 2
        assert not orphan.exists()
        assert verify(storage.uri).problems == []

    @pytest.mark.parametrize("crashed", [False, True])
    def test_a_merged_ledger_has_the_same_content(self, mocap_folder: Path, tmp_path: Path, crashed: bool) -> None:
        ingest(job(mocap_folder, tmp_path / "data"))
        storage = Storage(tmp_path / "data")
        # Missing numbers are NaN, which does not compare equal.
        before = read_ledger(storage).drop_columns(["measured", "limit"])
        files = {path.name: path.read_bytes() for path in (tmp_path / "data/ledger").iterdir()}
        assert run_maintenance(storage, max_files=1).merged == 3
        assert len(storage.list("ledger")) == 1
        if crashed:  # after writing the merged file, before deleting the others
            for name, content in files.items():
                (tmp_path / "data/ledger" / name).write_bytes(content)
        assert read_ledger(storage).drop_columns(["measured", "limit"]) == before
        assert len(ingest(job(mocap_folder, tmp_path / "data")).worklist.done) == 3


class TestLease:
    """One job at a time."""

    def test_a_second_job_is_refused(self, mocap_folder: Path, tmp_path: Path) -> None:
        message = r"another job \(ingest, process \d+ on .*\) is writing to it"
        with Lease(Storage(tmp_path / "data"), "ingest", beat_s=0.1), pytest.raises(HumoError, match=message):
            ingest(job(mocap_folder, tmp_path / "data"))
        assert ingest(job(mocap_folder, tmp_path / "data")).samples == 3

    def test_a_dead_holder_is_replaced_immediately(self, tmp_path: Path) -> None:
        program = (
            "import os, signal, sys; from pipeline.dataset.lease import Lease; from schemas.storage import Storage\n"
            "with Lease(Storage(sys.argv[1]), 'ingest'): os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=PROJECT_ROOT, check=False)
        assert (tmp_path / LEASE).exists()
        start = time.monotonic()
        with Lease(Storage(tmp_path), "ingest"):
            assert time.monotonic() - start < 5
        assert not (tmp_path / LEASE).exists()

    def test_a_silent_remote_holder_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / LEASE).write_text(json.dumps({"host": "elsewhere", "pid": 1, "beat": 7, "beat_s": 0.05}))
        with Lease(Storage(tmp_path), "ingest") as lease:
            lease.check()

    def test_an_invalid_lease_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / LEASE).write_text("{")
        with Lease(Storage(tmp_path), "ingest", beat_s=0.05):
            pass

    def test_a_lost_lease_is_reported(self, tmp_path: Path) -> None:
        with Lease(Storage(tmp_path), "ingest", beat_s=0.05) as lease:
            (tmp_path / LEASE).write_text(json.dumps({"host": "elsewhere", "pid": 1, "purpose": "pack"}))
            time.sleep(0.3)
            with pytest.raises(
                HumoError, match=r"another job \(pack, process 1 on elsewhere\) has taken the lease over"
            ):
                lease.check()
        assert (tmp_path / LEASE).exists(), "it belongs to the other job"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_job_with_a_message(mocap_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(
        f"sources: [{{kind: mocap, path: {mocap_folder}}}]\noutput: {tmp_path / 'data'}\nsplits: {{train: 1.0}}\n"
    )
    command = [sys.executable, "-m", "pipeline.commands.main", "ingest", str(config)]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "data" / LEASE).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message.strip().endswith(
        f"stopped by {number.name}; committed sources are kept: run the same command again to resume"
    )
    assert not (tmp_path / "data" / LEASE).exists()
    assert ingest(job(mocap_folder, tmp_path / "data")).description.counts["live"] == 3


def test_a_full_disk_stops_the_job_with_a_message(mocap_folder: Path, tmp_path: Path) -> None:
    """A file-size limit stands for a full disk."""
    config = tmp_path / "job.yaml"
    config.write_text(
        f"sources: [{{kind: mocap, path: {mocap_folder}}}]\noutput: {tmp_path / 'data'}\nsplits: {{train: 1.0}}\n"
    )
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); from pipeline.commands.main import main\n"
        "sys.argv = ['humo', 'ingest', sys.argv[1]]; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(config)], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "cannot write a commit" in result.stderr
    assert "Traceback" not in result.stderr
    assert not Storage(tmp_path / "data").list("ledger")
    assert ingest(job(mocap_folder, tmp_path / "data")).samples == 3
    assert verify(str(tmp_path / "data")).problems == []
