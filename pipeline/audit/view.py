"""One self-contained HTML page for one sample: its clip beside the motion, played together, and all that is known of it."""

import base64
import json
from pathlib import Path
from typing import Any

from pipeline.audit import pages
from pipeline.audit.query import Questions
from schemas.dataset import read_tombstones
from schemas.errors import HumoError, UsageError
from schemas.sample import decode_npz
from schemas.shards import read_samples
from schemas.skeleton import PARTS
from schemas.storage import Storage

_MAX_NAMED = 5


def view(dataset: str, key: str, out: str | Path | None = None) -> str:
    """Write the page of the sample whose key begins with `key` into the dataset (`report/KEY.html`), or to a file.

    Returns where it lies. Raises UsageError where no key or more than one begins so, HumoError where the shard does not hold it.
    """
    storage = Storage(dataset)
    row = find_sample(dataset, key)
    members = read_sample(storage, row["shard"], row["key"])
    return pages.write_page(storage, f"report/{row['key']}.html", "view.html", _context(row, members), out)


def find_sample(dataset: str, key: str) -> dict[str, Any]:
    """Key, shard, subset and split of the one live sample whose key begins with `key`."""
    wanted = key.strip().lower()
    if not wanted or not all(one in "0123456789abcdef" for one in wanted):
        raise UsageError(
            f"key {key!r}: a key is made of hexadecimal digits; humo query {dataset} 'SELECT key FROM samples'"
        )
    removed = read_tombstones(Storage(dataset))
    with Questions(dataset) as questions:
        columns = "SELECT key, shard, subset, split FROM samples"
        rows = questions.rows(f"{columns} WHERE starts_with(key, '{wanted}') ORDER BY key LIMIT {_MAX_NAMED + 1}")
    gone = [row for row in rows if row["key"] in removed]
    rows = [row for row in rows if row["key"] not in removed]
    if not rows and gone:
        raise UsageError(f"key {gone[0]['key']}: this sample was removed from {dataset}")
    if not rows:
        raise UsageError(f"key {key}: no sample of {dataset} begins so; humo query {dataset} 'SELECT key FROM samples'")
    if len(rows) > 1:
        named = ", ".join(row["key"] for row in rows[:_MAX_NAMED])
        more = " and more" if len(rows) > _MAX_NAMED else ""
        raise UsageError(f"key {key}: several samples begin so ({named}{more}); give more digits")
    return rows[0]


def read_sample(storage: Storage, shard: str, key: str) -> dict[str, bytes]:
    """Members of one sample of a shard."""
    try:
        with storage.open(shard) as file:
            for found, members in read_samples(file, f"{storage.uri}/{shard}"):
                if found == key:
                    return members
    except FileNotFoundError:
        raise HumoError(f"{storage.uri}/{shard}: the shard is missing; fetch it again or run humo pack") from None
    raise HumoError(f"{storage.uri}/{shard}: sample {key} is not in it although the catalogue says so; run humo verify")


def _context(row: dict[str, Any], members: dict[str, bytes]) -> dict[str, Any]:
    meta, text = json.loads(members["meta.json"]), json.loads(members["text.json"])
    instances = json.loads(members["instructions.json"])["instances"]
    seconds = meta["frames"] / meta["fps"]
    player: dict[str, Any] = {
        "skeleton": pages.skeleton(),
        "motion": pages.packed_motion(members, f"{row['key']}.motion.npz"),
        "seconds": seconds,
        "clip": {},
    }
    clip = ""
    if "clip.mp4" in members:
        clip = base64.b64encode(members["clip.mp4"]).decode()
        # Whole pixels and hundredths: a page is read by eyes.
        keypoints = decode_npz(members["keypoints.npz"])["keypoints"].astype(float)
        keypoints[..., :2] = keypoints[..., :2].round(1)
        player["clip"] = {
            "crop": meta["crop"],
            "edges": pages.keypoint_edges(),
            "keypoints": [
                [round(value, 2) for value in frame] for frame in keypoints.reshape(len(keypoints), -1).tolist()
            ],
        }
    events = [
        {**event, "left": event["start_s"] / seconds, "width": (event["end_s"] - event["start_s"]) / seconds}
        for event in sorted(text["rules"], key=lambda event: (event["start_s"], event["end_s"], event["text"]))
    ]
    lanes = [(part, [event for event in events if event["part"] == part]) for part in ("body", *PARTS)]
    known = {
        "source": meta["source_id"], "title": meta["title"], "address": meta["uri"], "licence": meta["licence"],
        "consent": meta["consent"], "person": meta["person"],
        "span": f"{meta['start_s']:.2f} – {meta['end_s']:.2f} s of the source",
        "frames": f"{meta['frames']} at {meta['fps']:g} a second, from {meta['source_fps']:g}",
        "picture": f"{meta['width']} × {meta['height']}" if meta["width"] else "none",
        "body model": meta["body_model"], "config": meta["config_digest"], "shard": row["shard"], "split": row["split"],
        "SHA-256 of the source": meta["sha256"],
    }  # fmt: skip
    return {
        "key": row["key"],
        "subset": row["subset"],
        "seconds": seconds,
        "body": text["body"],
        "parts": [(part, text["parts"][part]) for part in PARTS],
        "lanes": [(part, some) for part, some in lanes if some],
        "transcript": text["transcript"]["text"],
        "writers": sorted(text["writers"].items()),
        "checks": [check for check in text["checks"] if check["verdict"] != "derived"],
        "describer": text["describer"],
        "instances": instances,
        "scores": sorted(meta["scores"].items()),
        "models": sorted(meta["models"].items()),
        "known": [(name, value) for name, value in known.items() if value != ""],
        "clip": clip,
        "player": player,
        "stand_in": pages.stand_in(meta["body_model"]),
    }
