"""Real worker processes with real crashes: a failing stage costs one source, and nothing is lost or duplicated."""

import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import misbehaving
import pytest
from misbehaving import Limits

from pipeline import PROJECT_ROOT
from pipeline.chain.work_item import WorkItem, advance
from pipeline.execution.isolated_worker import IsolatedWorker
from pipeline.execution.worker_limits import WorkerLimits
from schemas.errors import HumoError, UsageError
from schemas.records import Rejection, Source
from stages.base import QUARANTINE_REASONS

NAMES = ["split", "act", "last"]
FOLDERS = [str(Path(misbehaving.__file__).parent), str(PROJECT_ROOT)]


def work_item(title: str, count: Path | str = "") -> WorkItem:
    source = Source(id="one", uri="nowhere", title=title, description=str(count))
    return WorkItem(source=source, records=[source], generation=3)


def summary(rejection: Rejection) -> tuple[str, str, str]:
    return rejection.id, rejection.stage, rejection.reason


def is_running(process_id: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def exits(process_id: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while is_running(process_id) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(process_id)


@pytest.fixture(scope="module")
def worker() -> Iterator[IsolatedWorker]:
    """One worker for many tests: each leaves it usable, or shows that it is."""
    with IsolatedWorker(misbehaving.stages, NAMES, Limits(time_limit_s=0, retries=0)) as isolated_worker:
        yield isolated_worker


def check_rejected(original: WorkItem, result: WorkItem, reason: str) -> str:
    """Every input record of `act` is rejected there, once; earlier rejections are kept. Returns the detail."""
    assert reason in QUARANTINE_REASONS
    assert result.records == []
    assert [summary(rejection) for rejection in result.rejections] == [
        ("one-c", "split", "odd"), ("one-a", "act", reason), ("one-b", "act", reason),
    ]  # fmt: skip
    assert (result.source, result.generation) == (original.source, original.generation)
    assert list(result.stage_stats)[:2] == ["split", "act"]
    assert result.stage_stats["act"][:3] == (2, 0, 2)
    assert len(original.records) == 1
    assert original.rejections == []
    return result.rejections[1].detail


def test_a_worker_gives_the_same_result_as_its_stages(worker: IsolatedWorker) -> None:
    result, expected = worker.advance(work_item("nothing")), advance(misbehaving.stages(), work_item("nothing"))
    assert (result.source, result.records, result.rejections) == (
        expected.source,
        expected.records,
        expected.rejections,
    )
    assert {name: stats[:3] for name, stats in result.stage_stats.items()} == {
        name: stats[:3] for name, stats in expected.stage_stats.items()
    }


def test_output_of_stages_stays_in_the_worker(worker: IsolatedWorker, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(worker.advance(work_item("talk")).records) == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("title", "fragments"),
    [
        ("segfault", ["killed by SIGSEGV", "Segmentation fault", "misbehaving.py", "in segfault"]),
        ("killed", ["killed by SIGKILL, as the kernel does where memory runs out", "it said nothing"]),
        ("exit", ["left with exit status 7", "out of patience"]),
    ],
)
def test_a_dead_worker_costs_one_source(worker: IsolatedWorker, title: str, fragments: list[str]) -> None:
    original = work_item(title)
    result = worker.advance(original)
    detail = check_rejected(original, result, "worker_died")
    for fragment in fragments:
        assert fragment in detail
    assert not any(folder in detail for folder in FOLDERS)
    assert math.isnan(result.rejections[1].limit)
    assert len(worker.advance(work_item("nothing")).records) == 2


def test_errors_do_not_end_the_worker(worker: IsolatedWorker) -> None:
    process_id = worker.process_id
    check_error(worker, "fail", "error", "ValueError: no good")
    assert worker.process_id == process_id


def test_a_lack_of_memory_costs_one_source_and_the_process(worker: IsolatedWorker) -> None:
    process_id = worker.process_id
    check_error(worker, "memory", "out_of_memory", "MemoryError")
    assert exits(process_id)
    assert len(worker.advance(work_item("nothing")).records) == 2


def check_error(worker: IsolatedWorker, title: str, reason: str, error: str) -> None:
    original = work_item(title)
    detail = check_rejected(original, worker.advance(original), reason)
    assert detail.startswith(error)
    assert f"misbehaving.py:{line_of(title)} in {title} < misbehaving.py:" in detail
    assert not any(folder in detail for folder in FOLDERS)


def test_what_others_have_kept_costs_no_source() -> None:
    """A source that finds too little memory in a process that has served others is tried again in a fresh one."""
    limits = WorkerLimits(memory_bytes=256 << 20)
    with IsolatedWorker(misbehaving.stages, NAMES, Limits(retries=1), limits=limits) as worker:
        assert len(worker.advance(work_item("keep")).records) == 2
        assert len(worker.advance(work_item("need")).records) == 2
        assert worker.restarts == 1
        detail = check_rejected(work_item("need_more"), worker.advance(work_item("need_more")), "out_of_memory")
        assert detail.endswith("; the limit is faults.memory_limit_gib (0.25)")


def line_of(title: str) -> int:
    """The line at which the misbehaving stage fails."""
    statement = {"memory": "bytearray(1 << 30)", "fail": 'raise ValueError("no good")'}[title]
    lines = Path(misbehaving.__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if line.strip() == statement)


def test_a_surviving_subprocess_hides_no_death(worker: IsolatedWorker, tmp_path: Path) -> None:
    original = work_item("fork", tmp_path / "helper")
    assert "exit status 2" in check_rejected(original, worker.advance(original), "worker_died")
    assert exits(int((tmp_path / "helper").read_text()))


def test_an_interrupt_ends_the_process_and_the_worker_stays_usable(worker: IsolatedWorker) -> None:
    # A background process of a shell ignores interrupts.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    process_id = worker.process_id
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        worker.advance(work_item("sleep"))
    signal.signal(signal.SIGINT, previous)
    assert exits(process_id)
    assert len(worker.advance(work_item("nothing")).records) == 2


def test_a_process_that_died_idle_is_replaced(worker: IsolatedWorker) -> None:
    process_id = worker.process_id
    os.kill(process_id, signal.SIGKILL)
    assert exits(process_id)
    assert len(worker.advance(work_item("nothing")).records) == 2


def test_an_unnoticed_idle_death_is_not_blamed_on_the_work_item(
    worker: IsolatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_id = worker.process_id
    os.kill(process_id, signal.SIGKILL)
    assert exits(process_id)
    monkeypatch.setattr("pipeline.execution.worker_process.WorkerProcess.is_alive", True)
    assert len(worker.advance(work_item("nothing")).records) == 2
    original = work_item("killed")
    check_rejected(original, worker.advance(original), "worker_died")


def test_retries_are_bounded_and_start_from_the_beginning(tmp_path: Path) -> None:
    with IsolatedWorker(misbehaving.stages, NAMES, Limits(time_limit_s=0, retries=1)) as worker:
        result = worker.advance(work_item("die_once", tmp_path / "flaky"))
        assert [record.id for record in result.records] == ["one-a", "one-b"]
        assert [summary(rejection) for rejection in result.rejections] == [("one-c", "split", "odd")]
        original = work_item("exit", tmp_path / "always")
        assert "(2 tries)" in check_rejected(original, worker.advance(original), "worker_died")
        assert (tmp_path / "always").read_text().split() == ["once"] * 2


def test_a_timeout_is_retried_once_at_most(tmp_path: Path) -> None:
    with IsolatedWorker(misbehaving.stages, NAMES, Limits(time_limit_s=1.0, retries=2)) as worker:
        original = work_item("c_loop", tmp_path / "tries")
        process_id = worker.process_id
        result = worker.advance(original)
        detail = check_rejected(original, result, "timed_out")
        assert "in c_loop" in detail
        assert "misbehaving.py" in detail
        assert 1.0 <= result.rejections[1].measured < 10.0
        assert result.rejections[1].limit == 1.0
        assert (tmp_path / "tries").read_text().split() == ["once"] * 2
        assert exits(process_id)


@pytest.mark.parametrize(
    ("by", "kind", "message"),
    [
        ("usage", UsageError, "^unready: by: choose another one$"),
        ("missing", HumoError, "^unready: weights.pt is not there; fetch it$"),
        (
            "exit",
            HumoError,
            "unready could not be started in 3 tries: left with exit status 127: libnothing.so.3: cannot",
        ),
    ],
)
def test_setup_errors_reach_the_user(by: str, kind: type[HumoError], message: str) -> None:
    with pytest.raises(kind, match=message):
        IsolatedWorker(partial(misbehaving.unready, by), ["unready"], Limits())


def test_closing_ends_the_process() -> None:
    worker = IsolatedWorker(misbehaving.stages, ["read_mocap"], Limits())
    original, process_id = work_item("nothing"), worker.process_id
    assert worker.advance(original) is original  # a video passes none of these stages
    assert is_running(process_id)
    worker.close()
    worker.close()
    assert not is_running(process_id)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_no_subprocess_of_a_worker_outlives_the_job(by: signal.Signals, tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS)}
    command = [sys.executable, misbehaving.__file__, "start", str(helper)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker_pid = int(parent.stdout.readline())
        deadline = time.monotonic() + 10.0
        while not (helper.exists() and helper.read_text().isdigit()) and time.monotonic() < deadline:
            time.sleep(0.02)
        helper_pid = int(helper.read_text())
        assert is_running(helper_pid)
        parent.send_signal(by)
    assert exits(worker_pid)
    assert exits(helper_pid)


@pytest.mark.parametrize(
    ("title", "by"), [("c_loop", signal.SIGKILL), ("sleep", signal.SIGKILL), ("sleep", signal.SIGTERM)]
)
def test_no_orphan_keeps_running(title: str, by: signal.Signals) -> None:
    """Also while the worker runs C code that never lets a Python thread run."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS)}
    command = [sys.executable, misbehaving.__file__, title]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker_pid = int(parent.stdout.readline())
        time.sleep(0.3)
        assert is_running(worker_pid)
        parent.send_signal(by)
    assert exits(worker_pid)


def test_a_round_trip_is_cheap(worker: IsolatedWorker) -> None:
    """Far above the time on an idle core (0.3 ms), far below that of starting a process."""
    original = work_item("nothing")
    seconds = []
    for _ in range(200):
        start = time.perf_counter()
        worker.advance(original)
        seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.02
    assert len(pickle.dumps(original)) < 2000
