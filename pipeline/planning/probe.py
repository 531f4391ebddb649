"""What some of a job's sources tell: how long they are, and what the chain makes of a few of them. Nothing is written."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import build_chain
from pipeline.chain.work_item import WorkItem, advance
from pipeline.planning.estimate import Estimate, ratio_total, total_length
from schemas.records import Sample, Source
from schemas.shards import encode_sample
from stages.base import apply
from stages.film_studio import GENERATED
from stages.media.decoding import open_container, picture_stream
from stages.mocap import read_take
from stages.mocap.take import MocapError
from stages.read_videos import ReadVideos


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A source that was asked for its length."""

    source: Source
    media_s: float
    """Seconds of video or motion; 0 where it cannot be read."""
    problem: str
    """Why it cannot be read, in the words of the stage that would say so; empty: it can."""


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """A stage over one source."""

    came: int
    went: int
    wall_s: float
    cpu_s: float
    """Of all threads of this process."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A source that went through the chain in memory."""

    source_id: str
    media_s: float
    stages: dict[str, StageTime]
    reasons: dict[str, int]
    """`stage: reason` -> how many rejections."""
    clips: int
    motion_s: float
    part_bytes: int
    """Of its samples in a part; packing copies them into shards as they are."""
    film_bytes: int
    """Of the film that `film_studio` would leave in its folder."""
    describer_tokens: int
    describer_usd: float


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All sources of one kind, those asked for their length, and those measured."""

    population: int
    probed: tuple[Probed, ...]
    measured: tuple[Measured, ...]

    @property
    def media_s(self) -> Estimate:
        return total_length([one.media_s for one in self.probed], self.population)

    def total(self, quantity: Callable[[Measured], float]) -> Estimate:
        """Of something measured, over all sources of the kind."""
        return ratio_total(
            [quantity(one) for one in self.measured],
            [one.media_s for one in self.measured],
            [one.media_s for one in self.probed],
            self.population,
        )


def probe(config: IngestConfig, sources: Sequence[Source], *, most: int, seed: int) -> dict[str, tuple[Probed, ...]]:
    """Kind -> up to `most` sources of it, drawn by the seed, with their lengths. Of remote videos a few MB each are read."""
    rng = np.random.default_rng(seed)
    found = {}
    for kind in sorted({source.kind for source in sources}):
        of_kind = [source for source in sources if source.kind == kind]
        chosen = rng.permutation(len(of_kind))[:most]
        found[kind] = tuple(_probe_one(config, of_kind[index]) for index in chosen)
    return found


def measure(config: IngestConfig, probed: Sequence[Probed], tell: Callable[[str], None]) -> list[Measured]:
    """Take sources through the chain in this process, one after another; films go to a folder that is deleted.

    A describer that asks an endpoint asks it here too. The shortest source of each kind goes first, once more than is
    counted: what is loaded or compiled on first use would weigh too much in a small sample.
    """
    kinds = {one.source.kind for one in probed}
    with tempfile.TemporaryDirectory() as films:
        studio = config.stages.film_studio.model_copy(update={"folder": films})  # type: ignore[attr-defined]
        settings = config.stages.model_copy(update={"film_studio": studio})  # type: ignore[attr-defined]
        chain = build_chain(config.chain, settings, config.digest, kinds=kinds)
        for stage in chain:
            stage.setup()
        ordered = sorted(probed, key=lambda one: (one.source.kind, one.problem != "", one.media_s))
        measured, warm = [], set()
        for number, one in enumerate(ordered, start=1):
            tell(f"measuring source {number} of {len(ordered)}: {one.source.id}, {one.media_s:.1f} s of media")
            if one.source.kind not in warm:
                warm.add(one.source.kind)
                advance(chain, WorkItem.of(one.source))
            measured.append(_measure_one(chain, one, Path(films)))
        return measured


def _measure_one(chain: Sequence, one: Probed, films: Path) -> Measured:
    work_item, stages = WorkItem.of(one.source), {}
    for stage in chain:
        began_s = time.process_time()
        advance([stage], work_item)
        if stage.name in work_item.passed:
            came, went, _, wall_s = work_item.passed[stage.name]
            cpu_s = time.process_time() - began_s
            stages[stage.name] = StageTime(came=came, went=went, wall_s=wall_s, cpu_s=cpu_s)
    metas = [json.loads(sample.members["meta.json"]) for sample in work_item.samples]
    efforts = [json.loads(sample.members["text.json"])["describer"] for sample in work_item.samples]
    return Measured(
        source_id=one.source.id,
        media_s=one.media_s,
        stages=stages,
        reasons=dict(Counter(f"{rejection.stage}: {rejection.reason}" for rejection in work_item.rejections)),
        clips=len(work_item.samples),
        motion_s=sum(meta["frames"] / meta["fps"] for meta in metas),
        part_bytes=sum(map(_tar_bytes, work_item.samples)),
        film_bytes=sum(path.stat().st_size for path in films.glob(f"{one.source.id}.*")),
        describer_tokens=sum(effort["prompt_tokens"] + effort["completion_tokens"] for effort in efforts),
        describer_usd=sum(effort["cost_usd"] for effort in efforts),
    )


def _tar_bytes(sample: Sample) -> int:
    return len(encode_sample(sample.key, sample.members))


def _probe_one(config: IngestConfig, source: Source) -> Probed:
    try:
        return Probed(source=source, media_s=_LENGTHS[source.kind](config, source), problem="")
    except FileNotFoundError:
        problem = "missing"
    except MocapError as error:
        problem = error.reason
    except _Unplayable as error:
        problem = str(error)
    except av.FFmpegError:
        problem = "not_a_video"
    except (OSError, ValueError):
        problem = "unreadable"
    return Probed(source=source, media_s=0.0, problem=problem)


class _Unplayable(Exception):
    """A file that opens and holds no usable video; its message is the reason."""


def _video_s(config: IngestConfig, source: Source) -> float:
    """As the container announces it; a file that announces nothing is looked through."""
    with open_container(source.uri) as container:
        stream = picture_stream(container)
        if stream is None:
            raise _Unplayable("no_picture_stream")
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if container.duration:
            return container.duration / 1e6
    videos, rejections = apply(ReadVideos(config.stages.read_videos), [source])  # type: ignore[attr-defined]
    if rejections:
        raise _Unplayable(rejections[0].reason)
    return videos[0].duration_s


def _mocap_s(config: IngestConfig, source: Source) -> float:
    take = read_take(source.uri, fps=config.stages.read_mocap.fps or None)  # type: ignore[attr-defined]
    return len(take.times_s) / take.fps if take.fps else 0.0


def _studio_s(config: IngestConfig, source: Source) -> float:
    studio = config.stages.film_studio  # type: ignore[attr-defined]
    if source.uri.startswith(GENERATED):
        return studio.seconds * studio.takes
    return _mocap_s(config, source) * studio.takes


_LENGTHS: dict[str, Callable[[IngestConfig, Source], float]] = {
    "video": _video_s,
    "mocap": _mocap_s,
    "studio": _studio_s,
}
