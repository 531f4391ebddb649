"""Loading shards: order, ranks, resuming and tombstones."""

import itertools
import json
import shutil
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.data.dataset import MotionDataset, check_body_model
from model.data.loader import MotionLoader
from model.data.samples import MotionSample, slice_frames
from model.data.text import mirror_text
from model.features.motions import motion_features
from schemas.body_model import BodyModel
from schemas.dataset import TOMBSTONES, DatasetDescription, read_description, write_description, write_table
from schemas.errors import HumoError, UsageError
from schemas.shards import encode_sample, read_samples, write_tar
from schemas.storage import Storage


def _loader(dataset: str, *, rank: int = 0, world_size: int = 1, **options: object) -> MotionLoader:
    config = {"batch_size": 3, "shuffle_window": 8, **options}
    return MotionLoader(MotionLoader.Config(dataset=dataset, **config), rank=rank, world_size=world_size)


def _keys(batches: Iterable[list[MotionSample]], count: int | None = None) -> list[list[str]]:
    return [[sample.key for sample in batch] for batch in itertools.islice(batches, count)]


def _flat(lists: Iterable[list[str]]) -> list[str]:
    return list(itertools.chain.from_iterable(lists))


def _without_extra(batches: Iterable[list[MotionSample]]) -> list[str]:
    """Keys of an epoch without extra samples."""
    return [sample.key for batch in batches for sample in batch if not sample.extra]


@pytest.fixture
def copy(dataset: str, tmp_path: Path) -> str:
    """A copy of the dataset that a test may change."""
    shutil.copytree(dataset, tmp_path / "copy")
    return str(tmp_path / "copy")


def test_dataset_is_the_split_in_stored_order(dataset: str) -> None:
    samples = MotionDataset(dataset)
    keys = [sample.key for sample in samples]
    assert len(keys) == len(set(keys)) == len(samples) == 12
    shards = [
        f"{dataset}/{shard.path}" for shard in read_description(Storage(dataset)).shards if shard.split == "train"
    ]
    assert keys == [sample["__key__"] for sample in webdataset.WebDataset(shards, shardshuffle=False)]
    assert samples[5].key == keys[5]


def test_dataset_works_with_torch_samplers(dataset: str) -> None:
    samples = MotionDataset(dataset)
    loader = torch.utils.data.DataLoader(samples, batch_size=5, shuffle=True, num_workers=2, collate_fn=list)
    assert sorted(_without_extra(loader)) == sorted(sample.key for sample in samples)
    shares = [torch.utils.data.DistributedSampler(samples, 2, rank, shuffle=False) for rank in range(2)]
    assert sorted(itertools.chain(*shares)) == list(range(12))


def test_order_depends_on_seed_and_epoch_only(dataset: str) -> None:
    first = _keys(_loader(dataset, seed=3), 8)
    assert first == _keys(_loader(dataset, seed=3), 8)
    assert first == _keys(_loader(dataset, seed=3, workers=3), 8)
    assert first != _keys(_loader(dataset, seed=4), 8)
    assert sorted(_flat(first[:4])) == sorted(_flat(first[4:]))
    assert first[:4] != first[4:]


@pytest.mark.parametrize("ranks", [2, 3, 5, 12])
def test_epoch_yields_every_sample_once_and_equally_many_full_batches_per_rank(dataset: str, ranks: int) -> None:
    shares = [list(_loader(dataset, rank=rank, world_size=ranks, epochs=1, batch_size=2)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {_loader(dataset, world_size=ranks, batch_size=2).steps_per_epoch}
    assert all(len(batch) == 2 for share in shares for batch in share)
    assert sorted(_flat(map(_without_extra, shares))) == sorted(sample.key for sample in MotionDataset(dataset))


def test_rank_reads_different_shards_each_epoch(dataset: str) -> None:
    assert len(set(_without_extra(_loader(dataset, world_size=3, epochs=30)))) == 12


def test_more_workers_than_shards_raise_with_remedy(dataset: str) -> None:
    with pytest.raises(
        UsageError, match=r"3 shards of train for 4 workers .* workers: 1.*humo pack .* --shard-bytes \d+"
    ):
        _loader(dataset, workers=2, world_size=2)
    with pytest.raises(UsageError, match="use fewer ranks"):
        _loader(dataset, world_size=13)
    assert _loader(dataset, workers="auto", world_size=2).workers <= 1
    assert _loader(dataset, workers="auto", world_size=5).workers == 0


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stop=st.integers(0, 11), ranks=st.integers(1, 3), before=st.integers(0, 1), after=st.integers(0, 1),
       bucket=st.sampled_from([0, 3]))  # fmt: skip
def test_resumed_loader_yields_exactly_the_remaining_samples(
    dataset: str, stop: int, ranks: int, before: int, after: int, bucket: int
) -> None:
    """At any batch, with a different number of workers, across epochs."""
    for rank in range(ranks):
        options = {"rank": rank, "world_size": ranks, "batch_size": 2, "seed": 1, "bucket_batches": bucket}
        whole = _keys(_loader(dataset, **options), 14)
        stopped = _loader(dataset, **options, workers=before)
        first = _keys(stopped, stop)
        resumed = _loader(dataset, **options, workers=after)
        resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        assert first + _keys(resumed, 14 - stop) == whole


def test_second_iterator_continues(dataset: str) -> None:
    loader = _loader(dataset, seed=5)
    assert _keys(loader, 3) + _keys(loader, 4) == _keys(_loader(dataset, seed=5), 7)


def test_epoch_resumes_with_other_ranks_and_batch_sizes(dataset: str) -> None:
    first, states = [], []
    for rank in range(3):
        loader = _loader(dataset, rank=rank, world_size=3, batch_size=2, epochs=1)
        first += _without_extra(itertools.islice(loader, 1))
        states.append(loader.state_dict())
    assert states[0] == states[1] == states[2]
    middle = []
    for rank in range(2):
        loader = _loader(dataset, rank=rank, world_size=2, batch_size=1, epochs=1)
        loader.load_state_dict(states[0])
        middle += _without_extra(itertools.islice(loader, 2))
        states.append(loader.state_dict())
    last = _loader(dataset, batch_size=4, epochs=1)
    last.load_state_dict(states[-1])
    assert sorted(first + middle + _without_extra(last)) == sorted(sample.key for sample in MotionDataset(dataset))


def test_state_of_another_order_starts_the_next_epoch(dataset: str) -> None:
    loader = _loader(dataset, seed=1)
    _keys(loader, 2)
    other = _loader(dataset, seed=2)
    with pytest.warns(UserWarning, match="continuing with epoch 1"):
        other.load_state_dict(loader.state_dict())
    assert other.state_dict()["epoch"] == 1


def test_removed_samples_are_skipped(copy: str) -> None:
    keys = [sample.key for sample in MotionDataset(copy)]
    interrupted = _loader(copy)
    first = _flat(_keys(interrupted, 2))
    write_table(Storage(copy), TOMBSTONES, pa.table({"key": keys[:2]}))
    assert [sample.key for sample in MotionDataset(copy)] == keys[2:]
    assert sorted(_without_extra(_loader(copy, epochs=1))) == sorted(keys[2:])
    for rank in range(2):
        batches = _keys(_loader(copy, rank=rank, world_size=2, epochs=3))
        assert [len(batch) for batch in batches] == [3] * 6
        assert not set(_flat(batches)) & set(keys[:2])
    # A resumed epoch yields the remaining samples, without removed ones.
    resumed = _loader(copy, epochs=1)
    resumed.load_state_dict(interrupted.state_dict())
    assert sorted(_without_extra(resumed)) == sorted(set(keys[2:]) - set(first))
    write_table(Storage(copy), TOMBSTONES, pa.table({"key": keys}))
    with pytest.raises(HumoError, match="removed"):
        MotionDataset(copy)


def test_removal_takes_effect_while_loading(copy: str) -> None:
    loader = _loader(copy)
    batches = iter(loader)
    keys = [sample.key for sample in MotionDataset(copy)]
    next(batches)
    write_table(Storage(copy), TOMBSTONES, pa.table({"key": keys[:6]}))
    _keys(batches, 3)
    assert not set(_flat(_keys(batches, 8))) & set(keys[:6])


def test_stale_index_of_a_repacked_dataset_raises(copy: str) -> None:
    samples = MotionDataset(copy)
    shard = read_description(Storage(copy)).shards[0]
    content = Storage(copy).read_bytes(shard.path)
    path = Path(copy, shard.path)
    path.write_bytes(content[512:] + content[:512])
    with pytest.raises(HumoError, match=r"train-000000\.tar: does not hold"):
        samples[1]
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(HumoError, match="bytes, dataset"):
        MotionDataset(copy)
    path.unlink()
    with pytest.raises(HumoError, match="does not exist"):
        MotionDataset(copy)


def test_check_hashes_verifies_each_shard(copy: str) -> None:
    shard = read_description(Storage(copy)).shards[1]
    path = Path(copy, shard.path)
    content = bytearray(path.read_bytes())
    content[-600] ^= 1  # in the padding or the text of the last sample; the headers stay
    MotionDataset(copy, check_hashes=True)
    path.write_bytes(content)
    assert len(list(_loader(copy, epochs=1, check_hashes=False))) == 4
    for workers in (0, 2):
        with pytest.raises(HumoError, match=rf"^{copy}/shards/mocap/train-000001\.tar: its sha256 is"):
            list(_loader(copy, epochs=1, check_hashes=True, workers=workers))


def test_clips_are_skipped(dataset: str, tmp_path: Path) -> None:
    """Neither reading a sample with a clip of 16 MB nor indexing it loads the clip into memory."""
    shard = read_description(Storage(dataset)).shards[0]
    with Storage(dataset).open(shard.path) as file:
        samples = list(read_samples(file))
    storage = Storage(tmp_path)
    with storage.publish("shards/a.tar") as file:
        encoded = (encode_sample(key, {**members, "clip.mp4": bytes(16 << 20)}) for key, members in samples)
        content = write_tar(file, encoded)
    entry = replace(shard, path="shards/a.tar", bytes=content.bytes, sha256=content.sha256)
    write_description(storage, DatasetDescription(shards=[entry]))
    tracemalloc.start()
    keys = [sample.key for sample in MotionDataset(str(tmp_path))]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert keys == [key for key, _ in samples]
    assert peak_bytes < 4 << 20


def test_samples_are_decoded(dataset: str, body: BodyModel) -> None:
    sample = next(iter(MotionDataset(dataset)))
    assert sample.body[0].startswith("a person ")
    assert [instruction.task for instruction in sample.instructions] == ["t2m", "m2t", "prediction"]
    assert sample.instructions[1].target.text == sample.body[0]
    assert motion_features([sample.motion], body).shape == (1, len(sample.motion.poses) - 1, 263)
    assert len(slice_frames(sample.motion, 3, 10).poses) == 7
    assert sample.motion.poses.dtype == np.float32


def test_unusable_datasets_raise(dataset: str, tmp_path: Path, body: BodyModel) -> None:
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
