"""Counts of records rejected by each stage, from the ledger, and of samples that a preset's limits would drop, from scores.

Every sample keeps its scores, so other limits can be evaluated on a finished dataset without recomputation. Rejected records
have no row in the catalogue: preset counts refer to the samples in the dataset.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.audit.query import QuerySession
from pipeline.chain.presets import preset_names, preset_stages
from pipeline.chain.stage_order import STAGES, StageSettings
from schemas.config import parse_config
from stages.score_motion import limits_of

_ORDER = {name: index for index, name in enumerate(("list_sources", *STAGES))}
"""Position of each stage in the chain; unknown stages come last."""
_BY_COLUMN = {
    ("read_videos", "min_fps"): ("source_fps", "low"),
    ("read_mocap", "min_fps"): ("source_fps", "low"),
    ("cut_clips", "min_s"): ("seconds", "low"),
    ("cut_clips", "max_s"): ("seconds", "high"),
}
"""Settings of other stages with a catalogue column -> the column, and whether they limit it from below or above."""
_VIDEO_STAGES = ("read_videos", "cut_clips")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A reason for rejections by a stage, their number, and the medians of the measured values and of the limits."""

    name: str
    count: int
    measured: float | None
    limit: float | None


@dataclass(frozen=True, kw_only=True)
class StageCounts:
    """Decisions (accepted samples and rejections) that entered and passed a stage."""

    stage: str
    entered: int
    passed: int
    reasons: list[Reason]


@dataclass(frozen=True, kw_only=True)
class LimitCounts:
    """One limit of a preset: the samples that it drops after the limits before it, and those that it would drop alone."""

    name: str
    low: float | None
    high: float | None
    entered: int
    passed: int
    dropped_alone: int
    unknown: int
    """Samples without this score; they pass."""


@dataclass(frozen=True, kw_only=True)
class PresetCounts:
    """Samples of a dataset that a preset would keep."""

    preset: str
    samples: int
    kept: int
    hours: float
    kept_hours: float
    limits: list[LimitCounts]
    not_judged: list[str] = field(default_factory=list)
    """Settings of the preset that stored values cannot evaluate."""


def ledger_waterfall(session: QuerySession) -> list[StageCounts]:
    """Counts of the stages with rejections, in the chain's order."""
    rows = session.rows(
        "SELECT stage, reason, count(*) AS count, median(measured) FILTER (isfinite(measured)) AS measured,"
        ' median("limit") FILTER (isfinite("limit")) AS "limit"'
        " FROM ledger WHERE outcome = 'rejected' GROUP BY stage, reason ORDER BY count DESC, reason"
    )
    remaining = session.rows("SELECT count(*) AS n FROM ledger WHERE outcome IN ('accepted', 'rejected')")[0]["n"]
    stages = []
    for stage in sorted({row["stage"] for row in rows}, key=lambda name: (_ORDER.get(name, len(_ORDER)), name)):
        reasons = [
            Reason(name=row["reason"], count=row["count"], measured=row["measured"], limit=row["limit"])
            for row in rows
            if row["stage"] == stage
        ]
        entered, remaining = remaining, remaining - sum(reason.count for reason in reasons)
        stages.append(StageCounts(stage=stage, entered=entered, passed=remaining, reasons=reasons))
    return stages


def preset_waterfall(session: QuerySession, preset: str) -> PresetCounts:
    """Live samples that a preset's limits would drop, one after the other; raises UsageError for an unknown name."""
    limits, not_judged = _limits(preset, preset_stages(preset))
    columns = set(session.tables["samples"].schema.names)
    live = "(SELECT * FROM samples ANTI JOIN removed USING (key))" if "removed" in session.tables else "samples"
    conditions = []
    for name, subset, low, high in limits:
        if name not in columns:
            conditions.append(("false", "true"))
            continue
        column = '"' + name.replace('"', '""') + '"'
        violations = [f"{column} < {low!r}"] if low is not None else []
        violations += [f"{column} > {high!r}"] if high is not None else []
        in_subset = f" AND subset = '{subset}'" if subset else ""
        conditions.append((f"coalesce(({' OR '.join(violations)}){in_subset}, false)", f"{column} IS NULL"))
    passed, expressions = "true", ["count(*) AS n", "coalesce(sum(seconds), 0) AS s"]
    for index, (drops, unknown) in enumerate(conditions):
        expressions.append(f"count(*) FILTER ({drops}) AS alone{index}, count(*) FILTER ({unknown}) AS unknown{index}")
        expressions.append(f"count(*) FILTER ({passed} AND {drops}) AS dropped{index}")
        passed += f" AND NOT {drops}"
    expressions.append(f"count(*) FILTER ({passed}) AS kept, coalesce(sum(seconds) FILTER ({passed}), 0) AS kept_s")
    counts = session.rows(f"SELECT {', '.join(expressions)} FROM {live}")[0]
    limit_counts, remaining = [], counts["n"]
    for index, (name, _, low, high) in enumerate(limits):
        entered, remaining = remaining, remaining - counts[f"dropped{index}"]
        limit_counts.append(
            LimitCounts(
                name=name.removeprefix("score_"), low=low, high=high, entered=entered, passed=remaining,
                dropped_alone=counts[f"alone{index}"], unknown=counts[f"unknown{index}"],
            )
        )  # fmt: skip
    return PresetCounts(
        preset=preset, samples=counts["n"], kept=counts["kept"], hours=counts["s"] / 3600, kept_hours=counts["kept_s"] / 3600,
        limits=limit_counts, not_judged=not_judged,
    )  # fmt: skip


def preset_waterfalls(session: QuerySession, preset: str = "") -> list[PresetCounts]:
    """`preset_waterfall` of one preset, or of all."""
    return [preset_waterfall(session, name) for name in ([preset] if preset else preset_names())]


def _limits(
    preset: str, stages: dict[str, dict[str, Any]]
) -> tuple[list[tuple[str, str, float | None, float | None]], list[str]]:
    """(column, subset or all, minimum, maximum) of every limit, and the settings that no column can evaluate.

    For scores all limits count, including those that the preset leaves at their defaults, since a job would apply them.
    """
    limits: list[tuple[str, str, float | None, float | None]] = []
    not_judged = []
    for stage, settings in stages.items():
        for key, value in settings.items():
            if stage == "score_motion":
                continue
            if (stage, key) not in _BY_COLUMN:
                not_judged.append(f"{stage}.{key}")
                continue
            column, end = _BY_COLUMN[stage, key]
            subset = "video" if stage in _VIDEO_STAGES else ""
            limits.append((column, subset, value if end == "low" else None, value if end == "high" else None))
    config: Any = parse_config(stages, StageSettings, f"preset {preset}")
    for name, (low, high) in limits_of(config.score_motion).items():
        ends = low if math.isfinite(low) else None, high if math.isfinite(high) else None
        if ends != (None, None):
            limits.append((f"score_{name}", "", *ends))
    return limits, not_judged


def stages_json(stages: list[StageCounts]) -> list[dict[str, Any]]:
    """Stage counts for `--json`."""
    return [
        {"stage": stage.stage, "came": stage.entered, "went": stage.passed, "reasons": [asdict(one) for one in stage.reasons]}
        for stage in stages
    ]  # fmt: skip


def presets_json(presets: list[PresetCounts]) -> list[dict[str, Any]]:
    """Preset counts for `--json`."""
    return [
        {
            "preset": preset.preset, "samples": preset.samples, "kept": preset.kept, "hours": preset.hours,
            "kept_hours": preset.kept_hours,
            "gates": [
                {
                    "name": limit.name, "low": limit.low, "high": limit.high, "came": limit.entered, "went": limit.passed,
                    "alone": limit.dropped_alone, "unknown": limit.unknown,
                }
                for limit in preset.limits
            ],
            "not_judged": preset.not_judged,
        }
        for preset in presets
    ]  # fmt: skip


def waterfall_text(stages: list[StageCounts], presets: list[PresetCounts], *, detailed: bool) -> str:
    """Both tables for a terminal; with `detailed` each preset limit by limit."""
    lines = [f"{'by the ledger':34} {'in':>8} {'out':>8} {'dropped':>8}"]
    for stage in stages:
        lines.append(f"{stage.stage:34} {stage.entered:8,} {stage.passed:8,} {stage.entered - stage.passed:8,}")
        for reason in stage.reasons:
            values = "" if reason.measured is None else f"  measured {reason.measured:.4g}"
            values += "" if reason.limit is None else f", limit {reason.limit:.4g}"
            lines.append(f"    {reason.name:30} {'':8} {'':8} {reason.count:8,}{values}")
    if not stages:
        lines.append("nothing was rejected")
    for number, preset in enumerate(presets):
        lines += [""] if detailed or not number else []
        lines.append(_preset_line(preset))
        for limit in preset.limits if detailed else []:
            bounds = f">= {limit.low:g}" if limit.low is not None else ""
            bounds += f"<= {limit.high:g}" if limit.high is not None else ""
            counts = (
                f"{limit.entered:8,} {limit.passed:8,} {limit.entered - limit.passed:8,}  alone {limit.dropped_alone:,}"
            )
            line = f"    {limit.name + ' ' + bounds:30} {counts}"
            lines.append(line + (f", {limit.unknown:,} without it" if limit.unknown else ""))
        if detailed and preset.not_judged:
            lines.append(f"    not judged: {', '.join(preset.not_judged)}")
    return "\n".join(lines)


def _preset_line(preset: PresetCounts) -> str:
    share = f" ({preset.kept / preset.samples:.0%})" if preset.samples else ""
    kept = f"would keep {preset.kept:,} of {preset.samples:,} samples{share}"
    return f"preset {preset.preset} {kept}, {preset.kept_hours:.2f} of {preset.hours:.2f} hours"
