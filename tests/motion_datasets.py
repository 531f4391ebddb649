"""A small dataset of labelled synthetic motions on disk, for tests of code that reads shards."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from schemas.body_model import BodyModel
from schemas.dataset import DatasetDescription, ShardEntry, write_description
from schemas.records import (
    FPS,
    CaptionedMotion,
    Captions,
    Event,
    InstructedMotion,
    Instruction,
    InstructionInput,
    Motion,
    Provenance,
    ScoredMotion,
    Source,
    Transcript,
)
from schemas.rotations import matrix_to_axis_angle
from schemas.sample import encode_sample_record
from schemas.shards import encode_sample, write_tar
from schemas.skeleton import PARTS
from schemas.storage import Storage
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
