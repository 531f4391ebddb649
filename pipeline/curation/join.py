"""Long motions from a dataset: its clips joined, scored, captioned and instructed, as a subset `long` of the same layout.

A share of the clips open one long motion each. Which ones, and so the ids of the long motions' sources, depends only on seed and
key: another run makes only what is missing, also after the dataset has grown. Clips are joined within pools, which keep the
clips of a source together and have one split and one body model each; a pool is the unit of memory and of commit.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from pipeline import __version__
from pipeline.audit.query import QuerySession
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
from stages.caption_segments import CaptionSegments
from stages.encode_clip import EncodeClip
from stages.join_clips import JoinClips
from stages.joining.clips import Opening, SampleClip, read_clip
from stages.joining.measure import SeamReport
from stages.score_motion import ScoreMotion
from stages.write_instructions import WriteInstructions


class JoinConfig(Config):
    """Settings for joining clips into long motions."""

    openings: float = Field(0.25, gt=0, le=1)
    """Share of the clips that open a long motion, 0 to 1."""
    pool_clips: int = Field(400, ge=2)
    """Number of clips that are in memory, and joined with one another, at a time."""
    join_clips: JoinClips.Config = JoinClips.Config()
    """Lengths, and limits on the seams between clips."""
    score_motion: ScoreMotion.Config = ScoreMotion.Config()
    """Quality limits."""
    write_instructions: WriteInstructions.Config = WriteInstructions.Config()
    """Training instances."""

    @property
    def digest(self) -> str:
        """Digest of everything that determines a long motion."""
        return config_digest({"layout": LAYOUT_VERSION, "humo": __version__, "join": self.model_dump(mode="json")})


@dataclass
class JoinReport:
    """Result of a run."""

    openings: int = 0
    done_before: int = 0
    created: int = 0
    withdrawn: int = 0
    """Long motions of earlier runs that contain a clip removed from the dataset since."""
    rejections: Counter[str] = field(default_factory=Counter)
    seams: list[SeamReport] = field(default_factory=list)
    description: DatasetDescription = field(default_factory=DatasetDescription)

    def ratios(self) -> dict[str, float]:
        """Ratio of means at the seams to means elsewhere, over the created motions."""
        ratios = {}
        for name in ("acceleration_mps2", "slide_mm"):
            at_seams, inside = (
                np.array([getattr(getattr(one, side), name) for one in self.seams]) for side in ("seams", "inside")
            )
            known = np.isfinite(at_seams) & np.isfinite(inside)
            ratios[name] = (
                float(at_seams[known].mean() / inside[known].mean())
                if known.any() and inside[known].any()
                else float("nan")
            )
        return ratios


def join_dataset(
    dataset: str, output: str, config: JoinConfig, on_pool: Callable[[int, int], None] = lambda done, of: None
) -> JoinReport:
    """Join clips of a packed dataset into long motions in another dataset, or in itself; `on_pool` is called after each pool.

    Every long motion is in the split of its clips. Raises HumoError if there is no dataset or nothing to join.
    """
    source, target = Storage(dataset), Storage(output)
    description = read_description(source)
    rows = _clips(dataset, description)
    if not rows:
        raise HumoError(f"{dataset}: no clips to join; ingest videos or motion capture first")
    if target.exists(DESCRIPTION) and (layout := read_description(target).layout) != LAYOUT_VERSION:
        raise HumoError(
            f"{output}: holds samples of an earlier version (layout {layout}), to which nothing of layout {LAYOUT_VERSION} can be "
            "added; ingest its sources with --recompute, or choose another output"
        )
    if target.exists(DESCRIPTION) and read_description(target).splits != description.splits:
        raise HumoError(
            f"{output}: its splits are {read_description(target).splits}, those of {dataset} {description.splits}; choose another "
            "output, or sources would be in two splits"
        )
    with Lease(target, "join") as lease:
        return _join(dataset, lease.storage, config, rows, description, on_pool)


def _join(
    dataset: str,
    target: Storage,
    config: JoinConfig,
    rows: list[dict[str, Any]],
    description: DatasetDescription,
    on_pool: Callable[[int, int], None],
) -> JoinReport:
    """`join_dataset` under a lease on the output."""
    source = Storage(dataset)
    report, done = JoinReport(), done_sources(target)
    stages: list[Stage[Any, Any]] = [
        JoinClips(config.join_clips),
        ScoreMotion(config.score_motion),
        CaptionSegments(),
        WriteInstructions(config.write_instructions),
        EncodeClip(),
    ]
    for stage in stages:
        stage.config_digest = config.digest
        stage.setup()
    pools = list(_pools(rows, config.pool_clips))
    for number, pool in enumerate(pools, start=1):
        openings = [row for row in pool if _is_opening(row["key"], config)]
        missing = [row for row in openings if _source_id(row["key"], config) not in done]
        report.openings += len(openings)
        report.done_before += len(openings) - len(missing)
        if missing:
            _join_pool(dataset, target, pool, missing, stages, config, report)
        on_pool(number, len(pools))
    _withdraw(source, target, {row["key"] for row in rows}, description, report)
    if is_packed(target, description.splits, description.shard_bytes):
        report.description = read_description(target)
    else:
        report.description = pack(target, splits=description.splits, shard_bytes=description.shard_bytes)
    return report


def _clips(dataset: str, description: DatasetDescription) -> list[dict[str, Any]]:
    """Live samples that are not joined motions, with their offsets in the shards."""
    removed = read_tombstones(Storage(dataset))
    with QuerySession(dataset) as session:
        columns = "key, subset, split, shard, sha256, body_model, bytes"
        rows = session.rows(f"SELECT {columns} FROM samples")
    shards: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        shards[row["shard"]].append(row)
    clips = []
    for shard in description.shards:
        offset = 0
        # The samples of a shard are sorted by key.
        for row in sorted(shards[shard.path], key=lambda row: row["key"]):
            if row["subset"] != "long" and row["key"] not in removed:
                clips.append(row | {"offset": offset})
            offset += row["bytes"]
    return clips


def _pools(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Pools of sources with all their clips, at least `size` clips each except the last, by split and body model."""
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


def _is_opening(key: str, config: JoinConfig) -> bool:
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
    """Join and commit the long motions of a pool's missing openings."""
    joiner = stages[0]
    assert isinstance(joiner, JoinClips)
    storage = Storage(dataset)
    clips = {row["key"]: _read(storage, row, joiner) for row in pool}
    work_items = []
    for row in missing:
        key = row["key"]
        source = Source(id=_source_id(key, config), uri=f"{storage.uri}#{key}", kind="join")
        work_item = WorkItem(
            source=source,
            records=[
                Opening(
                    source=source, first=clips[key], candidates=[clip for clip in clips.values() if clip.key != key]
                )
            ],
            sha256=row["sha256"],
        )
        advance(stages[:1], work_item)
        if work_item.records:
            work_item.source = work_item.records[0].provenance.source
        work_items.append(advance(stages[1:], work_item))
        report.rejections.update(f"{one.stage}: {one.reason}" for one in work_item.rejections)
        report.created += len(work_item.samples)
        report.seams += [joiner.reports[sample.key] for sample in work_item.samples]
    joiner.reports.clear()
    commit(target, work_items, config.digest)


def _read(storage: Storage, row: dict[str, Any], joiner: JoinClips) -> SampleClip:
    content = storage.read_bytes(row["shard"], row["offset"], row["offset"] + row["bytes"])
    key, members = decode_sample_bytes(content, f"{storage.uri}/{row['shard']}")
    if key != row["key"]:
        raise HumoError(
            f"{storage.uri}/{row['shard']}: holds {key} where {row['key']} should be; run humo pack {storage.uri}"
        )
    return read_clip(key, members, joiner.body)


def _withdraw(
    source: Storage, target: Storage, live: set[str], description: DatasetDescription, report: JoinReport
) -> None:
    """Remove long motions with a clip that was removed from the dataset; those made of other datasets' clips stay."""
    ledger = read_history(source).select(["record_id", "outcome"]).to_pylist()
    removed = {row["record_id"] for row in ledger if row["outcome"] in ("accepted", "removed")} - live
    if not is_packed(target, description.splits, description.shard_bytes):
        pack(target, splits=description.splits, shard_bytes=description.shard_bytes)
    with QuerySession(target.address) as session:
        rows = session.rows("SELECT key, segments FROM samples WHERE subset = 'long'")
    causes = {row["key"]: f"key {key}" for row in rows for key in row["segments"] if key in removed}
    report.withdrawn = len(add_tombstones(target, causes))


def join_text(report: JoinReport, output: str) -> str:
    """The report for a terminal."""
    ratios = report.ratios()
    lines = [f"{report.openings} clips open a long motion, {report.done_before} of them already done"]
    lines.append(
        f"{report.created} long motions made" + "".join(f"; {n} {why}" for why, n in sorted(report.rejections.items()))
    )
    if report.created:
        lines.append(
            f"at the seams: acceleration {ratios['acceleration_mps2']:.2f} and foot slide {ratios['slide_mm']:.2f} times the "
            "values elsewhere in the same motions"
        )
    if report.withdrawn:
        lines.append(f"{report.withdrawn} long motions withdrawn, because their clips are no longer in the dataset")
    counts = report.description.counts
    lines.append(f"{output}: {counts['live']} samples, {counts['hours']:.4f} hours")
    return "\n".join(lines)


def as_json(report: JoinReport) -> dict[str, Any]:
    """The report for `--json`."""
    return {
        "openings": report.openings,
        "done_before": report.done_before,
        "made": report.created,
        "withdrawn": report.withdrawn,
        "rejected": dict(report.rejections),
        "at_seams": {name: None if np.isnan(value) else round(value, 4) for name, value in report.ratios().items()},
        "dataset": report.description.counts | {"version": report.description.version},
    }
