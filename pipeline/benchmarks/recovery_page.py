"""The page of `humo bench recovery`: tables, some of the films, and the worst that was recovered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.audit.pages import template_environment
from pipeline.benchmarks.recovery_films import Outcome, Sighting
from pipeline.benchmarks.recovery_pictures import Frame, Sight, paths, row, stack
from schemas.body_model import BodyModel
from schemas.devices import torch_threads
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Clip
from stages.geometry.cameras import intrinsics_of
from stages.geometry.contacts import ground_height
from stages.media.decoding import frames
from stages.recovery.protocol import Fit, Fitter
from stages.training.lifter.evaluate import Case, body_motion_of, spread
from stages.training.lifter.metrics import DEFINITIONS, BodyMotion, mpjpe_by_frame

_TEMPLATE = Path(__file__).parent / "recovery_page.html"
_FILMS, _WORST = 6, 4
_SHOWN = tuple(name for name in DEFINITIONS if name not in ("body", "root", "speed"))


@dataclass(frozen=True)
class Measured:
    """Everything that a page is drawn from."""

    report: Mapping[str, Any]
    cases: Mapping[str, Sequence[Case]]
    """Setting -> cases."""
    rows: Mapping[str, Sequence[Mapping[str, float]]]
    """Setting -> what the refined lifter does on each case."""
    sightings: Sequence[Sighting]
    outcomes: Sequence[Outcome]
    """Of the refined lifter."""
    refined: Fitter
    body: BodyModel


@dataclass(frozen=True)
class _Strip:
    """A picture file with what is to be said about it."""

    file: str
    title: str
    figures: str
    ways: list[str]
    view_box: str


def write_page(measured: Measured, folder: Path) -> Path:
    """index.html and its pictures, in a folder; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    recovered = [outcome for outcome in measured.outcomes if outcome.row is not None]
    worst = sorted(recovered, key=lambda outcome: -_error(outcome))[:_WORST]
    some = [recovered[place] for place in spread(len(recovered), min(_FILMS, len(recovered)))]
    body = measured.body
    films = [_film_strip(one, folder, body, number=i, worst=False) for i, one in enumerate(some)]
    bad = [_film_strip(one, folder, body, number=i, worst=True) for i, one in enumerate(worst)]
    for setting in measured.cases:
        if "mean body" in setting:
            bad += _worst_cases(measured, setting, folder)
    page = template_environment().from_string(_TEMPLATE.read_text()).render(
        report=measured.report, shown=_SHOWN, films=films, worst=bad, rejections=_rejections(measured)
    )  # fmt: skip
    path = folder / "index.html"
    path.write_text(page)
    return path


def _film_strip(outcome: Outcome, folder: Path, body: BodyModel, *, number: int, worst: bool) -> _Strip:
    """Four moments of a clip, or the one where it is worst."""
    said, truth, motion = outcome.said, outcome.truth, outcome.motion
    assert said is not None
    assert truth is not None
    assert motion is not None
    assert motion.footage is not None
    off = mpjpe_by_frame(said, truth, body)
    moments = [int(off.argmax())] if worst else spread(len(off), min(4, len(off)))
    images = _images(outcome, moments)
    rows = [
        row(
            _sight(outcome.clip, moment, motion.footage.camera.intrinsics, (0.0, 0.0), images.get(moment)),
            said, truth, moment, body, f"{(outcome.first + moment) / FPS:.2f} s: {off[moment]:.0f} mm",
        )
        for moment in moments
    ]  # fmt: skip
    name = f"{'worst' if worst else 'film'}-{number:02d}.jpg"
    (folder / name).write_bytes(stack(rows))
    ways, box = paths(said, truth, body)
    return _Strip(name, f"{outcome.film.name}, person {outcome.person}", _figures(outcome.row), ways, box)


def _images(outcome: Outcome, moments: Sequence[int]) -> dict[int, np.ndarray]:
    wanted = {outcome.first + moment: moment for moment in moments}
    numbered = enumerate(frames(str(outcome.film.footage.path)))
    return {wanted[number]: frame.image for number, frame in numbered if number in wanted}


def _worst_cases(measured: Measured, setting: str, folder: Path) -> list[_Strip]:
    """The motions of motion capture that came out worst, at their worst moment; there is no video of them."""
    pairs = zip(measured.cases[setting], measured.rows[setting], strict=True)
    chosen = sorted(pairs, key=lambda pair: -pair[1]["mpjpe"])[:_WORST]
    strips = []
    for number, (case, figures) in enumerate(chosen):
        with torch_threads(1):
            fit = measured.refined.fit([case.clip])[0]
        assert isinstance(fit, Fit)
        said = body_motion_of(fit, measured.body)
        name = f"{setting.replace(', ', '-').replace(' ', '-')}-{number:02d}.jpg"
        (folder / name).write_bytes(stack([_case_row(case, said, measured.body)]))
        ways, box = paths(said, case.truth, measured.body)
        strips.append(_Strip(name, f"{case.name}, {setting}", _figures(figures), ways, box))
    return strips


def _case_row(case: Case, said: BodyMotion, body: BodyModel) -> Frame:
    off = mpjpe_by_frame(said, case.truth, body)
    moment = int(off.argmax())
    grounds = _ground_m(said, body), _ground_m(case.truth, body)
    sight = _sight(case.clip, moment, intrinsics_of(case.clip.track.shot.video), grounds)
    return row(sight, said, case.truth, moment, body, f"{moment / FPS:.2f} s: {off[moment]:.0f} mm")


def _sight(
    clip: Clip,
    moment: int,
    intrinsics: Float[np.ndarray, "4"],
    grounds_m: tuple[float, float],
    image: Frame | None = None,
) -> Sight:
    return Sight(image, clip.boxes[moment], clip.keypoints[moment], intrinsics, grounds_m)


def _ground_m(figure: BodyMotion, body: BodyModel) -> float:
    joints, turns = forward_kinematics(figure.rotations, body.rest_joints(figure.betas), figure.trans)
    return ground_height(body.contact_rig().points(turns, joints, figure.betas).numpy())


def _figures(row: Mapping[str, float] | None) -> str:
    assert row is not None
    return (
        f"PA-MPJPE {row['pa_mpjpe']:.0f}, MPJPE {row['mpjpe']:.0f}, W-MPJPE100 {row['w_mpjpe100']:.0f} mm, "
        f"tilt {row['tilt']:.1f} degrees, pelvis {row['root_m']:.2f} m off in the camera's frame, path {row['path_m']:.1f} m"
    )


def _error(outcome: Outcome) -> float:
    assert outcome.row is not None
    return outcome.row["mpjpe"]


def _rejections(measured: Measured) -> list[dict[str, Any]]:
    """Of all stages, film by film."""
    refused = [(one.film, rejection) for one in measured.sightings for rejection in one.rejections]
    refused += [(one.film, one.rejection) for one in measured.outcomes if one.rejection is not None]
    return [
        {"film": film.name, "stage": one.stage, "reason": one.reason, "detail": one.detail} for film, one in refused
    ]
