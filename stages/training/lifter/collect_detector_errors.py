"""Run the detector and the landmark network on rendered films whose keypoints are known:
`python -m stages.training.lifter.collect_detector_errors FOLDER configs/lifter.yaml [key=value ...]`.

The motion windows that the lifter trains on are filmed in furnished places, and both networks run on the video files. Their
output and the ground truth go to FOLDER as .npz parts, to which `stages.training.lifter.detector_errors` fits an error model.
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
from schemas.skeleton import LANDMARK_OF_KEYPOINT
from stages.geometry.keypoints import keypoint_depths
from stages.media.decoding import TimedFrame
from stages.media.decoding import frames as read_frames
from stages.perception.detector import Detections, PoseDetector
from stages.perception.landmarks.look import LandmarkLooks
from stages.synthesis.film import Footage
from stages.synthesis.scenes import UnlabelledMotion, film_scene, make_scene
from stages.training.lifter.detector_errors import FRAME_STRIDE
from stages.training.lifter.examples import draw_augmented_windows
from stages.training.lifter.settings import LifterTraining
from stages.training.lifter.train import make_datasets

_MIN_IOU = 0.3
"""Intersection over union from which a detection is assigned to the person."""
_SEED = 7_000_000
_FRAMES = 80
"""Length of a window at 30 frames per second."""
_MOVING, _OCCLUDED = 0.25, 0.25
"""Shares of films with a moving camera, and with occluding furniture."""
_FILMS_PER_PART = 25


def collect(folder: Path, training: LifterTraining, films: int, first: int = 0, *, landmarks: bool = True) -> int:
    """Film `films` windows of the lifter's training motions and detect the person in them; the number of films written by this
    call.

    Each film is determined by its number, from `first` on, so that several processes can share the work; existing parts are
    kept.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    body = BodyModel.load()
    dataset, _ = make_datasets(training)
    detector = PoseDetector(threads=1)
    looks = LandmarkLooks(device=detector.device, backend=detector.backend) if landmarks else None
    rest = body.rest_joints(torch.zeros(10))[0]
    start_s = time.monotonic()
    done = 0
    for begin in range(first, first + films, _FILMS_PER_PART):
        path = folder / f"films-{begin:06d}.npz"
        if path.is_file():
            continue
        rows = []
        for number in range(begin, min(begin + _FILMS_PER_PART, first + films)):
            generator = torch.Generator().manual_seed(_SEED + number)
            windows = draw_augmented_windows(dataset, 1, _FRAMES, training.augmentation, generator)
            kept = slice(0, int(windows.valid.sum()), FRAME_STRIDE)
            motion = UnlabelledMotion(windows.rotations[0, kept], windows.pelvis[0, kept] - rest)
            samples = _film_and_detect(motion, number, detector, looks, body)
            rows.append({"film": np.full(len(motion.trans), number), **samples})
            done += 1
        temporary = path.with_suffix(".part.npz")
        arrays: dict[str, Any] = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        np.savez_compressed(temporary, **arrays)
        temporary.replace(path)
        print(f"{path}: {done} films in {time.monotonic() - start_s:.0f} s", flush=True)
    return done


def _film_and_detect(
    motion: UnlabelledMotion, number: int, detector: PoseDetector, looks: LandmarkLooks | None, body: BodyModel
) -> dict[str, np.ndarray]:
    """Film a motion in a scene drawn for it, and pair the detections with the ground truth."""
    rng = np.random.default_rng([number, 77])
    moving, occluded = rng.random() < _MOVING, rng.random() < _OCCLUDED
    scene = make_scene(
        [motion], 500_000 + number, body=body, camera="moving" if moving else "static", occluders=int(occluded)
    )
    with tempfile.TemporaryDirectory() as work:
        footage = film_scene(scene, Path(work) / "film.mp4", body=body)
        frames = list(read_frames(str(footage.path)))
        detections = list(detector.detect(frame.image for frame in frames))
    return _paired(footage, frames, detections, looks)


def _paired(
    footage: Footage, frames: list[TimedFrame], detections: list[Detections], looks: LandmarkLooks | None
) -> dict[str, np.ndarray]:
    """Ground truth of a film's only person, and what was detected of them; zeros in frames without a detection."""
    person = footage.people[0]
    size = len(footage)
    detected = np.zeros((size, 17, 3), np.float32)
    scores, depths = np.zeros(size, np.float32), np.zeros((size, 17, 3), np.float32)
    boxes = np.zeros((size, 4))
    edge = np.array([footage.width, footage.height] * 2)
    for frame, people in enumerate(detections[:size]):
        best_iou = _MIN_IOU
        for box, score, keypoints in zip(people.boxes, people.scores, people.keypoints, strict=True):
            iou = _iou(box, person.boxes[frame].clip(0, edge))
            if iou > best_iou:
                best_iou, detected[frame], scores[frame], boxes[frame] = iou, keypoints, score, box
    if looks:
        with_person = np.flatnonzero(scores).tolist()
        for frame in with_person:
            looks.begin(frames[frame].source, boxes[frame], detected[frame])
        for frame, found in zip(with_person, looks.finish(), strict=True):
            detected[frame] = found.points[list(LANDMARK_OF_KEYPOINT), :3]
            depths[frame] = keypoint_depths(detected[frame][None], found.metric[None])[0]
    in_camera = np.einsum("tij,tkj->tki", footage.R, person.keypoints_3d) + footage.t[:, None]
    return {
        "picture": np.full(size, max(footage.width, footage.height), np.float32),
        "in_camera": in_camera.astype(np.float32),
        "keypoints": person.keypoints.astype(np.float32),
        "visibility": person.visibility.astype(np.float32),
        "said": detected,
        "score": scores,
        "focal": np.full(size, footage.K[0, 0], np.float32),
        **({"depths": depths} if looks else {}),
    }


def _iou(a: Float[np.ndarray, "4"], b: Float[np.ndarray, "4"]) -> float:
    """Intersection over union of two boxes."""
    intersection = float((np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0).prod())
    union = float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - intersection
    return intersection / max(union, 1e-9)


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
    parser.add_argument("--without-landmarks", action="store_true", help="the detector alone")
    options = parser.parse_args(arguments)
    try:
        training = load_config(options.config, LifterTraining, options.overrides)
        landmarks = not options.without_landmarks
        collect(Path(options.folder), training, options.films, options.first, landmarks=landmarks)
    except HumoError as error:
        return exit_status(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
