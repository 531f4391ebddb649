"""A dry run: what a job would do, its resources, and estimates of its duration, results and cost.

The lengths of sources are always probed; with `sample`, a few sources of each kind go through the chain in memory, and their costs
and results are extrapolated by seconds of media (`pipeline.planning.estimate`). Times are those of this machine under its load at
the time.
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
from pipeline.execution.ray_engine import max_pool_workers, pool_layout
from pipeline.job.ingest import layout_problem, make_worklist
from pipeline.planning.estimate import ZERO, Estimate
from pipeline.planning.probe import MeasuredSource, ProbedSource, Survey, measure, probe
from schemas.ledger import read_ledger
from schemas.records import Source
from schemas.storage import Storage
from stages.base import Stage
from stages.list_sources import passed_over


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The workers of a job."""

    pools: list[tuple[list[str], WorkerConfig, int]]
    """Stages that share workers, the resources of each worker, and the maximum number of workers."""
    available: dict[str, float]
    """CPUs and GPUs of the whole machine or cluster; infinite for a cluster, which a dry run does not query."""
    remark: str = ""
    """A remark on how the workers were counted."""


def make_plan(
    config: IngestConfig,
    *,
    sample: int = 0,
    probed: int = 50,
    seed: int = 0,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Chain, resources, counts and estimates; starts no engine, writes nothing.

    Of each kind, up to `probed` sources are probed for their length and up to `sample` are measured, drawn at random by `seed`.
    """
    worklist = make_worklist(config)
    kinds = {source.kind for source in worklist.pending + worklist.done}
    chain = build_chain(config.chain, config.stages, config.digest, kinds=kinds)
    lengths = probe(config, worklist.pending, max_per_kind=max(probed, sample), seed=seed)
    sampled = [one for of_kind in lengths.values() for one in of_kind[:sample]]
    measured = measure(config, sampled, log) if sampled else []
    surveys = _surveys(worklist.pending, lengths, measured)
    layout = _layout(config, chain, len(worklist.pending))
    remarks = {stage.name: stage.remark() for stage in chain if stage.remark()}
    problem = layout_problem(Storage(config.output), config, worklist)
    remarks |= {"output": f"the job would be refused: {problem}"} if problem else {}
    return {
        "output": config.output,
        "engine": config.engine.kind,
        "config_digest": config.digest,
        "chain": [_stage_row(stage, layout) for stage in chain],
        "sources": {
            "to_do": len(worklist.pending),
            "done": len(worklist.done),
            **{name: sum(source.kind == kind for source in worklist.pending) for name, kind in _KINDS.items()},
            "quarantined": _quarantined(config, worklist.done),
            "done_under_other_settings": worklist.done_under_other_settings,
            "probed": sum(map(len, lengths.values())),
            "probed_and_unreadable": dict(
                Counter(one.problem for of_kind in lengths.values() for one in of_kind if one.problem)
            ),
            "probed_pictures": dict(
                Counter(kind for of_kind in lengths.values() for one in of_kind for kind in one.picture)
            ),
            "passed_over": passed_over(config.sources),
        },
        "remarks": remarks | ({"engine": layout.remark} if layout.remark else {}),
        "media_hours": _as_json(sum((survey.media_s for survey in surveys), ZERO).times(1 / 3600)),
        "measured": _measurements(chain, surveys) if measured else None,
        "estimate": _estimate(config, chain, surveys, layout) if measured else None,
    }


_KINDS = {"videos": "video", "motion_capture": "mocap", "studio": "studio"}


def _surveys(
    sources: Sequence[Source], lengths: dict[str, tuple[ProbedSource, ...]], measured: list[MeasuredSource]
) -> list[Survey]:
    by_id = {one.source_id: one for one in measured}
    return [
        Survey(
            population=sum(source.kind == kind for source in sources),
            probed=probed,
            measured=tuple(by_id[one.source.id] for one in probed if one.source.id in by_id),
        )
        for kind, probed in lengths.items()
    ]


def _quarantined(config: IngestConfig, done: Sequence[Source]) -> int:
    """Number of done sources that failed rather than were judged."""
    ledger = read_ledger(Storage(config.output)).select(["source_id", "outcome"]).to_pydict()
    failed = {name for name, outcome in zip(*ledger.values(), strict=True) if outcome == "quarantined"}
    return sum(source.id in failed for source in done)


def _layout(config: IngestConfig, chain: Sequence[Stage[Any, Any]], sources: int) -> Layout:
    available = {"CPU": float(config.engine.cpus or os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    if config.engine.kind == "inline":
        return Layout(
            pools=[([stage.name for stage in chain], WorkerConfig(cpus=available["CPU"]), 1)], available=available
        )
    remark = ""
    unknown_size = bool(config.engine.address) or config.engine.grows
    if unknown_size:
        available = dict.fromkeys(available, math.inf)
        if any(not config.resources.get(stage.name, WorkerConfig()).workers for stage in chain):
            remark = "a dry run joins no cluster: stages without `workers` in `resources` are counted with one worker"

    def workers_of(worker: WorkerConfig) -> int:
        return (worker.workers if unknown_size else max_pool_workers(config, worker, available)) or 1

    return Layout(
        pools=[
            (names, worker, min(workers_of(worker), max(1, sources)))
            for names, worker in pool_layout(config, chain, available)
        ],
        available=available,
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


def _measurements(chain: Sequence[Stage[Any, Any]], surveys: Sequence[Survey]) -> dict[str, Any]:
    """The sample itself; only each stage's hours are extrapolated to all sources."""
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
            "in": sum(time.records_in for time in times),
            "out": sum(time.records_out for time in times),
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

    def cpu_s(source: MeasuredSource) -> float:
        return sum(time.cpu_s for time in source.stages.values())

    def gpu_s(source: MeasuredSource) -> float:
        return sum(_wall_s(source, name) * share for name, share in gpus.items())

    def computing_usd(source: MeasuredSource) -> float:
        return (cpu_s(source) * prices.cpu_hour_usd + gpu_s(source) * prices.gpu_hour_usd) / 3600

    part_bytes = _total(surveys, lambda source: source.part_bytes)
    film_bytes = _total(surveys, lambda source: source.film_bytes)
    stored_bytes = part_bytes.times(2) + film_bytes
    return {
        "clips": _as_json(_total(surveys, lambda source: source.clips)),
        "motion_hours": _as_json(_total(surveys, lambda source: source.motion_s).times(1 / 3600)),
        "cpu_core_hours": _as_json(_total(surveys, cpu_s).times(1 / 3600)),
        "gpu_hours": _as_json(_total(surveys, gpu_s).times(1 / 3600)),
        "part_bytes": _as_json(part_bytes),
        "shard_bytes": _as_json(part_bytes),
        "film_bytes": _as_json(film_bytes),
        "describer_tokens": _as_json(_total(surveys, lambda source: source.describer_tokens)),
        "wall_clock": _wall_clock(surveys, layout),
        "cost": {
            "computing_usd": _as_json(_total(surveys, computing_usd)),
            "describer_usd": _as_json(_total(surveys, lambda source: source.describer_usd)),
            "storage_usd_a_month": _as_json(stored_bytes.times(prices.gib_month_usd / 2**30)),
            "not_priced": [name for name, price in prices.model_dump().items() if not price],
        },
        "basis": "double sampling, ratio to seconds of media, 90% intervals by Student's t; null bounds: one source measured",
    }


def _wall_clock(surveys: Sequence[Survey], layout: Layout) -> dict[str, Any]:
    """Hours of the whole job in steady state: the time of its slowest pool with all its workers or, if longer, the time that all
    pools together need on the available CPUs or GPUs.

    A worker takes as long as here, or longer if it has fewer cores than the stage kept busy here.
    """
    bounds: dict[str, Estimate] = {}
    for names, worker, count in layout.pools:
        label = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        bounds[label] = _total(surveys, partial(_worker_s, names=names, worker=worker)).times(1 / count)
    for kind, share in (("CPU", "cpus"), ("GPU", "gpus")):
        available = layout.available[kind]
        if available and math.isfinite(available) and len(layout.pools) > 1:
            required = _total(surveys, partial(_reserved_s, layout=layout, share=share))
            bounds[f"all {available:g} {kind}s"] = required.times(1 / available)
    slowest = max(bounds, key=lambda name: bounds[name].value)
    return {"hours": _as_json(bounds[slowest].times(1 / 3600)), "bound_by": slowest}


def _worker_s(source: MeasuredSource, names: Sequence[str], worker: WorkerConfig) -> float:
    """Seconds for which a source occupies a worker of a pool."""
    return sum(max(time.wall_s, time.cpu_s / worker.cpus) for name, time in source.stages.items() if name in names)


def _reserved_s(source: MeasuredSource, layout: Layout, share: str) -> float:
    """CPU or GPU seconds that a source reserves in all pools."""
    return sum(_worker_s(source, names, worker) * getattr(worker, share) for names, worker, _ in layout.pools)


def _wall_s(source: MeasuredSource, name: str) -> float:
    return source.stages[name].wall_s if name in source.stages else 0.0


def _total(surveys: Sequence[Survey], quantity: Callable[[MeasuredSource], float]) -> Estimate:
    return sum((survey.total(quantity) for survey in surveys), ZERO)


def _as_json(estimate: Estimate) -> dict[str, float | None]:
    known = math.isfinite(estimate.margin)
    low, high = (estimate.low, estimate.high) if known else (None, None)
    return {"value": estimate.value, "low": low, "high": high}
