"""Shared parts of the HTML pages: templates with escaping, number formats, stick figures, film strips."""

import base64
import functools
import hashlib
import io
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import UInt8

from pipeline.rendering.animation import motion_joints, pack_joints
from pipeline.rendering.drawing import SMPL_EDGES, draw_keypoints, edge_colour, side_colour
from schemas.body_model import BodyModel
from schemas.containers import CLIP_FORMATS, open_media
from schemas.coverage import unseen_joints
from schemas.records import FPS
from schemas.sample import decode_motion, decode_npz
from schemas.skeleton import COCO_EDGES, COCO_KEYPOINTS, SMPL_JOINTS, joint
from schemas.storage import Storage

_TEMPLATES = Path(__file__).parent / "templates"
_SIDES = {side_colour("left_"): "left", side_colour("right_"): "right", side_colour(""): "middle"}


def skeleton() -> dict[str, Any]:
    """Bones with their sides, for `figure.js`."""
    edges = [[a, b, _SIDES[edge_colour(SMPL_JOINTS[a], SMPL_JOINTS[b])]] for a, b in SMPL_EDGES]
    return {"edges": edges, "head": joint("head"), "neck": joint("neck")}


def keypoint_edges() -> list[list[Any]]:
    """COCO skeleton edges with their sides."""
    return [[a, b, _SIDES[edge_colour(COCO_KEYPOINTS[a], COCO_KEYPOINTS[b])]] for a, b in COCO_EDGES]


def packed_motion(
    members: dict[str, bytes], name: str, *, every: int = 1, seconds: float = math.inf
) -> dict[str, object]:
    """Joints of the first seconds of a sample's motion for `figure.js`, on the shipped body; `unseen` are the spans of frames
    (first, one past the last) with the joints that nobody saw in them."""
    motion = decode_motion(members["motion.npz"], name)
    shown = slice(0, int(min(seconds * FPS, len(motion.poses))))
    return {
        **pack_joints(motion_joints(motion)[shown], every),
        "unseen": _unseen_spans(motion.seen[shown][::every]),
    }


def _unseen_spans(seen: UInt8[np.ndarray, "T 5"]) -> list[list[Any]]:
    hidden = unseen_joints(seen)
    edges = [0, *(np.flatnonzero((hidden[1:] != hidden[:-1]).any(1)) + 1).tolist(), len(hidden)]
    return [
        [first, end, np.flatnonzero(hidden[first]).tolist()]
        for first, end in pairwise(edges)
        if end > first and hidden[first].any()
    ]


def substitute_body(body_model: str) -> str:
    """Id of the shipped body if a motion was made with another one; else empty."""
    shipped = BodyModel.load().id
    return "" if body_model == shipped else shipped


def film_strip(members: dict[str, bytes], count: int = 3) -> list[str]:
    """Evenly spaced frames of the clip with its keypoints, as base64 JPEG."""
    import cv2

    meta = json.loads(members["meta.json"])
    keypoints = decode_npz(members["keypoints.npz"])["keypoints"]
    x0, y0, x1, _ = meta["crop"]
    with open_media(io.BytesIO(members["clip.mp4"]), CLIP_FORMATS) as container:
        frames = [(frame.time or 0.0, frame) for frame in container.decode(video=0)]
    strip = []
    for number in range(min(count, len(frames))):
        time_s, frame = frames[(2 * number + 1) * len(frames) // (2 * count)]
        image = frame.to_ndarray(format="rgb24")
        clip_keypoints = keypoints[min(round(time_s * meta["fps"]), len(keypoints) - 1)].copy()
        clip_keypoints[:, :2] = (clip_keypoints[:, :2] - (x0, y0)) * (image.shape[1] / max(x1 - x0, 1.0))
        drawn = draw_keypoints(image, clip_keypoints)
        ok, content = cv2.imencode(".jpg", np.ascontiguousarray(drawn[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 80])
        assert ok
        strip.append(base64.b64encode(content.tobytes()).decode())
    return strip


def write_page(storage: Storage, relative: str, template: str, context: dict[str, Any], out: str | Path | None) -> str:
    """Render a page into the dataset, or to the file `out`; returns its address."""
    content = render_page(template, context).encode()
    if out is None:
        storage.write_bytes(relative, content)
        return storage.path(relative) if storage.is_local else f"{storage.uri.rstrip('/')}/{relative}"
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def render_page(template: str | Path, context: dict[str, Any]) -> str:
    """The HTML of a page: a template of this folder by its name, or another file; it extends `page.html`."""
    environment = template_environment()
    if isinstance(template, Path):
        return environment.from_string(template.read_text()).render(context)
    return environment.get_template(template).render(context)


def content_security_policy(style: str, script: str, files: bool = False) -> str:
    """The policy of a page with this style sheet and script: nothing else is executed, nothing is fetched, images and clips are
    inside the page; with `files` also beside it."""
    media = "data: 'self' file:" if files else "data:"
    directives = {
        "default-src": "'none'", "style-src": _hash_source(style), "script-src": _hash_source(script) if script else "",
        "img-src": media, "media-src": media, "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    return "; ".join(f"{name} {value}" for name, value in directives.items() if value)


def _hash_source(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


@functools.cache
def template_environment() -> jinja2.Environment:
    """Templates with autoescaping, since titles come from the web."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.globals["content_security_policy"] = content_security_policy
    environment.filters |= {
        "count": _count,
        "duration": duration_text,
        "number": number_text,
        "percent": _percent,
        "words": _words,
    }
    return environment


def number_text(value: Any) -> str:
    """Three significant digits; empty for anything but a finite number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.3g}'):g}"


def _count(value: int) -> str:
    return f"{value:,}"


def duration_text(seconds: float) -> str:
    """Duration in seconds, minutes or hours."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.0f} {unit}" if seconds >= 100 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _words(name: str) -> str:
    return name.replace("_", " ")
