"""What a person sees of a running job: a live picture on a terminal, plain lines elsewhere; and the waterfall at its end."""

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
from pipeline.job.ingest import IngestReport, StageCount, Todo, count_outcome, ingest, look_ahead

_WINDOW_S = 300.0
"""How far back the pace of sources is looked at, seconds; further where there are fewer than `_FEW_TICKS` in it."""
_FEW_TICKS, _MOST_TICKS = 10, 2000
_FEWEST = 3
"""Sources that must be done before anything is said about the time left."""
_SHORTEST_S = 2.0
"""Time from the first of them on that must have gone by: several workers may end their first sources at once."""
_LATEST_LINES = 5
_FIRST_LINES = 30
"""Sources that have a plain line each, whatever happens."""
_LINE_S, _WATERFALL_S = 5.0, 30.0
"""Later the shortest time between plain lines, and between those with the waterfall, seconds."""
_QUIET_SHARE = 0.01
"""The same as a share of the time that the job has run: so a week's output still fits in a head."""


def ingest_shown(config: IngestConfig, *, quiet: bool = False, recompute: bool = False) -> IngestReport:
    """`ingest` with its progress on the terminal, or in silence."""
    todo = look_ahead(config, recompute=recompute)
    if not quiet:
        print(todo_text(todo))
    with Progress(len(todo.todo), quiet=quiet) as progress:
        return ingest(config, progress.tell, todo=todo)


def todo_text(todo: Todo) -> str:
    """What is to be done, what is kept and, where settings differ, in what."""
    lines = [f"{len(todo.todo)} sources to do, {len(todo.done)} done before"]
    if todo.done_otherwise:
        lines.append(
            f"{todo.done_otherwise} of those under other settings; they are kept (--recompute does them anew):"
        )
    elif todo.recomputed:
        lines.append(f"{todo.recomputed} of the former were decided under other settings and are done anew:")
    return "\n".join([*lines, *(f"  {change}" for change in todo.changes)])


class Progress:
    """Counts sources as they are committed, and shows them: live on a terminal (stderr), as plain lines elsewhere (stdout).

    Plain lines are bounded: every source has one at first, later only as many as time allows, and so has the waterfall.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.total, self.quiet, self.seen, self.samples = total, quiet, 0, 0
        self.stages: defaultdict[str, StageCount] = defaultdict(StageCount)
        self.pace = Pace()
        self.latest: deque[str] = deque(maxlen=_LATEST_LINES)
        self._start = self._line_at = self._waterfall_at = time.monotonic()
        self._live: Live | None = None
        if not quiet and total and sys.stderr.isatty():
            self._live = Live(
                get_renderable=self._picture, console=Console(stderr=True), refresh_per_second=2, transient=True
            )

    def tell(self, outcome: Outcome) -> None:
        """Another source is committed."""
        self.seen += 1
        self.samples += outcome.samples
        count_outcome(self.stages, outcome)
        now = time.monotonic()
        self.pace.tick(now)
        why = ", ".join(f"{reason} x{number}" if number > 1 else reason for reason, number in outcome.reasons.items())
        line = f"{outcome.source_id}: {outcome.samples} sample{'' if outcome.samples == 1 else 's'}" + (
            f"; not kept: {why}" if why else ""
        )
        self.latest.append(line)
        if not self.quiet and self._live is None:
            self._print(line, now)

    def left(self, now: float) -> str:
        """How long it still takes, in words; `no estimate yet` at the beginning."""
        if self.seen == self.total:
            return "done"
        seconds = self.pace.seconds_for(self.total - self.seen, now)
        return "no estimate yet" if seconds is None else f"about {duration(seconds)} left"

    def _print(self, line: str, now: float) -> None:
        quiet_s = _QUIET_SHARE * (now - self._start)
        if self.seen <= _FIRST_LINES or self.seen == self.total or now - self._line_at >= max(_LINE_S, quiet_s):
            self._line_at = now
            print(f"[{self.seen}/{self.total}] {line}  ({duration(now - self._start)}, {self.left(now)})", flush=True)
        if now - self._waterfall_at >= max(_WATERFALL_S, quiet_s) and self.seen < self.total:
            self._waterfall_at = now
            passed = ", ".join(f"{name} {count.came}>{count.went}" for name, count in self._counts())
            print(f"so far {self.samples} samples: {passed}", flush=True)

    def _counts(self) -> list[tuple[str, StageCount]]:
        """Stages that anything came to, in the order of the chain; sources of several kinds meet them in another one."""
        order = {name: place for place, name in enumerate(STAGES)}
        met = [(name, count) for name, count in self.stages.items() if count.came]
        return sorted(met, key=lambda pair: order.get(pair[0], len(order)))

    def _picture(self) -> Group:
        """The bar, the waterfall so far and the latest sources."""
        now = time.monotonic()
        words = (
            f"{self.seen}/{self.total} sources, {self.samples} samples, {duration(now - self._start)}, {self.left(now)}"
        )
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=self.total, completed=self.seen, width=20), Text(words, no_wrap=True, overflow="ellipsis")
        )
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("stage", no_wrap=True)
        for name in ("in", "out", "seconds"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("not kept", no_wrap=True, overflow="ellipsis")
        for name, count in self._counts():
            why = ", ".join(f"{reason} {number}" for reason, number in count.reasons.most_common())
            table.add_row(name, str(count.came), str(count.went), f"{count.seconds:.1f}", Text(why))
        return Group(bar, table, *(Text(line, no_wrap=True, overflow="ellipsis", style="dim") for line in self.latest))

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()


class Pace:
    """How fast sources are done of late: the last minutes count, however uneven the sources before them were."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_MOST_TICKS)
        self._seen = 0

    def tick(self, now: float) -> None:
        """A source is done."""
        self._seen += 1
        self._times.append(now)
        while len(self._times) > _FEW_TICKS and now - self._times[0] > _WINDOW_S:
            self._times.popleft()

    def seconds_for(self, sources: int, now: float) -> float | None:
        """Seconds until so many more are done; None while too few have been seen to say.

        The first source is left out of the count: it also waits for weights to load. Time since the last one counts, so that
        an estimate grows when nothing comes any more.
        """
        if self._seen < _FEWEST or now - self._times[0] < _SHORTEST_S:
            return None
        return sources * (now - self._times[0]) / (len(self._times) - 1)


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, as a person would say it."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    for unit, length, most in (("min", 60.0, 99.5), ("h", 3600.0, 48.0)):
        if seconds / length < most:
            number = seconds / length
            return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def ingest_text(report: IngestReport, output: str) -> str:
    """The waterfall of a run, stage by stage, and what the dataset holds now."""
    lines = []
    if report.todo.todo:
        lines.append(f"{'stage':20}{'in':>8}{'out':>8}{'seconds':>10}  not kept")
        for name, count in report.stages.items():
            if not count.came:
                continue
            why = ", ".join(f"{reason} {number}" for reason, number in count.reasons.most_common())
            lines.append(f"{name:20}{count.came:>8}{count.went:>8}{count.seconds:>10.1f}  {why}".rstrip())
    counts = report.description.counts
    lines.append(
        f"{output}: {counts['live']} samples, {counts['hours'] * 3600:.0f} s of motion in {len(report.description.shards)} "
        f"shards, from {counts['sources_with_samples']} of {counts['sources']} sources"
    )
    told = counts["describers"]
    if told["sentences_added"] or told["sentences_rejected"] or told["failed"]:
        lines.append(
            f"describer: {told['sentences_added']} sentences added, {told['sentences_rejected']} rejected; no answer for "
            f"{told['failed']} of {counts['live']} samples; {told['tokens']} tokens, {told['usd']:.4f} USD"
        )
    lines.append(f"look inside: humo report {output}   check it: humo verify {output}")
    return "\n".join(lines)
