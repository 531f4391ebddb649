"""Samples of shards, decoded."""

import json
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from model.data.frames import SampleFrames
from schemas.errors import HumoError
from schemas.records import Instruction, InstructionInput
from schemas.sample import MotionArrays, decode_motion


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionSample:
    """Decoded members of a sample that training needs."""

    key: str
    motion: MotionArrays
    body: tuple[str, ...]
    """Sentences about the whole body."""
    parts: dict[str, tuple[str, ...]]
    instructions: tuple[Instruction, ...]
    meta: dict[str, Any]
    frames: SampleFrames | None = None
    """Frames of its clip, if a reader of frames was given and the sample has a clip."""
    extra: bool = False
    """Whether the sample only fills a batch and also occurs elsewhere in the epoch."""


def decode_sample(key: str, members: dict[str, bytes]) -> MotionSample:
    """Decode the members of a sample, except the clip and the keypoints."""
    try:
        text = json.loads(members["text.json"])
        instances = json.loads(members["instructions.json"])["instances"]
        return MotionSample(
            key=key,
            motion=decode_motion(members["motion.npz"], f"{key}.motion.npz"),
            body=tuple(text["body"]),
            parts={part: tuple(sentences) for part, sentences in text["parts"].items()},
            instructions=tuple(_instruction(instance) for instance in instances),
            meta=json.loads(members["meta.json"]),
        )
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise HumoError(f"{key}: not a valid humo sample ({type(error).__name__}: {error}); run humo verify") from None


def _instruction(instance: dict[str, Any]) -> Instruction:
    shared = {
        "inputs": _shared_input(**instance["inputs"]),
        "target": _shared_input(**instance["target"]),
        "parts": _shared_parts(*instance["parts"]),
    }
    return Instruction(**{**instance, **shared})


# Most instructions of a sample have these in common: a shared object is created and pickled from worker to trainer once.
_shared_input = lru_cache(maxsize=1024)(InstructionInput)
_shared_parts = lru_cache(maxsize=64)(lambda *parts: parts)


def slice_frames(motion: MotionArrays, start: int, end: int) -> MotionArrays:
    """Frames from `start` to `end`, exclusive."""
    arrays = {name: value if name == "betas" else value[start:end] for name, value in vars(motion).items()}
    return MotionArrays(**arrays)
