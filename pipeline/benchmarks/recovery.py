"""humo bench recovery: bodies recovered from motion capture's keypoints and from films, against the ground truth and a baseline.

Motions are held out: the user's motion capture that was not trained on, or synthetic motions with seeds that trainings do not use.
The baseline is optimisation alone, on the same clips in the same run.
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
    FOCAL_ERROR,
    KEYPOINT_ERROR,
    ClipResult,
    FitWithFitter,
    TrackedFilm,
    covered_frames,
    identity_counts,
    make_films,
    recover_clip,
    track_film,
    video_stages,
    with_target_keypoints,
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
from stages.training.lifter.evaluate import ALL, Case, evaluate, evenly_spaced, make_cases, pick_evenly, summary
from stages.training.lifter.metrics import DEFINITIONS, summarise
from stages.training.lifter.motion_dataset import MotionDataset

REFINED, PLAIN, BASELINE = "lifter, refined", "lifter alone", "optimisation alone"
BASELINE_WITHOUT_LANDMARKS = "optimisation alone, without the landmark network"
"""On films: from the detector's keypoints, without the image features of the landmark network."""
EXACT_KEYPOINTS = "lifter, refined, exact keypoints"
"""On films: as if the tracker's keypoints had no error (and gave no depths), which separates its share of the error from the
fitter's."""
SETTINGS = {
    "mean body, clean": (0.0, 0.0),
    "mean body, noisy": (0.0, 1.0),
    "varied bodies, clean": (1.0, 0.0),
    "varied bodies, noisy": (1.0, 1.0),
}
"""Name -> spread of the bodies' betas, strength of the detector noise."""
OVERALL = "in all"
_STUDIO_SEED = 20_000
_VERSIONS = ("torch", "numpy", "ultralytics", "openvino", "embreex")

Metrics = dict[str, float]


def bench(
    *,
    mocap: str = "",
    clips: int = 40,
    videos: int = 4,
    optimise: int = 4,
    focal_known: bool = False,
    page: str = "",
    weights: str = "",
) -> dict[str, Any]:
    """Metrics by setting, fitter and group (see DEFINITIONS for their units).

    `mocap`: folder of motion capture; empty: synthetic motions. `clips` of them are measured by their keypoints, `videos` are
    filmed by each kind of camera, with the focal length in the metadata if `focal_known`, and `optimise` of either also go through
    the baseline. With `page`, images and tables are written there. A metric without any data is left out.

    Raises UsageError for a folder without motion capture, HumoError where weights are missing.
    """
    if min(clips, videos, optimise) < 0 or clips + videos == 0:
        raise UsageError(
            "bench recovery: --clips, --videos and --optimise count motions; give at least one clip or video"
        )
    body = BodyModel.load()
    fitters = _fitters(body, weights)
    dataset = _held_out_motions(mocap, max(clips, videos), body)
    report: dict[str, Any] = {
        "command": shlex.join(["humo", *sys.argv[1:]]),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
        "weights": fitters[REFINED].version,
        "body_model": body.id,
        "motions": f"motion capture, {Path(mocap).name}" if mocap else f"studio, seeds from {_STUDIO_SEED}",
        "definitions": DEFINITIONS
        | {
            KEYPOINT_ERROR: "% of the box's height; error of the keypoints, median over the confident ones (films)",
            FOCAL_ERROR: "% of the true focal length (films)",
        },
    }
    cases, rows = _evaluate_keypoints(report, dataset, clips, optimise, fitters, body)
    with tempfile.TemporaryDirectory() as work:
        tracked_films, results = _evaluate_films(
            report, dataset, videos, optimise, fitters, body, Path(work), focal_known
        )
        if page:
            from pipeline.benchmarks.recovery_page import PageData, write_page

            page_data = PageData(report, cases, rows, tracked_films, results, fitters[REFINED], body)
            report["page"] = str(write_page(page_data, Path(page)))
    result: dict[str, Any] = _without_nan(report)
    return result


def _fitters(body: BodyModel, weights: str) -> dict[str, Fitter]:
    from stages.recovery.optimise import OptimiseFitter

    steps = FitSmpl.Config()
    return {
        REFINED: LiftFitter(body, weights=weights or None),
        PLAIN: LiftFitter(body, weights=weights or None, refinement=None),
        BASELINE: OptimiseFitter(body, coarse_steps=steps.coarse_steps, fine_steps=steps.fine_steps),
    }


def _held_out_motions(mocap: str, count: int, body: BodyModel) -> MotionDataset:
    if not mocap:
        seeds = range(_STUDIO_SEED, _STUDIO_SEED - (-count // len(ACTIONS)))
        studio = motion_dataset.generate_studio_motions(seeds, body)
        return motion_dataset.pack(
            (studio.names[index], *studio.motion(index)) for index in evenly_spaced(len(studio.names), count)
        )
    folder = Path(mocap)
    files = [folder] if folder.is_file() else motion_dataset.find_mocap(folder)
    if not files:
        raise UsageError(f"--mocap {mocap}: holds no motion capture; name a folder or file that does")
    return motion_dataset.read_files(pick_evenly(files, count), body)


def _evaluate_keypoints(
    report: dict[str, Any],
    dataset: MotionDataset,
    clips: int,
    optimise: int,
    fitters: Mapping[str, Fitter],
    body: BodyModel,
) -> tuple[dict[str, Sequence[Case]], dict[str, Sequence[Mapping[str, float]]]]:
    """Adds `keypoints` and `keypoints_same_clips` to the report."""
    rigs = Rigs.of(body)
    all_cases: dict[str, Sequence[Case]] = {}
    all_rows: dict[str, Sequence[Mapping[str, float]]] = {}
    if not clips:
        return all_cases, all_rows
    report["keypoints"], report["keypoints_same_clips"] = {}, {}
    for setting, (shape_spread, noise) in SETTINGS.items():
        cases = make_cases(dataset, rigs, noise=noise, shape_spread=shape_spread)
        cases = [cases[index] for index in evenly_spaced(len(cases), min(clips, len(cases)))]
        rows = {name: evaluate(fitters[name], cases, body) for name in (REFINED, PLAIN)}
        report["keypoints"][setting] = {name: summary(cases, fitter_rows) for name, fitter_rows in rows.items()}
        indices = evenly_spaced(len(cases), min(optimise, len(cases)))
        if indices:
            same_clips = {name: [fitter_rows[index] for index in indices] for name, fitter_rows in rows.items()}
            same_clips[BASELINE] = evaluate(fitters[BASELINE], [cases[index] for index in indices], body)
            report["keypoints_same_clips"][setting] = _compare_with_baseline(same_clips)
        all_cases[setting], all_rows[setting] = cases, rows[REFINED]
    return all_cases, all_rows


def _evaluate_films(
    report: dict[str, Any],
    dataset: MotionDataset,
    videos: int,
    optimise: int,
    fitters: Mapping[str, Fitter],
    body: BodyModel,
    work: Path,
    focal_known: bool,
) -> tuple[list[TrackedFilm], list[ClipResult]]:
    """Adds `films`, `films_same_clips` and `stages_fps` to the report."""
    if not videos:
        return [], []
    films = make_films(dataset, videos, work, body)
    if not films:
        raise HumoError(
            "bench recovery: no motion lasts three seconds, so none can be filmed; name longer ones or use --videos 0"
        )
    stages = video_stages()
    tracked_films = [track_film(film, stages, focal_known=focal_known) for film in films]
    clips = [(tracked_film, clip) for tracked_film in tracked_films for clip in tracked_film.clips]
    results = {name: _recover_clips(clips, fitters[name], body) for name in (REFINED, PLAIN)}
    exact = [(tracked_film, with_target_keypoints(clip, tracked_film.film.footage)) for tracked_film, clip in clips]
    results[EXACT_KEYPOINTS] = _recover_clips(exact, fitters[REFINED], body)
    report["films"] = {name: _by_group(tracked_films, fitter_results) for name, fitter_results in results.items()}
    report["stages_fps"] = _speeds(tracked_films)
    indices = evenly_spaced(len(clips), min(optimise, len(clips)))
    if indices:
        same_clips = {name: [fitter_results[index] for index in indices] for name, fitter_results in results.items()}
        same_clips[BASELINE] = _recover_clips([clips[index] for index in indices], fitters[BASELINE], body)
        without_landmarks = _without_landmarks([clips[index] for index in indices], focal_known)
        same_clips[BASELINE_WITHOUT_LANDMARKS] = _recover_clips(without_landmarks, fitters[BASELINE], body)
        all_fitted = [
            all(fitter_results[position].row is not None for fitter_results in same_clips.values())
            for position in range(len(indices))
        ]
        report["films_same_clips"] = {
            **_compare_with_baseline(
                {
                    name: [
                        result.row
                        for result, fitted in zip(fitter_results, all_fitted, strict=True)
                        if fitted and result.row is not None
                    ]
                    for name, fitter_results in same_clips.items()
                }
            ),
            "rejected": {
                name: sum(result.motion is None for result in fitter_results)
                for name, fitter_results in same_clips.items()
            },
        }
    return tracked_films, results[REFINED]


def _without_landmarks(clips: Sequence[tuple[TrackedFilm, Clip]], focal_known: bool) -> list[tuple[TrackedFilm, Clip]]:
    """The same spans of the same people, tracked without the landmark network."""
    stages = video_stages(landmarks="never")
    clips_of_film: dict[str, dict[str, Clip]] = {}
    for tracked_film, _ in clips:
        name = tracked_film.film.name
        if name not in clips_of_film:
            clips_of_film[name] = {
                clip.id: clip for clip in track_film(tracked_film.film, stages, focal_known=focal_known).clips
            }
    return [(tracked_film, clips_of_film[tracked_film.film.name][clip.id]) for tracked_film, clip in clips]


def _recover_clips(clips: Sequence[tuple[TrackedFilm, Any]], fitter: Fitter, body: BodyModel) -> list[ClipResult]:
    stage = FitWithFitter(fitter)
    stage.setup()
    return [recover_clip(tracked_film, clip, stage, body) for tracked_film, clip in clips]


def _by_group(tracked_films: Sequence[TrackedFilm], results: Sequence[ClipResult]) -> dict[str, Metrics]:
    """Errors, coverage and identities for films of each kind of camera, of two people, by action, and in all."""
    groups: dict[str, list[TrackedFilm]] = {OVERALL: list(tracked_films), **{camera: [] for camera in CAMERAS}}
    by_action: dict[str, list[TrackedFilm]] = defaultdict(list)
    for tracked_film in tracked_films:
        groups[tracked_film.film.camera].append(tracked_film)
        by_action[tracked_film.film.group].append(tracked_film)
    two_people = [tracked_film for tracked_film in tracked_films if len(tracked_film.film.footage.people) > 1]
    groups |= {"two people": two_people} if two_people else {}
    return {
        name: _film_metrics(members, results) for name, members in (groups | dict(sorted(by_action.items()))).items()
    }


def _film_metrics(tracked_films: Sequence[TrackedFilm], results: Sequence[ClipResult]) -> Metrics:
    films = [tracked_film.film for tracked_film in tracked_films]
    own = [result for result in results if any(result.film is film for film in films)]
    covered = [covered_frames(film, own) for film in films]
    counts: dict[str, float] = defaultdict(float)
    for tracked_film in tracked_films:
        for name, value in identity_counts(tracked_film).items():
            counts[name] += value
    return {
        **summarise([result.row for result in own if result.row is not None]),
        "coverage": sum(covered_count for covered_count, _ in covered) / sum(total for _, total in covered),
        "films": float(len(films)),
        "rejected": float(sum(result.rejection is not None for result in own)),
        **counts,
    }


def _compare_with_baseline(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Each fitter on the same clips, and the relative reduction of the lifter's errors against the baseline's."""
    comparison: dict[str, Any] = {name: summarise(fitter_rows) for name, fitter_rows in rows.items()}
    for baseline, key in (
        (BASELINE, "less_than_rival"),
        (BASELINE_WITHOUT_LANDMARKS, "less_than_rival_without_landmarks"),
    ):
        if comparison.get(baseline):
            comparison[key] = {
                name: {
                    error: 1 - comparison[name][error] / comparison[baseline][error]
                    for error in ("mpjpe", "pa_mpjpe", "pve")
                }
                for name in (REFINED, PLAIN)
            }
    return comparison


def _without_nan(value: Any) -> Any:
    """The value without metrics that have no data (NaN, which JSON does not have)."""
    if isinstance(value, Mapping):
        return {
            name: _without_nan(item)
            for name, item in value.items()
            if not (isinstance(item, float) and math.isnan(item))
        }
    return value


def _speeds(tracked_films: Sequence[TrackedFilm]) -> Metrics:
    """Frames per second of each stage by wall-clock time, median over the films; loading is excluded."""
    median_fps = {}
    for name in tracked_films[0].seconds:
        speeds = sorted(
            len(tracked_film.film.footage) / max(tracked_film.seconds[name], 1e-9) for tracked_film in tracked_films
        )
        median_fps[name] = speeds[len(speeds) // 2]
    return median_fps


def bench_text(report: Mapping[str, Any]) -> str:
    """The results for a terminal; groups are in the JSON and on the page."""
    lines = [f"{report['motions']}; {report['weights']}; {report['machine']}"]
    columns = [name for name in DEFINITIONS if name not in ("body", "root", "speed")]
    head = f"{'':44}" + "".join(f"{name:>12}" for name in (*columns, "clips"))

    def line(name: str, row: Mapping[str, float]) -> str:
        return f"{name:44}" + "".join(f"{row.get(column, float('nan')):12.2f}" for column in (*columns, "clips"))

    def compared(title: str, part: Mapping[str, Any]) -> list[str]:
        rows = [
            line(f"{title}: {name}", part[name])
            for name in (REFINED, PLAIN, BASELINE, BASELINE_WITHOUT_LANDMARKS)
            if part.get(name)
        ]
        reductions = [
            f"{error} {share:.0%}" for error, share in part.get("less_than_rival", {}).get(REFINED, {}).items()
        ]
        return (
            [*rows, f"  {REFINED} has lower errors than {BASELINE} by: {', '.join(reductions)}"] if reductions else rows
        )

    if "keypoints" in report:
        lines += ["", "from motion capture's keypoints", head]
        for setting, fitters in report["keypoints"].items():
            lines += [line(f"{setting}: {name}", groups[ALL]) for name, groups in fitters.items()]
        for setting, part in report["keypoints_same_clips"].items():
            lines += compared(f"same clips, {setting}", part)
    if "films" in report:
        lines += ["", "from films, end to end", head]
        for name, groups in report["films"].items():
            lines += [
                line(f"{group}: {name}", groups[group])
                for group in (*CAMERAS, "two people", OVERALL)
                if group in groups
            ]
        lines += compared("same clips", report["films_same_clips"]) if "films_same_clips" in report else []
        for group in (*CAMERAS, OVERALL):
            row = report["films"][REFINED][group]
            keypoint_error, focal_error = (row.get(name, float("nan")) for name in (KEYPOINT_ERROR, FOCAL_ERROR))
            lines.append(
                f"{group}: keypoint error {keypoint_error:.1f}% of the box, focal length error {focal_error:.0f}%, coverage "
                f"{row['coverage']:.1%} of {row['films']:.0f} films, people missed {row['missed']:.0f} of {row['people']:.0f}, "
                f"identity switches {row['switches']:.0f}, changes inside a track {row['changes']:.0f}"
            )
        lines.append("frames/s: " + ", ".join(f"{name} {fps:.0f}" for name, fps in report["stages_fps"].items()))
    return "\n".join([*lines, *([f"page: {report['page']}"] if "page" in report else [])])
