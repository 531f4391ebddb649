"""Loading shards: order, shares, stops and tombstones."""

import itertools
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import webdataset

from model.data import MotionDataset, MotionLoader, check_body_model, cut, mirror_text, motion_features
from schemas.body_model import BodyModel
from schemas.dataset import TOMBSTONES, DatasetDescription, read_description, write_description, write_table
from schemas.errors import HumoError
from schemas.storage import Storage


def _keys(dataset: str, count: int, **options: object) -> list[str]:
    return [sample.key for sample in itertools.islice(MotionDataset(dataset, **options), count)]


def test_a_single_pass_gives_every_sample_once(dataset: str) -> None:
    keys = _keys(dataset, 100, epochs=1, shuffle_buffer=0)
    assert len(keys) == len(set(keys)) == 12


def test_order_depends_on_the_seed_alone_and_changes_with_the_epoch(dataset: str) -> None:
    first = _keys(dataset, 24, seed=3, shuffle_buffer=8)
    assert first == _keys(dataset, 24, seed=3, shuffle_buffer=8)
    assert first != _keys(dataset, 24, seed=4, shuffle_buffer=8)
    assert sorted(first[:12]) == sorted(first[12:])
    assert first[:12] != first[12:]


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_an_epoch(dataset: str, ranks: int) -> None:
    """With shards enough (2, 3) and with too few (5), no sample comes twice in an epoch."""
    share = 12 // ranks
    shares = [_keys(dataset, share, rank=rank, world_size=ranks) for rank in range(ranks)]
    keys = list(itertools.chain(*shares))
    assert len(set(keys)) == len(keys) or ranks == 2  # one of two ranks holds one shard of three and starts over
    assert all(len(keys) == share for keys in shares)


def test_ranks_meet_other_shards_in_each_epoch(dataset: str) -> None:
    epochs = _keys(dataset, 40, rank=0, world_size=3)
    assert len(set(epochs)) > 4


def test_too_many_readers_are_refused(dataset: str) -> None:
    with pytest.raises(HumoError, match="fewer workers"):
        next(iter(MotionDataset(dataset, world_size=13)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_loader_goes_on_where_it_was(dataset: str, workers: int) -> None:
    def batches(loader: MotionLoader, count: int) -> list[list[str]]:
        return [[sample.key for sample in batch] for batch in itertools.islice(loader, count)]

    options = {"dataset": dataset, "batch_size": 3, "workers": workers, "seed": 1, "shuffle_buffer": 4}
    whole = batches(MotionLoader(**options), 11)
    stopped = MotionLoader(**options)
    begun = batches(stopped, 7)
    resumed = MotionLoader(**options)
    resumed.load_state_dict(stopped.state_dict())
    assert begun + batches(resumed, 4) == whole
    assert stopped.steps_per_epoch == 4


def test_removed_samples_stay_away(tmp_path: Path, dataset: str) -> None:
    shutil.copytree(dataset, tmp_path / "copy")
    dataset = str(tmp_path / "copy")
    keys = _keys(dataset, 12, epochs=1, shuffle_buffer=0)
    write_table(Storage(dataset), TOMBSTONES, pa.table({"key": keys[:2]}))
    assert _keys(dataset, 12, epochs=1, shuffle_buffer=0) == keys[2:]
    assert set(_keys(dataset, 40)) == set(keys[2:])
    write_table(Storage(dataset), TOMBSTONES, pa.table({"key": keys}))
    with pytest.raises(HumoError, match="removed"):
        _keys(dataset, 1)


def test_samples_are_decoded(dataset: str, body: BodyModel) -> None:
    sample = next(iter(MotionDataset(dataset)))
    assert sample.body[0].startswith("a person ")
    assert [one.task for one in sample.instructions] == ["t2m", "m2t", "prediction"]
    assert sample.instructions[1].target.text == sample.body[0]
    assert motion_features([sample.motion], body).shape == (1, len(sample.motion.poses) - 1, 263)
    assert len(cut(sample.motion, 3, 10).poses) == 7


def test_shards_are_plain_webdataset_shards(dataset: str) -> None:
    path = f"{dataset}/{read_description(Storage(dataset)).shards[0].path}"
    samples = list(webdataset.WebDataset(path, shardshuffle=False))
    assert len(samples) == 4
    assert {"motion.npz", "text.json", "instructions.json", "meta.json"} <= set(samples[0])


def test_what_does_not_serve_says_so(dataset: str, tmp_path: Path, body: BodyModel) -> None:
    with pytest.raises(HumoError, match="mocap/train"):
        MotionDataset(dataset, split="test")
    with pytest.raises(HumoError, match=r"no dataset\.json"):
        MotionDataset(str(tmp_path))
    write_description(Storage(tmp_path), DatasetDescription(body_models=["smpl-0"]))
    with pytest.raises(HumoError, match="smpl-0"):
        check_body_model(str(tmp_path), body)


def test_mirrored_texts() -> None:
    assert mirror_text("Left hand up, turns to the right.") == "Right hand up, turns to the left."
    assert mirror_text("steps leftwards, clockwise") == "steps rightwards, counterclockwise"
    assert mirror_text("anticlockwise") == "clockwise"
    assert mirror_text("brightly leftover") == "brightly leftover"
