"""ASF/AMC (Acclaim): the skeleton in one file, the takes of its subject in others.

A bone of the ASF has a direction and a length in the zero pose and axes C of its angles: its rotation relative to its
parent is C M C^-1, with M = Rz Ry Rx for the order `rx ry rz`. Here a joint is the start of its bone, so its offset is
the full vector of its parent's bone.
"""

import re
from dataclasses import dataclass, field

import numpy as np

from stages.mocap.take import MocapError, Take, check_numbers, euler_to_matrix
from stages.mocap.text_files import decode_text

AMC_FPS = 120.0
"""AMC files do not contain their frame rate; this is the rate of the CMU recordings."""
_INCH_M = 0.0254


@dataclass
class _Bone:
    name: str
    parent: int = -1
    vector: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """From its start to its end in the zero pose, in global axes."""
    axes: np.ndarray = field(default_factory=lambda: np.eye(3))
    channels: tuple[str, ...] = ()
    """`rx` ... `tz`, in the order of the values."""


@dataclass
class Skeleton:
    """An ASF: its bones, the root first, each after its parent."""

    bones: list[_Bone]
    degrees: bool
    metres_per_unit: float


def parse_asf(name: str, content: bytes) -> Skeleton:
    """A skeleton from the content of a file; `name` is for messages. Raises MocapError."""
    sections = _sections(decode_text(content))
    missing = [key for key in ("root", "bonedata", "hierarchy") if key not in sections]
    if missing:
        reason = "truncated" if "bonedata" in sections else "not_mocap"
        raise MocapError(
            reason,
            f"{name}: section :{missing[0]} is missing, the ASF is incomplete; copy or download the file again",
        )
    try:
        return _skeleton(sections)
    except (ValueError, IndexError, KeyError) as error:
        raise MocapError(
            "broken_file", f"{name}: cannot be read as ASF ({type(error).__name__}: {error}); export it again"
        ) from None


def _sections(text: str) -> dict[str, list[list[str]]]:
    sections: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if words[0].startswith(":"):
            lines = sections[words[0][1:].lower()] = [words[1:]] if words[1:] else []
        else:
            lines.append(words)
    return sections


def _skeleton(sections: dict[str, list[list[str]]]) -> Skeleton:
    units = {words[0].lower(): words[1] for words in sections.get("units", []) if len(words) > 1}
    degrees = units.get("angle", "deg").lower().startswith("deg")
    root_lines = {words[0].lower(): words[1:] for words in sections["root"]}
    root = _Bone("root", channels=tuple(word.lower() for word in root_lines["order"]))
    root.axes = _axes(root_lines.get("orientation", ["0", "0", "0"]), root_lines.get("axis", ["XYZ"])[0], degrees)
    unordered: dict[str, _Bone] = {"root": root}
    current: dict[str, list[str]] = {}
    for words in sections["bonedata"]:
        key = words[0].lower()
        if key == "begin":
            current = {}
        elif key == "end":
            bone = _Bone(current["name"][0], channels=tuple(word.lower() for word in current.get("dof", [])))
            length = float(current["length"][0])
            x, y, z = (float(value) * length for value in current["direction"][:3])
            bone.vector = (x, y, z)
            *angles, order = current.get("axis", ["0", "0", "0", "XYZ"])
            bone.axes = _axes(angles, order, degrees)
            unordered[bone.name] = bone
        else:
            current[key] = words[1:]
    bones = [root]
    index = {"root": 0}
    for words in sections["hierarchy"]:
        if words[0].lower() in ("begin", "end"):
            continue
        for child in words[1:]:
            unordered[child].parent = index[words[0]]
            index[child] = len(bones)
            bones.append(unordered[child])
    return Skeleton(bones, degrees, _INCH_M / float(units.get("length", "1")))


def _axes(angles: list[str], order: str, degrees: bool) -> np.ndarray:
    values = np.array([float(value) for value in angles])
    return euler_to_matrix(np.radians(values) if degrees else values, order, fixed=True)


def parse_amc(name: str, content: bytes, skeleton: Skeleton, fps: float | None = None) -> Take:
    """A take of a skeleton's subject from the content of a file; `name` is for messages, `fps` replaces `AMC_FPS`.

    Raises MocapError.
    """
    frames = _frames(name, content)
    known = {bone.name: index for index, bone in enumerate(skeleton.bones)}
    first = frames[0]
    unknown = [line[0] for line in first if line[0] not in known]
    if unknown:
        raise MocapError(
            "unknown_skeleton",
            f"{name}: bone {unknown[0]!r} is not in its ASF (which has {', '.join(known)}); put this subject's .asf in its folder",
        )
    for line in first:
        channels = skeleton.bones[known[line[0]]].channels
        if len(line) - 1 != len(channels):
            raise MocapError(
                "wrong_channel_count",
                f"{name}: {line[0]} has {len(line) - 1} values, its ASF has {len(channels)} channels ({' '.join(channels)});"
                " put this subject's .asf in its folder",
            )
    rows = _numbers(name, frames)
    check_numbers(name, rows)
    bones = skeleton.bones
    rotations = np.broadcast_to(np.eye(3), (len(rows), len(bones), 3, 3)).copy()
    moving_offsets = {}
    column = 0
    for line in first:
        index = known[line[0]]
        bone = bones[index]
        values = rows[:, column : column + len(bone.channels)]
        column += len(bone.channels)
        rotation_columns = [i for i, channel in enumerate(bone.channels) if channel[0] == "r"]
        angles = values[:, rotation_columns]
        order = "".join(bone.channels[i][1] for i in rotation_columns)
        rotation = euler_to_matrix(np.radians(angles) if skeleton.degrees else angles, order, fixed=True)
        rotations[:, index] = bone.axes @ rotation @ bone.axes.T
        if index == 0:
            moving_offsets[0] = np.zeros((len(rows), 3))
            for i, channel in enumerate(bone.channels):
                if channel[0] == "t":
                    moving_offsets[0][:, "xyz".index(channel[1])] = values[:, i]
        elif len(rotation_columns) < len(bone.channels):
            raise MocapError(
                "broken_file", f"{name}: {bone.name} changes its length; only bones of fixed length can be read"
            )
    return Take(
        format="amc",
        names=tuple(bone.name for bone in bones),
        parents=tuple(bone.parent for bone in bones),
        offsets=np.array([bones[bone.parent].vector if bone.parent >= 0 else (0, 0, 0) for bone in bones], np.float64),
        rotations=rotations,
        moving_offsets=moving_offsets,
        times_s=np.arange(len(rows)) / (fps or AMC_FPS),
        metres_per_unit=skeleton.metres_per_unit,
    )


def _frames(name: str, content: bytes) -> list[list[list[str]]]:
    """The lines of each frame, split into words, without the frame number."""
    text = decode_text(content)
    parts = re.split(r"^[ \t]*\d+[ \t]*\r?$", text, flags=re.MULTILINE)
    if not re.search(r"^:", parts[0], re.MULTILINE) and not parts[0].lstrip().startswith("#"):
        raise MocapError("not_mocap", f"{name}: does not begin like an AMC file; check the file's extension")
    if len(parts) < 2:
        raise MocapError("no_frames", f"{name}: contains no frames; export the take again or leave the file out")
    return [[line.split() for line in part.split("\n") if line.strip()] for part in parts[1:]]


def _numbers(name: str, frames: list[list[list[str]]]) -> np.ndarray:
    """Values (T, channels); every frame must have the bones and value counts of the first."""
    shape = [(line[0], len(line)) for line in frames[0]]
    for number, frame in enumerate(frames, start=1):
        if [(line[0], len(line)) for line in frame] != shape:
            last = number == len(frames)
            reason = "truncated" if last else "wrong_channel_count"
            raise MocapError(
                reason,
                f"{name}: frame {number} of {len(frames)} differs from the first in its bones or value counts;"
                f" {'copy or download the file again' if last else 'export the file again'}",
            )
    try:
        return np.array([[word for line in frame for word in line[1:]] for frame in frames], np.float64)
    except ValueError as error:
        raise MocapError("broken_file", f"{name}: invalid frame data, {error}; export the file again") from None
