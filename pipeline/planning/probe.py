"""Probes some of a job's sources for their length, and runs a few through the chain in memory. Writes nothing."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import build_chain
from pipeline.chain.work_item import WorkItem, advance
from pipeline.planning.estimate import Estimate, ratio_total, total_length
from schemas.containers import open_media
from schemas.errors import SourceError
from schemas.records import Sample, Source
from schemas.shards import encode_sample
from schemas.staging import SourceFiles, source_files, use_source_files
from stages.base import apply
from stages.failures import is_transient
from stages.film_studio import GENERATED
from stages.media.inspection import UnreadablePicture, inspect
from stages.mocap import read_take
from stages.mocap.take import MocapError
from stages.read_videos import ReadVideos


@dataclass(frozen=True, kw_only=True)
class ProbedSource:
    """A source whose length was read."""

    source: Source
    media_s: float
    """Seconds of video or motion; 0 where it cannot be read."""
    problem: str
    """Why it cannot be read, as the reason that a stage would give; empty: it can."""
    picture: tuple[str, ...] = ()
    """What must be done to a video's frames (kinds of `schemas.picture.Picture.changes`)."""


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """Records and times of a stage for one source."""

    records_in: int
    records_out: int
    wall_s: float
    cpu_s: float
    """Of all threads of this process."""


@dataclass(frozen=True, kw_only=True)
class MeasuredSource:
    """A source that went through the chain in memory."""

    source_id: str
    media_s: float
    stages: dict[str, StageTime]
    reasons: dict[str, int]
    """`stage: reason` -> number of rejections."""
    clips: int
    motion_s: float
    part_bytes: int
    """Size of its samples in a part; packing copies them into shards unchanged."""
    film_bytes: int
    """Size of the film that `film_studio` would write to its folder."""
    describer_tokens: int
    describer_usd: float


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All sources of one kind, the probed ones and the measured ones."""

    population: int
    probed: tuple[ProbedSource, ...]
    measured: tuple[MeasuredSource, ...]

    @property
    def media_s(self) -> Estimate:
        return total_length([one.media_s for one in self.probed], self.population)

    def total(self, quantity: Callable[[MeasuredSource], float]) -> Estimate:
        """Estimate of a measured quantity over all sources of the kind."""
        return ratio_total(
            [quantity(one) for one in self.measured],
            [one.media_s for one in self.measured],
            [one.media_s for one in self.probed],
            self.population,
        )


def probe(
    config: IngestConfig, sources: Sequence[Source], *, max_per_kind: int, seed: int
) -> dict[str, tuple[ProbedSource, ...]]:
    """Kind -> up to `max_per_kind` sources, drawn by the seed, with their lengths. Reads a few MB of each remote video."""
    rng = np.random.default_rng(seed)
    lengths = {}
    for kind in sorted({source.kind for source in sources}):
        candidates = [source for source in sources if source.kind == kind]
        chosen = rng.permutation(len(candidates))[:max_per_kind]
        with use_source_files(SourceFiles(config.access)):
            lengths[kind] = tuple(_probe_one(config, candidates[index]) for index in chosen)
    return lengths


def measure(config: IngestConfig, probed: Sequence[ProbedSource], log: Callable[[str], None]) -> list[MeasuredSource]:
    """Run sources through the chain in this process, one after another; films go to a temporary folder.

    Describers call their endpoints here too. The shortest source of each kind runs first, once more than is counted: loading and
    compiling on first use would bias a small sample.
    """
    kinds = {one.source.kind for one in probed}
    with tempfile.TemporaryDirectory() as films, use_source_files(SourceFiles(config.access)):
        studio = config.stages.film_studio.model_copy(update={"folder": films})  # type: ignore[attr-defined]
        settings = config.stages.model_copy(update={"film_studio": studio})  # type: ignore[attr-defined]
        chain = build_chain(config.chain, settings, config.digest, kinds=kinds)
        for stage in chain:
            stage.setup()
        ordered = sorted(probed, key=lambda one: (one.source.kind, one.problem != "", one.media_s))
        measured, warm = [], set()
        for position, one in enumerate(ordered, start=1):
            log(f"measuring source {position} of {len(ordered)}: {one.source.id}, {one.media_s:.1f} s of media")
            if one.source.kind not in warm:
                warm.add(one.source.kind)
                advance(chain, WorkItem.of(one.source))
            measured.append(_measure_one(chain, one, Path(films)))
        return measured


def _measure_one(chain: Sequence, probed: ProbedSource, films: Path) -> MeasuredSource:
    work_item, stages = WorkItem.of(probed.source), {}
    for stage in chain:
        start_s = time.process_time()
        advance([stage], work_item)
        if stage.name in work_item.stage_stats:
            records_in, records_out, _, wall_s = work_item.stage_stats[stage.name]
            cpu_s = time.process_time() - start_s
            stages[stage.name] = StageTime(records_in=records_in, records_out=records_out, wall_s=wall_s, cpu_s=cpu_s)
    metas = [json.loads(sample.members["meta.json"]) for sample in work_item.samples]
    describer_calls = [json.loads(sample.members["text.json"])["describer"] for sample in work_item.samples]
    return MeasuredSource(
        source_id=probed.source.id,
        media_s=probed.media_s,
        stages=stages,
        reasons=dict(Counter(f"{rejection.stage}: {rejection.reason}" for rejection in work_item.rejections)),
        clips=len(work_item.samples),
        motion_s=sum(meta["frames"] / meta["fps"] for meta in metas),
        part_bytes=sum(map(_tar_bytes, work_item.samples)),
        film_bytes=sum(path.stat().st_size for path in films.glob(f"{probed.source.id}.*")),
        describer_tokens=sum(call["prompt_tokens"] + call["completion_tokens"] for call in describer_calls),
        describer_usd=sum(call["cost_usd"] for call in describer_calls),
    )


def _tar_bytes(sample: Sample) -> int:
    return len(encode_sample(sample.key, sample.members))


def _probe_one(config: IngestConfig, source: Source) -> ProbedSource:
    try:
        if source.kind == "video":
            media_s, picture = _video_s(config, source)
            return ProbedSource(source=source, media_s=media_s, problem="", picture=picture)
        return ProbedSource(source=source, media_s=_LENGTHS[source.kind](config, source), problem="")
    except FileNotFoundError:
        problem = "missing"
    except MocapError as error:
        problem = error.reason
    except UnreadablePicture as error:
        problem = str(error)
    except av.FFmpegError:
        problem = "not_a_video"
    except SourceError as error:
        problem = error.reason
    except Exception as error:  # stores have their own classes for a refusal, and one source must not stop the plan
        problem = "unreachable" if is_transient(error) else "unreadable"
    return ProbedSource(source=source, media_s=0.0, problem=problem)


def _video_s(config: IngestConfig, source: Source) -> tuple[float, tuple[str, ...]]:
    """Duration from the container's header (a file without one is read), and what must be done to its frames."""
    file = source_files().peek(source.location)
    with file if not isinstance(file, str) else nullcontext(), open_media(file) as container:
        picture = inspect(container)
        stream = container.streams[picture.stream]
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base), tuple(picture.changes)
        if container.duration:
            return container.duration / 1e6, tuple(picture.changes)
    videos, rejections = apply(ReadVideos(config.stages.read_videos), [source])  # type: ignore[attr-defined]
    if rejections:
        raise UnreadablePicture(rejections[0].reason)
    return videos[0].duration_s, tuple(picture.changes)


def _mocap_s(config: IngestConfig, source: Source) -> float:
    take = read_take(source.location, fps=source.fps or config.stages.read_mocap.fps or None)  # type: ignore[attr-defined]
    return len(take.times_s) / take.fps if take.fps else 0.0


def _studio_s(config: IngestConfig, source: Source) -> float:
    studio = config.stages.film_studio  # type: ignore[attr-defined]
    if source.uri.startswith(GENERATED):
        return studio.seconds * studio.takes
    return _mocap_s(config, source) * studio.takes


_LENGTHS: dict[str, Callable[[IngestConfig, Source], float]] = {
    "mocap": _mocap_s,
    "studio": _studio_s,
}
