"""Cache of remote shards: fetched once, verified, limited in size; and the index from the catalogue."""

import multiprocessing
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from filelock import FileLock

from model.data.dataset import MotionDataset
from model.data.loader import MotionLoader
from model.data.shard_cache import ShardCache
from schemas.dataset import ShardEntry, read_description, write_table
from schemas.errors import HumoError, UsageError
from schemas.storage import Storage


@pytest.fixture
def remote_dataset(dataset: str) -> str:
    """The dataset in fsspec's memory file system, which the loader treats as remote."""
    remote, local = Storage("memory://datasets/humo"), Storage(dataset)
    for path in local.list(""):
        remote.write_bytes(path, local.read_bytes(path))
    return remote.uri


def _fetch(folder: Path, limit: int, source: str, numbers: list[int], results: "multiprocessing.Queue[bytes]") -> None:
    storage = Storage(source)
    shards = read_description(storage).shards
    for number in numbers:
        descriptor = ShardCache(folder, limit).open(storage, shards[number])
        results.put(os.pread(descriptor, shards[number].bytes + 1, 0))
        os.close(descriptor)


def _shards(dataset: str) -> list[ShardEntry]:
    return read_description(Storage(dataset)).shards


def test_remote_samples_equal_local_ones(dataset: str, remote_dataset: str, tmp_path: Path) -> None:
    config = MotionLoader.Config(dataset=remote_dataset, batch_size=3, workers=2, epochs=2, cache=str(tmp_path))
    keys = [sample.key for batch in MotionLoader(config) for sample in batch]
    local = MotionLoader(config.model_copy(update={"dataset": dataset, "workers": 0}))
    assert keys == [sample.key for batch in local for sample in batch]
    assert {path.stem for path in tmp_path.glob("*.tar")} == {shard.sha256 for shard in _shards(dataset)[:3]}


def test_several_processes_fetch_a_shard_once(dataset: str, tmp_path: Path) -> None:
    shards = _shards(dataset)
    results: multiprocessing.Queue[bytes] = multiprocessing.Queue()
    jobs = [
        multiprocessing.Process(target=_fetch, args=(tmp_path, 10**9, dataset, [0, 1, 0], results)) for _ in range(4)
    ]
    for job in jobs:
        job.start()
    contents = [results.get(timeout=60) for _ in range(12)]
    for job in jobs:
        job.join()
    assert {len(content) for content in contents} == {shards[0].bytes, shards[1].bytes}
    assert len(list(tmp_path.glob("*.tar"))) == 2
    assert not list(tmp_path.glob("*.partial"))


def test_cache_limits_its_size_and_evicts_least_recently_used(dataset: str, tmp_path: Path) -> None:
    storage, shards = Storage(dataset), _shards(dataset)
    limit = shards[0].bytes + shards[1].bytes + shards[2].bytes // 2
    cache = ShardCache(tmp_path, limit)
    first = cache.open(storage, shards[0])
    for number in (1, 0, 2):
        os.close(cache.open(storage, shards[number]))
        assert sum(path.stat().st_size for path in tmp_path.glob("*.tar")) <= limit
    assert {path.stem for path in tmp_path.glob("*.tar")} == {shards[0].sha256, shards[2].sha256}
    os.close(cache.open(storage, shards[1]))
    assert not (tmp_path / f"{shards[0].sha256}.tar").exists()
    assert len(os.pread(first, 10**9, 0)) == shards[0].bytes  # evicted, but still readable through the open descriptor
    os.close(first)
    with pytest.raises(HumoError, match="raise cache_gib"):
        ShardCache(tmp_path, 100).open(storage, shards[0])


def test_abandoned_downloads_are_evicted(dataset: str, tmp_path: Path) -> None:
    storage, shards = Storage(dataset), _shards(dataset)
    abandoned, active = tmp_path / "abandoned.partial", tmp_path / "active.partial"
    for path in (abandoned, active):
        path.write_bytes(bytes(shards[0].bytes))
    with FileLock(active.with_suffix(".lock")):
        os.close(ShardCache(tmp_path, 2 * max(shard.bytes for shard in shards)).open(storage, shards[1]))
    assert active.exists()
    assert not abandoned.exists()


def test_corrupt_or_missing_shards_raise(dataset: str, remote_dataset: str, tmp_path: Path) -> None:
    shard = _shards(dataset)[0]
    storage = Storage(remote_dataset)
    content = bytearray(storage.read_bytes(shard.path))
    content[700] ^= 1
    storage.write_bytes(shard.path, bytes(content))
    with pytest.raises(HumoError, match=r"train-000000\.tar: its sha256 is"):
        ShardCache(tmp_path, 10**9).open(storage, shard)
    assert not list(tmp_path.glob("*.tar")) + list(tmp_path.glob("*.partial"))
    storage.delete(shard.path)
    with pytest.raises(HumoError, match="does not exist"):
        ShardCache(tmp_path, 10**9).open(storage, shard)


def test_shuffle_window_beyond_the_cache_raises(remote_dataset: str, tmp_path: Path) -> None:
    config = MotionLoader.Config(dataset=remote_dataset, batch_size=3, cache=str(tmp_path), cache_gib=200 / 2**20)
    with pytest.raises(UsageError, match="shuffle_window"):
        MotionLoader(config)
    MotionLoader(config.model_copy(update={"shuffle_window": 2}))


def test_index_from_the_catalogue_equals_scanned_index(dataset: str, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "copy")
    scanned = MotionDataset(dataset)
    storage = Storage(tmp_path / "copy")
    ends = [*scanned.reader.index.offsets[1:4], scanned.reader.shards[0].bytes - 1024]
    rows = {
        "key": [key.decode() for key in scanned.reader.index.keys[:4]],
        "shard": [scanned.reader.shards[0].path] * 4,
        "frames": scanned.reader.index.frames[:4],
        "bytes": [int(end - start) for start, end in zip(scanned.reader.index.offsets[:4], ends, strict=True)],
    }
    write_table(storage, "catalogue/mocap-train-000000.parquet", pa.table(rows))
    listed = MotionDataset(str(tmp_path / "copy"))
    for name in ("keys", "offsets", "frames", "counts"):
        assert (getattr(listed.reader.index, name) == getattr(scanned.reader.index, name)).all()
    assert [sample.key for sample in listed] == [sample.key for sample in scanned]
    # A catalogue that does not match the shard is ignored.
    write_table(storage, "catalogue/mocap-train-000000.parquet", pa.table({**rows, "bytes": [512] * 4}))
    assert (MotionDataset(str(tmp_path / "copy")).reader.index.offsets == scanned.reader.index.offsets).all()
