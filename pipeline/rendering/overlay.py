"""Overlays of recovered boxes, keypoints and bodies on the source video."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.rendering.animation import motion_joints
from pipeline.rendering.drawing import draw_body, draw_box, draw_keypoints, draw_legend
from schemas.body_model import BodyModel
from schemas.coverage import unseen_joints
from schemas.dataset import iterate_samples
from schemas.errors import HumoError
from schemas.records import FPS, Camera
from schemas.sample import decode_motion, decode_npz
from schemas.storage import Storage
from stages.geometry.cameras import project
from stages.media.decoding import frames, inspect_file
from stages.media.encoding import VideoWriter
from stages.media.inspection import UnreadablePicture


@dataclass(frozen=True, kw_only=True, eq=False)
class RecoveredSample:
    """One sample of a source, in pixels of its whole picture."""

    key: str
    meta: dict[str, Any]
    text: dict[str, Any]
    boxes: Float[np.ndarray, "T 4"]
    keypoints: Float[np.ndarray, "T 17 3"]
    joints_2d: Float[np.ndarray, "T 24 2"]
    """NaN for joints that nobody saw."""


def read_recovered_samples(dataset: str, body_model: str = "") -> dict[str, list[RecoveredSample]]:
    """Source -> its samples from video, sorted by time and person."""
    body = BodyModel.load(body_model or None)
    by_source: dict[str, list[RecoveredSample]] = {}
    for _, key, members in iterate_samples(Storage(dataset), subset="video"):
        sample = _read_sample(key, members, body)
        by_source.setdefault(sample.meta["source_id"], []).append(sample)
    return {
        source: sorted(samples, key=lambda sample: (sample.meta["start_s"], sample.meta["person"]))
        for source, samples in by_source.items()
    }


def _read_sample(key: str, members: dict[str, bytes], body: BodyModel) -> RecoveredSample:
    meta = json.loads(members["meta.json"])
    motion = decode_motion(members["motion.npz"], key)
    if meta["body_model"] != body.id:
        raise HumoError(
            f"{key}: its body model is {meta['body_model']}, the given one {body.id}; give the file of its body model"
        )
    arrays = decode_npz(members["keypoints.npz"])
    camera = Camera(
        rotation=arrays["camera_rotation"],
        position=arrays["camera_position"],
        intrinsics=arrays["intrinsics"].reshape(-1, 4)[0],
    )
    joints_2d = project(motion_joints(motion, body), camera)
    return RecoveredSample(
        key=key,
        meta=meta,
        text=json.loads(members["text.json"]),
        boxes=arrays["boxes"],
        keypoints=arrays["keypoints"],
        joints_2d=np.where(unseen_joints(motion.seen)[..., None], np.nan, joints_2d).astype(np.float32),
    )


def overlay_source(uri: str, samples: list[RecoveredSample], out: Path, *, max_px: int = 640) -> Path:
    """Write the video with its samples drawn on it; frames outside any sample are unchanged."""
    fps = samples[0].meta["source_fps"] if samples else FPS
    try:
        shown = frames(uri, picture=inspect_file(uri).whole)
        drawn = (_draw(frame.image, frame.time_s, samples) for frame in shown)
        first = next(drawn, None)
    except UnreadablePicture:
        first = None
    if first is None:
        raise HumoError(f"{uri}: no frame decodes; restore the file that was ingested")
    scale = min(1.0, max_px / max(first.shape[:2]))
    out.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(out, round(first.shape[1] * scale), round(first.shape[0] * scale), fps) as video:
        video.write(first)
        for image in drawn:
            video.write(image)
    return out


def _draw(image: np.ndarray, time_s: float, samples: list[RecoveredSample]) -> np.ndarray:
    for sample in samples:
        index = round((time_s - sample.meta["start_s"]) * FPS)
        if 0 <= index < len(sample.boxes):
            image = draw_body(image, sample.joints_2d[index])
            image = draw_keypoints(image, sample.keypoints[index])
            image = draw_box(image, sample.boxes[index], f"person {sample.meta['person']}")
    return draw_legend(image)
