"""The plan of a job as text, at most 100 columns wide."""

import textwrap
from typing import Any

WIDTH = 100
"""Columns."""


def plan_text(plan: dict[str, Any]) -> str:
    """The result of `pipeline.planning.plan.make_plan` for a terminal."""
    lines = [*_sources(plan), "", *_chain(plan)]
    if plan["estimate"] is None:
        lines += ["", *_unmeasured(plan)]
    else:
        lines += ["", *_estimates(plan)]
    return "\n".join(lines)


def _sources(plan: dict[str, Any]) -> list[str]:
    sources = plan["sources"]
    kinds = [f"{sources[name]} {label}" for name, label in _KINDS.items() if sources[name]]
    done = [
        f"{sources[name]} {label}"
        for name, label in (("quarantined", "quarantined"), ("done_under_other_settings", "under other settings"))
        if sources[name]
    ]
    lines = _wrapped(
        f"{_count(sources['to_do'], 'source')} to do" + (f" ({', '.join(kinds)})" if kinds else "")
        + f", {sources['done']} done" + (f" ({', '.join(done)})" if done else "")
        + f"; engine {plan['engine']}; output {plan['output']}"
    )  # fmt: skip
    unreadable = ", ".join(f"{reason} {number}" for reason, number in sources["probed_and_unreadable"].items())
    lines += _wrapped(
        f"{_with_interval(plan['media_hours'])} hours of media, from the lengths of {sources['probed']} sources"
        + (f"; cannot be read: {unreadable}" if unreadable else "")
    )
    if sources["probed_pictures"]:
        kinds_of = ", ".join(f"{kind} {number}" for kind, number in sources["probed_pictures"].items())
        lines += _wrapped(f"corrected while decoding: {kinds_of}")
    if sources["passed_over"]:
        names = sources["passed_over"]
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        lines += _wrapped(f"{_count(len(names), 'file')} passed over, not of the kind by name: {listed}")
    for name, remark in plan["remarks"].items():
        lines += _wrapped(f"{name}: {remark}")
    return lines


_KINDS = {"videos": "video", "motion_capture": "motion capture", "studio": "studio"}


def _chain(plan: dict[str, Any]) -> list[str]:
    """One table: with the measurements if there are any, else with the record types of each stage."""
    if plan["measured"] is None:
        lines = [f"{'stage':20}{'takes':18}{'yields':18}{'cpus':>6}{'gpus':>6}{'workers':>9}"]
        return lines + [
            f"{row['stage']:20}{row['takes']:18}{row['yields']:18}{row['cpus']:>6g}{row['gpus']:>6g}{row['workers']:>9}"
            for row in plan["chain"]
        ]
    measured = plan["measured"]
    lines = _wrapped(
        f"measured: {_count(measured['sources'], 'source')}, {measured['media_s']:g} s of media, on {measured['machine']}; "
        f"{measured['with_samples']} gave samples, {_count(measured['clips'], 'clip')} in all"
    )
    lines.append(
        f"{'stage':19}{'cpus':>5}{'gpus':>5}{'workers':>8}{'s per s':>9}{'CPU s':>8}{'hours':>9}{'in':>6}{'out':>6}  not kept"
    )
    for row in plan["chain"]:
        stage = measured["stages"][row["stage"]]
        reasons = ", ".join(f"{reason} {number}" for reason, number in stage["rejected"].items())
        lines.append(
            _truncated(
                f"{row['stage']:19}{row['cpus']:>5g}{row['gpus']:>5g}{row['workers']:>8}"
                f"{_optional(stage['wall_s_per_media_s']):>9}{_optional(stage['cpu_s_per_media_s']):>8}"
                f"{_hours(stage['wall_hours']['value']):>9}{stage['in']:>6}{stage['out']:>6}  {reasons}"
            )
        )
    return [
        *lines,
        *_wrapped(
            "s per s: seconds of one worker per second of media; CPU s: likewise, of all its threads; hours: of one worker, for "
            "all sources. Far more seconds than CPU seconds: it waited, or this machine was busy."
        ),
    ]


def _estimates(plan: dict[str, Any]) -> list[str]:
    estimate = plan["estimate"]
    rows = [
        ("clips", estimate["clips"], ""),
        ("hours of motion", estimate["motion_hours"], ""),
        ("CPU core hours", estimate["cpu_core_hours"], ""),
        ("GPU hours", estimate["gpu_hours"], f"stages with gpus, as timed on {plan['measured']['machine']}"),
        ("MiB of parts", _mib(estimate["part_bytes"]), ""),
        ("MiB of shards", _mib(estimate["shard_bytes"]), ""),
        ("MiB of films", _mib(estimate["film_bytes"]), ""),
        ("describer tokens", estimate["describer_tokens"], ""),
        ("hours until done", estimate["wall_clock"]["hours"], f"bound by {estimate['wall_clock']['bound_by']}"),
        ("computing, USD", estimate["cost"]["computing_usd"], ""),
        ("describer, USD", estimate["cost"]["describer_usd"], ""),
        ("storage, USD a month", estimate["cost"]["storage_usd_a_month"], ""),
    ]
    lines = [f"{'for all sources to do':24}{'estimate':>12}{'90% interval':>26}"]
    for name, value, note in rows:
        if value["value"] or name in ("clips", "hours of motion", "CPU core hours"):
            text = f"{name:24}{_number(value['value']):>12}{_interval(value):>26}"
            lines += _wrapped(text + (f"  {note}" if note else ""), "  ")
    missing = estimate["cost"]["not_priced"]
    if missing:
        lines += _wrapped(f"not priced: {', '.join(missing)}; set them under `prices`")
    return lines


def _unmeasured(plan: dict[str, Any]) -> list[str]:
    if not plan["sources"]["to_do"]:
        return ["nothing to do"]
    return _wrapped(
        "Clips, hours of work, bytes and cost are not estimated: `--sample 5` runs 5 sources of each kind through the chain "
        "here, writes nothing, and extrapolates."
    )


def _mib(value: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if number is None else number / 2**20 for name, number in value.items()}


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _interval(value: dict[str, float | None]) -> str:
    if value["low"] is None or value["high"] is None:
        return "unknown: one measured"
    if value["low"] == value["high"]:
        return "all measured"
    return f"{_number(value['low'])} to {_number(value['high'])}"


def _with_interval(value: dict[str, Any]) -> str:
    interval = "" if value["low"] == value["high"] else f" ({_interval(value)})"
    return f"{_number(value['value'])}{interval}"


def _hours(value: float) -> str:
    return "<0.001" if 0 < value < 0.001 else f"{value:.3f}" if value < 1000 else f"{value:,.0f}"


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, drop_whitespace=True, break_long_words=False) or [text]


def _truncated(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."
