"""The closer look: crops, drawn pictures, the training, the weights, and what it sees in rendered people."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import PROJECT_ROOT
from schemas.config import load_config
from schemas.errors import HumoError, UsageError
from schemas.skeleton import COCO_KEYPOINTS, keypoint
from stages.perception.closeup.crops import MARGIN, into_crop, moved_by, square_about, warp
from stages.perception.closeup.look import CloseLook, export, load_head
from stages.perception.closeup.network import CROP_PX, MIRROR, Head
from stages.perception.detector import default_weights
from stages.training.closeup.examples import Pictures, plain, read_pictures, truth_of, varied
from stages.training.closeup.pictures import draw_pictures, from_jpeg, to_jpeg
from stages.training.closeup.pictures import main as pictures_command
from stages.training.closeup.settings import CloseupTraining
from stages.training.closeup.train import main as train_command
from stages.training.closeup.train import train
from stages.training.lifter.settings import LifterTraining

CONFIG = PROJECT_ROOT / "configs" / "closeup.yaml"
WRIST = keypoint("left_wrist")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pictures of three scenes."""
    folder = tmp_path_factory.mktemp("pictures")
    assert draw_pictures(folder, LifterTraining(studio_seeds=1), 3, every=16) == 3
    return folder


@pytest.fixture(scope="module")
def pictures(drawn: Path) -> Pictures:
    return read_pictures([drawn])


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training of a few steps."""
    output = tmp_path_factory.mktemp("closeup")
    train(_config(drawn, output, steps=8))
    return output


def _config(drawn: Path, output: Path, steps: int) -> CloseupTraining:
    return CloseupTraining(
        output=str(output), pictures=[str(drawn)], held_out=3, width=32, fine_width=16, layers=1, token_layers=1,
        steps=steps, batch_size=4, warmup_steps=2, log_every=4, validate_every=8, save_every_s=1e-6, device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize("side", [60.0, 256.0, 1400.0])
@pytest.mark.parametrize("angle_rad", [0.0, 0.4])
def test_a_dot_lies_in_the_crop_where_the_map_says(side: float, angle_rad: float) -> None:
    image = np.zeros((900, 1200, 3), np.uint8)
    size = max(3, round(side / 40))
    image[400 : 400 + size, 700 : 700 + size] = 255
    middle = np.array([700 + size / 2, 400 + size / 2])
    matrix = into_crop(middle + np.array([0.2, -0.1]) * side, side, angle_rad)
    bright = warp(image, matrix)[..., 0].astype(float)
    bright[bright <= 114] = 0  # what lies beyond the picture is grey
    y, x = np.indices(bright.shape) + 0.5
    found = np.array([(bright * x).sum(), (bright * y).sum()]) / bright.sum()
    np.testing.assert_allclose(found, moved_by(matrix, middle), atol=0.3)


def test_crops_hold_the_box_with_a_margin() -> None:
    centre, side = square_about(np.array([100.0, 50.0, 180.0, 250.0]))
    np.testing.assert_allclose(centre, [140, 150])
    assert side == pytest.approx(200 * MARGIN)
    corners = moved_by(into_crop(centre, side), np.array([[100.0, 50.0], [180.0, 250.0]]))
    np.testing.assert_allclose(corners[:, 1], [CROP_PX * 0.1, CROP_PX * 0.9])


def test_pictures_hold_people_and_are_made_once(drawn: Path, pictures: Pictures) -> None:
    assert len(pictures.jpegs) == len(pictures.scene) >= 9
    assert set(pictures.scene) == {0, 1, 2}
    assert draw_pictures(drawn, LifterTraining(studio_seeds=1), 3, every=16) == 0
    for place in range(len(pictures.jpegs)):
        image, truth = plain(pictures, place)
        assert image.shape == (CROP_PX, CROP_PX, 3)
        seen = pictures.visibility[place] > 0.5
        assert (np.abs(truth[seen, :2]) < 1).all(), "what is seen lies in the crop"
        assert truth[:, 2].mean() == pytest.approx(0, abs=1e-5), "depths count from their middle"


def test_depths_have_the_unit_of_places(pictures: Pictures) -> None:
    """A body turned by a quarter about the vertical would show in x what it now has in depth."""
    place = 0
    matrix = into_crop(*square_about(pictures.box[place]))
    truth, points = truth_of(pictures, place, matrix), pictures.in_camera[place].astype(np.float64)
    unit = float(pictures.focal[place]) / points[:, 2].mean() * 2 / square_about(pictures.box[place])[1]
    np.testing.assert_allclose(truth[:, 2], (points[:, 2] - points[:, 2].mean()) * unit, rtol=1e-4, atol=1e-5)
    across = points[:, 0] - points[:, 0].mean()
    np.testing.assert_allclose(truth[:, 0] - truth[:, 0].mean(), across * unit, atol=0.12)


def test_variations_keep_truth_and_picture_together(pictures: Pictures) -> None:
    """A white dot painted onto a wrist is found where the truth says, whatever was done to the crop but its colours."""
    place = next(i for i, seen in enumerate(pictures.visibility) if seen[WRIST] == 1)
    kept = np.zeros((384, 384, 3), np.uint8)
    x, y = (pictures.keypoints[place, WRIST] - pictures.corner[place]) * 384 / pictures.side[place]
    kept[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] = 255
    jpegs = list(pictures.jpegs)
    jpegs[place] = to_jpeg(kept, 98)
    dotted = replace(pictures, jpegs=jpegs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.training.closeup.examples._recoloured", lambda image, rng: image)
        patch.setattr("stages.training.closeup.examples._covered", lambda image, rng: image)
        for seed in range(12):
            image, truth = varied(dotted, place, np.random.default_rng(seed))
            bright = np.where(image[..., 0] > 150, image[..., 0], 0).astype(float)
            ys, xs = np.indices(bright.shape) + 0.5
            found = np.array([(bright * xs).sum(), (bright * ys).sum()]) / bright.sum() / (CROP_PX / 2) - 1
            mirrored = np.linalg.norm(found - truth[MIRROR[WRIST], :2]) < np.linalg.norm(found - truth[WRIST, :2])
            np.testing.assert_allclose(found, truth[MIRROR[WRIST] if mirrored else WRIST, :2], atol=0.02)


def test_the_head_learns_and_goes_on_where_it_stopped(drawn: Path, trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]
    assert {"median", "wrist_off", "depth"} <= set(rows[-1])
    train(_config(drawn, trained, steps=9))
    assert torch.load(trained / "checkpoint.pt", weights_only=True)["step"] == 9
    with pytest.raises(UsageError, match="another network"):
        train(_config(drawn, trained, steps=10).model_copy(update={"width": 64}))


def test_exported_weights_see_the_same_by_openvino_and_by_torch(trained: Path, films: Path, tmp_path: Path) -> None:
    path = tmp_path / "closeup.safetensors"
    export(trained / "checkpoint.pt", path)
    assert load_head(path).version.startswith("closeup ")
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    boxes = [np.array([60.0, 20.0, 160.0, 220.0]), np.array([10.0, 5.0, 320.0, 239.0])]
    said = []
    for backend in ("openvino", "torch"):
        look = CloseLook(default_weights(), head=path, backend=backend)
        for box in boxes:
            look.begin(image, box)
        said.append(look.finish())
        assert look.finish() == []
    for one, other, box in zip(*said, boxes, strict=True):
        near = 0.01 * float((box[2:] - box[:2]).max())
        np.testing.assert_allclose(one.places, other.places, atol=near)
        np.testing.assert_allclose(one.depths, other.depths, atol=near)
        assert (one.off > 0).all()


def test_other_weights_are_refused_in_a_sentence(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    with pytest.raises(HumoError, match=r"none\.safetensors: holds no closer look"):
        load_head(tmp_path / "none.safetensors")
    other = tmp_path / "other.pt"
    other.write_bytes(b"another detector")
    with pytest.raises(HumoError, match=r"set track_people\.closeup to never"):
        CloseLook(other)
    assert pictures_command([str(tmp_path), str(tmp_path / "none.yaml")]) == 2
    assert train_command([]) == 2
    with pytest.raises(HumoError, match=r"stages\.training\.closeup\.pictures"):
        read_pictures([tmp_path])
    config = load_config(CONFIG, CloseupTraining)
    assert set(config.model_fields_set) == set(CloseupTraining.model_fields)


def test_the_shipped_head_finds_people_and_what_is_nearer(pictures: Pictures) -> None:
    """On pictures that nobody trained on, in parts of the box's side: most keypoints within a twentieth, depths in order."""
    look = CloseLook(default_weights())
    off, true = [], []
    for place in range(len(pictures.jpegs)):
        matrix = into_crop(pictures.corner[place] + pictures.side[place] / 2, float(pictures.side[place]), size_px=384)
        box = pictures.box[place].astype(np.float64)
        corners = moved_by(matrix, box.reshape(2, 2)).reshape(4)
        look.begin(from_jpeg(pictures.jpegs[place]), corners)
        truth = moved_by(matrix, pictures.keypoints[place].astype(np.float64))
        size = float((corners[2:] - corners[:2]).max())
        depth = pictures.in_camera[place, :, 2]
        off.append((truth, size))
        true.append((depth - depth.mean()) / depth.mean() * pictures.focal[place] * 384 / pictures.side[place] / size)
    looks = look.finish()
    apart = np.stack(
        [np.linalg.norm(one.places - truth, axis=-1) / size for one, (truth, size) in zip(looks, off, strict=True)]
    )
    told = np.stack([one.depths / size for one, (_, size) in zip(looks, off, strict=True)])
    seen = pictures.visibility > 0.5
    assert np.median(apart[seen]) < 0.03
    assert (apart[seen] < 0.05).mean() > 0.75
    assert np.corrcoef(told[seen], np.stack(true)[seen])[0, 1] > 0.7


def test_mirrored_pictures_are_seen_mirrored(pictures: Pictures) -> None:
    look = CloseLook(default_weights())
    kept = from_jpeg(pictures.jpegs[0])
    box = np.array([80.0, 80.0, 304.0, 304.0])
    look.begin(kept, box)
    look.begin(np.ascontiguousarray(kept[:, ::-1]), box)
    one, other = look.finish()
    flipped = other.places[list(MIRROR)]
    flipped[:, 0] = kept.shape[1] - flipped[:, 0]
    np.testing.assert_allclose(flipped, one.places, atol=1.0)
    np.testing.assert_allclose(other.depths[list(MIRROR)], one.depths, atol=1.0)


def test_a_head_says_something_of_every_keypoint() -> None:
    head = Head(width=32, fine_width=16, layers=1, token_layers=1)
    said = head(torch.zeros(2, 192, 32, 32), torch.zeros(2, 256, 16, 16), torch.zeros(2, 512, 8, 8))
    assert said.points.shape == (2, len(COCO_KEYPOINTS), 3)
    torch.testing.assert_close(said.heat.exp().sum((-1, -2)), torch.ones(2, 17))
    assert bool((said.first.abs() <= 1).all())


def test_batches_of_crops_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA: batches of two, the last one of one; a second round starts anew."""
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    boxes = np.array([[10, 10, 110, 230], [100, 20, 200, 200], [60, 0, 300, 240]], np.float32)
    look = CloseLook(default_weights(), backend="torch")

    def see() -> list[np.ndarray]:
        for box in boxes:
            look.begin(image, box)
        return [np.concatenate([one.places, one.off], axis=1) for one in look.finish()]

    together = see()
    monkeypatch.setattr("stages.perception.closeup.look._TOGETHER", 2)
    for one, other in zip(see(), together, strict=True):
        np.testing.assert_allclose(one, other, atol=0.05)
    assert np.abs(together[0] - together[1]).max() > 1
    assert look.finish() == []
