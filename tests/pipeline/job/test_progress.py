"""What people see of a running job: bounded, and without wild numbers."""

import io

import pytest
from rich.console import Console

from pipeline.execution.engines import Outcome
from pipeline.job import progress
from pipeline.job.progress import Pace, Progress, duration


class Clock:
    """Time as a test wants it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def outcome(number: int, samples: int = 1) -> Outcome:
    passed = {"track_people": (1, 2, 0, 3.0), "encode_clip": (2, samples, 2 - samples, 0.5)}
    reasons = {"encode_clip: no_frame_decodes": 2 - samples} if samples < 2 else {}
    return Outcome(source_id=f"s{number}", samples=samples, reasons=reasons, failures={}, passed=passed)


def test_nothing_is_said_of_the_time_left_before_a_few_sources_are_done() -> None:
    pace = Pace()
    assert pace.seconds_for(100, 0.0) is None
    for now in (5.0, 5.0, 5.0):  # several workers end at once
        pace.tick(now)
    assert pace.seconds_for(100, 5.0) is None
    for now in (7.0, 9.0, 11.0):
        pace.tick(now)
    assert pace.seconds_for(100, 11.0) == pytest.approx(100 * 6 / 5)


def test_the_last_minutes_count() -> None:
    pace = Pace()
    for number in range(1000):
        pace.tick(100.0 * number)
    steady = 100.0 * 999
    assert pace.seconds_for(10, steady) == pytest.approx(1000.0)
    for number in range(1, 1001):
        pace.tick(steady + number)
    assert pace.seconds_for(10, steady + 1000) == pytest.approx(10.0, rel=0.01)
    assert pace.seconds_for(10, steady + 2000) > 30.0


def test_times_are_told_in_fitting_units() -> None:
    told = [duration(seconds) for seconds in (0.2, 99.4, 99.9, 600, 7200, 200_000)]
    assert told == ["0 s", "99 s", "1.7 min", "10 min", "2.0 h", "2.3 days"]


def test_a_million_sources_do_not_give_a_million_lines(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    total = 50_000
    with Progress(total) as shown:
        for number in range(total):
            clock.now += 10.0
            shown.tell(outcome(number))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 1500
    assert lines[0].startswith("[1/50000] s0: 1 sample; not kept: encode_clip: no_frame_decodes")
    assert "no estimate yet" in lines[0]
    assert any("about 5.8 days left" in line for line in lines[:30])
    assert lines[-1].startswith(f"[{total}/{total}]")
    assert lines[-1].endswith("done)")
    falls = [line for line in lines if line.startswith("so far")]
    assert "track_people 40>80, encode_clip 80>40" in falls[-1] or len(falls) > 10


def test_quick_jobs_tell_every_source_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(3) as shown:
        for number in range(3):
            clock.now += 1.0
            shown.tell(outcome(number, samples=2))
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "[1/3] s0: 2 samples", "[2/3] s1: 2 samples", "[3/3] s2: 2 samples",
    ]  # fmt: skip


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1, quiet=True) as shown:
        shown.tell(outcome(0))
    assert capsys.readouterr() == ("", "")


def test_the_picture_of_a_terminal_has_bar_waterfall_and_latest_sources(clock: Clock) -> None:
    shown = Progress(200, quiet=True)
    for number in range(40):
        clock.now += 3.0
        shown.tell(outcome(number))
    page = io.StringIO()
    Console(file=page, width=80, force_terminal=False).print(shown._picture())
    lines = page.getvalue().splitlines()
    assert "40/200 sources, 40 samples, 2.0 min, about 8.0 min left" in lines[0]
    table = {words[0]: words[1:] for line in lines[1:] if len(words := line.split()) > 3}
    assert table["track_people"][:3] == ["40", "80", "120.0"]
    assert table["encode_clip"] == ["80", "40", "20.0", "no_frame_decodes", "40"]
    assert [line.split(":")[0] for line in lines[-5:]] == [f"s{number}" for number in range(35, 40)]
    assert all(len(line) <= 80 for line in lines)


def test_a_terminal_is_drawn_on_and_left_clean(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with Progress(2) as shown:
        shown.tell(outcome(0))
    assert "0 samples" in terminal.getvalue() or "1 sample" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")
