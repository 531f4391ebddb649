"""See what the detector and the closer look say of films whose every keypoint is known:
`python -m stages.training.lifter.collect_detector_errors FOLDER configs/lifter.yaml [key=value ...]`.

Windows of motion as the lifter trains on them are filmed in furnished places, and both look at the files. What they
said, beside the truth, goes to FOLDER as one .npz a part; `stages.training.lifter.detector_errors` learns from those how it errs.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from schemas.body_model import BodyModel
from schemas.config import load_config
from schemas.errors import HumoError, exit_status
from stages.media.decoding import frames as read_frames
from stages.perception.closeup.look import CloseLook
from stages.perception.detector import Detections, PoseDetector
from stages.synthesis.film import Footage
from stages.synthesis.scenes import GivenMotion, film_scene, make_scene
from stages.training.lifter.detector_errors import EVERY
from stages.training.lifter.examples import varied_windows
from stages.training.lifter.settings import LifterTraining
from stages.training.lifter.train import make_datasets

_SAME_BOX = 0.3
"""Overlap from which a detection is taken to show a person."""
_SEED = 7_000_000
_FRAMES = 80
"""Length of a window at 30 frames a second."""
_MOVING, _OCCLUDED = 0.25, 0.25
"""Shares of films whose camera moves, and with furniture in the way."""
_PART = 25
"""Films a file."""


def watch(folder: Path, training: LifterTraining, films: int, first: int = 0, *, closeup: bool = True) -> int:
    """`films` windows of the motions that the lifter trains on, seen by the detector; how many were made by this call.

    A film is told by its number, from `first` on, so that several processes can share the work; parts that are there
    already are not made again.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    body = BodyModel.load()
    dataset, _ = make_datasets(training)
    detector = PoseDetector(threads=1)
    closer = CloseLook(detector.weights, device=detector.device, backend=detector.backend) if closeup else None
    rest = body.rest_joints(torch.zeros(10))[0]
    began = time.monotonic()
    done = 0
    for begin in range(first, first + films, _PART):
        path = folder / f"films-{begin:06d}.npz"
        if path.is_file():
            continue
        rows = []
        for number in range(begin, min(begin + _PART, first + films)):
            generator = torch.Generator().manual_seed(_SEED + number)
            windows = varied_windows(dataset, 1, _FRAMES, training.augmentation, generator)
            kept = slice(0, int(windows.valid.sum()), EVERY)
            motion = GivenMotion(windows.rotations[0, kept], windows.pelvis[0, kept] - rest)
            rows.append({"film": np.full(len(motion.trans), number), **_filmed(motion, number, detector, closer, body)})
            done += 1
        aside = path.with_suffix(".part.npz")
        arrays: dict[str, Any] = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        np.savez_compressed(aside, **arrays)
        aside.replace(path)
        print(f"{path}: {done} films in {time.monotonic() - began:.0f} s", flush=True)
    return done


def _filmed(
    motion: GivenMotion, number: int, detector: PoseDetector, closer: CloseLook | None, body: BodyModel
) -> dict[str, np.ndarray]:
    """A motion in a place of its own, and what is said of the film."""
    rng = np.random.default_rng([number, 77])
    moving, occluded = rng.random() < _MOVING, rng.random() < _OCCLUDED
    scene = make_scene(
        [motion], 500_000 + number, body=body, camera="moving" if moving else "static", occluders=int(occluded)
    )
    with tempfile.TemporaryDirectory() as work:
        footage = film_scene(scene, Path(work) / "film.mp4", body=body)
        images = [frame.image for frame in read_frames(str(footage.path))]
        found = list(detector.detect(images))
    return _compared(footage, images, found, closer)


def _compared(
    footage: Footage, images: list[np.ndarray], found: list[Detections], closer: CloseLook | None
) -> dict[str, np.ndarray]:
    """The truth about the one person of a film, and what was said of them; zeros where nothing was."""
    person = footage.people[0]
    size = len(footage)
    said = np.zeros((size, 17, 3), np.float32)
    score, told = np.zeros(size, np.float32), np.zeros((size, 17, 3), np.float32)
    shown = np.zeros((size, 4))
    edge = np.array([footage.width, footage.height] * 2)
    for frame, detections in enumerate(found[:size]):
        best = _SAME_BOX
        for box, one, keypoints in zip(detections.boxes, detections.scores, detections.keypoints, strict=True):
            overlap = _overlap(box, person.boxes[frame].clip(0, edge))
            if overlap > best:
                best, said[frame], score[frame], shown[frame] = overlap, keypoints, one, box
    if closer:
        seen = np.flatnonzero(score).tolist()
        for frame in seen:
            closer.begin(images[frame], shown[frame])
        for frame, look in zip(seen, closer.finish(), strict=True):
            said[frame, :, :2], told[frame, :, 0], told[frame, :, 1:] = look.places, look.depths, look.off
    in_camera = np.einsum("tij,tkj->tki", footage.R, person.keypoints_3d) + footage.t[:, None]
    return {
        "picture": np.full(size, max(footage.width, footage.height), np.float32),
        "in_camera": in_camera.astype(np.float32),
        "keypoints": person.keypoints.astype(np.float32),
        "visibility": person.visibility.astype(np.float32),
        "said": said,
        "score": score,
        "focal": np.full(size, footage.K[0, 0], np.float32),
        **({"closeup": told} if closer else {}),
    }


def _overlap(a: Float[np.ndarray, "4"], b: Float[np.ndarray, "4"]) -> float:
    """Intersection over union."""
    common = float((np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0).prod())
    both = float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - common
    return common / max(both, 1e-9)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.training.lifter.collect_detector_errors",
        description=__doc__.partition(":")[0] if __doc__ else "",
    )
    parser.add_argument("folder", help="where the parts are written")
    parser.add_argument("config", help="config of the lifter's training, whose motions are filmed")
    parser.add_argument("overrides", nargs="*", help="key=value over that config, such as mocap=[FOLDER]")
    parser.add_argument("--films", type=int, default=1500, help="windows of motion; about 4 seconds each on one core")
    parser.add_argument("--first", type=int, default=0, help="number of the first film, where processes share the work")
    parser.add_argument("--without-closeup", action="store_true", help="the detector alone")
    options = parser.parse_args(arguments)
    try:
        training = load_config(options.config, LifterTraining, options.overrides)
        closeup = not options.without_closeup
        watch(Path(options.folder), training, options.films, options.first, closeup=closeup)
    except HumoError as error:
        return exit_status(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
