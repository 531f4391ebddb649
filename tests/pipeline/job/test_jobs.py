"""Real jobs over rendered videos: both engines, killed and completed, bad input, and every reader that users have."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mocap_files import body_motion, write_known_bvh
from videos import noise, sound_only

from pipeline import PROJECT_ROOT
from pipeline.chain.config import IngestConfig
from pipeline.dataset.commits import done_sources
from pipeline.dataset.verify import verify
from pipeline.job.ingest import ingest, look_ahead
from schemas.config import parse_config
from schemas.dataset import read_description
from schemas.errors import HumoError
from schemas.ledger import read_ledger
from schemas.storage import Storage


def job(sources: Path | str, output: Path, **more: object) -> IngestConfig:
    settings = {"sources": [{"path": str(sources)}], "output": str(output), "splits": {"train": 1.0}, **more}
    return parse_config(settings, IngestConfig, "job.yaml")


def shards(dataset: Path) -> dict[str, bytes]:
    return {one.path: (dataset / one.path).read_bytes() for one in read_description(Storage(dataset)).shards}


@pytest.fixture(scope="session")
def dataset(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three rendered videos, ingested inline."""
    output = tmp_path_factory.mktemp("ingested") / "data"
    ingest(job(films / "manifest.csv", output))
    return output


def test_the_whole_chain(dataset: Path) -> None:
    ledger = [row for row in read_ledger(Storage(dataset)).to_pylist() if row["outcome"] == "accepted"]
    assert sorted(row["source_id"] for row in ledger) == ["pair", "pair", "walk", "wave"]
    verdict = verify(str(dataset))
    assert verdict.problems == []
    assert verdict.samples == 4


def test_running_again_does_nothing(films: Path, dataset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.tar")}
    report = ingest(job(films / "manifest.csv", dataset))
    assert (len(report.todo.todo), len(report.todo.done), report.samples) == (0, 3, 0)
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*.tar")} == before
    assert look_ahead(job(films / "manifest.csv", dataset, stages={"cut_clips": {"max_s": 5.0}})).done_otherwise == 3


def test_ray_gives_the_same_bytes(films: Path, dataset: Path, tmp_path: Path) -> None:
    pools = {"track_people": {"cpus": 0.5}}
    ingest(job(films / "manifest.csv", tmp_path / "data", engine={"kind": "ray"}, resources=pools))
    assert shards(tmp_path / "data") == shards(dataset)


def test_ray_says_when_it_is_too_small(films: Path, tmp_path: Path) -> None:
    settings = job(
        films / "manifest.csv", tmp_path / "data", engine={"kind": "ray"}, resources={"fit_smpl": {"gpus": 4}}
    )
    with pytest.raises(HumoError, match="needs 4 GPUs, Ray has 0"):
        ingest(settings)


def test_killed_jobs_complete(films: Path, dataset: Path, tmp_path: Path) -> None:
    """SIGKILL after some seconds, again and again, then once to the end: same keys, same bytes."""
    output = tmp_path / "data"
    config = tmp_path / "job.yaml"
    config.write_text(f"sources: [{{path: {films / 'manifest.csv'}}}]\noutput: {output}\nsplits: {{train: 1.0}}\n")
    command = [sys.executable, "-m", "pipeline.commands.main", "ingest", str(config)]
    for seconds in (4.0, 6.5, 9.0):
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, stdout=subprocess.DEVNULL)
    assert shards(output) == shards(dataset)
    assert set(done_sources(Storage(output))) == {"wave", "walk", "pair"}


def test_bad_input_costs_only_itself(films: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(films / "wave.mp4", folder / "good.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video at all\n" * 50)
    (folder / "cut.mp4").write_bytes((films / "walk.mp4").read_bytes()[:50_000])
    sound_only(folder / "sound.mp4")
    noise(folder / "one.mp4", frames=1)
    noise(folder / "odd.mp4", frames=75, width=322, height=246)
    noise(folder / "portrait.mp4", frames=70, width=160, height=320)
    noise(folder / "large.mp4", frames=62, width=3840, height=2160)
    names = ["good", "empty", "text", "cut", "sound", "one", "odd", "portrait", "large", "gone"]
    rows = [{"uri": str(folder / f"{name}.mp4"), "id": name} for name in names]
    rows += [{"uri": str(folder / "good.mp4"), "id": bad} for bad in ("a.b", "a/b", "a\nb")]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    report = ingest(job(tmp_path / "list.jsonl", tmp_path / "data"))
    ledger = read_ledger(Storage(tmp_path / "data")).to_pylist()
    assert {row["source_id"] for row in ledger} == {row["id"] for row in rows}
    assert {row["source_id"] for row in ledger if row["outcome"] == "accepted"} == {"good"}
    reasons = {row["source_id"]: row["reason"] for row in ledger if row["outcome"] == "rejected"}
    nobody = {reasons.pop(name) for name in ("odd", "portrait", "large")}  # noise, in which a detector may see things
    assert nobody <= {"no_person_found", "track_too_short", "body_not_visible", "person_too_small"}
    assert reasons == {
        "empty": "not_a_video", "text": "not_a_video", "cut": "not_a_video", "sound": "no_picture_stream",
        "one": "single_frame", "gone": "missing", "a.b": "bad_id", "a/b": "bad_id", "a\nb": "bad_id",
    }  # fmt: skip
    assert report.samples == 1
    assert verify(str(tmp_path / "data")).problems == []


def test_motion_capture_takes_the_same_road(films: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mocap"
    folder.mkdir()
    write_known_bvh(folder / "walk.bvh", body_motion("walk", 4.0), "cmu_bvh")
    (folder / "broken.bvh").write_text("HIERARCHY\nROOT")
    sources = [{"kind": "mocap", "path": str(folder), "licence": "CC0-1.0"}, {"path": str(films / "wave.mp4")}]
    settings = {"sources": sources, "output": str(tmp_path / "data"), "splits": {"train": 1.0}}
    report = ingest(parse_config(settings, IngestConfig, "job.yaml"))
    assert {shard.subset: shard.samples for shard in report.description.shards} == {"mocap": 1, "video": 1}
    assert report.stages["read_mocap"].reasons.total() == 1
    assert verify(str(tmp_path / "data")).problems == []


def test_an_output_that_cannot_be_written_stops_before_work(films: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HumoError, match="cannot be written to"):
        ingest(job(films / "manifest.csv", tmp_path / "file" / "data"))


class TestReaders:
    """The same samples through what users have."""

    @pytest.fixture
    def shard(self, dataset: Path) -> Path:
        (entry,) = read_description(Storage(dataset)).shards
        return dataset / entry.path

    @pytest.fixture
    def truth(self, shard: Path) -> dict[str, np.ndarray]:
        """key -> poses, by plain tarfile and numpy."""
        import tarfile

        found = {}
        with tarfile.open(shard) as tar:
            for name in tar.getnames():
                key, _, member = name.partition(".")
                if member == "motion.npz":
                    found[key] = np.load(io.BytesIO(tar.extractfile(name).read()))["poses"]  # type: ignore[union-attr]
        assert len(found) == 4
        return found

    def test_webdataset(self, shard: Path, truth: dict[str, np.ndarray]) -> None:
        import webdataset

        samples = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode())
        assert [sample["__key__"] for sample in samples] == list(truth)
        for sample in samples:
            np.testing.assert_array_equal(sample["motion.npz"]["poses"], truth[sample["__key__"]])
            assert sample["text.json"]["body"]

    @pytest.mark.parametrize("streaming", [False, True])
    def test_hugging_face(self, shard: Path, truth: dict[str, np.ndarray], streaming: bool, tmp_path: Path) -> None:
        import datasets

        files = {"train": [str(shard)]}
        loaded = datasets.load_dataset(
            "webdataset", data_files=files, split="train", streaming=streaming, cache_dir=str(tmp_path)
        )
        samples = list(loaded.cast_column("clip.mp4", datasets.Video(decode=False)))  # decoding would want torchcodec
        assert [sample["__key__"] for sample in samples] == list(truth)
        for sample in samples:
            content = sample["motion.npz"]
            poses = np.load(io.BytesIO(content))["poses"] if isinstance(content, bytes) else np.array(content["poses"])
            np.testing.assert_array_equal(poses.astype(np.float32), truth[sample["__key__"]])
            assert sample["meta.json"]["licence"] == "CC0-1.0"

    def test_ray_data(self, shard: Path, truth: dict[str, np.ndarray]) -> None:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        try:
            rows = ray.data.read_webdataset(str(shard), decoder=False).take_all()
        finally:
            ray.shutdown()
        assert {row["__key__"] for row in rows} == set(truth)
        for row in rows:
            np.testing.assert_array_equal(np.load(io.BytesIO(row["motion.npz"]))["poses"], truth[row["__key__"]])
