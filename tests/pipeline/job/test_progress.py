"""The display of a running job: bounded output and stable estimates."""

import io

import pytest
from rich.console import Console

from pipeline.execution.engines import Outcome
from pipeline.job import progress
from pipeline.job.progress import Progress, RateEstimator, duration


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def make_outcome(number: int, samples: int = 1) -> Outcome:
    stage_stats = {"track_people": (1, 2, 0, 3.0), "encode_clip": (2, samples, 2 - samples, 0.5)}
    reasons = {"encode_clip: no_frame_decodes": 2 - samples} if samples < 2 else {}
    return Outcome(source_id=f"s{number}", samples=samples, reasons=reasons, failures={}, stage_stats=stage_stats)


def test_no_estimate_before_a_few_sources_are_done() -> None:
    rate = RateEstimator()
    assert rate.remaining_s(100, 0.0) is None
    for now in (5.0, 5.0, 5.0):  # several workers end at once
        rate.add(now)
    assert rate.remaining_s(100, 5.0) is None
    for now in (7.0, 9.0, 11.0):
        rate.add(now)
    assert rate.remaining_s(100, 11.0) == pytest.approx(100 * 6 / 5)


def test_the_estimate_follows_the_last_minutes() -> None:
    rate = RateEstimator()
    for number in range(1000):
        rate.add(100.0 * number)
    steady = 100.0 * 999
    assert rate.remaining_s(10, steady) == pytest.approx(1000.0)
    for number in range(1, 1001):
        rate.add(steady + number)
    assert rate.remaining_s(10, steady + 1000) == pytest.approx(10.0, rel=0.01)
    assert rate.remaining_s(10, steady + 2000) > 30.0


def test_durations_have_suitable_units() -> None:
    texts = [duration(seconds) for seconds in (0.2, 99.4, 99.9, 600, 7200, 200_000)]
    assert texts == ["0 s", "99 s", "1.7 min", "10 min", "2.0 h", "2.3 days"]


def test_the_number_of_lines_is_bounded(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    total = 50_000
    with Progress(total) as display:
        for number in range(total):
            clock.now += 10.0
            display.update(make_outcome(number))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 1500
    assert lines[0].startswith("[1/50000] s0: 1 sample; not kept: encode_clip: no_frame_decodes")
    assert "no estimate yet" in lines[0]
    assert any("about 5.8 days left" in line for line in lines[:30])
    assert lines[-1].startswith(f"[{total}/{total}]")
    assert lines[-1].endswith("done)")
    waterfalls = [line for line in lines if line.startswith("so far")]
    assert "track_people 40>80, encode_clip 80>40" in waterfalls[-1] or len(waterfalls) > 10


def test_short_jobs_print_every_source_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(3) as display:
        for number in range(3):
            clock.now += 1.0
            display.update(make_outcome(number, samples=2))
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "[1/3] s0: 2 samples", "[2/3] s1: 2 samples", "[3/3] s2: 2 samples",
    ]  # fmt: skip


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1, quiet=True) as display:
        display.update(make_outcome(0))
    assert capsys.readouterr() == ("", "")


def test_the_live_display_has_bar_waterfall_and_recent_sources(clock: Clock) -> None:
    display = Progress(200, quiet=True)
    for number in range(40):
        clock.now += 3.0
        display.update(make_outcome(number))
    page = io.StringIO()
    Console(file=page, width=80, force_terminal=False).print(display._render())
    lines = page.getvalue().splitlines()
    assert "40/200 sources, 40 samples, 2.0 min, about 8.0 min left" in lines[0]
    table = {words[0]: words[1:] for line in lines[1:] if len(words := line.split()) > 3}
    assert table["track_people"][:3] == ["40", "80", "120.0"]
    assert table["encode_clip"] == ["80", "40", "20.0", "no_frame_decodes", "40"]
    assert [line.split(":")[0] for line in lines[-5:]] == [f"s{number}" for number in range(35, 40)]
    assert all(len(line) <= 80 for line in lines)


def test_the_live_display_is_removed_at_the_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with Progress(2) as display:
        display.update(make_outcome(0))
    assert "0 samples" in terminal.getvalue() or "1 sample" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")
