"""The members of a sample: encoding records to bytes of a shard, and decoding those to arrays.

Every sample of a subset has the same members, every JSON the same keys with the same types: no nulls, no optionally empty
lists, no integers where a fraction is possible. Loaders that infer a schema from the first samples rely on it.
"""

import functools
import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from schemas.archives import read_member
from schemas.coverage import all_seen, coverage_of, for_frames, mask_problems
from schemas.errors import HumoError
from schemas.records import FPS, INPUT_KINDS, Clip, InstructedMotion, Instruction, Sample, Segment, Shot, Transcript
from schemas.secrets import hide_parts
from schemas.skeleton import PARTS

SAMPLE_VERSION = 2
"""Version of the samples that are written, in meta.json; 1, which has no `version`, has neither `seen` nor `coverage` (all parts
were seen), no `shot`, no landmarks, and one row of intrinsics."""
SUBSETS = ("video", "mocap", "long")
MEMBERS: dict[str, tuple[str, ...]] = {
    "video": ("clip.mp4", "instructions.json", "keypoints.npz", "meta.json", "motion.npz", "text.json"),
    "mocap": ("instructions.json", "meta.json", "motion.npz", "text.json"),
    "long": ("instructions.json", "meta.json", "motion.npz", "text.json"),
}
MAX_ARRAYS_BYTES = 1 << 28
"""Maximum size of all arrays of one npz: an hour of motion has a fifth of it, and a small file may claim terabytes."""
MAX_JSON_BYTES = 1 << 24
"""Maximum size of a JSON member; Python needs some twenty times as much for the parsed value."""
ANY = -2
"""Stands for any array length, including 0 for missing data."""
MOTION_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "poses": ("float32", (-1, 24, 3)),
    "trans": ("float32", (-1, 3)),
    "betas": ("float32", (10,)),
    "contacts": ("uint8", (-1, 4)),
    "joint_confidence": ("float32", (-1, 24)),
    "seen": ("uint8", (-1, 5)),
}
"""Array of motion.npz -> dtype and shape; -1 stands for T, shared by all arrays. Version 1 has no `seen`."""
KEYPOINT_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "keypoints": ("float32", (-1, 17, 3)),
    "boxes": ("float32", (-1, 4)),
    "camera_rotation": ("float32", (-1, 3, 3)),
    "camera_position": ("float32", (-1, 3)),
    "intrinsics": ("float32", (-1, 4)),
    "visual_embedding": ("float32", (ANY,)),
    "landmarks": ("float32", (-1, 33, 4)),
    "landmarks_m": ("float32", (-1, 33, 3)),
}
"""Array of keypoints.npz -> dtype and shape. Landmarks are x, y in source pixels, visibility and presence, then metres about the
middle of the hips in camera axes (`schemas.skeleton.LANDMARKS`); 0 where only the detector looked."""
_KEYPOINT_ARRAYS_1 = {
    **{name: kind for name, kind in KEYPOINT_ARRAYS.items() if not name.startswith("landmarks")},
    "intrinsics": ("float32", (4,)),
}
_LANDMARK_STEPS = {"landmarks": np.array([1 / 32, 1 / 32, 1 / 256, 1 / 256]), "landmarks_m": np.array(1 / 4096)}
"""Landmarks are rounded to multiples of these, pixels and metres: far below their error, and two thirds of the bytes."""
_META_TYPES: dict[str, type] = {
    "key": str, "subset": str, "source_id": str, "uri": str, "sha256": str, "title": str, "description": str,
    "licence": str, "consent": str, "person": int, "start_s": float, "end_s": float, "frames": int, "fps": float,
    "source_fps": float, "width": int, "height": int, "crop": list, "body_model": str, "scores": dict, "models": dict,
    "to_source": list, "config_digest": str,
}  # fmt: skip
_META_TYPES_2: dict[str, type] = {"version": int, "coverage": str, "shot": dict}
"""What version 2 has in addition."""
_SEGMENT_TYPES: dict[str, type] = {
    "key": str, "source_id": str, "uri": str, "sha256": str, "licence": str, "consent": str, "person": int,
    "start_s": float, "end_s": float, "source_start_s": float, "source_end_s": float, "text": str,
}  # fmt: skip
"""Types of an entry of `segments` in meta.json, which only samples of the subset `long` have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionArrays:
    """Decoded motion.npz."""

    poses: Float[np.ndarray, "T 24 3"]
    trans: Float[np.ndarray, "T 3"]
    betas: Float[np.ndarray, "10"]
    contacts: UInt8[np.ndarray, "T 4"]
    joint_confidence: Float[np.ndarray, "T 24"]
    seen: UInt8[np.ndarray, "T 5"] = field(default_factory=all_seen)
    """1 where a part was seen, see `schemas.coverage`; a single row stands for all frames."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", for_frames(self.seen, len(self.poses)))


def encode_npz(arrays: dict[str, np.ndarray]) -> bytes:
    """A compressed npz whose bytes depend only on the arrays (numpy dates the entries 1980)."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def decode_npz(content: bytes) -> dict[str, np.ndarray]:
    """All arrays of an npz, without unpickling; twice as fast as `np.load` on the small arrays of a sample.

    Raises ValueError or zipfile.BadZipFile if the content is not an npz of plain arrays, or claims more than MAX_ARRAYS_BYTES.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        claimed = sum(entry.file_size for entry in file.infolist())
        if claimed > MAX_ARRAYS_BYTES:
            raise ValueError(f"its arrays claim {claimed} bytes, more than {MAX_ARRAYS_BYTES}")
        if len(set(file.namelist())) < len(file.namelist()):
            raise ValueError("an array occurs twice")
        return {one.filename.removesuffix(".npy"): _decode_npy(read_member(file, one)) for one in file.infolist()}


def _decode_npy(content: bytes) -> np.ndarray:
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, fortran_order, dtype = _npy_header(content[:start])
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which only unpickling could read")
    flat = np.frombuffer(bytearray(memoryview(content)[start:]), dtype)  # a copy, so that the array is writable
    return flat.reshape(shape, order="F" if fortran_order else "C")


@functools.lru_cache(maxsize=4096)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype; cached, since parsing takes longer than reading a small array."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not an array written by np.savez")
    return np.lib.format.read_array_header_1_0(file)


def encode_json(value: Any) -> bytes:
    """Compact UTF-8 with sorted keys; NaN and infinity raise ValueError."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def encode_sample_record(
    record: InstructedMotion,
    clip_mp4: bytes | None,
    config_digest: str,
    *,
    crop: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Sample:
    """All members of one sample; `clip_mp4` is the person's crop and `crop` (x0, y0, x1, y1) its box in the displayed frames;
    motion capture has neither. Coordinates of samples count from the corner of the source's whole picture, whose black
    borders the displayed frames lack."""
    motion = record.captioned.scored.motion
    subset = "long" if motion.segments else "mocap" if motion.footage is None else "video"
    members = {
        "motion.npz": encode_npz(
            {name: _cast(getattr(motion, name), dtype) for name, (dtype, _) in MOTION_ARRAYS.items()}
        ),
        "text.json": encode_json(_text(record)),
        "instructions.json": encode_json({"instances": [_instance(one) for one in record.instructions]}),
        "meta.json": encode_json(_meta(record, subset, config_digest, crop)),
    }
    if motion.footage is not None:
        footage = motion.footage
        if clip_mp4 is None:
            raise ValueError(f"{record.id}: a sample from video needs its clip")
        left, top, _, _ = footage.clip.track.shot.video.borders
        arrays = {
            "keypoints": footage.clip.keypoints + np.array([left, top, 0]),
            "boxes": footage.clip.boxes + np.array([left, top, left, top]),
            "camera_rotation": footage.camera.rotation,
            "camera_position": footage.camera.position,
            "intrinsics": np.tile(footage.camera.intrinsics + np.array([0, 0, left, top]), (len(motion.poses), 1)),
            "visual_embedding": record.captioned.visual_embedding,
            **_landmarks(footage.clip),
        }
        members["keypoints.npz"] = encode_npz({name: _cast(array, "float32") for name, array in arrays.items()})
        members["clip.mp4"] = clip_mp4
    return Sample(key=motion.id, subset=subset, source_id=motion.provenance.source.id, members=members)


def decode_motion(content: bytes, name: str = "motion.npz") -> MotionArrays:
    """Decode and check motion.npz; raises HumoError naming the file."""
    arrays = decode_npz(content)
    if "seen" not in arrays and "poses" in arrays:
        arrays["seen"] = all_seen(len(arrays["poses"]))  # version 1
    problems = array_problems(arrays, MOTION_ARRAYS)
    if problems:
        raise HumoError(f"{name}: {'; '.join(problems)}; it is not a humo motion, pack the dataset again")
    return MotionArrays(**{field: arrays[field] for field in MOTION_ARRAYS})


def sample_problems(key: str, members: dict[str, bytes], subset: str) -> list[str]:
    """Problems of a sample, one sentence each; empty if it is valid. The clip is not decoded."""
    problems = []
    if tuple(sorted(members)) != MEMBERS.get(subset):
        return [
            f"members are {', '.join(sorted(members))}; a {subset} sample has {', '.join(MEMBERS.get(subset, ('none',)))}"
        ]
    large = [name for name, content in members.items() if name.endswith(".json") and len(content) > MAX_JSON_BYTES]
    if large:
        return [f"{name}: has {len(members[name])} bytes, at most {MAX_JSON_BYTES} are read" for name in large]
    try:
        meta = json.loads(members["meta.json"])
        motion = decode_npz(members["motion.npz"])
        problems += [f"motion.npz: {problem}" for problem in _motion_problems(motion, version_of(meta))]
        if "keypoints.npz" in members:
            keypoints = decode_npz(members["keypoints.npz"])
            expected = KEYPOINT_ARRAYS if version_of(meta) > 1 else _KEYPOINT_ARRAYS_1
            problems += [f"keypoints.npz: {problem}" for problem in array_problems(keypoints, expected)]
        for name, kind in (_META_TYPES | (_META_TYPES_2 if version_of(meta) > 1 else {})).items():
            if not isinstance(meta.get(name), kind):
                problems.append(f"meta.json: {name} is {meta.get(name)!r}, not a {kind.__name__}")
        problems += _segment_problems(meta) if subset == "long" else []
        if meta.get("key") != key:
            problems.append(f"meta.json: key is {meta.get('key')}")
        if not problems and meta["frames"] != len(motion["poses"]):
            problems.append(f"meta.json says {meta['frames']} frames, motion.npz holds {len(motion['poses'])}")
        if not problems and version_of(meta) > 1 and meta["coverage"] != coverage_of(motion["seen"]):
            problems.append(
                f"meta.json: coverage is {meta['coverage']!r}, that of seen is {coverage_of(motion['seen'])}"
            )
        text = json.loads(members["text.json"])
        if not text["body"] or set(text["parts"]) != set(PARTS) or not text["rules"]:
            problems.append("text.json: a level of description is missing")
        if not text["checks"] or not isinstance(text["describer"]["cost_usd"], float):
            problems.append("text.json: the writers of the sentences, or their cost, are missing")
        for instance in json.loads(members["instructions.json"])["instances"]:
            kinds = (instance["inputs"]["kind"], instance["target"]["kind"])
            if not set(kinds) <= set(INPUT_KINDS) or ("image" in kinds and "clip.mp4" not in members):
                problems.append(f"instructions.json: {instance['task']} has input {kinds[0]} and target {kinds[1]}")
            for span in (instance, instance["inputs"], instance["target"]):
                if not 0 <= span["start_s"] <= span["end_s"] <= meta["frames"] / FPS + 1e-6:
                    problems.append(f"instructions.json: span {span['start_s']}-{span['end_s']} s leaves the clip")
    except Exception as error:  # whatever the parsers of zip, npy and JSON raise for bytes that somebody else wrote
        problems.append(f"does not decode: {type(error).__name__}: {error}")
    return problems


def version_of(meta: dict[str, Any]) -> int:
    """Version of a sample by its meta.json, which raises ValueError if this humo does not know it."""
    version = meta.get("version", 1)
    if version not in range(1, SAMPLE_VERSION + 1):
        raise ValueError(f"version {version!r}, this humo reads 1 to {SAMPLE_VERSION}")
    return int(version)


def _motion_problems(arrays: dict[str, np.ndarray], version: int) -> list[str]:
    expected = {name: kind for name, kind in MOTION_ARRAYS.items() if name != "seen" or version > 1}
    problems = array_problems(arrays, expected)
    if version > 1 and not problems:
        problems += mask_problems(arrays["seen"], arrays["joint_confidence"], arrays["contacts"])
    return problems


def sources_of(meta: dict[str, Any]) -> list[str]:
    """Ids of all sources that a sample is made of, from its meta.json."""
    return sorted({one["source_id"] for one in meta.get("segments", [meta])})


def contents_of(meta: dict[str, Any]) -> list[str]:
    """Hashes of all content that a sample is made of, from its meta.json."""
    return sorted({one["sha256"] for one in meta.get("segments", [meta])})


def _segment_problems(meta: dict[str, Any]) -> list[str]:
    segments = meta.get("segments")
    if not isinstance(segments, list) or not segments:
        return ["meta.json: a joined motion has segments, this one has none"]
    return [
        f"meta.json: {name} of a segment is {one.get(name)!r}, not a {kind.__name__}"
        for one in segments
        for name, kind in _SEGMENT_TYPES.items()
        if not isinstance(one.get(name), kind)
    ]


def array_problems(arrays: dict[str, np.ndarray], expected: dict[str, tuple[str, tuple[int, ...]]]) -> list[str]:
    """Missing arrays, wrong types or shapes, unequal lengths, NaNs."""
    problems, lengths = [], set()
    for name, (dtype, shape) in expected.items():
        if name not in arrays:
            problems.append(f"{name} is missing")
            continue
        array = arrays[name]
        shape_matches = array.ndim == len(shape) and all(
            expected_size in (-1, ANY, size) for expected_size, size in zip(shape, array.shape, strict=True)
        )
        if array.dtype != dtype or not shape_matches:
            problems.append(f"{name} is {array.dtype} {array.shape}, expected {dtype} {shape}")
        elif not np.isfinite(array).all():
            problems.append(f"{name} holds NaN or infinity")
        if shape[0] == -1 and array.ndim:
            lengths.add(len(array))
    if len(lengths) > 1:
        problems.append(f"arrays disagree on the number of frames: {sorted(lengths)}")
    return problems


def _landmarks(clip: Clip) -> dict[str, np.ndarray]:
    left, top, _, _ = clip.track.shot.video.borders
    landmarks = None if clip.landmarks is None else clip.landmarks + np.array([left, top, 0, 0])
    arrays = {"landmarks": landmarks, "landmarks_m": clip.landmarks_m}
    return {
        name: np.zeros((len(clip.keypoints), *KEYPOINT_ARRAYS[name][1][1:]))
        if array is None
        else np.round(array / _LANDMARK_STEPS[name]) * _LANDMARK_STEPS[name]
        for name, array in arrays.items()
    }


def _cast(array: np.ndarray, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=dtype)


def _text(record: InstructedMotion) -> dict[str, Any]:
    captions, source = record.captioned.captions, record.captioned.scored.motion.provenance.source
    return {
        "body": list(captions.body),
        "parts": {part: list(captions.parts[part]) for part in PARTS},
        "rules": [asdict(event) for event in captions.events],
        "transcript": {
            "language": record.captioned.transcript.language,
            "text": " ".join(word.text.strip() for word in record.captioned.transcript.words),
            "webvtt": webvtt(record.captioned.transcript),
            "language_from": record.captioned.transcript.language_from,
            "confidence": record.captioned.transcript.confidence,
        },
        "writers": captions.writers,
        "checks": [asdict(statement) for statement in captions.statements],
        "describer": {**asdict(captions.effort), "why": hide_parts(captions.effort.why, source.address)},
    }


def _instance(one: Instruction) -> dict[str, Any]:
    value = asdict(one)
    value["parts"] = list(one.parts)
    return value


def _meta(record: InstructedMotion, subset: str, config_digest: str, crop: tuple[int, int, int, int]) -> dict[str, Any]:
    scored = record.captioned.scored
    motion = scored.motion
    provenance = motion.provenance
    source = provenance.source
    footage = motion.footage
    video = footage.clip.track.shot.video if footage else None
    left, top, right, bottom = video.borders if video else (0, 0, 0, 0)
    joined = {"segments": [_segment(one) for one in motion.segments]} if motion.segments else {}
    return joined | {
        "key": motion.id,
        "version": SAMPLE_VERSION,
        "coverage": coverage_of(motion.seen),
        "subset": subset,
        "source_id": source.id,
        "uri": source.uri,
        "sha256": provenance.sha256,
        "title": source.title,
        "description": source.description,
        "licence": source.licence,
        "consent": source.consent,
        "person": provenance.person,
        "start_s": float(provenance.start_s),
        "end_s": float(provenance.end_s),
        "frames": len(motion.poses),
        "fps": FPS,
        "source_fps": float(provenance.source_fps),
        "width": video.width + left + right if video else 0,
        "height": video.height + top + bottom if video else 0,
        "crop": [float(side + shift) for side, shift in zip(crop, (left, top, left, top), strict=True)],
        "shot": _shot(footage.clip.track.shot if footage else None),
        "body_model": motion.body_model,
        "scores": {name: float(value) for name, value in scored.scores.items()},
        "models": {name: hide_parts(value, source.address) for name, value in motion.models.items()},
        "to_source": [float(value) for value in motion.to_source.reshape(-1)],
        "config_digest": config_digest,
    }


def _shot(shot: Shot | None) -> dict[str, Any]:
    """The shot of the source; motion capture has none."""
    return {
        "id": shot.id if shot else "",
        "start_s": float(shot.start_s) if shot else 0.0,
        "end_s": float(shot.end_s) if shot else 0.0,
    }


def _segment(one: Segment) -> dict[str, Any]:
    source, source_start_s = one.provenance.source, one.provenance.start_s + one.from_s
    return {
        "key": one.key,
        "source_id": source.id,
        "uri": source.uri,
        "sha256": one.provenance.sha256,
        "licence": source.licence,
        "consent": source.consent,
        "person": one.provenance.person,
        "start_s": float(one.start_s),
        "end_s": float(one.end_s),
        "source_start_s": float(source_start_s),
        "source_end_s": float(source_start_s + one.end_s - one.start_s),
        "text": one.text,
    }


def webvtt(transcript: Transcript) -> str:
    """The words as WebVTT, one cue per word; only the header if there are none."""

    def stamp(seconds: float) -> str:
        milliseconds = max(0, round(seconds * 1000))
        return f"{milliseconds // 60000:02d}:{milliseconds // 1000 % 60:02d}.{milliseconds % 1000:03d}"

    cues = [f"{stamp(word.start_s)} --> {stamp(word.end_s)}\n{word.text.strip()}" for word in transcript.words]
    return "\n\n".join(["WEBVTT", *cues]) + "\n"
