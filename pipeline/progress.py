"""What a person sees of a running job: a bar on a terminal, plain lines elsewhere; and the waterfall at its end."""

import sys
import time
from types import TracebackType
from typing import Self

from pipeline.config import IngestConfig
from pipeline.engines import Outcome
from pipeline.ingest import IngestReport, ingest, look_ahead


def ingest_shown(config: IngestConfig, *, quiet: bool = False) -> IngestReport:
    """`ingest` with its progress on the terminal, or in silence."""
    todo = look_ahead(config)
    with Progress(len(todo.todo), done=len(todo.done), done_otherwise=todo.done_otherwise, quiet=quiet) as progress:
        return ingest(config, progress.tell, todo=todo)


class Progress:
    """Counts sources as they are committed."""

    def __init__(self, total: int, *, done: int, done_otherwise: int, quiet: bool = False) -> None:
        self.total, self.quiet, self.seen, self.samples = total, quiet, 0, 0
        self._bar = None
        if quiet:
            return
        print(f"{total} sources to do, {done} done before")
        if done_otherwise:
            print(
                f"{done_otherwise} of those were decided under other settings and are kept; a new output recomputes them"
            )
        if sys.stderr.isatty() and total:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                transient=True,
            )
            self._task = self._bar.add_task("ingest", total=total)

    def tell(self, outcome: Outcome) -> None:
        """Another source is committed."""
        self.seen += 1
        self.samples += outcome.samples
        if self.quiet:
            return
        why = ", ".join(f"{reason} x{number}" if number > 1 else reason for reason, number in outcome.reasons.items())
        line = f"[{self.seen}/{self.total}] {outcome.source_id}: {outcome.samples} samples"
        if why:
            line += f"; not kept: {why}"
        if self._bar:
            self._bar.update(self._task, advance=1, description=f"{self.samples} samples")
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            elapsed = time.monotonic() - self._start
            left = elapsed / self.seen * (self.total - self.seen)
            print(f"{line}  ({elapsed:.0f} s, about {left:.0f} s left)", flush=True)

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()


def ingest_text(report: IngestReport, output: str) -> str:
    """The waterfall of a run, stage by stage, and what the dataset holds now."""
    lines = []
    if report.todo.todo:
        lines.append(f"{'stage':20}{'in':>8}{'out':>8}{'seconds':>10}  not kept")
        for name, count in report.stages.items():
            if not count.came:
                continue
            why = ", ".join(f"{reason} {number}" for reason, number in count.reasons.most_common())
            lines.append(f"{name:20}{count.came:>8}{count.went:>8}{count.seconds:>10.1f}  {why}")
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
