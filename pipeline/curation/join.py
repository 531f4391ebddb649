"""Long motions from a dataset: its clips joined, scored, told and instructed, as a subset `long` of the same layout.

A part of the clips open a long motion each. Which do, and so the ids of the long motions' sources, depends on seed and key
alone: running it again makes only what is missing, also after the dataset has grown. Clips are joined within pools, which
keep the clips of a source together and hold one split and one body model each; a pool is the unit of memory and of commit.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from pipeline import __version__
from pipeline.audit.query import Questions
from pipeline.chain.work_item import WorkItem, advance
from pipeline.dataset.commits import commit, done_sources
from pipeline.dataset.lease import Lease
from pipeline.dataset.pack import is_packed, pack
from schemas.config import Config
from schemas.dataset import (
    DESCRIPTION,
    LAYOUT_VERSION,
    DatasetDescription,
    add_tombstones,
    read_description,
    read_tombstones,
)
from schemas.errors import HumoError
from schemas.ids import config_digest, digest, unit_interval
from schemas.ledger import read_history
from schemas.records import Source
from schemas.shards import decode_sample_bytes
from schemas.storage import Storage
from stages.base import Stage
from stages.encode_clip import EncodeClip
from stages.join_clips import JoinClips
from stages.joining.clips import Opening, SampleClip, read_clip
from stages.joining.measure import SeamReport
from stages.score_motion import ScoreMotion
from stages.tell_segments import TellSegments
from stages.write_instructions import WriteInstructions


class JoinConfig(Config):
    """How long motions are made of a dataset's clips."""

    openings: float = Field(0.25, gt=0, le=1)
    """Share of the clips that a long motion begins with."""
    pool_clips: int = Field(400, ge=2)
    """Clips that are held in memory, and joined among themselves, at a time."""
    join_clips: JoinClips.Config = JoinClips.Config()
    """Lengths, and how well clips must fit."""
    score_motion: ScoreMotion.Config = ScoreMotion.Config()
    """Limits of quality."""
    write_instructions: WriteInstructions.Config = WriteInstructions.Config()
    """Training instances."""

    @property
    def digest(self) -> str:
        """Digest of all that decides what a long motion is."""
        return config_digest({"layout": LAYOUT_VERSION, "humo": __version__, "join": self.model_dump(mode="json")})


@dataclass
class JoinReport:
    """What a run did."""

    openings: int = 0
    done_before: int = 0
    made: int = 0
    withdrawn: int = 0
    """Long motions of earlier runs one of whose clips is in the dataset no more."""
    reasons: Counter[str] = field(default_factory=Counter)
    seams: list[SeamReport] = field(default_factory=list)
    description: DatasetDescription = field(default_factory=DatasetDescription)

    def ratios(self) -> dict[str, float]:
        """Means at the seams over means elsewhere, both over the motions that were made."""
        found = {}
        for name in ("acceleration_mps2", "slide_mm"):
            at, inside = (
                np.array([getattr(getattr(one, side), name) for one in self.seams]) for side in ("seams", "inside")
            )
            known = np.isfinite(at) & np.isfinite(inside)
            found[name] = (
                float(at[known].mean() / inside[known].mean()) if known.any() and inside[known].any() else float("nan")
            )
        return found


def join_dataset(
    dataset: str, output: str, config: JoinConfig, on_pool: Callable[[int, int], None] = lambda done, of: None
) -> JoinReport:
    """Long motions of a packed dataset's clips into another dataset, or into itself; `on_pool` hears of each pool's end.

    Every long motion stands in the split of its clips. Raises HumoError where there is no dataset or nothing to join.
    """
    source, target = Storage(dataset), Storage(output)
    description = read_description(source)
    rows = _clips(dataset, description)
    if not rows:
        raise HumoError(f"{dataset}: no clips in it that could be joined; ingest videos or motion capture first")
    if target.exists(DESCRIPTION) and read_description(target).splits != description.splits:
        raise HumoError(
            f"{output}: it is split by {read_description(target).splits}, {dataset} by {description.splits}; choose another "
            "output, or sources would be in two splits"
        )
    with Lease(target, "join"):
        return _join(dataset, output, config, rows, description, on_pool)


def _join(
    dataset: str,
    output: str,
    config: JoinConfig,
    rows: list[dict[str, Any]],
    description: DatasetDescription,
    on_pool: Callable[[int, int], None],
) -> JoinReport:
    """`join_dataset` under a lease on the output."""
    source, target = Storage(dataset), Storage(output)
    report, done = JoinReport(), done_sources(target)
    stages: list[Stage[Any, Any]] = [
        JoinClips(config.join_clips),
        ScoreMotion(config.score_motion),
        TellSegments(),
        WriteInstructions(config.write_instructions),
        EncodeClip(),
    ]
    for stage in stages:
        stage.config_digest = config.digest
        stage.setup()
    pools = list(_pools(rows, config.pool_clips))
    for number, pool in enumerate(pools, start=1):
        opening = [row for row in pool if _opens(row["key"], config)]
        missing = [row for row in opening if _source_id(row["key"], config) not in done]
        report.openings += len(opening)
        report.done_before += len(opening) - len(missing)
        if missing:
            _join_pool(dataset, target, pool, missing, stages, config, report)
        on_pool(number, len(pools))
    _withdraw(source, target, {row["key"] for row in rows}, description, report)
    if is_packed(target, description.splits, description.shard_bytes):
        report.description = read_description(target)
    else:
        report.description = pack(output, splits=description.splits, shard_bytes=description.shard_bytes)
    return report


def _clips(dataset: str, description: DatasetDescription) -> list[dict[str, Any]]:
    """Live samples that are not joined themselves, with where their bytes lie in the shards."""
    removed = read_tombstones(Storage(dataset))
    with Questions(dataset) as questions:
        columns = "key, subset, split, shard, sha256, body_model, bytes"
        rows = questions.rows(f"SELECT {columns} FROM samples")
    shards: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        shards[row["shard"]].append(row)
    found = []
    for shard in description.shards:
        place = 0
        # A shard holds its samples in the order of their keys.
        for row in sorted(shards[shard.path], key=lambda row: row["key"]):
            if row["subset"] != "long" and row["key"] not in removed:
                found.append(row | {"offset": place})
            place += row["bytes"]
    return found


def _pools(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Sources with all their clips, at least `size` clips at a time but for the last, by split and body model."""
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["split"], row["body_model"]][row["sha256"]].append(row)
    for _, sources in sorted(groups.items()):
        pool: list[dict[str, Any]] = []
        for _, clips in sorted(sources.items()):
            pool += sorted(clips, key=lambda row: row["key"])
            if len(pool) >= size:
                yield pool
                pool = []
        if pool:
            yield pool


def _opens(key: str, config: JoinConfig) -> bool:
    return unit_interval("opening", config.join_clips.seed, key) < config.openings


def _source_id(key: str, config: JoinConfig) -> str:
    return f"long-{digest('long', config.join_clips.seed, key)}"


def _join_pool(
    dataset: str,
    target: Storage,
    pool: list[dict[str, Any]],
    missing: list[dict[str, Any]],
    stages: list[Stage[Any, Any]],
    config: JoinConfig,
    report: JoinReport,
) -> None:
    """Long motions from the missing openings of a pool, committed together."""
    joiner = stages[0]
    assert isinstance(joiner, JoinClips)
    storage = Storage(dataset)
    clips = {row["key"]: _read(storage, row, joiner) for row in pool}
    work_items = []
    for row in missing:
        key = row["key"]
        source = Source(id=_source_id(key, config), uri=f"{dataset}#{key}", kind="join")
        work_item = WorkItem(
            source=source,
            records=[
                Opening(source=source, first=clips[key], others=[clip for clip in clips.values() if clip.key != key])
            ],
            sha256=row["sha256"],
        )
        advance(stages[:1], work_item)
        if work_item.records:
            work_item.source = work_item.records[0].provenance.source
        work_items.append(advance(stages[1:], work_item))
        report.reasons.update(f"{one.stage}: {one.reason}" for one in work_item.rejections)
        report.made += len(work_item.samples)
        report.seams += [joiner.reports[sample.key] for sample in work_item.samples]
    joiner.reports.clear()
    commit(target, work_items, config.digest)


def _read(storage: Storage, row: dict[str, Any], joiner: JoinClips) -> SampleClip:
    stretch = storage.read_bytes(row["shard"], row["offset"], row["offset"] + row["bytes"])
    key, members = decode_sample_bytes(stretch, f"{storage.uri}/{row['shard']}")
    if key != row["key"]:
        raise HumoError(
            f"{storage.uri}/{row['shard']}: holds {key} where {row['key']} should be; run humo pack {storage.uri}"
        )
    return read_clip(key, members, joiner.body)


def _withdraw(
    source: Storage, target: Storage, live: set[str], description: DatasetDescription, report: JoinReport
) -> None:
    """Remove long motions any of whose clips was removed from the dataset since; those of other datasets' clips stay."""
    ledger = read_history(source).select(["record_id", "outcome"]).to_pylist()
    gone = {row["record_id"] for row in ledger if row["outcome"] in ("accepted", "removed")} - live
    if not is_packed(target, description.splits, description.shard_bytes):
        pack(target.uri, splits=description.splits, shard_bytes=description.shard_bytes)
    with Questions(target.uri) as questions:
        rows = questions.rows("SELECT key, segments FROM samples WHERE subset = 'long'")
    causes = {row["key"]: f"key {one}" for row in rows for one in row["segments"] if one in gone}
    report.withdrawn = len(add_tombstones(target, causes))


def join_text(report: JoinReport, output: str) -> str:
    """The report for a terminal."""
    ratios = report.ratios()
    lines = [f"{report.openings} clips open a long motion, {report.done_before} of them were done before"]
    lines.append(
        f"{report.made} long motions made" + "".join(f"; {n} {why}" for why, n in sorted(report.reasons.items()))
    )
    if report.made:
        lines.append(
            f"at the seams: acceleration {ratios['acceleration_mps2']:.2f}, foot slide {ratios['slide_mm']:.2f} times that "
            "elsewhere in the same motions"
        )
    if report.withdrawn:
        lines.append(f"{report.withdrawn} long motions withdrawn, for their clips are no longer in the dataset")
    counts = report.description.counts
    lines.append(f"{output}: {counts['live']} samples, {counts['hours']:.4f} hours")
    return "\n".join(lines)


def as_json(report: JoinReport) -> dict[str, Any]:
    """The report for `--json`."""
    return {
        "openings": report.openings,
        "done_before": report.done_before,
        "made": report.made,
        "withdrawn": report.withdrawn,
        "rejected": dict(report.reasons),
        "at_seams": {name: None if np.isnan(value) else round(value, 4) for name, value in report.ratios().items()},
        "dataset": report.description.counts | {"version": report.description.version},
    }
