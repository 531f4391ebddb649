"""Progress of a running job: a live display on a terminal, plain lines elsewhere; and the stage table at the end."""

import sys
import time
from collections import defaultdict, deque
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import STAGES
from pipeline.execution.engines import Outcome
from pipeline.job.ingest import IngestReport, StageCount, Worklist, count_outcome, ingest, make_worklist

_WINDOW_S = 300.0
"""Window of the rate estimate, seconds; longer where it holds fewer than `_MIN_TICKS` sources."""
_MIN_TICKS, _MAX_TICKS = 10, 2000
_MIN_SOURCES = 3
"""Sources that must be done before there is an estimate of the remaining time."""
_MIN_ELAPSED_S = 2.0
"""Minimum time since the first of them: several workers may finish their first sources at once."""
_RECENT_LINES = 5
_FIRST_LINES = 30
"""Sources that always get a plain line each."""
_LINE_INTERVAL_S, _WATERFALL_INTERVAL_S = 5.0, 30.0
"""After those, minimum time between plain lines, and between those with the waterfall, seconds."""
_INTERVAL_SHARE = 0.01
"""Minimum interval as a share of the elapsed time, so that a week's output stays readable."""


def ingest_with_progress(config: IngestConfig, *, quiet: bool = False, recompute: bool = False) -> IngestReport:
    """`ingest` with its progress on the terminal, or without output."""
    worklist = make_worklist(config, recompute=recompute)
    if not quiet:
        print(worklist_text(worklist))
    with Progress(len(worklist.pending), quiet=quiet) as progress:
        return ingest(config, progress.update, worklist=worklist)


def worklist_text(worklist: Worklist) -> str:
    """Numbers of pending and done sources and, where settings differ, the differences."""
    lines = [f"{len(worklist.pending)} sources to do, {len(worklist.done)} done before"]
    if worklist.done_under_other_settings:
        lines.append(
            f"{worklist.done_under_other_settings} of those under other settings; they are kept (--recompute processes them again):"
        )
    elif worklist.recomputed:
        lines.append(
            f"{worklist.recomputed} of the sources to do were decided under other settings and are processed again:"
        )
    return "\n".join([*lines, *(f"  {change}" for change in worklist.changes)])


class Progress:
    """Counts sources as they are committed and displays them: live on a terminal (stderr), as plain lines elsewhere (stdout).

    The number of plain lines is bounded: at first one per source, then at intervals that grow with the elapsed time; the same holds
    for the waterfall.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.total, self.quiet, self.done, self.samples = total, quiet, 0, 0
        self.stages: defaultdict[str, StageCount] = defaultdict(StageCount)
        self.rate = RateEstimator()
        self.recent: deque[str] = deque(maxlen=_RECENT_LINES)
        self._start = self._line_at = self._waterfall_at = time.monotonic()
        self._live: Live | None = None
        if not quiet and total and sys.stderr.isatty():
            self._live = Live(
                get_renderable=self._render, console=Console(stderr=True), refresh_per_second=2, transient=True
            )

    def update(self, outcome: Outcome) -> None:
        """Record a committed source."""
        self.done += 1
        self.samples += outcome.samples
        count_outcome(self.stages, outcome)
        now = time.monotonic()
        self.rate.add(now)
        reasons = ", ".join(
            f"{reason} x{number}" if number > 1 else reason for reason, number in outcome.reasons.items()
        )
        line = f"{outcome.source_id}: {outcome.samples} sample{'' if outcome.samples == 1 else 's'}" + (
            f"; not kept: {reasons}" if reasons else ""
        )
        self.recent.append(line)
        if not self.quiet and self._live is None:
            self._print(line, now)

    def remaining_text(self, now: float) -> str:
        """Estimated remaining time as text; `no estimate yet` at the beginning."""
        if self.done == self.total:
            return "done"
        seconds = self.rate.remaining_s(self.total - self.done, now)
        return "no estimate yet" if seconds is None else f"about {duration(seconds)} left"

    def _print(self, line: str, now: float) -> None:
        interval_s = _INTERVAL_SHARE * (now - self._start)
        if (
            self.done <= _FIRST_LINES
            or self.done == self.total
            or now - self._line_at >= max(_LINE_INTERVAL_S, interval_s)
        ):
            self._line_at = now
            print(
                f"[{self.done}/{self.total}] {line}  ({duration(now - self._start)}, {self.remaining_text(now)})",
                flush=True,
            )
        if now - self._waterfall_at >= max(_WATERFALL_INTERVAL_S, interval_s) and self.done < self.total:
            self._waterfall_at = now
            counts = ", ".join(f"{name} {count.records_in}>{count.records_out}" for name, count in self._counts())
            print(f"so far {self.samples} samples: {counts}", flush=True)

    def _counts(self) -> list[tuple[str, StageCount]]:
        """Stages with input records, in chain order; sources of different kinds can reach them in another order."""
        positions = {name: position for position, name in enumerate(STAGES)}
        active = [(name, count) for name, count in self.stages.items() if count.records_in]
        return sorted(active, key=lambda pair: positions.get(pair[0], len(positions)))

    def _render(self) -> Group:
        """The progress bar, the waterfall so far and the most recent sources."""
        now = time.monotonic()
        elapsed = duration(now - self._start)
        summary = f"{self.done}/{self.total} sources, {self.samples} samples, {elapsed}, {self.remaining_text(now)}"
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=self.total, completed=self.done, width=20),
            Text(summary, no_wrap=True, overflow="ellipsis"),
        )
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("stage", no_wrap=True)
        for name in ("in", "out", "seconds"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("not kept", no_wrap=True, overflow="ellipsis")
        for name, count in self._counts():
            reasons = ", ".join(f"{reason} {number}" for reason, number in count.reasons.most_common())
            table.add_row(name, str(count.records_in), str(count.records_out), f"{count.seconds:.1f}", Text(reasons))
        return Group(bar, table, *(Text(line, no_wrap=True, overflow="ellipsis", style="dim") for line in self.recent))

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()


class RateEstimator:
    """Rate of finished sources over the last minutes, regardless of earlier fluctuations."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_MAX_TICKS)
        self._finished = 0

    def add(self, now: float) -> None:
        """Record a finished source."""
        self._finished += 1
        self._times.append(now)
        while len(self._times) > _MIN_TICKS and now - self._times[0] > _WINDOW_S:
            self._times.popleft()

    def remaining_s(self, sources: int, now: float) -> float | None:
        """Estimated seconds until this many more sources are done; None while there are too few for an estimate.

        The first source is not counted: it also waits for weights to load. Time since the last one counts, so that the estimate
        grows when nothing finishes.
        """
        if self._finished < _MIN_SOURCES or now - self._times[0] < _MIN_ELAPSED_S:
            return None
        return sources * (now - self._times[0]) / (len(self._times) - 1)


def duration(seconds: float) -> str:
    """Seconds as text in seconds, minutes, hours or days."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    for unit, length, limit in (("min", 60.0, 99.5), ("h", 3600.0, 48.0)):
        if seconds / length < limit:
            value = seconds / length
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def ingest_text(report: IngestReport, output: str) -> str:
    """The stage table of a run, and the current content of the dataset."""
    lines = []
    if report.worklist.pending:
        lines.append(f"{'stage':20}{'in':>8}{'out':>8}{'seconds':>10}  not kept")
        for name, count in report.stages.items():
            if not count.records_in:
                continue
            reasons = ", ".join(f"{reason} {number}" for reason, number in count.reasons.most_common())
            lines.append(
                f"{name:20}{count.records_in:>8}{count.records_out:>8}{count.seconds:>10.1f}  {reasons}".rstrip()
            )
    counts = report.description.counts
    lines.append(
        f"{output}: {counts['live']} samples, {counts['hours'] * 3600:.0f} s of motion in {len(report.description.shards)} "
        f"shards, from {counts['sources_with_samples']} of {counts['sources']} sources"
    )
    describers = counts["describers"]
    if describers["sentences_added"] or describers["sentences_rejected"] or describers["failed"]:
        lines.append(
            f"describer: {describers['sentences_added']} sentences added, {describers['sentences_rejected']} rejected; no "
            f"answer for {describers['failed']} of {counts['live']} samples; {describers['tokens']} tokens, "
            f"{describers['usd']:.4f} USD"
        )
    lines.append(f"look inside: humo report {output}   check it: humo verify {output}")
    return "\n".join(lines)
