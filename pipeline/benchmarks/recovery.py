"""humo bench recovery: bodies recovered from motion capture's keypoints and from films, against the truth and a rival.

Motions are unseen: motion capture of the caller's that was not trained on, or the studio's with seeds that trainings do not
take. The rival is optimisation alone, on the same clips in the same run.
"""

import math
import os
import platform
import shlex
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.benchmarks.recovery_films import (
    CAMERAS,
    FOCAL_OFF,
    KEYPOINTS_OFF,
    FitGiven,
    Outcome,
    Sighting,
    covered,
    identities,
    look,
    make_films,
    recover,
    video_stages,
    with_true_keypoints,
)
from schemas.body_model import BodyModel
from schemas.errors import HumoError, UsageError
from schemas.records import Clip
from stages.fit_smpl import FitSmpl
from stages.recovery.lifter.fitter import LiftFitter
from stages.recovery.lifter.rigs import Rigs
from stages.recovery.protocol import Fitter
from stages.synthesis.motions import ACTIONS
from stages.training.lifter import motion_dataset
from stages.training.lifter.evaluate import ALL, Case, evaluate, make_cases, pick, spread, summary
from stages.training.lifter.metrics import DEFINITIONS, summarise
from stages.training.lifter.motion_dataset import MotionDataset

REFINED, PLAIN, RIVAL = "lifter, refined", "lifter alone", "optimisation alone"
RIVAL_AFAR = "optimisation alone, without the closer look"
"""On films: from the detector's keypoints, as a fitter has them that takes nothing from the picture's features."""
EXACT = "lifter, refined, exact keypoints"
"""On films: as if the tracker made no error in the picture (no depths are told), which tells its share from the fitter's."""
SETTINGS = {
    "mean body, clean": (0.0, 0.0),
    "mean body, noisy": (0.0, 1.0),
    "varied bodies, clean": (1.0, 0.0),
    "varied bodies, noisy": (1.0, 1.0),
}
"""Name -> spread of the bodies' betas, strength of the detector's noise."""
TOGETHER = "in all"
_STUDIO_SEED = 20_000
_VERSIONS = ("torch", "numpy", "ultralytics", "openvino", "embreex")

Figures = dict[str, float]


def bench(
    *,
    mocap: str = "",
    clips: int = 40,
    videos: int = 4,
    optimise: int = 4,
    focal_told: bool = False,
    page: str = "",
    weights: str = "",
) -> dict[str, Any]:
    """Figures by setting, fitter and group (see DEFINITIONS for their units).

    `mocap`: folder of motion capture; empty: made-up motions. `clips` of them are measured by their keypoints, `videos` are
    filmed by each kind of camera, whose focal length is told where `focal_told`, and `optimise` of either go through the
    rival too. With `page` pictures and tables are written there. A figure that there was nothing to take from is not there.

    Raises UsageError for a folder without motion capture, HumoError where weights are missing.
    """
    if min(clips, videos, optimise) < 0 or clips + videos == 0:
        raise UsageError(
            "bench recovery: --clips, --videos and --optimise count motions; give at least one clip or video"
        )
    body = BodyModel.load()
    fitters = _fitters(body, weights)
    dataset = _unseen(mocap, max(clips, videos), body)
    report: dict[str, Any] = {
        "command": shlex.join(["humo", *sys.argv[1:]]),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
        "weights": fitters[REFINED].version,
        "body_model": body.id,
        "motions": f"motion capture, {Path(mocap).name}" if mocap else f"studio, seeds from {_STUDIO_SEED}",
        "definitions": DEFINITIONS
        | {
            KEYPOINTS_OFF: "% of the box's height; keypoints from the true ones, median over the sure ones (films)",
            FOCAL_OFF: "% of the true focal length (films)",
        },
    }
    cases, rows = _mocap_part(report, dataset, clips, optimise, fitters, body)
    with tempfile.TemporaryDirectory() as work:
        sightings, outcomes = _film_part(report, dataset, videos, optimise, fitters, body, Path(work), focal_told)
        if page:
            from pipeline.benchmarks.recovery_page import Measured, write_page

            measured = Measured(report, cases, rows, sightings, outcomes, fitters[REFINED], body)
            report["page"] = str(write_page(measured, Path(page)))
    known: dict[str, Any] = _known(report)
    return known


def _fitters(body: BodyModel, weights: str) -> dict[str, Fitter]:
    from stages.recovery.optimise import OptimiseFitter

    steps = FitSmpl.Config()
    return {
        REFINED: LiftFitter(body, weights=weights or None),
        PLAIN: LiftFitter(body, weights=weights or None, refinement=None),
        RIVAL: OptimiseFitter(body, coarse_steps=steps.coarse_steps, fine_steps=steps.fine_steps),
    }


def _unseen(mocap: str, count: int, body: BodyModel) -> MotionDataset:
    if not mocap:
        seeds = range(_STUDIO_SEED, _STUDIO_SEED - (-count // len(ACTIONS)))
        made = motion_dataset.make_studio(seeds, body)
        return motion_dataset.pack(
            (made.names[number], *made.motion(number)) for number in spread(len(made.names), count)
        )
    folder = Path(mocap)
    files = [folder] if folder.is_file() else motion_dataset.find_mocap(folder)
    if not files:
        raise UsageError(f"--mocap {mocap}: holds no motion capture; name a folder or file with some")
    return motion_dataset.read_files(pick(files, count), body)


def _mocap_part(
    report: dict[str, Any],
    dataset: MotionDataset,
    clips: int,
    optimise: int,
    fitters: Mapping[str, Fitter],
    body: BodyModel,
) -> tuple[dict[str, Sequence[Case]], dict[str, Sequence[Mapping[str, float]]]]:
    """Writes `keypoints` and `keypoints_same_clips` into the report."""
    rigs = Rigs.of(body)
    all_cases: dict[str, Sequence[Case]] = {}
    all_rows: dict[str, Sequence[Mapping[str, float]]] = {}
    if not clips:
        return all_cases, all_rows
    report["keypoints"], report["keypoints_same_clips"] = {}, {}
    for setting, (shapes, noise) in SETTINGS.items():
        cases = make_cases(dataset, rigs, noise=noise, shape_spread=shapes)
        cases = [cases[place] for place in spread(len(cases), min(clips, len(cases)))]
        rows = {name: evaluate(fitters[name], cases, body) for name in (REFINED, PLAIN)}
        report["keypoints"][setting] = {name: summary(cases, found) for name, found in rows.items()}
        places = spread(len(cases), min(optimise, len(cases)))
        if places:
            same = {name: [found[place] for place in places] for name, found in rows.items()}
            same[RIVAL] = evaluate(fitters[RIVAL], [cases[place] for place in places], body)
            report["keypoints_same_clips"][setting] = _against_rival(same)
        all_cases[setting], all_rows[setting] = cases, rows[REFINED]
    return all_cases, all_rows


def _film_part(
    report: dict[str, Any],
    dataset: MotionDataset,
    videos: int,
    optimise: int,
    fitters: Mapping[str, Fitter],
    body: BodyModel,
    work: Path,
    focal_told: bool,
) -> tuple[list[Sighting], list[Outcome]]:
    """Writes `films`, `films_same_clips` and `stages_fps` into the report."""
    if not videos:
        return [], []
    films = make_films(dataset, videos, work, body)
    if not films:
        raise HumoError(
            "bench recovery: no motion lasts three seconds, none can be filmed; name longer ones or --videos 0"
        )
    stages = video_stages()
    sightings = [look(film, stages, focal_told=focal_told) for film in films]
    clips = [(sighting, clip) for sighting in sightings for clip in sighting.clips]
    outcomes = {name: _recovered(clips, fitters[name], body) for name in (REFINED, PLAIN)}
    exact = [(sighting, with_true_keypoints(clip, sighting.film.footage)) for sighting, clip in clips]
    outcomes[EXACT] = _recovered(exact, fitters[REFINED], body)
    report["films"] = {name: _by_camera(sightings, found) for name, found in outcomes.items()}
    report["stages_fps"] = _speeds(sightings)
    places = spread(len(clips), min(optimise, len(clips)))
    if places:
        same = {name: [found[place] for place in places] for name, found in outcomes.items()}
        same[RIVAL] = _recovered([clips[place] for place in places], fitters[RIVAL], body)
        afar = _from_afar([clips[place] for place in places], focal_told)
        same[RIVAL_AFAR] = _recovered(afar, fitters[RIVAL], body)
        all_fit = [all(found[number].row is not None for found in same.values()) for number in range(len(places))]
        report["films_same_clips"] = {
            **_against_rival(
                {
                    name: [one.row for one, fits in zip(found, all_fit, strict=True) if fits and one.row is not None]
                    for name, found in same.items()
                }
            ),
            "rejected": {name: sum(one.motion is None for one in found) for name, found in same.items()},
        }
    return sightings, outcomes[REFINED]


def _from_afar(clips: Sequence[tuple[Sighting, Clip]], focal_told: bool) -> list[tuple[Sighting, Clip]]:
    """The same stretches of the same people as they are tracked without a closer look."""
    stages = video_stages(closeup="never")
    seen: dict[str, dict[str, Clip]] = {}
    for sighting, _ in clips:
        name = sighting.film.name
        if name not in seen:
            seen[name] = {clip.id: clip for clip in look(sighting.film, stages, focal_told=focal_told).clips}
    return [(sighting, seen[sighting.film.name][clip.id]) for sighting, clip in clips]


def _recovered(clips: Sequence[tuple[Sighting, Any]], fitter: Fitter, body: BodyModel) -> list[Outcome]:
    stage = FitGiven(fitter)
    stage.setup()
    return [recover(sighting, clip, stage, body) for sighting, clip in clips]


def _by_camera(sightings: Sequence[Sighting], outcomes: Sequence[Outcome]) -> dict[str, Figures]:
    """Errors, coverage and identities for films of each kind of camera, of two people, by what is done, and in all."""
    groups: dict[str, list[Sighting]] = {TOGETHER: list(sightings), **{camera: [] for camera in CAMERAS}}
    doing: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        groups[sighting.film.camera].append(sighting)
        doing[sighting.film.group].append(sighting)
    company = [sighting for sighting in sightings if len(sighting.film.footage.people) > 1]
    groups |= {"two people": company} if company else {}
    return {name: _film_figures(members, outcomes) for name, members in (groups | dict(sorted(doing.items()))).items()}


def _film_figures(sightings: Sequence[Sighting], outcomes: Sequence[Outcome]) -> Figures:
    films = [sighting.film for sighting in sightings]
    mine = [outcome for outcome in outcomes if any(outcome.film is film for film in films)]
    parts = [covered(film, mine) for film in films]
    counts: dict[str, float] = defaultdict(float)
    for sighting in sightings:
        for name, value in identities(sighting).items():
            counts[name] += value
    return {
        **summarise([outcome.row for outcome in mine if outcome.row is not None]),
        "coverage": sum(seen for seen, _ in parts) / sum(there for _, there in parts),
        "films": float(len(films)),
        "rejected": float(sum(outcome.rejection is not None for outcome in mine)),
        **counts,
    }


def _against_rival(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Each fitter on the same clips, and by what share the lifter's errors are smaller than the rival's."""
    found: dict[str, Any] = {name: summarise(some) for name, some in rows.items()}
    for rival, told in ((RIVAL, "less_than_rival"), (RIVAL_AFAR, "less_than_rival_without_closeup")):
        if found.get(rival):
            found[told] = {
                name: {error: 1 - found[name][error] / found[rival][error] for error in ("mpjpe", "pa_mpjpe", "pve")}
                for name in (REFINED, PLAIN)
            }
    return found


def _known(value: Any) -> Any:
    """Without the figures that there was nothing to take from (NaN, which JSON does not have)."""
    if isinstance(value, Mapping):
        return {name: _known(one) for name, one in value.items() if not (isinstance(one, float) and math.isnan(one))}
    return value


def _speeds(sightings: Sequence[Sighting]) -> Figures:
    """Frames a second of each stage by the clock, in the middle one of the films; loading is left out."""
    found = {}
    for name in sightings[0].seconds:
        speeds = sorted(len(one.film.footage) / max(one.seconds[name], 1e-9) for one in sightings)
        found[name] = speeds[len(speeds) // 2]
    return found


def bench_text(found: Mapping[str, Any]) -> str:
    """The figures for a terminal; groups are in the JSON and on the page."""
    lines = [f"{found['motions']}; {found['weights']}; {found['machine']}"]
    shown = [name for name in DEFINITIONS if name not in ("body", "root", "speed")]
    head = f"{'':44}" + "".join(f"{name:>12}" for name in (*shown, "clips"))

    def line(name: str, row: Mapping[str, float]) -> str:
        return f"{name:44}" + "".join(f"{row.get(one, float('nan')):12.2f}" for one in (*shown, "clips"))

    def compared(title: str, part: Mapping[str, Any]) -> list[str]:
        rows = [line(f"{title}: {name}", part[name]) for name in (REFINED, PLAIN, RIVAL, RIVAL_AFAR) if part.get(name)]
        better = [f"{error} {share:.0%}" for error, share in part.get("less_than_rival", {}).get(REFINED, {}).items()]
        return [*rows, f"  {REFINED} errs less than {RIVAL} by: {', '.join(better)}"] if better else rows

    if "keypoints" in found:
        lines += ["", "from motion capture's keypoints", head]
        for setting, fitters in found["keypoints"].items():
            lines += [line(f"{setting}: {name}", groups[ALL]) for name, groups in fitters.items()]
        for setting, part in found["keypoints_same_clips"].items():
            lines += compared(f"same clips, {setting}", part)
    if "films" in found:
        lines += ["", "from films, end to end", head]
        for name, groups in found["films"].items():
            lines += [
                line(f"{group}: {name}", groups[group])
                for group in (*CAMERAS, "two people", TOGETHER)
                if group in groups
            ]
        lines += compared("same clips", found["films_same_clips"]) if "films_same_clips" in found else []
        for group in (*CAMERAS, TOGETHER):
            row = found["films"][REFINED][group]
            off, focal = (row.get(name, float("nan")) for name in (KEYPOINTS_OFF, FOCAL_OFF))
            lines.append(
                f"{group}: keypoints {off:.1f}% of the box off, focal lengths {focal:.0f}%, coverage {row['coverage']:.1%} of "
                f"{row['films']:.0f} films, people missed {row['missed']:.0f} of {row['people']:.0f}, identity switches "
                f"{row['switches']:.0f}, changes inside a track {row['changes']:.0f}"
            )
        lines.append("frames/s: " + ", ".join(f"{name} {fps:.0f}" for name, fps in found["stages_fps"].items()))
    return "\n".join([*lines, *([f"page: {found['page']}"] if "page" in found else [])])
