"""What each gate drops: by the ledger, stage after stage; and what a preset's limits would drop, by the stored scores.

Scores stay with every sample, so other limits can be tried on a finished dataset without computing anything again. What
has been turned away before has no row in the catalogue: these tables tell what would be dropped of what is there.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from pipeline.audit.query import Questions
from pipeline.chain.presets import preset_names, preset_stages
from pipeline.chain.stage_order import STAGES, StageSettings
from schemas.config import parse_config
from stages.score_motion import limits_of

_ORDER = {name: index for index, name in enumerate(("list_sources", *STAGES))}
"""In which stages are passed; the ones that it does not know come last."""
_BY_COLUMN = {
    ("read_videos", "min_fps"): ("source_fps", "low"),
    ("read_mocap", "min_fps"): ("source_fps", "low"),
    ("cut_clips", "min_s"): ("seconds", "low"),
    ("cut_clips", "max_s"): ("seconds", "high"),
}
"""Settings of other stages that the catalogue can judge: the column, and the end at which they limit it."""
_VIDEO_STAGES = ("read_videos", "cut_clips")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a stage turned something away, how often, and the medians of what it measured and of its limit."""

    name: str
    count: int
    measured: float | None
    limit: float | None


@dataclass(frozen=True, kw_only=True)
class Fall:
    """A stage of the waterfall; counts are of decisions, accepted samples and rejections alike."""

    stage: str
    came: int
    went: int
    reasons: list[Reason]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One limit of a preset: what it drops of the samples that the gates before it leave, and what it would drop alone."""

    name: str
    low: float | None
    high: float | None
    came: int
    went: int
    alone: int
    unknown: int
    """Samples without that score; they pass."""


@dataclass(frozen=True, kw_only=True)
class PresetFall:
    """What a preset would leave of a dataset."""

    preset: str
    samples: int
    kept: int
    hours: float
    kept_hours: float
    gates: list[Gate]
    not_judged: list[str] = field(default_factory=list)
    """Settings of the preset that stored numbers cannot judge."""


def ledger_waterfall(questions: Questions) -> list[Fall]:
    """The stages that turned something away, in the chain's order, each with what came to it and what went on."""
    rows = questions.rows(
        "SELECT stage, reason, count(*) AS count, median(measured) FILTER (isfinite(measured)) AS measured,"
        ' median("limit") FILTER (isfinite("limit")) AS "limit"'
        " FROM ledger WHERE outcome = 'rejected' GROUP BY stage, reason ORDER BY count DESC, reason"
    )
    left = questions.rows("SELECT count(*) AS n FROM ledger WHERE outcome IN ('accepted', 'rejected')")[0]["n"]
    falls = []
    for stage in sorted({row["stage"] for row in rows}, key=lambda name: (_ORDER.get(name, len(_ORDER)), name)):
        reasons = [
            Reason(name=row["reason"], count=row["count"], measured=row["measured"], limit=row["limit"])
            for row in rows
            if row["stage"] == stage
        ]
        came, left = left, left - sum(reason.count for reason in reasons)
        falls.append(Fall(stage=stage, came=came, went=left, reasons=reasons))
    return falls


def preset_waterfall(questions: Questions, preset: str) -> PresetFall:
    """What a preset's gates would drop of the live samples, one after the other; raises UsageError for an unknown name."""
    stages = preset_stages(preset)
    limits, not_judged = _limits(preset, stages)
    columns = set(questions.tables["samples"].schema.names)
    live = "(SELECT * FROM samples ANTI JOIN removed USING (key))" if "removed" in questions.tables else "samples"
    tests = []
    for name, subset, low, high in limits:
        if name not in columns:
            tests.append(("false", "true"))
            continue
        column = '"' + name.replace('"', '""') + '"'
        beyond = [f"{column} < {low!r}"] if low is not None else []
        beyond += [f"{column} > {high!r}"] if high is not None else []
        here = f" AND subset = '{subset}'" if subset else ""
        tests.append((f"coalesce(({' OR '.join(beyond)}){here}, false)", f"{column} IS NULL"))
    passed, asked = "true", ["count(*) AS n", "coalesce(sum(seconds), 0) AS s"]
    for index, (drops, unknown) in enumerate(tests):
        asked.append(f"count(*) FILTER ({drops}) AS alone{index}, count(*) FILTER ({unknown}) AS unknown{index}")
        asked.append(f"count(*) FILTER ({passed} AND {drops}) AS dropped{index}")
        passed += f" AND NOT {drops}"
    asked.append(f"count(*) FILTER ({passed}) AS kept, coalesce(sum(seconds) FILTER ({passed}), 0) AS kept_s")
    found = questions.rows(f"SELECT {', '.join(asked)} FROM {live}")[0]
    gates, left = [], found["n"]
    for index, (name, _, low, high) in enumerate(limits):
        came, left = left, left - found[f"dropped{index}"]
        gates.append(
            Gate(
                name=name.removeprefix("score_"), low=low, high=high, came=came, went=left,
                alone=found[f"alone{index}"], unknown=found[f"unknown{index}"],
            )
        )  # fmt: skip
    return PresetFall(
        preset=preset, samples=found["n"], kept=found["kept"], hours=found["s"] / 3600, kept_hours=found["kept_s"] / 3600,
        gates=gates, not_judged=not_judged,
    )  # fmt: skip


def preset_waterfalls(questions: Questions, preset: str = "") -> list[PresetFall]:
    """`preset_waterfall` of one preset, or of all."""
    return [preset_waterfall(questions, name) for name in ([preset] if preset else preset_names())]


def _limits(
    preset: str, stages: dict[str, dict[str, Any]]
) -> tuple[list[tuple[str, str, float | None, float | None]], list[str]]:
    """(column, subset or all, least, greatest) of every gate, and the settings that no column can judge.

    Of the scores all limits count, those that the preset leaves at their defaults as well, since a job would apply them.
    """
    gates: list[tuple[str, str, float | None, float | None]] = []
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
            gates.append((column, subset, value if end == "low" else None, value if end == "high" else None))
    config: Any = parse_config(stages, StageSettings, f"preset {preset}")
    for name, (low, high) in limits_of(config.score_motion).items():
        ends = low if math.isfinite(low) else None, high if math.isfinite(high) else None
        if ends != (None, None):
            gates.append((f"score_{name}", "", *ends))
    return gates, not_judged


def waterfall_text(falls: list[Fall], presets: list[PresetFall], *, gates: bool) -> str:
    """Both tables for a terminal; with `gates` each preset limit by limit."""
    lines = [f"{'by the ledger':34} {'in':>8} {'out':>8} {'dropped':>8}"]
    for fall in falls:
        lines.append(f"{fall.stage:34} {fall.came:8,} {fall.went:8,} {fall.came - fall.went:8,}")
        for reason in fall.reasons:
            numbers = "" if reason.measured is None else f"  measured {reason.measured:.4g}"
            numbers += "" if reason.limit is None else f", limit {reason.limit:.4g}"
            lines.append(f"    {reason.name:30} {'':8} {'':8} {reason.count:8,}{numbers}")
    if not falls:
        lines.append("nothing was turned away")
    for number, preset in enumerate(presets):
        lines += [""] if gates or not number else []
        lines.append(_preset_line(preset))
        for gate in preset.gates if gates else []:
            ends = f">= {gate.low:g}" if gate.low is not None else ""
            ends += f"<= {gate.high:g}" if gate.high is not None else ""
            line = f"    {gate.name + ' ' + ends:30} {gate.came:8,} {gate.went:8,} {gate.came - gate.went:8,}  alone {gate.alone:,}"
            lines.append(line + (f", {gate.unknown:,} without it" if gate.unknown else ""))
        if gates and preset.not_judged:
            lines.append(f"    not judged: {', '.join(preset.not_judged)}")
    return "\n".join(lines)


def _preset_line(preset: PresetFall) -> str:
    share = f" ({preset.kept / preset.samples:.0%})" if preset.samples else ""
    kept = f"would keep {preset.kept:,} of {preset.samples:,} samples{share}"
    return f"preset {preset.preset} {kept}, {preset.kept_hours:.2f} of {preset.hours:.2f} hours"
