"""A dry run: what a job would do, with what, and roughly for how long."""

from typing import Any

from pipeline.chain import build_chain
from pipeline.config import IngestConfig, WorkerConfig
from pipeline.ingest import look_ahead
from schemas.records import Source, Video
from stages.base import apply
from stages.read_videos import ReadVideos

_PROBED = 20
_REALTIME_PER_CORE = 1.0
"""Seconds of 30 fps video that the whole chain digests in a second on one CPU core, roughly; see BENCHMARKS.md."""


def make_plan(config: IngestConfig) -> dict[str, Any]:
    """Chain, resources, counts and an estimate from up to twenty of the sources; starts no engine, writes nothing."""
    todo = look_ahead(config)
    kinds = {source.kind for source in todo.todo + todo.done}
    chain = build_chain(config.chain, config.stages, config.digest, kinds=kinds)
    videos = [source for source in todo.todo if source.kind == "video"]
    step = max(1, len(videos) // _PROBED)
    probed = videos[::step][:_PROBED]
    seconds, problems = _probe(config, probed)
    mean_s = seconds / len(probed) if probed else 0.0
    hours = mean_s * len(videos) / 3600
    return {
        "output": config.output,
        "engine": config.engine.kind,
        "config_digest": config.digest,
        "chain": [
            {
                "stage": stage.name,
                "takes": stage.takes.__name__,
                "yields": stage.yields.__name__,
                "settings": stage.config.model_dump(mode="json"),
                **config.resources.get(stage.name, WorkerConfig()).model_dump(),
            }
            for stage in chain
        ],
        "sources": {
            "to_do": len(todo.todo),
            "done": len(todo.done),
            "motion_capture": sum(source.kind == "mocap" for source in todo.todo),
            "studio": sum(source.kind == "studio" for source in todo.todo),
            "done_under_other_settings": todo.done_otherwise,
            "probed": len(probed),
            "probed_and_rejected": problems,
        },
        "remarks": {stage.name: stage.remark() for stage in chain if stage.remark()},
        "estimate": {
            "video_hours": round(hours, 4),
            "cpu_core_hours": round(hours / _REALTIME_PER_CORE, 4),
            "basis": "mean length of the probed videos; one core digests about one second of video a second",
        },
    }


def _probe(config: IngestConfig, sources: list[Source]) -> tuple[float, dict[str, int]]:
    """Seconds of video in some sources, and why some would be rejected at once."""
    videos, rejections = apply(ReadVideos(config.stages.read_videos), sources)  # type: ignore[attr-defined]
    reasons: dict[str, int] = {}
    for one in rejections:
        reasons[one.reason] = reasons.get(one.reason, 0) + 1
    return sum(video.duration_s for video in videos if isinstance(video, Video)), reasons


def plan_text(plan: dict[str, Any]) -> str:
    """The plan for a terminal."""
    lines = [f"{'stage':20}{'takes':18}{'yields':18}{'cpus':>6}{'gpus':>6}"]
    for stage in plan["chain"]:
        lines.append(
            f"{stage['stage']:20}{stage['takes']:18}{stage['yields']:18}{stage['cpus']:>6g}{stage['gpus']:>6g}"
        )
    sources, estimate = plan["sources"], plan["estimate"]
    lines.append(
        f"{sources['to_do']} sources to do, {sources['done']} done; engine {plan['engine']}; output {plan['output']}"
    )
    if sources["done_under_other_settings"]:
        lines.append(
            f"{sources['done_under_other_settings']} were decided under other settings and are kept as they are"
        )
    rejected = ", ".join(f"{reason} {number}" for reason, number in sources["probed_and_rejected"].items())
    lines.append(
        f"{sources['probed']} videos probed" + (f", of which rejected at once: {rejected}" if rejected else "")
    )
    lines += [f"{name}: {remark}" for name, remark in plan["remarks"].items()]
    lines.append(f"about {estimate['video_hours']:g} hours of video, {estimate['cpu_core_hours']:g} CPU core hours")
    return "\n".join(lines)
