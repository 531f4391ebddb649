"""BVH: a tree of joints with offsets and channels, then one row of values per frame. Any tree, channel order and layout of lines.

Files are read as their tools write them: values on one line or many, a row more or fewer than announced, joints without an end
site, several roots, positions on every joint (as offsets, or as additions to them where they stay near zero).
"""

import re
from dataclasses import dataclass, field

import numpy as np

from stages.mocap.take import MocapError, Take, check_numbers, euler_to_matrix
from stages.mocap.text_files import decode_text, parse_numbers, plain_numbers

_CHANNEL = re.compile(r"([XYZ])(position|rotation)", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_HEADER = re.compile(
    r"(?:\s*Frames\s*:?\s*(?P<frames>\d+))?(?:\s*Frame\s*Time\s*:?\s*(?P<time>[-+.,\deE]+|\S*[^\s\d.+-]\S*))?[ \t]*",
    re.IGNORECASE,
)


@dataclass
class _Joint:
    name: str
    parent: int
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    channels: list[tuple[str, str]] = field(default_factory=list)
    """(kind, axis) in the order of the columns."""
    end: bool = False
    """Whether it is an end site."""


def parse_bvh(name: str, content: bytes, fps: float | None = None) -> Take:
    """A take from the content of a file; `name` is for messages, `fps` overrides the file's rate.

    Angles are degrees. Position channels replace a joint's offset. Raises MocapError.
    """
    text = decode_text(content)
    if "HIERARCHY" not in text[:4096].upper():
        raise MocapError(
            "not_mocap", f"{name}: no HIERARCHY at its start, so it is not a BVH; check the file's extension"
        )
    motion = re.search(r"^[ \t]*MOTION\b|(?<=\})\s*MOTION\b", text, re.IGNORECASE | re.MULTILINE)
    if motion is None:
        raise MocapError("truncated", f"{name}: ends before the line MOTION; copy or download the file again")
    head, tail = text[: motion.start()], text[motion.end() :]
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
            offset = np.array(joint.offset)
            moving = np.tile(offset, (len(rows), 1))
            for i in position_columns:
                moving[:, "xyz".index(joint.channels[i][1])] = values[:, i]
            moving_offsets[index] = moving
    _add_offsets(joints, moving_offsets)
    return Take(
        format="bvh",
        names=_unique([joint.name for joint in joints]),
        parents=tuple(joint.parent for joint in joints),
        offsets=np.array([joint.offset for joint in joints], np.float64),
        rotations=rotations,
        moving_offsets=moving_offsets,
        times_s=np.arange(len(rows)) * frame_s,
        ends=frozenset(index for index, joint in enumerate(joints) if joint.end),
    )


def _add_offsets(joints: list[_Joint], moving_offsets: dict[int, np.ndarray]) -> None:
    """Complete positions that are meant in addition to the offsets: bones keep their length, so positions of many inner joints
    that all stay far shorter than the offsets cannot replace them."""
    lengths = {
        index: float(np.linalg.norm(joints[index].offset)) for index in moving_offsets if joints[index].parent >= 0
    }
    inner = [index for index, length in lengths.items() if length > 0]
    if len(inner) > 2 and all(
        np.median(np.linalg.norm(moving_offsets[index], axis=-1)) < 0.3 * lengths[index] for index in inner
    ):
        for index in inner:
            moving_offsets[index] = moving_offsets[index] + np.array(joints[index].offset)


def _unique(names: list[str]) -> tuple[str, ...]:
    """The names, with a number behind those that occurred before."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(result)


def _hierarchy(name: str, text: str) -> list[_Joint]:
    joints: list[_Joint] = []
    open_joints: list[int] = []
    words = [(match.group(), match.start()) for match in _WORD.finditer(re.sub(r"([{}])", r" \1 ", text))]
    place = 0
    pending = -1

    def take(count: int) -> list[str]:
        nonlocal place
        taken = [word for word, _ in words[place : place + count]]
        place += count
        return taken

    while place < len(words):
        start = place
        word = take(1)[0].upper()
        try:
            if word in ("ROOT", "JOINT", "END"):
                label = []
                while place < len(words) and words[place][0] != "{":
                    label += take(1)
                parent = open_joints[-1] if open_joints else -1
                if word == "END":
                    joints.append(_Joint(f"{joints[parent].name} end", parent, end=True))
                else:
                    joints.append(_Joint(" ".join(label), parent))
                pending = len(joints) - 1
            elif word == "{":
                open_joints.append(pending)
            elif word == "}":
                open_joints.pop()
            elif word == "OFFSET":
                values = take(3)
                if len(values) != 3:
                    raise ValueError("an offset has three values")
                x, y, z = (float(value.replace(",", ".")) for value in values)
                joints[open_joints[-1]].offset = (x, y, z)
            elif word == "CHANNELS":
                count = int(words[place][0])
                joints[open_joints[-1]].channels = _channels(take(1 + max(0, min(count, len(words)))))
        except (ValueError, IndexError) as error:
            detail = str(error) if isinstance(error, ValueError) else "braces do not match"
            shown = " ".join(one for one, _ in words[start : start + 6])
            raise MocapError(
                "broken_file", f"{name}: HIERARCHY, word {start + 1}, {shown[:60]!r}: {detail}; export the file again"
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
    match = _HEADER.match(text)
    given = match.groupdict() if match else {}
    if not given.get("frames"):
        raise MocapError("truncated", f"{name}: `Frames:` is missing after MOTION; copy or download the file again")
    frames, time = int(given["frames"]), given.get("time") or ""
    if frames == 0:
        raise MocapError("no_frames", f"{name}: contains `Frames: 0`; export the take again or leave the file out")
    frame_s = 1 / fps if fps else _number(time.replace(",", "."))
    if not 0 < frame_s < 10:
        stated = f"frame time is {time} s" if time else "`Frame Time:` is missing"
        raise MocapError("no_frame_rate", f"{name}: {stated}; set a frame rate in read_mocap.fps")
    if not channels:
        raise MocapError("broken_file", f"{name}: no joint of its HIERARCHY has channels; export the file again")
    body = text[match.end() :] if match else text
    try:
        values = parse_numbers(body)
    except ValueError as error:
        raise MocapError("broken_file", f"{name}: invalid frame data, {error}; export the file again") from None
    rows, rest = divmod(len(values), channels)
    first = plain_numbers(body.lstrip().split("\n", 1)[0]).split()
    if not rest and (abs(rows - frames) <= 1 or (rows > frames and len(first) == channels)) and rows:
        # Some exporters do not count the rest pose that they write, or count a frame too many.
        return values.reshape(rows, channels), frame_s
    if len(first) != channels and len(first) != len(values):
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
