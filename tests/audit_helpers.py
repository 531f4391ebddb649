"""A small dataset on disk in the layout of `schemas/dataset.py`, with synthetic walking and waving."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch

from schemas.body_model import BodyModel
from schemas.dataset import DatasetDescription, ShardEntry, write_description, write_table
from schemas.ids import digest
from schemas.kinematics import forward_kinematics
from schemas.ledger import LEDGER
from schemas.records import (
    FPS,
    Camera,
    CaptionedMotion,
    Captions,
    Clip,
    Event,
    Footage,
    InstructedMotion,
    Instruction,
    InstructionInput,
    Motion,
    Provenance,
    Sample,
    ScoredMotion,
    Shot,
    Source,
    Track,
    Transcript,
    Video,
    Word,
)
from schemas.rotations import axis_angle_to_matrix
from schemas.sample import encode_sample_record
from schemas.shards import encode_sample, write_tar
from schemas.skeleton import COCO_KEYPOINTS, PARTS, SMPL_JOINTS, SMPL_PARENTS, joint
from schemas.storage import Storage
from stages.encode_clip import crop_box
from stages.media.encoding import VideoWriter

MODELS = {"tracker": "yolo11n-pose 8.4.190", "lifter": "humo-lifter 1"}
WIDTH, HEIGHT = 320, 240
XSS = '<script>alert("title")</script>'


def walker(seed: int, frames: int = 60) -> dict[str, np.ndarray]:
    """SMPL parameters of a person who walks with swinging arms, or waves for an odd seed."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * (np.arange(frames) / FPS + rng.uniform())
    poses = np.zeros((frames, 24, 3), np.float32)
    poses[:, joint("left_shoulder"), 2], poses[:, joint("right_shoulder"), 2] = -1.2, 1.2
    for side, sign in (("left", 1), ("right", -1)):
        poses[:, joint(f"{side}_hip"), 0] = sign * 0.5 * np.sin(phase)
        poses[:, joint(f"{side}_knee"), 0] = 0.4 + 0.4 * np.sin(phase + sign)
        poses[:, joint(f"{side}_shoulder"), 0] = -sign * 0.5 * np.sin(phase)
    trans = np.zeros((frames, 3), np.float32)
    trans[:, 1], trans[:, 2] = 0.94 + 0.02 * np.cos(2 * phase), np.arange(frames) / FPS * (0.5 + 0.1 * (seed % 5))
    if seed % 2:
        poses[:, joint("left_shoulder"), 2] = 0.6 + 0.3 * np.sin(3 * phase)
        poses[:, 0, 1] = 0.3 * np.sin(phase / 3)
    contacts = np.repeat(np.stack([np.sin(phase) < 0, np.sin(phase) >= 0], 1), 2, axis=1).astype(np.uint8)
    return {
        "poses": poses,
        "trans": trans,
        "betas": rng.normal(size=10).astype(np.float32) * 0.5,
        "contacts": contacts,
        "joint_confidence": np.ones((frames, 24), np.float32),
    }


def body_joints(arrays: dict[str, np.ndarray]) -> np.ndarray:
    rest = BodyModel.load().rest_joints(torch.from_numpy(arrays["betas"]))
    rotations = axis_angle_to_matrix(torch.from_numpy(arrays["poses"]))
    return forward_kinematics(rotations, rest, torch.from_numpy(arrays["trans"]))[0].numpy()


def mp4(frames: list[np.ndarray]) -> bytes:
    """An encoded video."""
    buffer = io.BytesIO()
    height, width = frames[0].shape[:2]
    with VideoWriter(buffer, width, height, FPS) as writer:
        for frame in frames:
            writer.write(frame)
    return buffer.getvalue()


def footage(arrays: dict[str, np.ndarray], source: Source) -> tuple[Footage, list[np.ndarray]]:
    """Footage of a static camera in front of the person with exact keypoints, and its drawn frames."""
    joints = body_joints(arrays)
    rotation = np.diag([1.0, -1.0, -1.0]).astype(np.float32)
    position = np.array([0.3, 1.2, 6.0], np.float32)
    intrinsics = np.array([260.0, 260, WIDTH / 2, HEIGHT / 2], np.float32)
    in_camera = (joints - position) @ rotation.T
    pixels = in_camera[..., :2] / in_camera[..., 2:] * intrinsics[:2] + intrinsics[2:]
    keypoints = np.ones((len(joints), 17, 3), np.float32)
    for index, name in enumerate(COCO_KEYPOINTS):
        source_joint = name if name in SMPL_JOINTS else "head"
        keypoints[:, index, :2] = pixels[:, joint(source_joint)]
    boxes = np.concatenate([pixels.min(1) - 8, pixels.max(1) + 8], 1).astype(np.float32)
    times = np.arange(len(joints)) / FPS
    video = Video(
        source=source, sha256=digest(source.id) * 2, width=WIDTH, height=HEIGHT, fps=FPS,
        duration_s=len(joints) / FPS, has_audio=False,
    )  # fmt: skip
    shot = Shot(video=video, index=0, start_s=0, end_s=video.duration_s)
    track = Track(shot=shot, person=0, times_s=times, boxes=boxes, keypoints=keypoints, models=MODELS)
    clip = Clip(track=track, start_s=0.0, end_s=video.duration_s, boxes=boxes, keypoints=keypoints)
    count = len(joints)
    camera = Camera(
        rotation=np.repeat(rotation[None], count, 0), position=np.repeat(position[None], count, 0),
        intrinsics=intrinsics,
    )  # fmt: skip
    images = []
    for row in pixels:
        image = np.full((HEIGHT, WIDTH, 3), 205, np.uint8)
        image[HEIGHT // 2 + 20 :] = 165
        for child in range(1, 24):
            ends = [tuple(int(v) for v in row[index]) for index in (SMPL_PARENTS[child], child)]
            cv2.line(image, ends[0], ends[1], (70, 80, 110), 9, cv2.LINE_AA)
        cv2.circle(image, tuple(int(v) for v in row[joint("head")]), 8, (200, 160, 130), -1, cv2.LINE_AA)
        images.append(image)
    return Footage(clip=clip, camera=camera), images


def make_sample(
    subset: str, number: int, *, frames: int = 60, title: str = "A walk", source: Source | None = None
) -> Sample:
    """One encoded sample; the same arguments give the same bytes."""
    source = source or Source(
        id=f"{subset}-source-{number // 2}", uri=f"file:///in/{subset}{number // 2}.mp4", kind=subset, title=title,
        description="", licence=("CC-BY-4.0", "CC0-1.0")[number % 2], consent="given",
    )  # fmt: skip
    arrays = walker(number, frames)
    seconds = frames / FPS
    video_footage, images = footage(arrays, source) if subset == "video" else (None, [])
    motion = Motion(
        provenance=Provenance(
            source=source, sha256=digest(source.id) * 2, person=0, start_s=float(number), end_s=number + seconds,
            source_fps=30.0,
        ),
        footage=video_footage, to_source=np.eye(4, dtype=np.float32), body_model=BodyModel.load().id,
        models=MODELS if video_footage else {"mocap": "bvh 1"}, **arrays,
    )  # fmt: skip
    scores = {"dynamic": 0.1 + 0.05 * number, "jitter": 0.01 * (1 + number), "foot_slide": 0.02, "visibility": 0.9}
    if video_footage:
        scores["reprojection"] = 0.03
    event = Event(
        part="left_arm", joint="left_wrist", kind="raise", side="left", start_s=0.4, end_s=1.1, amount=0.5,
        speed=0.7, text="the left hand goes up",
    )  # fmt: skip
    step = Event(
        part="body", joint="pelvis", kind="walk", side="none", start_s=0.0, end_s=seconds, amount=1.0, speed=0.6,
        text="walks 1.0 m forward",
    )  # fmt: skip
    captions = Captions(
        body=(f"A person walks forward, number {number}.",),
        parts={part: (f"The {part.replace('_', ' ')} swings.",) for part in PARTS},
        events=(event, step),
        writers={"body": "rules 1", "parts": "rules 1", "events": "rules 1", "transcript": "none"},
    )
    transcript = Transcript(language="en", words=(Word(text="hello", start_s=0.2, end_s=0.6, probability=0.9),))
    instruction = Instruction(
        task="text_to_motion", instruction="Make a motion of this.", inputs=InstructionInput(kind="text", text=captions.body[0]),
        target=InstructionInput(kind="motion", end_s=seconds), parts=tuple(PARTS), start_s=0.0, end_s=seconds,
    )  # fmt: skip
    record = InstructedMotion(
        captioned=CaptionedMotion(
            scored=ScoredMotion(motion=motion, scores=scores), captions=captions, transcript=transcript
        ),
        instructions=(instruction,),
    )
    if video_footage is None:
        return encode_sample_record(record, None, "0123456789ab")
    x0, y0, x1, y1 = crop_box(video_footage.clip, 0.1)
    content = mp4([np.ascontiguousarray(image[y0:y1, x0:x1]) for image in images])
    return encode_sample_record(record, content, "0123456789ab", crop=(x0, y0, x1, y1))


def make_dataset(root: str | Path, *, video: int = 2, mocap: int = 6, title: str = "A walk") -> str:
    """Write a packed dataset of two or three shards and return its address."""
    storage = Storage(root)
    samples = [make_sample("video", number, title=title) for number in range(video)]
    samples += [make_sample("mocap", number, frames=45 + 15 * (number % 4)) for number in range(mocap)]
    groups: dict[tuple[str, str], list[Sample]] = {}
    for number, sample in enumerate(samples):
        groups.setdefault((sample.subset, "val" if number % 4 == 3 else "train"), []).append(sample)
    shards, rows = [], []
    for (subset, split), group in sorted(groups.items()):
        path = f"shards/{subset}/{split}-000000.tar"
        metas = [json.loads(sample.members["meta.json"]) for sample in group]
        with storage.publish(path) as file:
            write_tar(file, [encode_sample(sample.key, sample.members) for sample in group])
        frames = sum(meta["frames"] for meta in metas)
        shards.append(
            ShardEntry(
                path=path, subset=subset, split=split, samples=len(group),
                bytes=len(storage.read_bytes(path)), sha256=storage.sha256(path), hours=frames / FPS / 3600,
            )
        )  # fmt: skip
        rows += [_catalogue_row(sample, meta, split, path) for sample, meta in zip(group, metas, strict=True)]
    write_table(storage, "catalogue/part-000000.parquet", pa.Table.from_pylist(_with_all_columns(rows)))
    write_table(storage, "ledger/commit-1.parquet", _ledger(rows))
    write_description(
        storage,
        DatasetDescription(
            version=digest(*(shard.sha256 for shard in shards), digits=12), humo="0.1.0",
            body_models=[BodyModel.load().id], config_digests=["0123456789ab"], counts={"samples": len(rows)},
            shards=shards,
        ),
    )  # fmt: skip
    return str(root)


def _catalogue_row(sample: Sample, meta: dict, split: str, shard: str) -> dict:
    text = json.loads(sample.members["text.json"])
    columns = ("source_id", "uri", "sha256", "licence", "consent", "title", "person", "start_s", "end_s", "frames")
    row = {"key": sample.key, "subset": sample.subset, "split": split, "shard": shard}
    row |= {name: meta[name] for name in columns}
    row |= {name: meta[name] for name in ("source_fps", "width", "height", "body_model", "config_digest")}
    row |= {"seconds": meta["frames"] / FPS, "caption": text["body"][0]}
    row["kinds"] = sorted({event["kind"] for event in text["rules"]})
    row["parts"] = sorted({event["part"] for event in text["rules"]})
    row |= {"describer": text["describer"]["describer"], "describer_outcome": text["describer"]["outcome"]}
    row |= {"describer_tokens": 0, "describer_usd": 0.0, "sentences_added": 0, "sentences_rejected": 0}
    row["bytes"] = len(encode_sample(sample.key, sample.members))
    return row | {f"score_{name}": value for name, value in meta["scores"].items()}


def _with_all_columns(rows: list[dict]) -> list[dict]:
    names = {name: None for row in rows for name in row}
    return [{name: row.get(name) for name in names} for row in rows]


def _ledger(rows: list[dict]) -> pa.Table:
    defaults = {field.name: "" if pa.types.is_string(field.type) else 0 for field in LEDGER}
    decisions = [
        defaults | {name: row[name] for name in ("source_id", "uri", "sha256", "licence", "subset", "seconds")}
        | {"outcome": "accepted", "record_id": row["key"], "commit": "commit-1"}
        for row in rows
    ]  # fmt: skip
    reasons = [("keep_human_text", "no_person_words"), ("cut_clips", "too_short"), ("cut_clips", "too_short")]
    reasons += [("score_motion", "static"), ("track_people", "no_person"), ("score_motion", "foot_slide")]
    decisions += [
        defaults
        | {"source_id": f"video-bad-{index}", "uri": f"file:///in/bad{index}.mp4", "outcome": "rejected",
           "record_id": f"video-bad-{index}/shot-0000", "subset": "video", "stage": stage, "reason": reason,
           "measured": 1.2, "limit": 2.0, "commit": "commit-1"}
        for index, (stage, reason) in enumerate(reasons)
    ]  # fmt: skip
    return pa.Table.from_pylist(decisions, schema=LEDGER)
