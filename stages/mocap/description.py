"""What was found in a take: its joint map, unit, axes, rest pose and rate, as text, as JSON, and as a map to edit."""

from dataclasses import asdict, dataclass

import torch
import yaml

from schemas.body_model import BodyModel
from schemas.skeleton import SMPL_JOINTS
from stages.mocap import read_take
from stages.mocap.matching import match
from stages.mocap.retarget import retarget
from stages.mocap.skeletons import JointMap

_HEADER = """\
# Joint map of {file}, found by `humo skeleton`. Set the path of this file as stages.read_mocap.joint_map, or in a manifest's column
# joint_map. joints: SMPL joint: joint of the file, or [joint, joint, fraction]; a joint that is left out follows its parent.
"""


@dataclass(frozen=True, kw_only=True)
class Description:
    """A take as it was understood."""

    file: str
    format: str
    joint_map: str
    """Name of a known map, or `recognised`."""
    joints: dict[str, str | list[str | float]]
    """SMPL joint -> joint of the file, or two and the fraction between them."""
    by: dict[str, str]
    """SMPL joint -> `name`, `shape` or `map`."""
    missing: list[str]
    """SMPL joints that follow their parents."""
    up: str
    """Axis of the file's world that points up."""
    rest_pose: str
    feet: str
    facing: list[float]
    """Direction in which the body faces at the start, in the file's world."""
    metres_per_unit: float
    fps: float
    frames: int
    seconds: float
    gender: str
    betas: list[float]


def describe(uri: str, choice: str = "auto", *, fps: float | None = None) -> tuple[Description, JointMap]:
    """A take's description and its map. Raises MocapError, UsageError, OSError."""
    take = read_take(uri, fps=fps)
    found = match(take, choice, file=uri)
    known = found.joint_map
    motion = retarget(take, known, BodyModel.load())
    to_source = motion.to_source.astype(float)
    facing = torch.nn.functional.normalize(torch.from_numpy(to_source[:3, 2]), dim=0)
    names = {**known.joints, **known.position_joints}
    description = Description(
        file=uri,
        format=take.format,
        joint_map=known.name,
        joints={name: source if isinstance(source, str) else list(source) for name, source in names.items()},
        by=dict(found.by),
        missing=[name for name in SMPL_JOINTS[:22] if name not in names],
        up=known.up,
        rest_pose=found.rest,
        feet=known.feet,
        facing=[round(float(value), 3) + 0.0 for value in facing],
        metres_per_unit=round(motion.metres_per_unit, 6),
        fps=round(take.fps, 4),
        frames=len(take.times_s),
        seconds=round(len(take.times_s) / take.fps if take.fps else 0.0, 3),
        gender=take.gender,
        betas=list(take.betas),
    )
    return description, known


def as_text(found: Description) -> str:
    """The description for people."""
    lines = [
        f"{found.file}: {found.format}, {found.frames} frames at {found.fps:g} frames/s, {found.seconds:g} s",
        f"map {found.joint_map}; up {found.up}; faces ({', '.join(f'{value:g}' for value in found.facing)}); "
        f"{found.metres_per_unit:g} m per unit; feet {found.feet}",
        f"rest pose: {found.rest_pose}",
    ]
    if found.gender or found.betas:
        lines.append(f"body of the file: {found.gender or 'gender unknown'}, {len(found.betas)} betas")
    width = max(len(name) for name in SMPL_JOINTS)
    for name in SMPL_JOINTS:
        if name in found.joints:
            source = found.joints[name]
            shown = source if isinstance(source, str) else f"{source[0]} to {source[1]}, {source[2]:.2f} of the way"
            lines.append(f"  {name:{width}}  {shown}  (by {found.by.get(name, 'map')})")
    if found.missing:
        lines.append(f"not in the file: {', '.join(found.missing)}; they follow their parents")
    return "\n".join(lines)


def as_dict(found: Description) -> dict[str, object]:
    """The description for programs."""
    return asdict(found)


def as_yaml(file: str, joint_map: JointMap) -> str:
    """A map that `load_map` reads."""
    content = {
        "joints": {
            name: source if isinstance(source, str) else list(source) for name, source in joint_map.joints.items()
        },
        "position_joints": dict(joint_map.position_joints),
        "reference": joint_map.reference,
        "feet": joint_map.feet,
        "pitch_deg": dict(joint_map.pitch_deg),
        "up": joint_map.up,
        "axes": {name: [list(axis) for axis in axes] for name, axes in joint_map.axes.items()},
    }
    return _HEADER.format(file=file.rsplit("/", 1)[-1]) + yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True, width=120
    )
