"""Real child processes with real crashes: what a stage does costs one source, and nothing of it is lost or doubled."""

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
from schemas.errors import HumoError, UsageError
from schemas.records import Rejection, Source
from stages.base import QUARANTINE_REASONS

NAMES = ["split", "act", "last"]
FOLDERS = [str(Path(misbehaving.__file__).parent), str(PROJECT_ROOT)]


def work_item(title: str, count: Path | str = "") -> WorkItem:
    source = Source(id="one", uri="nowhere", title=title, description=str(count))
    return WorkItem(source=source, records=[source], generation=3)


def plain(rejection: Rejection) -> tuple[str, str, str]:
    return rejection.id, rejection.stage, rejection.reason


def exists(process_id: int) -> bool:
    """Whether a process is there and not merely waiting to be buried by somebody."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def ends(process_id: int, within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while exists(process_id) and time.monotonic() < until:
        time.sleep(0.02)
    return not exists(process_id)


@pytest.fixture(scope="module")
def hand() -> Iterator[IsolatedWorker]:
    """One hand for many: each test leaves it usable, or shows that it is."""
    with IsolatedWorker(misbehaving.stages, NAMES, Limits(time_limit_s=0, retries=0)) as one:
        yield one


def check_turned_down(given: WorkItem, got: WorkItem, reason: str) -> str:
    """Every record that came into `act` is rejected there, once; what was rejected before is kept. The detail."""
    assert reason in QUARANTINE_REASONS
    assert got.records == []
    assert [plain(one) for one in got.rejections] == [
        ("one-c", "split", "odd"), ("one-a", "act", reason), ("one-b", "act", reason),
    ]  # fmt: skip
    assert (got.source, got.generation) == (given.source, given.generation)
    assert list(got.passed)[:2] == ["split", "act"]
    assert got.passed["act"][:3] == (2, 0, 2)
    assert len(given.records) == 1
    assert given.rejections == []
    return got.rejections[1].detail


def test_a_hand_does_what_the_stages_do(hand: IsolatedWorker) -> None:
    got, expected = hand.advance(work_item("nothing")), advance(misbehaving.stages(), work_item("nothing"))
    assert (got.source, got.records, got.rejections) == (expected.source, expected.records, expected.rejections)
    assert {name: one[:3] for name, one in got.passed.items()} == {
        name: one[:3] for name, one in expected.passed.items()
    }


def test_what_stages_print_stays_in_the_child(hand: IsolatedWorker, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(hand.advance(work_item("talk")).records) == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("title", "says"),
    [
        ("segfault", ["killed by SIGSEGV", "Segmentation fault", "misbehaving.py", "in segfault"]),
        ("killed", ["killed by SIGKILL, as the kernel does where memory runs out", "it said nothing"]),
        ("exit", ["left with exit status 7", "out of patience"]),
    ],
)
def test_a_death_costs_one_source(hand: IsolatedWorker, title: str, says: list[str]) -> None:
    given = work_item(title)
    got = hand.advance(given)
    detail = check_turned_down(given, got, "worker_died")
    for part in says:
        assert part in detail
    assert not any(folder in detail for folder in FOLDERS)
    assert math.isnan(got.rejections[1].limit)
    assert len(hand.advance(work_item("nothing")).records) == 2


def test_errors_do_not_end_the_child(hand: IsolatedWorker) -> None:
    before = hand.process_id
    for title, error in (("memory", "MemoryError"), ("fail", "ValueError: no good")):
        given = work_item(title)
        detail = check_turned_down(given, hand.advance(given), "error")
        assert detail.startswith(error)
        assert f"misbehaving.py:{line_of(title)} in {title} < misbehaving.py:" in detail
        assert not any(folder in detail for folder in FOLDERS)
    assert hand.process_id == before


def line_of(title: str) -> int:
    """Where the misbehaving stage fails."""
    statement = {"memory": "bytearray(1 << 30)", "fail": 'raise ValueError("no good")'}[title]
    lines = Path(misbehaving.__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if line.strip() == statement)


def test_a_helper_that_lives_on_hides_no_death(hand: IsolatedWorker, tmp_path: Path) -> None:
    given = work_item("fork", tmp_path / "helper")
    assert "exit status 2" in check_turned_down(given, hand.advance(given), "worker_died")
    assert ends(int((tmp_path / "helper").read_text()))


def test_an_interrupt_ends_the_child_and_the_hand_goes_on(hand: IsolatedWorker) -> None:
    # What a shell starts in the background ignores interrupts.
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = hand.process_id
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        hand.advance(work_item("sleep"))
    signal.signal(signal.SIGINT, kept)
    assert ends(before)
    assert len(hand.advance(work_item("nothing")).records) == 2


def test_a_child_that_died_idle_is_replaced_without_a_word(hand: IsolatedWorker) -> None:
    before = hand.process_id
    os.kill(before, signal.SIGKILL)
    assert ends(before)
    assert len(hand.advance(work_item("nothing")).records) == 2


def test_nor_is_one_blamed_on_a_bundle_that_nobody_has_seen_to_be_dead(
    hand: IsolatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hand.process_id
    os.kill(before, signal.SIGKILL)
    assert ends(before)
    monkeypatch.setattr("pipeline.execution.isolated_worker._Child.lives", True)
    assert len(hand.advance(work_item("nothing")).records) == 2
    given = work_item("killed")
    check_turned_down(given, hand.advance(given), "worker_died")


def test_tries_are_bounded_and_begin_anew(tmp_path: Path) -> None:
    with IsolatedWorker(misbehaving.stages, NAMES, Limits(time_limit_s=0, retries=1)) as hand:
        got = hand.advance(work_item("die_once", tmp_path / "flaky"))
        assert [record.id for record in got.records] == ["one-a", "one-b"]
        assert [plain(one) for one in got.rejections] == [("one-c", "split", "odd")]
        given = work_item("exit", tmp_path / "always")
        assert "(2 tries)" in check_turned_down(given, hand.advance(given), "worker_died")
        assert (tmp_path / "always").read_text().split() == ["once"] * 2


def test_a_time_out_is_tried_once_more_at_most(tmp_path: Path) -> None:
    with IsolatedWorker(misbehaving.stages, NAMES, Limits(time_limit_s=1.0, retries=2)) as hand:
        given = work_item("c_loop", tmp_path / "tries")
        before = hand.process_id
        got = hand.advance(given)
        detail = check_turned_down(given, got, "timed_out")
        assert "in c_loop" in detail
        assert "misbehaving.py" in detail
        assert 1.0 <= got.rejections[1].measured < 10.0
        assert got.rejections[1].limit == 1.0
        assert (tmp_path / "tries").read_text().split() == ["once"] * 2
        assert ends(before)


@pytest.mark.parametrize(
    ("by", "kind", "says"),
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
def test_what_users_can_put_right_reaches_them(by: str, kind: type[HumoError], says: str) -> None:
    with pytest.raises(kind, match=says):
        IsolatedWorker(partial(misbehaving.unready, by), ["unready"], Limits())


def test_closing_ends_the_child() -> None:
    hand = IsolatedWorker(misbehaving.stages, ["read_mocap"], Limits())
    given, process_id = work_item("nothing"), hand.process_id
    assert hand.advance(given) is given  # a video passes none of these stages
    assert exists(process_id)
    hand.close()
    hand.close()
    assert not exists(process_id)


@pytest.mark.parametrize(
    ("title", "by"), [("c_loop", signal.SIGKILL), ("sleep", signal.SIGKILL), ("sleep", signal.SIGTERM)]
)
def test_no_orphan_computes_on(title: str, by: signal.Signals) -> None:
    """Also where the child's C code never gives a thread of Python a chance."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS)}
    command = [sys.executable, misbehaving.__file__, title]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        assert exists(child)
        parent.send_signal(by)
    assert ends(child)


def test_a_round_trip_is_cheap(hand: IsolatedWorker) -> None:
    """Far above what it takes on a quiet core (0.3 ms), far below what starting anything would take."""
    given = work_item("nothing")
    seconds = []
    for _ in range(200):
        start = time.perf_counter()
        hand.advance(given)
        seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.02
    assert len(pickle.dumps(given)) < 2000
