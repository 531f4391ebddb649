"""Near-duplicates of a dataset: found, told on a page, and removed if asked."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.audit.pages import film_strip, write_page
from pipeline.curation.duplicates.config import DedupeConfig
from pipeline.curation.duplicates.search import Item, Pair, chosen, find_pairs
from pipeline.curation.duplicates.signatures import JOINTS, Signature, hash_pictures, motion_signature, shingles
from pipeline.curation.remove import remove
from pipeline.dataset.lease import Lease
from schemas.body_model import BodyModel
from schemas.dataset import add_tombstones, iterate_samples
from schemas.sample import contents_of, decode_motion, decode_npz, sources_of
from schemas.skeleton import SMPL_PARENTS
from schemas.storage import Storage

_PAGE = "report/duplicates.html"
_MOST_SHOWN = 100
_FIGURES = 5
_FIGURE_PX = 90


@dataclass(frozen=True, kw_only=True)
class Dedupe:
    """What was found."""

    samples: int
    """How many were compared; joined motions are not, for they repeat their clips."""
    pairs: list[Pair]
    splits: dict[str, str]
    """Split of each sample of a pair."""
    captions: dict[str, str]
    """Caption of each sample of a pair."""
    gone: dict[str, str]
    """Sample that should go -> the one that stays in its place."""
    applied: bool
    page: str
    """Where the page lies; empty where none was written."""


def dedupe(dataset: str, config: DedupeConfig, *, apply: bool = False, out: str = "") -> Dedupe:
    """Find near-duplicates within and across splits, and write a page; with `apply` remove what should go, for good.

    A page with what was removed is only written outside the dataset (`out`), for nothing removed stays inside. Raises HumoError
    where there is no dataset or a job is at work on it.
    """
    storage = Storage(dataset)
    items = list(_items(storage, config))
    pairs = find_pairs(items, config)
    gone = chosen(items, pairs, config)
    page = ""
    if out or not apply:
        page = write_page(storage, _PAGE, "duplicates.html", _context(storage, items, pairs, gone, config), out or None)
    if apply and gone:
        with Lease(storage, "dedupe"):
            add_tombstones(storage, {key: f"near-duplicate of {stays}" for key, stays in gone.items()})
        remove(dataset, keys=sorted(gone))
    paired = {key for pair in pairs for key in (pair.one, pair.other)}
    return Dedupe(
        samples=len(items), pairs=pairs, gone=gone, applied=apply, page=page,
        splits={item.key: item.split for item in items if item.key in paired},
        captions={item.key: item.caption for item in items if item.key in paired},
    )  # fmt: skip


def _items(storage: Storage, config: DedupeConfig) -> Iterator[Item]:
    body = BodyModel.load()
    for shard, key, members in iterate_samples(storage):
        if shard.subset == "long":
            continue
        meta, text = json.loads(members["meta.json"]), json.loads(members["text.json"])
        embedding, pictures = np.zeros(0, np.float32), None
        if "clip.mp4" in members:
            seen = decode_npz(members["keypoints.npz"])
            embedding = seen["visual_embedding"]
            pictures = hash_pictures(members["clip.mp4"], meta["crop"], seen["boxes"], meta["fps"])
        yield Item(
            key=key, subset=shard.subset, split=shard.split,
            sources=frozenset(sources_of(meta)) | frozenset(contents_of(meta)),
            score=meta["scores"].get(config.score, math.inf), caption=text["body"][0],
            motion=motion_signature(decode_motion(members["motion.npz"], f"{key}.motion.npz"), meta["fps"], body),
            words=shingles(_words(text)), pictures=pictures, embedding=embedding,
        )  # fmt: skip


def _words(text: Mapping[str, Any]) -> list[str]:
    """What was said in a clip, and what others than the rules wrote about it."""
    written = [one["text"] for one in text["checks"] if one["verdict"] not in ("derived", "rejected")]
    return [text["transcript"]["text"], *written]


def _context(
    storage: Storage, items: list[Item], pairs: list[Pair], gone: dict[str, str], config: DedupeConfig
) -> dict[str, Any]:
    shown = sorted(pairs, key=lambda pair: (pair.mirrored, not {pair.one, pair.other} & gone.keys(), pair.share))[
        :_MOST_SHOWN
    ]
    wanted = {key for pair in shown for key in (pair.one, pair.other)}
    known = {item.key: item for item in items if item.key in wanted}
    splits = {item.key: item.split for item in items}
    films = {}
    if any(item.pictures is not None for item in known.values()):
        videos = iterate_samples(storage, subset="video")
        films = {key: film_strip(members, 1) for _, key, members in videos if key in wanted}
    return {
        "dataset": storage.uri.rstrip("/").rsplit("/", 1)[-1],
        "samples": len(items),
        "total": len(pairs),
        "mirrored": sum(pair.mirrored for pair in pairs),
        "gone": len(gone),
        "across": sum(splits[pair.one] != splits[pair.other] for pair in pairs),
        "config": config.model_dump(),
        "meanings": {name: field.description for name, field in DedupeConfig.model_fields.items()},
        "pairs": [
            {
                "pair": pair,
                "sides": [
                    {
                        "key": key, "subset": known[key].subset, "split": known[key].split, "caption": known[key].caption,
                        "score": known[key].score, "goes": gone.get(key, ""), "film": films.get(key, []),
                        "figures": stick_figures(known[key].motion),
                    }
                    for key in (pair.one, pair.other)
                ],
            }
            for pair in shown
        ],
    }  # fmt: skip


def stick_figures(motion: Signature) -> dict[str, Any]:
    """Lines of some moments of a motion, seen from the front: x0, y0, x1, y1 in pixels of a picture, and its size."""
    lines = []
    for number in range(_FIGURES):
        joints = motion.pose_m[number * (len(motion.pose_m) - 1) // (_FIGURES - 1)].astype(float)
        x = (number + 0.5) * _FIGURE_PX - joints[:, 0] * _FIGURE_PX / 2
        y = (1.1 - joints[:, 1]) * _FIGURE_PX / 2
        for child in range(1, JOINTS):
            parent = SMPL_PARENTS[child]
            lines.append([round(float(value), 1) for value in (x[parent], y[parent], x[child], y[child])])
    return {"lines": lines, "width": _FIGURES * _FIGURE_PX, "height": round(1.1 * _FIGURE_PX)}


def as_json(found: Dedupe) -> dict[str, Any]:
    """The report for `--json`: numbers that are not known are null."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    pairs = [{name: plain(value) for name, value in asdict(pair).items()} for pair in found.pairs]
    for pair in pairs:
        keys = (pair["one"], pair["other"])
        pair |= {"splits": [found.splits[key] for key in keys], "captions": [found.captions[key] for key in keys]}
    return {
        "samples": found.samples, "pairs": pairs, "gone": found.gone, "applied": found.applied, "page": found.page,
    }  # fmt: skip


def dedupe_text(found: Dedupe, dataset: str) -> str:
    """The report for a terminal."""
    kinds = Counter(pair.kind + (", mirrored" if pair.mirrored else "") for pair in found.pairs)
    across = sum(found.splits[pair.one] != found.splits[pair.other] for pair in found.pairs)
    lines = [
        f"{found.samples:,} samples compared, {len(found.pairs)} pairs near each other, {across} of them across splits"
    ]
    lines += [f"  {number} by {kind}" for kind, number in sorted(kinds.items())]
    if found.applied:
        lines.append(f"{len(found.gone)} samples removed, with what was joined from them")
    elif found.gone:
        lines.append(f"{len(found.gone)} samples should go; remove them with humo dedupe {dataset} --apply")
    return "\n".join([*lines, *([found.page] if found.page else [])])
