"""A dry run: what a job would do, with what, and how long it takes, what comes out and what it costs.

Lengths of sources are probed always; with `sample`, a few sources of each kind go through the chain in memory, and what they
took and gave is extrapolated by seconds of media (`pipeline.planning.estimate`). Times are those of this machine while it measured.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pipeline.chain.config import IngestConfig, WorkerConfig
from pipeline.chain.stage_order import build_chain
from pipeline.execution.ray_engine import most_workers, pools
from pipeline.job.ingest import look_ahead
from pipeline.planning.estimate import NOTHING, Estimate
from pipeline.planning.probe import Measured, Probed, Survey, measure, probe
from schemas.ledger import read_ledger
from schemas.records import Source
from schemas.storage import Storage
from stages.base import Stage


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The workers that a job has."""

    pools: list[tuple[list[str], WorkerConfig, int]]
    """Stages that share workers, what each worker gets, and how many there are at most."""
    have: dict[str, float]
    """CPUs and GPUs of all together; infinite where a cluster would have to be asked."""
    remark: str = ""
    """What should be said about how the workers were counted."""


def make_plan(
    config: IngestConfig,
    *,
    sample: int = 0,
    probed: int = 50,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Chain, resources, counts and estimates; starts no engine, writes nothing.

    Of each kind of source up to `probed` are asked for their length and up to `sample` measured, drawn at random by `seed`.
    """
    todo = look_ahead(config)
    kinds = {source.kind for source in todo.todo + todo.done}
    chain = build_chain(config.chain, config.stages, config.digest, kinds=kinds)
    asked = probe(config, todo.todo, most=max(probed, sample), seed=seed)
    chosen = [one for of_kind in asked.values() for one in of_kind[:sample]]
    measured = measure(config, chosen, tell) if chosen else []
    surveys = _surveys(todo.todo, asked, measured)
    layout = _layout(config, chain, len(todo.todo))
    remarks = {stage.name: stage.remark() for stage in chain if stage.remark()}
    return {
        "output": config.output,
        "engine": config.engine.kind,
        "config_digest": config.digest,
        "chain": [_stage_row(stage, layout) for stage in chain],
        "sources": {
            "to_do": len(todo.todo),
            "done": len(todo.done),
            **{name: sum(source.kind == kind for source in todo.todo) for name, kind in _KINDS.items()},
            "quarantined": _quarantined(config, todo.done),
            "done_under_other_settings": todo.done_otherwise,
            "probed": sum(map(len, asked.values())),
            "probed_and_unreadable": dict(
                Counter(one.problem for of_kind in asked.values() for one in of_kind if one.problem)
            ),
        },
        "remarks": remarks | ({"engine": layout.remark} if layout.remark else {}),
        "media_hours": _as_json(sum((survey.media_s for survey in surveys), NOTHING).times(1 / 3600)),
        "measured": _what_was_measured(chain, surveys) if measured else None,
        "estimate": _estimate(config, chain, surveys, layout) if measured else None,
    }


_KINDS = {"videos": "video", "motion_capture": "mocap", "studio": "studio"}


def _surveys(sources: Sequence[Source], asked: dict[str, tuple[Probed, ...]], measured: list[Measured]) -> list[Survey]:
    by_id = {one.source_id: one for one in measured}
    return [
        Survey(
            population=sum(source.kind == kind for source in sources),
            probed=probed,
            measured=tuple(by_id[one.source.id] for one in probed if one.source.id in by_id),
        )
        for kind, probed in asked.items()
    ]


def _quarantined(config: IngestConfig, done: Sequence[Source]) -> int:
    """How many of the sources that are done failed rather than were judged."""
    ledger = read_ledger(Storage(config.output)).select(["source_id", "outcome"]).to_pydict()
    failed = {name for name, outcome in zip(*ledger.values(), strict=True) if outcome == "quarantined"}
    return sum(source.id in failed for source in done)


def _layout(config: IngestConfig, chain: Sequence[Stage[Any, Any]], sources: int) -> Layout:
    have = {"CPU": float(config.engine.cpus or os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    if config.engine.kind == "inline":
        return Layout(pools=[([stage.name for stage in chain], WorkerConfig(cpus=have["CPU"]), 1)], have=have)
    remark = ""
    unknown = bool(config.engine.address) or config.engine.grows
    if unknown:
        have = dict.fromkeys(have, math.inf)
        if any(not config.resources.get(stage.name, WorkerConfig()).workers for stage in chain):
            remark = "a dry run joins no cluster: stages without `workers` in `resources` are reckoned with one worker"

    def workers_of(worker: WorkerConfig) -> int:
        return (worker.workers if unknown else most_workers(config, worker, have)) or 1

    return Layout(
        pools=[
            (names, worker, min(workers_of(worker), max(1, sources))) for names, worker in pools(config, chain, have)
        ],
        have=have,
        remark=remark,
    )


def _stage_row(stage: Stage[Any, Any], layout: Layout) -> dict[str, Any]:
    worker, count = next((worker, count) for names, worker, count in layout.pools if stage.name in names)
    return {
        "stage": stage.name,
        "takes": stage.takes.__name__,
        "yields": stage.yields.__name__,
        "settings": stage.config.model_dump(mode="json"),
        **worker.model_dump(),
        "workers": count,
    }


def _what_was_measured(chain: Sequence[Stage[Any, Any]], surveys: Sequence[Survey]) -> dict[str, Any]:
    """The sample itself, without any extrapolation but to all the stage's seconds."""
    measured = [one for survey in surveys for one in survey.measured]
    stages = {}
    for stage in chain:
        times = [one.stages[stage.name] for one in measured if stage.name in one.stages]
        media_s = sum(one.media_s for one in measured if stage.name in one.stages)
        wall_s, cpu_s = sum(time.wall_s for time in times), sum(time.cpu_s for time in times)
        reasons: Counter[str] = Counter()
        for one in measured:
            for reason, number in one.reasons.items():
                if reason.startswith(f"{stage.name}: "):
                    reasons[reason.removeprefix(f"{stage.name}: ")] += number
        stages[stage.name] = {
            "in": sum(time.came for time in times),
            "out": sum(time.went for time in times),
            "rejected": dict(reasons),
            "wall_s_per_media_s": round(wall_s / media_s, 5) if media_s else None,
            "cpu_s_per_media_s": round(cpu_s / media_s, 5) if media_s else None,
            "wall_hours": _as_json(_total(surveys, partial(_wall_s, name=stage.name)).times(1 / 3600)),
        }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "sources": len(measured),
        "with_samples": sum(one.clips > 0 for one in measured),
        "media_s": round(sum(one.media_s for one in measured), 2),
        "clips": sum(one.clips for one in measured),
        "machine": f"{os.cpu_count()} CPU cores, {device}",
        "stages": stages,
    }


def _estimate(
    config: IngestConfig, chain: Sequence[Stage[Any, Any]], surveys: Sequence[Survey], layout: Layout
) -> dict[str, Any]:
    prices = config.prices
    gpus = {stage.name: config.resources[stage.name].gpus for stage in chain if stage.name in config.resources}

    def cpu_s(one: Measured) -> float:
        return sum(time.cpu_s for time in one.stages.values())

    def gpu_s(one: Measured) -> float:
        return sum(_wall_s(one, name) * share for name, share in gpus.items())

    def computing_usd(one: Measured) -> float:
        return (cpu_s(one) * prices.cpu_hour_usd + gpu_s(one) * prices.gpu_hour_usd) / 3600

    parts = _total(surveys, lambda one: one.part_bytes)
    films = _total(surveys, lambda one: one.film_bytes)
    kept = parts.times(2) + films
    return {
        "clips": _as_json(_total(surveys, lambda one: one.clips)),
        "motion_hours": _as_json(_total(surveys, lambda one: one.motion_s).times(1 / 3600)),
        "cpu_core_hours": _as_json(_total(surveys, cpu_s).times(1 / 3600)),
        "gpu_hours": _as_json(_total(surveys, gpu_s).times(1 / 3600)),
        "part_bytes": _as_json(parts),
        "shard_bytes": _as_json(parts),
        "film_bytes": _as_json(films),
        "describer_tokens": _as_json(_total(surveys, lambda one: one.describer_tokens)),
        "wall_clock": _wall_clock(surveys, layout),
        "cost": {
            "computing_usd": _as_json(_total(surveys, computing_usd)),
            "describer_usd": _as_json(_total(surveys, lambda one: one.describer_usd)),
            "storage_usd_a_month": _as_json(kept.times(prices.gib_month_usd / 2**30)),
            "not_priced": [name for name, price in prices.model_dump().items() if not price],
        },
        "basis": "double sampling, ratio to seconds of media, 90% intervals by Student's t; null bounds: one source measured",
    }


def _wall_clock(surveys: Sequence[Survey], layout: Layout) -> dict[str, Any]:
    """Hours of the whole job once it runs steadily: what its slowest pool needs with all its workers, or, where that is more,
    what all pools together need of the CPUs or GPUs.

    A worker takes as long as here, or longer where it has fewer cores than the stage kept busy here.
    """
    bounds: dict[str, Estimate] = {}
    for names, worker, count in layout.pools:
        shown = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        bounds[shown] = _total(surveys, partial(_worker_s, names=names, worker=worker)).times(1 / count)
    for kind, share in (("CPU", "cpus"), ("GPU", "gpus")):
        have = layout.have[kind]
        if have and math.isfinite(have) and len(layout.pools) > 1:
            needed = _total(surveys, partial(_reserved_s, layout=layout, share=share))
            bounds[f"all {have:g} {kind}s"] = needed.times(1 / have)
    slowest = max(bounds, key=lambda name: bounds[name].value)
    return {"hours": _as_json(bounds[slowest].times(1 / 3600)), "bound_by": slowest}


def _worker_s(one: Measured, names: Sequence[str], worker: WorkerConfig) -> float:
    """Seconds for which a source keeps a worker of a pool."""
    return sum(max(time.wall_s, time.cpu_s / worker.cpus) for name, time in one.stages.items() if name in names)


def _reserved_s(one: Measured, layout: Layout, share: str) -> float:
    """Seconds for which it keeps a CPU, or a GPU, in all pools."""
    return sum(_worker_s(one, names, worker) * getattr(worker, share) for names, worker, _ in layout.pools)


def _wall_s(one: Measured, name: str) -> float:
    return one.stages[name].wall_s if name in one.stages else 0.0


def _total(surveys: Sequence[Survey], quantity: Callable[[Measured], float]) -> Estimate:
    return sum((survey.total(quantity) for survey in surveys), NOTHING)


def _as_json(estimate: Estimate) -> dict[str, float | None]:
    known = math.isfinite(estimate.margin)
    low, high = (estimate.low, estimate.high) if known else (None, None)
    return {"value": estimate.value, "low": low, "high": high}
