"""A picture of a motion and its reconstruction, for a validation."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from schemas.records import FPS
from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS

_POSES = 8
_SPACING_M = 0.9
"""Distance of neighbouring poses in the picture."""
_AZIMUTH_RAD = 0.6
"""From where the body is seen: its front left."""
_COLOURS = (("0.6", "motion", 4.0), ("tab:blue", "reconstruction", 1.6))


def draw_reconstruction(
    joints: Float[np.ndarray, "N J 3"], decoded: Float[np.ndarray, "N J 3"], path: Path, title: str
) -> None:
    """Poses at equal intervals, those of the motion in grey below those of the reconstruction; joints in the heading frame,
    metres. Joints beyond those given are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    frames = np.unique(np.linspace(0, len(joints) - 1, _POSES).round().astype(int))
    for number, frame in enumerate(frames):
        for (colour, label, width), pose in zip(_COLOURS, (joints[frame], decoded[frame]), strict=True):
            _draw_pose(axes, pose, number * _SPACING_M, colour, width, label if number == 0 else "")
        axes.text(number * _SPACING_M, -0.12, f"{frame / FPS:.2f} s", ha="center", fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=110)


def _draw_pose(axes: Any, pose: Float[np.ndarray, "J 3"], x_m: float, colour: str, width: float, label: str) -> None:
    across = pose[:, 0] * np.cos(_AZIMUTH_RAD) - pose[:, 2] * np.sin(_AZIMUTH_RAD) + x_m
    bones = [(child, parent) for child, parent in enumerate(SMPL_PARENTS) if parent >= 0 and child < len(pose)]
    for child, parent in bones:
        axes.plot(across[[child, parent]], pose[[child, parent], 1], color=colour, linewidth=width, solid_capstyle="round",
                  label=label if SMPL_JOINTS[child] == "spine1" else None)  # fmt: skip
