"""A small dataset of labelled synthetic motions on disk, for tests of code that reads shards."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from schemas.body_model import BodyModel
from schemas.dataset import DatasetDescription, ShardEntry, write_description
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
    ScoredMotion,
    Shot,
    Source,
    Track,
    Transcript,
    Video,
)
from schemas.rotations import matrix_to_axis_angle
from schemas.sample import encode_sample_record, sample_problems
from schemas.shards import encode_sample, write_tar
from schemas.skeleton import PARTS
from schemas.storage import Storage
from stages.media.encoding import VideoWriter
from stages.synthesis.motions import generate

ACTIONS = ("wave_left", "wave_right", "walk", "squat")


def write_dataset(
    root: Path,
    *,
    clips: int,
    shards: int,
    actions: Sequence[str] = ACTIONS,
    seconds: float = 4.0,
    splits: str = "train",
) -> str:
    """Write `clips` motions in `shards` mocap shards for each split in `splits` (separated by spaces)."""
    body = BodyModel.load()
    storage = Storage(root)
    entries, serial = [], 0
    for split in splits.split():
        for shard in range(shards):
            encoded, hours = [], 0.0
            for _ in range(clips // shards):
                record = instructed(actions[serial % len(actions)], seconds, serial, body)
                sample = encode_sample_record(record, None, "0" * 12)
                encoded.append(encode_sample(sample.key, sample.members))
                hours += record.captioned.scored.motion.seconds / 3600
                serial += 1
            file = io.BytesIO()
            write_tar(file, encoded)
            path = f"shards/mocap/{split}-{shard:06d}.tar"
            storage.write_bytes(path, file.getvalue())
            entries.append(
                ShardEntry(
                    path=path, subset="mocap", split=split, samples=len(encoded), bytes=file.tell(),
                    sha256=storage.sha256(path), hours=hours,
                )
            )  # fmt: skip
    write_description(storage, DatasetDescription(version="test", body_models=[body.id], shards=entries))
    return str(root)


def write_filmed_dataset(root: Path, *, clips: int, seconds: float = 2.0, damaged: tuple[int, ...] = ()) -> str:
    """Write `clips` motions with clips whose frames are as bright as `brightness` says, in one video shard of training; the clips
    of `damaged` do not decode."""
    body, storage, encoded = BodyModel.load(), Storage(root), []
    for serial in range(clips):
        record = filmed(instructed(ACTIONS[serial % len(ACTIONS)], seconds, serial, body))
        frames = len(record.captioned.scored.motion.poses)
        clip = b"no mp4" if serial in damaged else brightness_clip(frames, serial)
        sample = encode_sample_record(record, clip, "0" * 12, crop=(0, 0, 64, 48))
        assert not sample_problems(sample.key, sample.members, "video")
        encoded.append(encode_sample(sample.key, sample.members))
    file = io.BytesIO()
    write_tar(file, encoded)
    path = "shards/video/train-000000.tar"
    storage.write_bytes(path, file.getvalue())
    entry = ShardEntry(
        path=path,
        subset="video",
        split="train",
        samples=clips,
        bytes=file.tell(),
        sha256=storage.sha256(path),
        hours=0.0,
    )
    write_description(storage, DatasetDescription(version="test", body_models=[body.id], shards=[entry]))
    return str(root)


def brightness(frame: int, serial: int = 0) -> int:
    """Grey value of a clip's frame."""
    return 20 + 2 * frame + 5 * serial


def brightness_clip(frames: int, serial: int = 0) -> bytes:
    """An mp4 of 64 x 48 pixels whose left half is as bright as `brightness` says, the right half black."""
    file = io.BytesIO()
    with VideoWriter(file, 64, 48, FPS, quality=10) as out:
        for frame in range(frames):
            image = np.zeros((48, 64, 3), np.uint8)
            image[:, :32] = brightness(frame, serial)
            out.write(image)
    return file.getvalue()


def filmed(record: InstructedMotion) -> InstructedMotion:
    """The same motion as one from a video, with an instruction that begins with its first image."""
    motion = record.captioned.scored.motion
    frames, source = len(motion.poses), motion.provenance.source
    video = Video(
        source=source,
        sha256=motion.provenance.sha256,
        width=64,
        height=48,
        fps=FPS,
        duration_s=frames / FPS,
        has_audio=False,
    )
    boxes, keypoints = np.tile([0.0, 0.0, 64.0, 48.0], (frames, 1)), np.ones((frames, 17, 3))
    shot = Shot(video=video, index=0, start_s=0.0, end_s=frames / FPS)
    track = Track(
        shot=shot, person=0, times_s=np.arange(frames) / FPS, boxes=boxes, keypoints=keypoints, models={}
    )  # fmt: skip
    clip = Clip(track=track, start_s=0.0, end_s=frames / FPS, boxes=boxes, keypoints=keypoints)
    camera = Camera(rotation=np.tile(np.eye(3), (frames, 1, 1)), position=np.zeros((frames, 3)), intrinsics=np.ones(4))
    with_footage = replace(motion, footage=Footage(clip=clip, camera=camera))
    scored = replace(record.captioned.scored, motion=with_footage)
    first, whole = InstructionInput(kind="image"), record.instructions[0].target
    image = replace(
        record.instructions[0], task="i2m_image", instruction="Go on from the image.", inputs=first, target=whole
    )
    return replace(
        record, captioned=replace(record.captioned, scored=scored), instructions=(*record.instructions, image)
    )


def instructed(action: str, seconds: float, seed: int, body: BodyModel) -> InstructedMotion:
    """A labelled motion as the input of the pipeline's last stage."""
    generated = generate(action, seconds, seed, body=body)
    frames = len(generated)
    source = Source(id=f"studio-{seed:05d}", uri=f"studio/{action}/{seed}", kind="mocap", licence="CC0", consent="n/a")
    motion = Motion(
        provenance=Provenance(
            source=source, sha256=f"{seed:064x}", person=0, start_s=0.0, end_s=frames / FPS, source_fps=FPS
        ),
        footage=None,
        poses=matrix_to_axis_angle(generated.rotations).numpy(),
        trans=generated.trans.numpy(),
        betas=generated.betas.numpy(),
        contacts=generated.contacts.numpy().astype(np.uint8),
        joint_confidence=np.ones((frames, 24), np.float32),
        to_source=np.eye(4),
        body_model=body.id,
        models={},
    )
    label = generated.labels[0]
    sentence = "a person " + " and ".join(dict.fromkeys(event.text for event in generated.labels))
    event = Event(
        part=label.part, joint="pelvis", kind=label.kind, side=label.side, start_s=label.start_s, end_s=label.end_s,
        amount=1.0, speed=1.0, text=label.text,
    )  # fmt: skip
    captions = Captions(
        body=(sentence,), parts={part: (f"the {part.replace('_', ' ')} moves",) for part in PARTS}, events=(event,),
        writers={"body": "labels"},
    )  # fmt: skip
    end = frames / FPS
    no_input, whole = InstructionInput(kind="none"), InstructionInput(kind="motion", start_s=0.0, end_s=end)
    early, late = InstructionInput(kind="motion", end_s=1.0), InstructionInput(kind="motion", start_s=1.0, end_s=end)
    span = {"parts": tuple(PARTS), "start_s": 0.0, "end_s": end}
    instructions = (
        Instruction(task="t2m", instruction=f"Show {sentence}.", inputs=no_input, target=whole, **span),
        Instruction(
            task="m2t",
            instruction="Say what is done.",
            inputs=whole,
            target=InstructionInput(kind="text", text=sentence),
            **span,
        ),
        Instruction(task="prediction", instruction="Go on.", inputs=early, target=late, **span),
    )
    captioned = CaptionedMotion(
        scored=ScoredMotion(motion=motion, scores={"jitter": 0.0}), captions=captions, transcript=Transcript()
    )
    return InstructedMotion(captioned=captioned, instructions=instructions)
