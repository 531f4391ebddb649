"""BVH: a tree of joints with offsets and channels, then one row of values per frame. Any tree and channel order."""

import re
from dataclasses import dataclass, field

import numpy as np

from stages.mocap.take import MocapError, Take, check_numbers, euler_to_matrix

_CHANNEL = re.compile(r"([XYZ])(position|rotation)", re.IGNORECASE)


@dataclass
class _Joint:
    name: str
    parent: int
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    channels: list[tuple[str, str]] = field(default_factory=list)
    """(kind, axis) in the order of the columns."""


def parse_bvh(name: str, content: bytes, fps: float | None = None) -> Take:
    """A take from the content of a file; `name` is for messages, `fps` overrides the file's rate.

    Angles are degrees. Position channels replace a joint's offset. Raises MocapError.
    """
    head, separator, tail = content.decode("utf-8", "replace").partition("MOTION")
    if "HIERARCHY" not in head[:4096]:
        raise MocapError(
            "not_mocap", f"{name}: no HIERARCHY at its start, so it is not a BVH; check the file's extension"
        )
    if not separator:
        raise MocapError("truncated", f"{name}: ends before the line MOTION; copy or download the file again")
    joints = _hierarchy(name, head)
    rows, frame_s = _motion(name, tail, sum(len(joint.channels) for joint in joints), fps)
    check_numbers(name, rows)
    rotations = np.broadcast_to(np.eye(3), (len(rows), len(joints), 3, 3)).copy()
    moving_offsets = {}
    column = 0
    for index, joint in enumerate(joints):
        values = rows[:, column : column + len(joint.channels)]
        column += len(joint.channels)
        rotation_columns = [i for i, (kind, _) in enumerate(joint.channels) if kind == "rotation"]
        if rotation_columns:
            axes = "".join(joint.channels[i][1] for i in rotation_columns)
            rotations[:, index] = euler_to_matrix(np.radians(values[:, rotation_columns]), axes)
        position_columns = [i for i, (kind, _) in enumerate(joint.channels) if kind == "position"]
        if position_columns:
            moving_offsets[index] = np.tile(np.array(joint.offset), (len(rows), 1))
            for i in position_columns:
                moving_offsets[index][:, "xyz".index(joint.channels[i][1])] = values[:, i]
    return Take(
        format="bvh",
        names=tuple(joint.name for joint in joints),
        parents=tuple(joint.parent for joint in joints),
        offsets=np.array([joint.offset for joint in joints], np.float64),
        rotations=rotations,
        moving_offsets=moving_offsets,
        times_s=np.arange(len(rows)) * frame_s,
    )


def _hierarchy(name: str, text: str) -> list[_Joint]:
    joints: list[_Joint] = []
    open_joints: list[int | None] = []
    """Joints with an open brace; None for an end site."""
    pending: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        word = words[0].upper()
        try:
            if word in ("ROOT", "JOINT"):
                parent = next((index for index in reversed(open_joints) if index is not None), -1)
                joints.append(_Joint(" ".join(words[1:]), parent))
                pending = len(joints) - 1
            elif word == "END":
                pending = None
            elif word == "{":
                open_joints.append(pending)
            elif word == "}":
                open_joints.pop()
            elif word == "OFFSET" and open_joints[-1] is not None:
                joints[open_joints[-1]].offset = tuple(float(value) for value in words[1:4])
                if len(words) != 4:
                    raise ValueError("an offset has three values")
            elif word == "CHANNELS" and open_joints[-1] is not None:
                joints[open_joints[-1]].channels = _channels(words[1:])
        except (ValueError, IndexError) as error:
            detail = str(error) or "braces do not match"
            raise MocapError(
                "broken_file", f"{name}: line {number}, {line.strip()[:60]!r}: {detail}; export the file again"
            ) from None
    if open_joints or not joints:
        raise MocapError("truncated", f"{name}: the HIERARCHY is not closed or empty; copy or download the file again")
    return joints


def _channels(words: list[str]) -> list[tuple[str, str]]:
    count, channels = int(words[0]), []
    for word in words[1:]:
        match = _CHANNEL.fullmatch(word)
        if match is None:
            raise ValueError(f"channel {word!r} is none of Xposition ... Zrotation")
        channels.append((match[2].lower(), match[1].lower()))
    if len(channels) != count:
        raise ValueError(f"{count} channels declared, {len(channels)} named")
    return channels


def _motion(name: str, text: str, channels: int, fps: float | None) -> tuple[np.ndarray, float]:
    """Values (T, channels) and the duration of a frame in seconds."""
    match = re.match(r"\s*Frames:\s*(\d+)\s*Frame\s+Time:\s*(\S+)[^\n]*\n?", text, re.IGNORECASE)
    if match is None:
        raise MocapError(
            "truncated", f"{name}: `Frames:` or `Frame Time:` is missing after MOTION; copy or download the file again"
        )
    frames, frame_s = int(match[1]), 1 / fps if fps else _number(match[2])
    if frames == 0:
        raise MocapError("no_frames", f"{name}: contains `Frames: 0`; export the take again or leave the file out")
    if not 0 < frame_s < 10:
        raise MocapError("no_frame_rate", f"{name}: frame time is {match[2]} s; set a frame rate in read_mocap.fps")
    body = text[match.end() :]
    try:
        values = np.array(body.split(), np.float64)
    except ValueError as error:
        raise MocapError("broken_file", f"{name}: invalid frame data, {error}; export the file again") from None
    if len(values) == frames * channels:
        return values.reshape(frames, channels), frame_s
    first = body.lstrip().split("\n", 1)[0].split()
    if len(first) != channels:
        raise MocapError(
            "wrong_channel_count",
            f"{name}: a frame has {len(first)} values, the HIERARCHY {channels} channels; export the file again",
        )
    raise MocapError(
        "truncated",
        f"{name}: {len(values) / channels:.1f} frames of {channels} values, {frames} declared;"
        " copy or download the file again",
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
