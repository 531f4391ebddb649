"""The commit protocol with a local S3 server: uploads, conditional writes, whole jobs, orphans."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mocap_files import body_motion, write_known_bvh
from s3_server import s3_bucket

from pipeline.chain.config import IngestConfig
from pipeline.curation.remove import remove
from pipeline.dataset.lease import Lease
from pipeline.dataset.maintenance import run_maintenance
from pipeline.dataset.verify import verify
from pipeline.job.ingest import ingest
from schemas.config import parse_config
from schemas.dataset import iterate_samples
from schemas.errors import HumoError
from schemas.ledger import read_ledger
from schemas.storage import Storage


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Address of an empty bucket."""
    with s3_bucket() as address:
        yield address


@pytest.fixture(scope="module")
def mocap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mocap")
    for number, action in enumerate(("walk", "wave_left", "squat")):
        write_known_bvh(folder / f"{action}.bvh", body_motion(action, 3.0 + number / 2), "cmu_bvh")
    return folder


def job(mocap: Path, output: str, **settings: object) -> IngestConfig:
    config = {
        "sources": [{"kind": "mocap", "path": str(mocap)}],
        "output": output,
        "splits": {"train": 1.0},
        **settings,
    }
    return parse_config(config, IngestConfig, "job.yaml")


def test_one_of_many_concurrent_creates_succeeds(bucket: str) -> None:
    storage = Storage(f"{bucket}/create")

    def attempt(number: int) -> bool:
        try:
            storage.create("file", b"%d" % number)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        succeeded = list(pool.map(attempt, range(8)))
    assert sum(succeeded) == 1
    assert storage.read_bytes("file") == b"%d" % succeeded.index(True)


def test_a_failed_upload_leaves_no_file(bucket: str) -> None:
    storage = Storage(f"{bucket}/upload")

    def upload() -> None:
        with storage.publish("part") as file:
            file.write(b"x" * 10_000_000)
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        upload()
    assert not storage.exists("part")


def test_the_same_dataset_as_on_a_disk(bucket: str, mocap: Path, tmp_path: Path) -> None:
    remote = ingest(job(mocap, f"{bucket}/data"))
    local = ingest(job(mocap, str(tmp_path / "data")))
    assert remote.description == local.description
    assert remote.samples == 3
    assert verify(f"{bucket}/data").problems == []
    samples = {key: members for _, key, members in iterate_samples(Storage(f"{bucket}/data"))}
    assert samples == {key: members for _, key, members in iterate_samples(Storage(tmp_path / "data"))}
    again = ingest(job(mocap, f"{bucket}/data"))
    assert (again.samples, len(again.worklist.done)) == (0, 3)
    source = read_ledger(Storage(f"{bucket}/data")).column("source_id").to_pylist()[0]
    assert len(remove(f"{bucket}/data", [source]).removed) == 1
    assert verify(f"{bucket}/data").problems == []


def test_orphans_are_deleted(bucket: str, mocap: Path) -> None:
    storage = Storage(f"{bucket}/orphan")
    ingest(job(mocap, storage.uri))
    storage.write_bytes("parts/orphan.tar", b"x")
    assert run_maintenance(storage).swept == []
    assert run_maintenance(storage, grace_s=-1e6).swept == ["parts/orphan.tar"]
    assert verify(storage.uri).problems == []


def test_a_second_job_is_refused(bucket: str, mocap: Path) -> None:
    storage = Storage(f"{bucket}/lease")
    with Lease(storage, "first", beat_s=0.2), pytest.raises(HumoError, match="is writing to it"):
        ingest(job(mocap, storage.uri))
    assert ingest(job(mocap, storage.uri)).samples == 3


def test_ray_workers_are_refused_where_the_store_ignores_conditions(mocap: Path) -> None:
    with s3_bucket("ignores", conditional=False) as address:
        config = job(mocap, f"{address}/data", engine={"kind": "ray"})
        with pytest.raises(HumoError, match=f"{address}/data: this store has no exclusive creation"):
            ingest(config)
        assert not Storage(config.output).list("ledger")
        assert ingest(job(mocap, f"{address}/data")).samples == 3


def test_a_missing_bucket_is_reported(mocap: Path, bucket: str) -> None:
    with pytest.raises(HumoError, match="s3://missing/data cannot be written to"):
        ingest(job(mocap, "s3://missing/data"))
