"""The page of `humo bench recovery`: tables, some of the films, and the worst results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.audit.pages import render_page
from pipeline.benchmarks.recovery_films import ClipResult, TrackedFilm
from pipeline.benchmarks.recovery_pictures import Frame, FrameView, encode_rows, ground_paths, render_row
from schemas.body_model import BodyModel
from schemas.devices import torch_threads
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Clip
from stages.geometry.cameras import intrinsics_of
from stages.geometry.contacts import ground_height
from stages.media.decoding import frames
from stages.recovery.protocol import Fit, Fitter
from stages.training.lifter.evaluate import Case, body_motion_of, evenly_spaced
from stages.training.lifter.metrics import DEFINITIONS, BodyMotion, mpjpe_by_frame

_TEMPLATE = Path(__file__).parent / "recovery_page.html"
_MAX_FILMS, _MAX_WORST = 6, 4
_SHOWN = tuple(name for name in DEFINITIONS if name not in ("body", "root", "speed"))


@dataclass(frozen=True)
class PageData:
    """All data of a page."""

    report: Mapping[str, Any]
    cases: Mapping[str, Sequence[Case]]
    """Setting -> cases."""
    rows: Mapping[str, Sequence[Mapping[str, float]]]
    """Setting -> metrics of the refined lifter for each case."""
    tracked_films: Sequence[TrackedFilm]
    results: Sequence[ClipResult]
    """Of the refined lifter."""
    refined: Fitter
    body: BodyModel


@dataclass(frozen=True)
class _ImageStrip:
    """An image file with its caption."""

    file: str
    title: str
    metrics: str
    paths: list[str]
    view_box: str


def write_page(page_data: PageData, folder: Path) -> Path:
    """Write index.html and its images to a folder; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    recovered = [result for result in page_data.results if result.row is not None]
    worst = sorted(recovered, key=lambda result: -_error(result))[:_MAX_WORST]
    selected = [recovered[index] for index in evenly_spaced(len(recovered), min(_MAX_FILMS, len(recovered)))]
    body = page_data.body
    films = [_film_strip(result, folder, body, number=i, worst=False) for i, result in enumerate(selected)]
    worst_strips = [_film_strip(result, folder, body, number=i, worst=True) for i, result in enumerate(worst)]
    for setting in page_data.cases:
        if "mean body" in setting:
            worst_strips += _worst_cases(page_data, setting, folder)
    context = {
        "report": page_data.report, "shown": _SHOWN, "films": films, "worst": worst_strips,
        "rejections": _rejections(page_data),
    }  # fmt: skip
    page = render_page(_TEMPLATE, context)
    path = folder / "index.html"
    path.write_text(page)
    return path


def _film_strip(result: ClipResult, folder: Path, body: BodyModel, *, number: int, worst: bool) -> _ImageStrip:
    """Four frames of a clip, or the one with the largest error."""
    predicted, target, motion = result.predicted, result.target, result.motion
    assert predicted is not None
    assert target is not None
    assert motion is not None
    assert motion.footage is not None
    errors = mpjpe_by_frame(predicted, target, body)
    frame_indices = [int(errors.argmax())] if worst else evenly_spaced(len(errors), min(4, len(errors)))
    images = _images(result, frame_indices)
    rows = [
        render_row(
            _frame_view(result.clip, frame_index, motion.footage.camera.intrinsics, (0.0, 0.0), images.get(frame_index)),
            predicted, target, frame_index, body, f"{(result.first_frame + frame_index) / FPS:.2f} s: {errors[frame_index]:.0f} mm",
        )
        for frame_index in frame_indices
    ]  # fmt: skip
    name = f"{'worst' if worst else 'film'}-{number:02d}.jpg"
    (folder / name).write_bytes(encode_rows(rows))
    paths, box = ground_paths(predicted, target, body)
    return _ImageStrip(name, f"{result.film.name}, person {result.person}", _metrics_text(result.row), paths, box)


def _images(result: ClipResult, frame_indices: Sequence[int]) -> dict[int, np.ndarray]:
    wanted = {result.first_frame + frame_index: frame_index for frame_index in frame_indices}
    indexed_frames = enumerate(frames(str(result.film.footage.path)))
    return {wanted[index]: frame.image for index, frame in indexed_frames if index in wanted}


def _worst_cases(page_data: PageData, setting: str, folder: Path) -> list[_ImageStrip]:
    """The motion-capture cases with the largest errors, at their worst frame; they have no video."""
    pairs = zip(page_data.cases[setting], page_data.rows[setting], strict=True)
    chosen = sorted(pairs, key=lambda pair: -pair[1]["mpjpe"])[:_MAX_WORST]
    strips = []
    for number, (case, metrics) in enumerate(chosen):
        with torch_threads(1):
            fit = page_data.refined.fit([case.clip])[0]
        assert isinstance(fit, Fit)
        predicted = body_motion_of(fit, page_data.body)
        name = f"{setting.replace(', ', '-').replace(' ', '-')}-{number:02d}.jpg"
        (folder / name).write_bytes(encode_rows([_case_row(case, predicted, page_data.body)]))
        paths, box = ground_paths(predicted, case.target, page_data.body)
        strips.append(_ImageStrip(name, f"{case.name}, {setting}", _metrics_text(metrics), paths, box))
    return strips


def _case_row(case: Case, predicted: BodyMotion, body: BodyModel) -> Frame:
    errors = mpjpe_by_frame(predicted, case.target, body)
    frame_index = int(errors.argmax())
    grounds_m = _ground_m(predicted, body), _ground_m(case.target, body)
    view = _frame_view(case.clip, frame_index, intrinsics_of(case.clip.track.shot.video), grounds_m)
    return render_row(
        view, predicted, case.target, frame_index, body, f"{frame_index / FPS:.2f} s: {errors[frame_index]:.0f} mm"
    )


def _frame_view(
    clip: Clip,
    frame_index: int,
    intrinsics: Float[np.ndarray, "4"],
    grounds_m: tuple[float, float],
    image: Frame | None = None,
) -> FrameView:
    return FrameView(image, clip.boxes[frame_index], clip.keypoints[frame_index], intrinsics, grounds_m)


def _ground_m(motion: BodyMotion, body: BodyModel) -> float:
    joints, rotations = forward_kinematics(motion.rotations, body.rest_joints(motion.betas), motion.trans)
    return ground_height(body.contact_rig().points(rotations, joints, motion.betas).numpy())


def _metrics_text(row: Mapping[str, float] | None) -> str:
    assert row is not None
    return (
        f"PA-MPJPE {row['pa_mpjpe']:.0f}, MPJPE {row['mpjpe']:.0f}, W-MPJPE100 {row['w_mpjpe100']:.0f} mm, "
        f"tilt {row['tilt']:.1f} degrees, pelvis error {row['root_m']:.2f} m in the camera frame, path {row['path_m']:.1f} m"
    )


def _error(result: ClipResult) -> float:
    assert result.row is not None
    return result.row["mpjpe"]


def _rejections(page_data: PageData) -> list[dict[str, Any]]:
    """Of all stages, by film."""
    rejections = [(tracked.film, rejection) for tracked in page_data.tracked_films for rejection in tracked.rejections]
    rejections += [(result.film, result.rejection) for result in page_data.results if result.rejection is not None]
    return [
        {"film": film.name, "stage": rejection.stage, "reason": rejection.reason, "detail": rejection.detail}
        for film, rejection in rejections
    ]
