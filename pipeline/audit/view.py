"""A self-contained HTML page of one sample: clip and motion played side by side, with all its metadata."""

import base64
import json
from pathlib import Path
from typing import Any

from pipeline.audit import pages
from pipeline.audit.query import QuerySession
from schemas.addresses import public_form
from schemas.coverage import seen_shares
from schemas.dataset import read_tombstones
from schemas.errors import HumoError, UsageError
from schemas.sample import decode_motion, decode_npz
from schemas.shards import read_samples
from schemas.skeleton import PARTS
from schemas.storage import Storage

_MAX_LISTED = 5


def view(dataset: str, key: str, out: str | Path | None = None) -> str:
    """Write the page of the sample whose key begins with `key` into the dataset (`report/KEY.html`), or to a file.

    Returns its address. Raises UsageError if the prefix matches no key or several, HumoError if the shard lacks the sample.
    """
    storage = Storage(dataset)
    row = find_sample(dataset, key)
    members = read_sample(storage, row["shard"], row["key"])
    return pages.write_page(storage, f"report/{row['key']}.html", "view.html", _context(row, members), out)


def find_sample(dataset: str, key: str) -> dict[str, Any]:
    """Key, shard, subset and split of the one live sample whose key begins with `key`."""
    prefix = key.strip().lower()
    if not prefix or not all(digit in "0123456789abcdef" for digit in prefix):
        raise UsageError(
            f"key {key!r}: a key consists of hexadecimal digits; humo query {dataset} 'SELECT key FROM samples'"
        )
    removed = read_tombstones(Storage(dataset))
    with QuerySession(dataset) as session:
        columns = "SELECT key, shard, subset, split FROM samples"
        rows = session.rows(f"{columns} WHERE starts_with(key, '{prefix}') ORDER BY key LIMIT {_MAX_LISTED + 1}")
    removed_rows = [row for row in rows if row["key"] in removed]
    rows = [row for row in rows if row["key"] not in removed]
    if not rows and removed_rows:
        raise UsageError(f"key {removed_rows[0]['key']}: this sample was removed from {dataset}")
    if not rows:
        raise UsageError(
            f"key {key}: no sample of {dataset} has this prefix; humo query {dataset} 'SELECT key FROM samples'"
        )
    if len(rows) > 1:
        listed = ", ".join(row["key"] for row in rows[:_MAX_LISTED])
        more = " and more" if len(rows) > _MAX_LISTED else ""
        raise UsageError(f"key {key}: several samples have this prefix ({listed}{more}); give more digits")
    return rows[0]


def read_sample(storage: Storage, shard: str, key: str) -> dict[str, bytes]:
    """Members of one sample of a shard."""
    try:
        with storage.open(shard) as file:
            for sample_key, members in read_samples(file, f"{storage.uri}/{shard}"):
                if sample_key == key:
                    return members
    except FileNotFoundError:
        raise HumoError(f"{storage.uri}/{shard}: the shard is missing; fetch it again or run humo pack") from None
    raise HumoError(f"{storage.uri}/{shard}: sample {key} is missing, but the catalogue lists it; run humo verify")


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
        # Rounded to a tenth of a pixel and hundredths of confidence, which is enough for display.
        keypoints = decode_npz(members["keypoints.npz"])["keypoints"].astype(float)
        keypoints[..., :2] = keypoints[..., :2].round(1)
        player["clip"] = {
            "crop": meta["crop"],
            "edges": pages.keypoint_edges(),
            "keypoints": [
                [round(value, 2) for value in frame] for frame in keypoints.reshape(len(keypoints), -1).tolist()
            ],
        }
    events = sorted(text["rules"], key=lambda event: (event["start_s"], event["end_s"], event["text"]))
    lanes = [(part, [event for event in events if event["part"] == part]) for part in ("body", *PARTS)]
    shares = seen_shares(decode_motion(members["motion.npz"], f"{row['key']}.motion.npz").seen)
    origin = {
        "source": meta["source_id"], "title": meta["title"], "address": public_form(meta["uri"]), "licence": meta["licence"],
        "consent": meta["consent"], "person": meta["person"],
        "span": f"{meta['start_s']:.2f} – {meta['end_s']:.2f} s of the source",
        "frames": f"{meta['frames']} at {meta['fps']:g} fps, from {meta['source_fps']:g}",
        "frame size": f"{meta['width']} × {meta['height']}" if meta["width"] else "none",
        "body model": meta["body_model"], "coverage": meta.get("coverage", "whole"), "config": meta["config_digest"],
        "shard": row["shard"], "split": row["split"],
        "SHA-256 of the source": meta["sha256"],
    }  # fmt: skip
    return {
        "key": row["key"],
        "subset": row["subset"],
        "seconds": seconds,
        "body": text["body"],
        "coverage": meta.get("coverage", "whole"),
        "parts": [(part, text["parts"][part], shares[part]) for part in PARTS],
        "lanes": [(part, part_events) for part, part_events in lanes if part_events],
        "transcript": text["transcript"]["text"],
        "writers": sorted(text["writers"].items()),
        "checks": [check for check in text["checks"] if check["verdict"] != "derived"],
        "describer": text["describer"],
        "instances": instances,
        "scores": sorted(meta["scores"].items()),
        "models": sorted(meta["models"].items()),
        "origin": [(name, value) for name, value in origin.items() if value != ""],
        "clip": clip,
        "player": player,
        "substitute_body": pages.substitute_body(meta["body_model"]),
    }
