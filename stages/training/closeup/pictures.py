"""Rendered pictures of people whose every keypoint is known, to train the closer look on:
`python -m stages.training.closeup.pictures FOLDER configs/lifter.yaml [key=value ...]`.

Windows of motion as the lifter trains on them are put into furnished places, and some of their frames are drawn. Each
person's surroundings are kept as a JPEG beside the truth, one .npz a part.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from schemas.body_model import BodyModel
from schemas.config import load_config
from schemas.errors import HumoError, exit_status
from stages.perception.closeup.crops import into_crop, warp
from stages.synthesis.film import keypoints_of
from stages.synthesis.renderer import Renderer
from stages.synthesis.scenes import Scene, UnlabelledMotion, make_scene
from stages.training.lifter.examples import draw_augmented_windows
from stages.training.lifter.motion_dataset import MotionDataset
from stages.training.lifter.settings import LifterTraining
from stages.training.lifter.train import make_datasets

AROUND = 1.7
"""Side of what is kept of a picture, in longer sides of the person's box."""
KEPT_PX = 384
"""The same in pixels."""
_SEED = 8_000_000
_WINDOW = 80
_MOVING, _OCCLUDED, _COMPANY = 0.25, 0.25, 0.15
"""Shares of scenes whose camera moves, with furniture in the way, with a second person."""
_PART = 25
"""Scenes a file."""
_QUALITY = (45, 95)
"""Of the JPEG that a whole picture goes through before anything is cut out, least and most."""
_KEPT_QUALITY = 92
_SMALLEST_PX = 40
"""Longer side of the smallest box that is kept."""


def draw_pictures(folder: Path, training: LifterTraining, scenes: int, *, first: int = 0, every: int = 10) -> int:
    """Every `every`-th frame of `scenes` windows of motion; how many scenes were drawn by this call.

    A scene is told by its number, from `first` on, so that several processes can share the work; parts that are there
    already are not made again.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    body = BodyModel.load()
    dataset, _ = make_datasets(training)
    began, done = time.monotonic(), 0
    for begin in range(first, first + scenes, _PART):
        path = folder / f"scenes-{begin:06d}.npz"
        if path.is_file():
            continue
        rows = [
            row
            for number in range(begin, min(begin + _PART, first + scenes))
            for row in _drawn(draw_scene(dataset, number, training, body), number, every, body)
        ]
        done += min(_PART, first + scenes - begin)
        jpegs = [row.pop("jpeg") for row in rows]
        arrays: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        aside = path.with_suffix(".part.npz")
        sizes = np.array([len(jpeg) for jpeg in jpegs])
        np.savez(aside, **arrays, jpegs=np.concatenate(jpegs), sizes=sizes)
        aside.replace(path)
        print(f"{path}: {done} scenes in {time.monotonic() - began:.0f} s", flush=True)
    return done


def draw_scene(dataset: MotionDataset, number: int, training: LifterTraining, body: BodyModel) -> Scene:
    """A window of motion, varied as in the lifter's training, in a place of its own."""
    generator = torch.Generator().manual_seed(_SEED + number)
    rng = np.random.default_rng([_SEED, number])
    moving, occluded, company = rng.random(3) < (_MOVING, _OCCLUDED, _COMPANY)
    count = 2 if company else 1
    windows = draw_augmented_windows(dataset, count, _WINDOW, training.augmentation, generator)
    rest = body.rest_joints(torch.zeros(10))[0]
    motions = [
        UnlabelledMotion(rotations[: int(valid.sum())], pelvis[: int(valid.sum())] - rest)
        for rotations, pelvis, valid in zip(windows.rotations, windows.pelvis, windows.valid, strict=True)
    ]
    return make_scene(
        motions, _SEED + number, body=body, camera="moving" if moving else "static", occluders=int(occluded),
        crossing=bool(company and rng.random() < 0.5),
    )  # fmt: skip


def _drawn(scene: Scene, number: int, every: int, body: BodyModel) -> list[dict[str, Any]]:
    """A row for each person in each frame that is drawn."""
    people, frames = scene.people, len(scene)
    renderer = Renderer(people, scene.cameras, scene.environment, body, scene.width, scene.height, scene.seed)
    points = np.stack([keypoints_of(person, body, frames) for person in people])
    rng = np.random.default_rng([scene.seed, 31])
    quality = int(rng.integers(*_QUALITY))
    rows = []
    for frame in range(int(rng.integers(min(every, frames))), frames, every):
        camera = scene.cameras[frame if len(scene.cameras) > 1 else 0]
        picture = _through_jpeg(renderer.render(frame), quality)
        visible = renderer.visibility(frame, points[:, frame])
        for person, skin in enumerate(renderer.vertices(frame)):
            pixels = camera.project(skin)
            box = np.concatenate([pixels.min(0), pixels.max(0)]).clip(0, [scene.width, scene.height] * 2)
            if (box[2:] - box[:2]).max() < _SMALLEST_PX or (box[2:] <= box[:2]).any():
                continue
            jpeg, corner, side = _cut_out(picture, box)
            rows.append(
                {
                    "scene": number,
                    "person": person,
                    "jpeg": jpeg,
                    "corner": corner,
                    "side": side,
                    "box": box.astype(np.float32),
                    "keypoints": camera.project(points[person, frame]).astype(np.float32),
                    "in_camera": (points[person, frame] @ camera.R.T + camera.t).astype(np.float32),
                    "focal": np.float32(camera.K[0, 0]),
                    "visibility": visible[person].astype(np.float32),
                }
            )
    return rows


def _through_jpeg(picture: UInt8[np.ndarray, "H W 3"], quality: int) -> UInt8[np.ndarray, "H W 3"]:
    """With the blocks and blur of compression, as films have them."""
    return from_jpeg(to_jpeg(picture, quality))


def to_jpeg(picture: UInt8[np.ndarray, "H W 3"], quality: int) -> UInt8[np.ndarray, "B"]:
    """An RGB picture as a file."""
    _, coded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return coded.reshape(-1)


def from_jpeg(coded: UInt8[np.ndarray, "B"]) -> UInt8[np.ndarray, "H W 3"]:
    """RGB."""
    picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    if picture is None:
        raise HumoError(
            "a picture that was kept is no JPEG; make its part anew with `python -m stages.training.closeup.pictures`"
        )
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _cut_out(
    picture: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, "4"]
) -> tuple[UInt8[np.ndarray, "B"], Float[np.ndarray, "2"], np.float32]:
    """A square around a box as a JPEG, its corner and its side in pixels."""
    side = AROUND * float((box[2:] - box[:2]).max())
    centre = (box[:2] + box[2:]) / 2
    square = warp(picture, into_crop(centre, side, size_px=KEPT_PX), KEPT_PX)
    corner = centre - side / 2
    return to_jpeg(square, _KEPT_QUALITY), corner.astype(np.float32), np.float32(side)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.training.closeup.pictures", description=__doc__.partition(":")[0] if __doc__ else ""
    )
    parser.add_argument("folder", help="where the parts are written")
    parser.add_argument("config", help="config of the lifter's training, whose motions are drawn")
    parser.add_argument("overrides", nargs="*", help="key=value over that config, such as mocap=[FOLDER]")
    parser.add_argument("--scenes", type=int, default=4000, help="windows of motion; a second or less each on one core")
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first scene, where processes share the work"
    )
    parser.add_argument("--every", type=int, default=10, help="frames from one picture to the next, at 30 a second")
    options = parser.parse_args(arguments)
    try:
        training = load_config(options.config, LifterTraining, options.overrides)
        draw_pictures(Path(options.folder), training, options.scenes, first=options.first, every=options.every)
    except HumoError as error:
        return exit_status(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
