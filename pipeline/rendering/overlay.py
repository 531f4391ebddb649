"""A source's own pixels with what was recovered from them: boxes, keypoints and the fitted body, sample by sample."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.rendering.animation import motion_joints
from pipeline.rendering.drawing import draw_body, draw_box, draw_keypoints, draw_legend
from schemas.body_model import BodyModel
from schemas.dataset import iterate_samples
from schemas.errors import HumoError
from schemas.records import FPS, Camera
from schemas.sample import decode_motion, decode_npz
from schemas.storage import Storage
from stages.geometry.cameras import project
from stages.media.decoding import frames
from stages.media.encoding import VideoWriter


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovered:
    """One sample of a source, in its pixels."""

    key: str
    meta: dict[str, Any]
    text: dict[str, Any]
    boxes: Float[np.ndarray, "T 4"]
    keypoints: Float[np.ndarray, "T 17 3"]
    joints_2d: Float[np.ndarray, "T 24 2"]


def recovered_from(dataset: str, body_model: str = "") -> dict[str, list[Recovered]]:
    """Source -> its samples from video, in the order of time and person."""
    body = BodyModel.load(body_model or None)
    found: dict[str, list[Recovered]] = {}
    for _, key, members in iterate_samples(Storage(dataset), subset="video"):
        one = _recover(key, members, body)
        found.setdefault(one.meta["source_id"], []).append(one)
    return {
        source: sorted(some, key=lambda one: (one.meta["start_s"], one.meta["person"]))
        for source, some in found.items()
    }


def _recover(key: str, members: dict[str, bytes], body: BodyModel) -> Recovered:
    meta = json.loads(members["meta.json"])
    motion = decode_motion(members["motion.npz"], key)
    if meta["body_model"] != body.id:
        raise HumoError(f"{key}: made with body {meta['body_model']}, given is {body.id}; name that body's file")
    seen = decode_npz(members["keypoints.npz"])
    camera = Camera(rotation=seen["camera_rotation"], position=seen["camera_position"], intrinsics=seen["intrinsics"])
    return Recovered(
        key=key,
        meta=meta,
        text=json.loads(members["text.json"]),
        boxes=seen["boxes"],
        keypoints=seen["keypoints"],
        joints_2d=project(motion_joints(motion, body), camera).astype(np.float32),
    )


def overlay_source(uri: str, samples: list[Recovered], out: Path, *, max_px: int = 640) -> Path:
    """Write the video with everything that was recovered drawn onto it; frames outside any sample stay as they are."""
    fps = samples[0].meta["source_fps"] if samples else FPS
    pictures = (_draw(image, time_s, samples) for time_s, image in _pictures(uri))
    first = next(pictures, None)
    if first is None:
        raise HumoError(f"{uri}: no frame decodes; was it altered after it was ingested?")
    shrink = min(1.0, max_px / max(first.shape[:2]))
    out.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(out, round(first.shape[1] * shrink), round(first.shape[0] * shrink), fps) as video:
        video.write(first)
        for picture in pictures:
            video.write(picture)
    return out


def _pictures(uri: str) -> Iterator[tuple[float, np.ndarray]]:
    for frame in frames(uri):
        yield frame.time_s, frame.image


def _draw(image: np.ndarray, time_s: float, samples: list[Recovered]) -> np.ndarray:
    for one in samples:
        index = round((time_s - one.meta["start_s"]) * FPS)
        if 0 <= index < len(one.boxes):
            image = draw_body(image, one.joints_2d[index])
            image = draw_keypoints(image, one.keypoints[index])
            image = draw_box(image, one.boxes[index], f"person {one.meta['person']}")
    return draw_legend(image)
