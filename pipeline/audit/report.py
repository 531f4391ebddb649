"""A self-contained HTML report of a dataset: contents, rejections, quality and origin."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.audit import pages
from pipeline.audit.query import QuerySession
from pipeline.audit.statistics import STATISTICS
from pipeline.audit.waterfall import ledger_waterfall, preset_waterfalls
from schemas.dataset import DatasetDescription, read_description, read_tombstones
from schemas.sample import MEMBERS
from schemas.shards import read_samples
from schemas.storage import Storage

REPORT = "report/index.html"
MAX_SAMPLES = 24
MAX_ROWS = 14
"""Rows of a table or chart; the rest is only counted."""
_BINS = 24
_PLOT_WIDTH, _PLOT_HEIGHT = 240.0, 76.0
_SECONDS_SHOWN = 6.0
_UNITS = {
    "seconds": "seconds", "jitter": "m/frame²", "foot_slide": "m/frame", "penetration": "m", "float": "m",
    "reprojection": "box heights", "visibility": "0 to 1", "camera_seen": "share of frames",
    "max_root_speed": "m/s", "max_joint_speed": "rad/s", "identity_switches": "times", "truncation": "share of frames",
    "joint_limits": "share of frames", "physical": "body weights",
    "clip_similarity": "cosine",
}  # fmt: skip
"""Units of the length and of the scores; `stages/score_motion.py` defines the scores."""


def write_report(dataset: str, out: str | Path | None = None) -> str:
    """Write the report into the dataset (`report/index.html`), or to a file; returns its address.

    Raises HumoError if there is no packed dataset. The same dataset gives the same bytes.
    """
    storage = Storage(dataset)
    description = read_description(storage)
    with QuerySession(dataset) as session:
        context = _context(storage, description, session)
    return pages.write_page(storage, REPORT, "report.html", context, out)


def _context(storage: Storage, description: DatasetDescription, session: QuerySession) -> dict[str, Any]:
    removed = read_tombstones(storage)
    live = "(SELECT * FROM samples WHERE key NOT IN (SELECT key FROM removed))" if removed else "samples"
    rows = session.rows
    total = rows(
        f"SELECT count(*) AS n, coalesce(sum(seconds), 0) AS seconds, coalesce(sum(frames), 0)::BIGINT AS frames,"
        f" count(DISTINCT source_id) AS sources FROM {live}"
    )[0]
    outcomes = {row["outcome"]: row["n"] for row in rows("SELECT outcome, count(*) AS n FROM ledger GROUP BY outcome")}
    accepted, rejected = outcomes.get("accepted", 0), outcomes.get("rejected", 0)
    statistics = _statistics(storage, description)
    gallery = _gallery(storage, description, removed)
    kinds, parts = (_ranked(session, live, column, total["n"]) for column in ("kinds", "parts"))
    sources = _grouped(session, live, "source_id")
    bodies = _grouped(session, live, "body_model")
    numbers = [
        ("samples", f"{total['n']:,}"), ("of motion", pages.duration_text(total["seconds"])), ("frames", f"{total['frames']:,}"),
        ("sources", f"{total['sources']:,}"), ("shards", f"{len(description.shards):,}"),
        ("decisions accepted", f"{100 * accepted / (accepted + rejected):.0f}%" if accepted + rejected else "–"),
    ]  # fmt: skip
    models, models_from = _models(statistics, gallery)
    return {
        "name": storage.uri.rstrip("/").rsplit("/", 1)[-1],
        "version": description.version,
        "humo": description.humo,
        "numbers": [{"name": name, "value": value} for name, value in numbers],
        "removed": len(removed),
        "splits": _grouped(session, live, "subset || ' / ' || split"),
        "licences": _grouped(session, live, "licence"),
        "consents": _grouped(session, live, "consent"),
        "coverages": _grouped(session, live, "coalesce(coverage, 'whole')"),
        "sources": sources[:MAX_ROWS],
        "more_sources": max(0, total["sources"] - MAX_ROWS),
        "bodies": bodies,
        "configs": _grouped(session, live, "config_digest"),
        "decisions": accepted + rejected,
        "accepted": accepted,
        "rejected": rejected,
        "stages": _waterfall(session, accepted + rejected),
        "presets": _presets(session),
        "plots": _plots(session, live, total["n"]),
        "kinds": kinds[:MAX_ROWS],
        "more_kinds": max(0, len(kinds) - MAX_ROWS),
        "parts": parts,
        "language": _language(statistics),
        "describers": rows(
            f"SELECT describer AS name, count(*) AS samples, count(*) FILTER (describer_outcome = 'failed') AS failed,"
            f" sum(sentences_added)::BIGINT AS added, sum(sentences_rejected)::BIGINT AS rejected,"
            f" sum(describer_tokens)::BIGINT AS tokens, sum(describer_usd) AS usd FROM {live} GROUP BY name ORDER BY name"
        ),
        "samples": [sample["card"] for sample in gallery],
        "substitute_body": next(filter(None, (pages.substitute_body(body["name"]) for body in bodies)), ""),
        "models": models,
        "models_from": models_from,
        "shards": description.shards,
        "motions": {"skeleton": pages.skeleton(), "motions": [sample["motion"] for sample in gallery]},
    }


def _grouped(session: QuerySession, live: str, expression: str) -> list[dict[str, Any]]:
    return session.rows(
        f"SELECT {expression} AS name, count(*) AS samples, sum(seconds) AS seconds,"
        f" count(DISTINCT source_id) AS sources FROM {live} GROUP BY name ORDER BY samples DESC, name LIMIT 200"
    )


def _ranked(session: QuerySession, live: str, column: str, total: int) -> list[dict[str, Any]]:
    """Values of a list column with the share of samples that have them."""
    rows = session.rows(
        f"SELECT name, count(*) AS samples FROM (SELECT unnest(list_distinct({column})) AS name FROM {live})"
        " GROUP BY name ORDER BY samples DESC, name"
    )
    return [{**row, "share": row["samples"] / total} for row in rows]


def _waterfall(session: QuerySession, decisions: int) -> list[dict[str, Any]]:
    """Stages in the chain's order: their rejections by reason, and the decisions left after them."""
    return [
        {
            "name": stage.stage, "entered": stage.entered, "passed": stage.passed, "count": stage.entered - stage.passed,
            "lost": (stage.entered - stage.passed) / decisions, "kept": stage.passed / decisions,
            "reasons": [{**asdict(reason), "share": reason.count / decisions} for reason in stage.reasons],
        }
        for stage in ledger_waterfall(session)
    ]  # fmt: skip


def _presets(session: QuerySession) -> list[dict[str, Any]]:
    """Samples that each preset would keep, and its limits that would drop any."""
    return [
        {
            "name": preset.preset, "samples": preset.samples, "kept": preset.kept, "hours": preset.kept_hours,
            "share": preset.kept / max(preset.samples, 1), "not_judged": preset.not_judged,
            "limits": [
                {**asdict(limit), "count": limit.entered - limit.passed,
                 "share": (limit.entered - limit.passed) / max(preset.samples, 1)}
                for limit in preset.limits
                if limit.dropped_alone
            ],
        }
        for preset in preset_waterfalls(session)
    ]  # fmt: skip


def _plots(session: QuerySession, live: str, total: int) -> list[dict[str, Any]]:
    """Histograms of the length and of every score; the outer bins include values beyond them."""
    columns = [name for name in session.tables["samples"].schema.names if name.startswith("score_")]
    plots = []
    for column in ["seconds", *sorted(columns)]:
        name = '"' + column.replace('"', '""') + '"'
        finite = f"FROM {live} WHERE isfinite({name})"
        summary = session.rows(
            f"SELECT count(*) AS n, quantile_cont({name}, [0.005, 0.05, 0.5, 0.95, 0.995]) AS q {finite}"
        )[0]
        if not summary["n"]:
            continue
        low, p05, p50, p95, high = (float(value) for value in summary["q"])
        if column == "score_clip_similarity" and low == high == 0:
            continue  # not computed
        if high <= low:  # all values equal: one bar in the middle
            low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
        bins = min(_BINS, 5 + 2 * int(math.sqrt(summary["n"])))
        width = (high - low) / bins
        counts = dict.fromkeys(range(bins), 0)
        binned = f"greatest(0, least({bins - 1}, floor(({name} - {low!r}) / {width!r})::INT)) AS bin"
        for row in session.rows(f"SELECT {binned}, count(*) AS n {finite} GROUP BY bin"):
            counts[row["bin"]] = row["n"]
        tallest, span = max(counts.values()), bins * width
        step = _PLOT_WIDTH / bins
        plot: dict[str, Any] = {
            "title": "length" if column == "seconds" else column.removeprefix("score_"),
            "unit": _UNITS.get(column.removeprefix("score_"), ""),
            "low": low, "high": high, "p05": p05, "p50": p50, "p95": p95, "missing": total - summary["n"],
        }  # fmt: skip
        plot |= {f"x{q}": round((plot[f"p{q}"] - low) / span * _PLOT_WIDTH, 2) for q in ("05", "50", "95")}
        plot["bins"] = [
            {"x": round(index * step, 2), "width": round(step - 1, 2), "count": count, "low": low + index * width,
             "high": low + (index + 1) * width, "height": round(max(_PLOT_HEIGHT * count / tallest, 1.5), 2)}
            for index, count in counts.items() if count
        ]  # fmt: skip
        plots.append(plot)
    return plots


def _gallery(storage: Storage, description: DatasetDescription, removed: set[str]) -> list[dict[str, Any]]:
    """The first samples of evenly spaced shards; keys are hashes, so these are a random choice.

    Only the beginnings of a few shards are read, independent of the size of the dataset.
    """
    shards = sorted(description.shards, key=lambda shard: (shard.path.rsplit("/", 1)[-1], shard.subset))
    selected = [
        shards[index * len(shards) // min(MAX_SAMPLES, len(shards))] for index in range(min(MAX_SAMPLES, len(shards)))
    ]
    # With few shards, larger ones contribute the samples that smaller ones lack.
    quota = dict.fromkeys((shard.path for shard in selected), 0)
    remaining = MAX_SAMPLES
    while remaining and any(quota[shard.path] < shard.samples for shard in selected):
        for shard in selected:
            if remaining and quota[shard.path] < shard.samples:
                quota[shard.path] += 1
                remaining -= 1
    gallery = []
    for shard in selected:
        with storage.open(shard.path) as file:
            taken = 0
            for key, members in read_samples(file, f"{storage.uri}/{shard.path}"):
                if taken == quota[shard.path]:
                    break
                if key not in removed:
                    taken += 1
                    gallery.append(_card(key, members, shard.subset, shard.split))
    return gallery


def _card(key: str, members: dict[str, bytes], subset: str, split: str) -> dict[str, Any]:
    meta, text = json.loads(members["meta.json"]), json.loads(members["text.json"])
    instances = json.loads(members["instructions.json"])["instances"]
    first = instances[0] if instances else {"task": "", "instruction": ""}
    card = {name: meta[name] for name in ("title", "source_id", "start_s", "end_s", "licence")}
    card |= {"key": key, "subset": subset, "split": split, "caption": text["body"][0]}
    card |= {"task": first["task"], "instruction": first["instruction"], "more": max(0, len(instances) - 1)}
    card["kinds"] = sorted({event["kind"] for event in text["rules"]})[:6]
    card["film"] = pages.film_strip(members) if "clip.mp4" in MEMBERS[subset] else []
    motion = pages.packed_motion(members, f"{key}.motion.npz", every=2, seconds=_SECONDS_SHOWN)
    return {"card": card, "motion": motion, "models": meta["models"]}


def _statistics(storage: Storage, description: DatasetDescription) -> dict[str, Any]:
    """statistics.json if it was computed from this version; else empty."""
    if not storage.exists(STATISTICS):
        return {}
    statistics = json.loads(storage.read_bytes(STATISTICS))
    return statistics if statistics.get("version") == description.version else {}


def _language(statistics: dict[str, Any]) -> str:
    if not statistics:
        return ""
    sentences = sum(level.get("times", 0) for level in statistics["sentences"].values())
    words = statistics["histograms"].get("words_per_sentence", {})
    return (
        f"{sentences:,} sentences use {statistics['vocabulary']:,} different words; half of the sentences have up to"
        f" {round(words.get('p50', 0))} words."
    )


def _models(statistics: dict[str, Any], gallery: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    if statistics:
        rows = [{"name": name, "samples": count["samples"]} for name, count in statistics["models"].items()]
        return rows, "in all samples"
    counts: dict[str, int] = {}
    for sample in gallery:
        for name, version in sample["models"].items():
            counts[f"{name} {version}"] = counts.get(f"{name} {version}", 0) + 1
    rows = [{"name": name, "samples": counts[name]} for name in sorted(counts)]
    return rows, "in the samples shown above (humo stats counts them all)"
