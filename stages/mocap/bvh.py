"""BVH: a tree of joints with offsets and channels, then a row of numbers a frame. Any tree, any order of channels."""

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
    """A take from the bytes of a file; `name` is for messages, `fps` overrides the file's rate.

    Angles are degrees. Position channels stand in the place of a joint's offset. Raises MocapError.
    """
    head, sign, tail = content.decode("utf-8", "replace").partition("MOTION")
    if "HIERARCHY" not in head[:4096]:
        raise MocapError("not_mocap", f"{name}: no HIERARCHY at its start, so it is no BVH; check the file's ending")
    if not sign:
        raise MocapError("truncated", f"{name}: ends before the line MOTION; copy or download the file again")
    joints = _hierarchy(name, head)
    rows, frame_s = _motion(name, tail, sum(len(joint.channels) for joint in joints), fps)
    check_numbers(name, rows)
    rotations = np.broadcast_to(np.eye(3), (len(rows), len(joints), 3, 3)).copy()
    moving = {}
    column = 0
    for index, joint in enumerate(joints):
        values = rows[:, column : column + len(joint.channels)]
        column += len(joint.channels)
        turning = [at for at, (kind, _) in enumerate(joint.channels) if kind == "rotation"]
        if turning:
            axes = "".join(joint.channels[at][1] for at in turning)
            rotations[:, index] = euler_to_matrix(np.radians(values[:, turning]), axes)
        shifting = [at for at, (kind, _) in enumerate(joint.channels) if kind == "position"]
        if shifting:
            moving[index] = np.tile(np.array(joint.offset), (len(rows), 1))
            for at in shifting:
                moving[index][:, "xyz".index(joint.channels[at][1])] = values[:, at]
    return Take(
        format="bvh",
        names=tuple(joint.name for joint in joints),
        parents=tuple(joint.parent for joint in joints),
        offsets=np.array([joint.offset for joint in joints], np.float64),
        rotations=rotations,
        moving=moving,
        times_s=np.arange(len(rows)) * frame_s,
    )


def _hierarchy(name: str, text: str) -> list[_Joint]:
    joints: list[_Joint] = []
    open_joints: list[int | None] = []
    """Joints whose braces are open; None for an end site."""
    coming: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        word = words[0].upper()
        try:
            if word in ("ROOT", "JOINT"):
                above = next((place for place in reversed(open_joints) if place is not None), -1)
                joints.append(_Joint(" ".join(words[1:]), above))
                coming = len(joints) - 1
            elif word == "END":
                coming = None
            elif word == "{":
                open_joints.append(coming)
            elif word == "}":
                open_joints.pop()
            elif word == "OFFSET" and open_joints[-1] is not None:
                joints[open_joints[-1]].offset = tuple(float(value) for value in words[1:4])
                if len(words) != 4:
                    raise ValueError("three numbers are needed")
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
    count, found = int(words[0]), []
    for word in words[1:]:
        match = _CHANNEL.fullmatch(word)
        if match is None:
            raise ValueError(f"channel {word!r} is none of Xposition ... Zrotation")
        found.append((match[2].lower(), match[1].lower()))
    if len(found) != count:
        raise ValueError(f"{count} channels announced, {len(found)} named")
    return found


def _motion(name: str, text: str, channels: int, fps: float | None) -> tuple[np.ndarray, float]:
    """Numbers (T, channels) and the time of a frame in seconds."""
    match = re.match(r"\s*Frames:\s*(\d+)\s*Frame\s+Time:\s*(\S+)[^\n]*\n?", text, re.IGNORECASE)
    if match is None:
        raise MocapError(
            "truncated", f"{name}: MOTION lacks `Frames:` or `Frame Time:`; copy or download the file again"
        )
    frames, frame_s = int(match[1]), 1 / fps if fps else _number(match[2])
    if frames == 0:
        raise MocapError("no_frames", f"{name}: says `Frames: 0`; export the take again or leave the file out")
    if not 0 < frame_s < 10:
        raise MocapError("no_frame_rate", f"{name}: frame time is {match[2]} s; give a frame rate in read_mocap.fps")
    body = text[match.end() :]
    try:
        values = np.array(body.split(), np.float64)
    except ValueError as error:
        raise MocapError("broken_file", f"{name}: in the frames, {error}; export the file again") from None
    if len(values) == frames * channels:
        return values.reshape(frames, channels), frame_s
    first = body.lstrip().split("\n", 1)[0].split()
    if len(first) != channels:
        raise MocapError(
            "wrong_channel_count",
            f"{name}: a frame has {len(first)} numbers, the HIERARCHY names {channels} channels; export the file again",
        )
    raise MocapError(
        "truncated",
        f"{name}: {len(values) / channels:.1f} frames of {channels} numbers, {frames} announced;"
        " copy or download the file again",
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
