"""Finds near-duplicates of a dataset, reports them on a page, and removes them on request."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.audit.pages import film_strip, write_page
from pipeline.curation.duplicates.config import DedupeConfig
from pipeline.curation.duplicates.search import Item, Pair, find_pairs, select_removals
from pipeline.curation.duplicates.signatures import JOINTS, Signature, hash_frames, motion_signature, shingles
from pipeline.curation.remove import remove
from pipeline.dataset.lease import Lease
from schemas.body_model import BodyModel
from schemas.dataset import add_tombstones, iterate_samples
from schemas.sample import contents_of, decode_motion, decode_npz, sources_of
from schemas.skeleton import SMPL_PARENTS
from schemas.storage import Storage

_PAGE = "report/duplicates.html"
_MAX_SHOWN = 100
_FIGURES = 5
_FIGURE_PX = 90


@dataclass(frozen=True, kw_only=True)
class DedupeReport:
    """Near-duplicates of a dataset."""

    samples: int
    """Number of compared samples; joined motions are excluded, since they repeat their clips."""
    pairs: list[Pair]
    splits: dict[str, str]
    """Split of each sample of a pair."""
    captions: dict[str, str]
    """Caption of each sample of a pair."""
    to_remove: dict[str, str]
    """Sample to remove -> the sample that is kept instead."""
    applied: bool
    page: str
    """Address of the page; empty if none was written."""


def dedupe(dataset: str, config: DedupeConfig, *, apply: bool = False, out: str = "") -> DedupeReport:
    """Find near-duplicates within and across splits, and write a page; with `apply` remove duplicates permanently.

    With `apply` a page is only written outside the dataset (`out`), since a dataset keeps nothing of removed samples. Raises
    HumoError if there is no dataset or another job is writing to it.
    """
    storage = Storage(dataset)
    items = list(_items(storage, config))
    pairs = find_pairs(items, config)
    to_remove = select_removals(items, pairs, config)
    page = ""
    if out or not apply:
        page = write_page(
            storage, _PAGE, "duplicates.html", _context(storage, items, pairs, to_remove, config), out or None
        )
    if apply and to_remove:
        with Lease(storage, "dedupe") as lease:
            add_tombstones(lease.storage, {key: f"near-duplicate of {kept}" for key, kept in to_remove.items()})
        remove(dataset, keys=sorted(to_remove))
    paired = {key for pair in pairs for key in (pair.one, pair.other)}
    return DedupeReport(
        samples=len(items), pairs=pairs, to_remove=to_remove, applied=apply, page=page,
        splits={item.key: item.split for item in items if item.key in paired},
        captions={item.key: item.caption for item in items if item.key in paired},
    )  # fmt: skip


def _items(storage: Storage, config: DedupeConfig) -> Iterator[Item]:
    body = BodyModel.load()
    for shard, key, members in iterate_samples(storage):
        if shard.subset == "long":
            continue
        meta, text = json.loads(members["meta.json"]), json.loads(members["text.json"])
        embedding, frame_hashes = np.zeros(0, np.float32), None
        if "clip.mp4" in members:
            keypoints = decode_npz(members["keypoints.npz"])
            embedding = keypoints["visual_embedding"]
            frame_hashes = hash_frames(members["clip.mp4"], meta["crop"], keypoints["boxes"], meta["fps"])
        yield Item(
            key=key, subset=shard.subset, split=shard.split,
            sources=frozenset(sources_of(meta)) | frozenset(contents_of(meta)),
            score=meta["scores"].get(config.score, math.inf), caption=text["body"][0],
            motion=motion_signature(decode_motion(members["motion.npz"], f"{key}.motion.npz"), meta["fps"], body),
            words=shingles(_human_text(text)), frame_hashes=frame_hashes, embedding=embedding,
        )  # fmt: skip


def _human_text(text: Mapping[str, Any]) -> list[str]:
    """Speech in a clip, and sentences not written by the rules."""
    sentences = [one["text"] for one in text["checks"] if one["verdict"] not in ("derived", "rejected")]
    return [text["transcript"]["text"], *sentences]


def _context(
    storage: Storage, items: list[Item], pairs: list[Pair], to_remove: dict[str, str], config: DedupeConfig
) -> dict[str, Any]:
    shown = sorted(pairs, key=lambda pair: (pair.mirrored, not {pair.one, pair.other} & to_remove.keys(), pair.share))[
        :_MAX_SHOWN
    ]
    shown_keys = {key for pair in shown for key in (pair.one, pair.other)}
    shown_items = {item.key: item for item in items if item.key in shown_keys}
    splits = {item.key: item.split for item in items}
    films = {}
    if any(item.frame_hashes is not None for item in shown_items.values()):
        videos = iterate_samples(storage, subset="video")
        films = {key: film_strip(members, 1) for _, key, members in videos if key in shown_keys}
    return {
        "dataset": storage.uri.rstrip("/").rsplit("/", 1)[-1],
        "samples": len(items),
        "total": len(pairs),
        "mirrored": sum(pair.mirrored for pair in pairs),
        "to_remove": len(to_remove),
        "across": sum(splits[pair.one] != splits[pair.other] for pair in pairs),
        "config": config.model_dump(),
        "meanings": {name: field.description for name, field in DedupeConfig.model_fields.items()},
        "pairs": [
            {
                "pair": pair,
                "sides": [
                    {
                        "key": item.key, "subset": item.subset, "split": item.split, "caption": item.caption,
                        "score": item.score, "duplicate_of": to_remove.get(item.key, ""), "film": films.get(item.key, []),
                        "figures": stick_figures(item.motion),
                    }
                    for item in (shown_items[pair.one], shown_items[pair.other])
                ],
            }
            for pair in shown
        ],
    }  # fmt: skip


def stick_figures(motion: Signature) -> dict[str, Any]:
    """Front views of some poses of a motion: lines x0, y0, x1, y1 in pixels of an image, and its size."""
    lines = []
    for number in range(_FIGURES):
        joints = motion.pose_m[number * (len(motion.pose_m) - 1) // (_FIGURES - 1)].astype(float)
        x = (number + 0.5) * _FIGURE_PX - joints[:, 0] * _FIGURE_PX / 2
        y = (1.1 - joints[:, 1]) * _FIGURE_PX / 2
        for child in range(1, JOINTS):
            parent = SMPL_PARENTS[child]
            lines.append([round(float(value), 1) for value in (x[parent], y[parent], x[child], y[child])])
    return {"lines": lines, "width": _FIGURES * _FIGURE_PX, "height": round(1.1 * _FIGURE_PX)}


def as_json(report: DedupeReport) -> dict[str, Any]:
    """The report for `--json`: unknown numbers are null."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    pairs = [{name: plain(value) for name, value in asdict(pair).items()} for pair in report.pairs]
    for pair in pairs:
        keys = (pair["one"], pair["other"])
        pair |= {"splits": [report.splits[key] for key in keys], "captions": [report.captions[key] for key in keys]}
    return {
        "samples": report.samples, "pairs": pairs, "gone": report.to_remove, "applied": report.applied, "page": report.page,
    }  # fmt: skip


def dedupe_text(report: DedupeReport, dataset: str) -> str:
    """The report for a terminal."""
    kinds = Counter(pair.kind + (", mirrored" if pair.mirrored else "") for pair in report.pairs)
    across = sum(report.splits[pair.one] != report.splits[pair.other] for pair in report.pairs)
    lines = [
        f"{report.samples:,} samples compared, {len(report.pairs)} near-duplicate pairs, {across} of them across splits"
    ]
    lines += [f"  {number} by {kind}" for kind, number in sorted(kinds.items())]
    if report.applied:
        lines.append(f"{len(report.to_remove)} samples removed, with the motions joined from them")
    elif report.to_remove:
        lines.append(f"{len(report.to_remove)} samples to remove: humo dedupe {dataset} --apply")
    return "\n".join([*lines, *([report.page] if report.page else [])])
