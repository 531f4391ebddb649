"""C3D: trajectories of labelled points over time, read with `ezc3d`.

The points either are joint centres, whose labels are read like names of joints (`LeftHip`, `L_Knee`, `LHJC`), or skin markers
of the Plug-in Gait set, from which joint centres are estimated. Required, for both sides: of markers ASI, PSI (or SACR), KNE,
ANK, SHO, ELB and WRA with WRB (or WRI), of joints hip, knee, ankle, shoulder, elbow and wrist.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stages.mocap.body_frames import unit
from stages.mocap.joint_positions import REQUIRED, take_of_positions
from stages.mocap.names import read_names
from stages.mocap.take import MocapError, Take

_UNITS_M = {"mm": 0.001, "cm": 0.01, "m": 1.0, "in": 0.0254, "inch": 0.0254}
_LONGEST_GAP_S = 0.25
"""A point that is hidden for longer cannot be interpolated."""
_CENTRES = {"hjc": "hip", "kjc": "knee", "ajc": "ankle", "sjc": "shoulder", "ejc": "elbow", "wjc": "wrist",
            "fep": "hip", "feo": "knee", "tio": "ankle", "hup": "shoulder", "huo": "elbow", "rao": "wrist"}  # fmt: skip
"""Labels of computed joint centres and bone ends, after the side's letter -> joint."""
_MARKERS = ("asi", "psi", "kne", "ank", "sho", "elb")
_ALIASES = {"asis": "asi", "psis": "psi", "knee": "kne", "ankle": "ank", "shoulder": "sho", "elbow": "elb", "wri": "wri",
            "wrist": "wri", "wra": "wra", "wrb": "wrb", "toe": "toe", "fin": "fin", "hee": "hee"}  # fmt: skip
_HIP = np.array([0.36, -0.30, -0.19])
"""Hip centre from the middle of the ASIS to the side, up and ahead, as fractions of their distance (Bell et al. 1990)."""
_HALF_KNEE, _HALF_ANKLE, _HALF_ELBOW, _BELOW_SHOULDER = 0.21, 0.15, 0.15, 0.2
"""From a skin marker to the joint's centre, as fractions of the distance of the ASIS."""
_MAX_POINTS, _HEADER_BYTES = 2000, 512


def parse_c3d(name: str, content: bytes, fps: float | None = None) -> Take:
    """A take from the content of a file; `name` is for messages, `fps` overrides the file's rate. Raises MocapError."""
    labels, points, rate, unit_m = _read(name, content)
    rate = fps or rate
    if not 0 < rate < 1e5:
        raise MocapError("no_frame_rate", f"{name}: POINT:RATE is {rate}; set a frame rate in read_mocap.fps")
    if not len(points):
        raise MocapError("no_frames", f"{name}: contains no frames; export the take again or leave the file out")
    found = joint_centres(labels)
    markers = {} if all(joint in found for joint in REQUIRED) else marker_columns(labels)
    if markers:
        at = {mark: _filled(name, labels[column], points[:, column], rate) for mark, column in markers.items()}
        return take_of_positions(name, "c3d", centres_of_markers(at), rate, metres_per_unit=unit_m)
    missing = [joint for joint in REQUIRED if joint not in found]
    if missing:
        raise MocapError(
            "unknown_skeleton",
            f"{name}: no point for {', '.join(missing[:6])}; its labels are {', '.join(labels[:60])}. Required on both sides are"
            " hip, knee, ankle, shoulder, elbow and wrist, or the markers ASI, PSI or SACR, KNE, ANK, SHO, ELB, WRA, WRB",
        )
    at = {joint: _filled(name, labels[column], points[:, column], rate) for joint, column in found.items()}
    return take_of_positions(name, "c3d", at, rate, metres_per_unit=unit_m)


def _read(name: str, content: bytes) -> tuple[list[str], Float[np.ndarray, "T P 3"], float, float | None]:
    """Labels, positions (hidden ones NaN), rate and unit."""
    import ezc3d

    if len(content) < _HEADER_BYTES or content[1] != 0x50:
        raise MocapError("not_mocap", f"{name}: does not begin like a C3D file; check the file's extension")
    count = int.from_bytes(content[2:4], "little")
    if content[_HEADER_BYTES * max(content[0] - 1, 0) + 3 :][:1] == b"T" and count > _MAX_POINTS:
        raise MocapError("broken_file", f"{name}: {count} points are announced; export it again")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "take.c3d"
        path.write_bytes(content)
        try:
            data: Any = ezc3d.c3d(str(path))
            parameters = data["parameters"]["POINT"]
            points = np.asarray(data["data"]["points"], np.float64)[:3].transpose(2, 1, 0)
            labels = [
                str(label).strip()
                for key in sorted(parameters)
                if key.startswith("LABELS")
                for label in parameters[key]["value"]
            ]
            rate = float(parameters["RATE"]["value"][0])
            units = str((parameters.get("UNITS", {}).get("value") or [""])[0]).strip().lower()
            residuals = np.asarray(data["data"]["meta_points"]["residuals"], np.float64)[0].T
        except Exception as error:
            # The library raises whatever its parser meets, from ValueError to RuntimeError.
            detail = str(error).partition("\n")[0][:200]
            raise MocapError("broken_file", f"{name}: no readable C3D ({detail}); copy or export it again") from None
    count = min(len(labels), points.shape[1])
    points = points[:, :count]
    hidden = (residuals[:, :count] < 0) | (points == 0).all(-1)
    points[hidden] = np.nan
    return labels[:count], points, rate, _UNITS_M.get(units)


def joint_centres(labels: list[str]) -> dict[str, int]:
    """SMPL joint -> column of the point that is its centre, by the labels."""
    found: dict[str, int] = {}
    for column, label in enumerate(labels):
        short = label.rsplit(":", 1)[-1].lower()
        if len(short) == 4 and short[0] in "lr" and short[1:] in _CENTRES:
            found.setdefault(f"{'left' if short[0] == 'l' else 'right'}_{_CENTRES[short[1:]]}", column)
    if all(joint in found for joint in REQUIRED):
        return found
    for column, reading in enumerate(read_names(labels)):
        for part, weight in reading.limb.items():
            # Points are joints, so a shoulder is no clavicle and a leg no bone.
            part = "shoulder" if reading.word == "shoulder" else part
            if weight >= 0.8 and reading.side:
                found.setdefault(f"{reading.side}_{part}", column)
        if reading.neck or reading.head:
            found.setdefault("neck" if reading.neck else "head", column)
    return found


def marker_columns(labels: list[str]) -> dict[str, int]:
    """Marker (`left_asi` ..., `sacr`, `c7`, `clav`) -> column; empty where the set does not suffice."""
    found: dict[str, int] = {}
    for column, label in enumerate(labels):
        short = label.rsplit(":", 1)[-1].lower().replace("_", "")
        part = _ALIASES.get(short[1:], short[1:])
        if short in ("sacr", "c7", "clav", "t10", "strn"):
            found.setdefault(short, column)
        elif short[:1] in ("l", "r"):
            found.setdefault(f"{'left' if short[0] == 'l' else 'right'}_{part}", column)
    sides = ("left", "right")
    pelvis = "sacr" in found or all(f"{side}_psi" in found for side in sides)
    limbs = all(f"{side}_{part}" in found for side in sides for part in _MARKERS if part != "psi")
    wrists = all({f"{side}_wra", f"{side}_wrb"} <= found.keys() or f"{side}_wri" in found for side in sides)
    return found if pelvis and limbs and wrists else {}


def centres_of_markers(at: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Positions by SMPL joint, estimated from skin markers."""
    front = (at["left_asi"] + at["right_asi"]) / 2
    back = at["sacr"] if "sacr" in at else (at["left_psi"] + at["right_psi"]) / 2
    across = at["left_asi"] - at["right_asi"]
    width = np.linalg.norm(across, axis=-1).mean()
    left = unit(across)
    up = unit(np.cross(front - back, left))
    ahead = np.cross(left, up)
    centres: dict[str, np.ndarray] = {}
    shoulders = (at["left_sho"] + at["right_sho"]) / 2
    trunk = unit(shoulders - front)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        centres[f"{side}_hip"] = front + width * (sign * _HIP[0] * left + _HIP[1] * up + _HIP[2] * ahead)
        hip = centres[f"{side}_hip"]
        centres[f"{side}_knee"] = _inwards(at, f"{side}_kne", -sign * left, at[f"{side}_kne"] - hip, _HALF_KNEE * width)
        centres[f"{side}_ankle"] = _inwards(
            at, f"{side}_ank", -sign * left, at[f"{side}_ank"] - at[f"{side}_kne"], _HALF_ANKLE * width
        )
        if f"{side}_toe" in at:
            centres[f"{side}_foot"] = at[f"{side}_toe"]
        centres[f"{side}_shoulder"] = at[f"{side}_sho"] - _BELOW_SHOULDER * width * trunk
        wrist = at[f"{side}_wri"] if f"{side}_wri" in at else (at[f"{side}_wra"] + at[f"{side}_wrb"]) / 2
        centres[f"{side}_wrist"] = wrist
        # The elbow's marker is on the outside, away from the side of the wrist's bend.
        outer = unit(at[f"{side}_elb"] - (centres[f"{side}_shoulder"] + wrist) / 2)
        centres[f"{side}_elbow"] = at[f"{side}_elb"] - _HALF_ELBOW * width * outer
    if "c7" in at and "clav" in at:
        centres["neck"] = (at["c7"] + at["clav"]) / 2
    heads = [at[mark] for mark in ("left_fhd", "right_fhd", "left_bhd", "right_bhd") if mark in at]
    if len(heads) == 4:
        centres["head"] = np.mean(heads, 0)
    return centres


def _inwards(
    at: Mapping[str, np.ndarray], marker: str, inwards: np.ndarray, bone: np.ndarray, half: float
) -> np.ndarray:
    """The middle between the marker and the one inside of the joint, or half a joint's width from the marker."""
    side, _, part = marker.partition("_")
    inner = next((at[one] for one in (f"{side}_m{part}", f"{side}_{part}m", f"{side}_{part[:2]}m") if one in at), None)
    if inner is not None:
        return (at[marker] + inner) / 2
    along = unit(bone)
    return at[marker] + half * unit(inwards - (inwards * along).sum(-1, keepdims=True) * along)


def _filled(name: str, label: str, values: Float[np.ndarray, "T 3"], rate: float) -> Float[np.ndarray, "T 3"]:
    """A trajectory with short gaps interpolated. Raises MocapError for a long one."""
    seen = np.isfinite(values).all(-1)
    if seen.all():
        return values
    frames = np.flatnonzero(seen)
    gap = len(values) if not len(frames) else int(np.diff(np.concatenate([[-1], frames, [len(values)]])).max()) - 1
    if gap > _LONGEST_GAP_S * rate:
        raise MocapError(
            "hidden_marker",
            f"{name}: {label} is hidden for {gap / rate:.2f} s, the most is {_LONGEST_GAP_S} s; fill its gaps before the export",
        )
    times = np.arange(len(values))
    return np.stack([np.interp(times, frames, values[frames, axis]) for axis in range(3)], -1)
