"""The page of `humo evaluate tokenizer --page FILE`: the worst reconstructions beside their motions, moving."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from pipeline.audit.pages import render_page, skeleton
from pipeline.rendering.animation import pack_joints
from schemas.records import FPS
from schemas.skeleton import joint

if TYPE_CHECKING:
    from model.evaluation.tokenizer import TokenizerReport
    from model.evaluation.worst_reconstructions import Reconstruction

_TEMPLATE = Path(__file__).parent / "reconstruction_page.html"
_FIGURES = ("mpjpe_mm", "fk_mpjpe_mm", "pa_mpjpe_mm", "world_mpjpe_mm", "rotation_error_deg", "root_drift_mm",
            "root_drift_5s_mm", "root_drift_10s_mm", "foot_slide_mm_s", "true_foot_slide_mm_s", "peak_jerk_ratio", "rfid",
            "bits_per_s", "entropy_bits_per_s", "dead_codes")  # fmt: skip
_ACTIONS = 12
"""Most actions that are listed."""
_PELVIS = joint("pelvis")


def write_page(report: "TokenizerReport", worst: Sequence["Reconstruction"], path: str | Path, title: str) -> Path:
    """Write a self-contained page; returns its path."""
    values = asdict(report)
    context = {
        "title": title,
        "motions": report.motions,
        "figures": [(name, values[name]) for name in _FIGURES],
        "evaluator": report.rfid_evaluator,
        "parts": report.part_mpjpe_mm.items(),
        "actions": list(report.action_mpjpe_mm.items())[:_ACTIONS],
        "levels": list(zip(report.codebook_usage, report.codebook_perplexity, strict=True)),
        "worst": [_section(one) for one in worst],
        "players": {"skeleton": skeleton(), "motions": [_player(one) for one in worst]},
    }
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render_page(_TEMPLATE, context))
    return target


def _section(one: "Reconstruction") -> dict[str, Any]:
    apart_m = (one.decoded_joints - one.joints)[-1, _PELVIS, [0, 2]]
    return {
        "key": one.key, "action": one.action, "text": one.text, "mpjpe_mm": one.mpjpe_mm,
        "drift_mm": 1000 * float(np.linalg.norm(apart_m)), "worst_s": int(one.errors_mm.argmax()) / FPS,
        "worst_mm": float(one.errors_mm.max()), "curve": _curve(one.errors_mm),
    }  # fmt: skip


def _player(one: "Reconstruction") -> dict[str, Any]:
    """What the page's script plays."""
    return {
        "seconds": len(one.joints) / FPS,
        "motion": pack_joints(one.joints),
        "decoded": pack_joints(one.decoded_joints),
    }


def _curve(errors_mm: Float[np.ndarray, "N"], width: int = 600, height: int = 60) -> dict[str, Any]:
    """The error over time as a line of an SVG picture."""
    top = max(float(errors_mm.max()), 1e-6)
    across = np.linspace(0, width, len(errors_mm)) if len(errors_mm) > 1 else np.zeros(1)
    points = " ".join(f"{x:.1f},{height - height * y / top:.1f}" for x, y in zip(across, errors_mm, strict=True))
    return {"points": points, "width": width, "height": height}
