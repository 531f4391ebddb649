"""DeepMimic's JSON clips: one humanoid of fixed proportions, X forwards, Y up, Z to its right, arms hanging at rest."""

import json

import numpy as np

from stages.mocap.take import MocapError, Take, axis_rotation, check_numbers

_JOINTS = (
    # name, parent, offset from the parent in metres, values per frame; the format's character (Peng et al. 2018)
    ("root", -1, (0, 0, 0), 4),
    ("chest", 0, (0, 0.236151, 0), 4),
    ("neck", 1, (0, 0.223894, 0), 4),
    ("right_hip", 0, (0, 0, 0.084887), 4),
    ("right_knee", 3, (0, -0.421546, 0), 1),
    ("right_ankle", 4, (0, -0.40987, 0), 4),
    ("right_shoulder", 1, (-0.02405, 0.2435, 0.18311), 4),
    ("right_elbow", 6, (0, -0.274788, 0), 1),
    ("left_hip", 0, (0, 0, -0.084887), 4),
    ("left_knee", 8, (0, -0.421546, 0), 1),
    ("left_ankle", 9, (0, -0.40987, 0), 4),
    ("left_shoulder", 1, (-0.02405, 0.2435, -0.18311), 4),
    ("left_elbow", 11, (0, -0.274788, 0), 1),
    ("right_wrist", 7, (0, -0.258947, 0), 0),
    ("left_wrist", 12, (0, -0.258947, 0), 0),
)
_COLUMNS = 1 + 3 + sum(count for *_, count in _JOINTS)


def parse_deepmimic(name: str, content: bytes, fps: float | None = None) -> Take:
    """A take from the content of a file; `name` is for messages, `fps` overrides the frames' durations.

    Raises MocapError.
    """
    try:
        document = json.loads(content)
    except ValueError as error:
        reason = "truncated" if b'"Frames"' in content else "not_mocap"
        raise MocapError(
            reason, f"{name}: invalid or incomplete JSON ({error}); copy or download the file again"
        ) from None
    frames = document.get("Frames") if isinstance(document, dict) else None
    if not isinstance(frames, list):
        raise MocapError(
            "not_mocap", f"{name}: JSON without a list `Frames`, so it is not a DeepMimic clip; leave the file out"
        )
    if not frames:
        raise MocapError("no_frames", f"{name}: contains no frames; export the take again or leave the file out")
    counts = {len(frame) if isinstance(frame, list) else 0 for frame in frames}
    if counts != {_COLUMNS}:
        raise MocapError(
            "wrong_channel_count",
            f"{name}: frames of {', '.join(map(str, sorted(counts)))} values, the humanoid's have {_COLUMNS};"
            " only clips of DeepMimic's humanoid can be read",
        )
    try:
        rows = np.array(frames, np.float64)
    except (ValueError, TypeError) as error:
        raise MocapError("broken_file", f"{name}: invalid frame data, {error}; export the file again") from None
    check_numbers(name, rows)
    rotations = np.empty((len(rows), len(_JOINTS), 3, 3))
    column = 4
    for index, (_, _, _, count) in enumerate(_JOINTS):
        values = rows[:, column : column + count]
        column += count
        if count == 4:
            rotations[:, index] = quaternion_to_matrix(values)
        elif count == 1:
            rotations[:, index] = axis_rotation(values[:, 0], "z")
        else:
            rotations[:, index] = np.eye(3)
    steps_s = rows[:-1, 0] if fps is None else np.full(len(rows) - 1, 1 / fps)
    if len(steps_s) and not (steps_s > 0).all():
        raise MocapError(
            "no_frame_rate", f"{name}: a frame lasts {steps_s.min()} s; set a frame rate in read_mocap.fps"
        )
    return Take(
        format="deepmimic",
        names=tuple(joint for joint, *_ in _JOINTS),
        parents=tuple(parent for _, parent, *_ in _JOINTS),
        offsets=np.array([offset for _, _, offset, _ in _JOINTS], np.float64),
        rotations=rotations,
        moving_offsets={0: rows[:, 1:4]},
        times_s=np.concatenate([[0.0], np.cumsum(steps_s)]),
        metres_per_unit=1.0,
    )


def quaternion_to_matrix(wxyz: np.ndarray) -> np.ndarray:
    """Quaternions (..., 4) of any non-zero norm, real part first, to matrices (..., 3, 3)."""
    norm = np.linalg.norm(wxyz, axis=-1, keepdims=True)
    w, x, y, z = np.moveaxis(wxyz / np.maximum(norm, 1e-12), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)
