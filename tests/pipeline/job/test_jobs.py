"""Real jobs over rendered videos: both engines, killed and completed, bad input, and the readers of common tools."""

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
from videos import audio_only, noise_video, plain_video

from pipeline import PROJECT_ROOT
from pipeline.chain.config import IngestConfig
from pipeline.dataset.commits import done_sources
from pipeline.dataset.verify import verify
from pipeline.job.ingest import ingest, make_worklist
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


def test_a_second_run_does_nothing(films: Path, dataset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.tar")}
    report = ingest(job(films / "manifest.csv", dataset))
    assert (len(report.worklist.pending), len(report.worklist.done), report.samples) == (0, 3, 0)
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*.tar")} == before
    changed = job(films / "manifest.csv", dataset, stages={"cut_clips": {"max_s": 5.0}})
    assert make_worklist(changed).done_under_other_settings == 3


def test_ray_gives_the_same_bytes(films: Path, dataset: Path, tmp_path: Path) -> None:
    pools = {"track_people": {"cpus": 0.5}}
    ingest(job(films / "manifest.csv", tmp_path / "data", engine={"kind": "ray"}, resources=pools))
    assert shards(tmp_path / "data") == shards(dataset)


def test_ray_reports_missing_resources(films: Path, tmp_path: Path) -> None:
    settings = job(
        films / "manifest.csv", tmp_path / "data", engine={"kind": "ray"}, resources={"fit_smpl": {"gpus": 4}}
    )
    with pytest.raises(HumoError, match="needs 4 GPUs, Ray has 0"):
        ingest(settings)


def test_killed_jobs_complete(films: Path, dataset: Path, tmp_path: Path) -> None:
    """SIGKILL after some seconds, several times, then a run to the end: same keys, same bytes."""
    output = tmp_path / "data"
    config = tmp_path / "job.yaml"
    config.write_text(f"sources: [{{path: {films / 'manifest.csv'}}}]\noutput: {output}\nsplits: {{train: 1.0}}\n")
    command = [sys.executable, "-m", "pipeline.commands.main", "ingest", str(config)]
    for seconds in (6.5, 9.0):
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, stdout=subprocess.DEVNULL)
    assert shards(output) == shards(dataset)
    assert set(done_sources(Storage(output))) == {"wave", "walk", "pair"}


def test_bad_input_affects_no_other_source(films: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(films / "wave.mp4", folder / "good.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video at all\n" * 50)
    (folder / "cut.mp4").write_bytes((films / "walk.mp4").read_bytes()[:50_000])
    audio_only(folder / "sound.mp4")
    noise_video(folder / "one.mp4", frames=1)
    noise_video(folder / "odd.mp4", frames=75, width=322, height=246)
    noise_video(folder / "portrait.mp4", frames=70, width=160, height=320)
    plain_video(folder / "large.mp4", frames=62, width=3840, height=2160)
    names = ["good", "empty", "text", "cut", "sound", "one", "odd", "portrait", "large", "gone"]
    rows = [{"uri": str(folder / f"{name}.mp4"), "id": name} for name in names]
    rows += [{"uri": str(folder / "good.mp4"), "id": bad} for bad in ("a.b", "a/b", "a\nb")]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    report = ingest(job(tmp_path / "list.jsonl", tmp_path / "data"))
    ledger = read_ledger(Storage(tmp_path / "data")).to_pylist()
    assert {row["source_id"] for row in ledger} == {row["id"] for row in rows}
    assert {row["source_id"] for row in ledger if row["outcome"] == "accepted"} == {"good"}
    reasons = {row["source_id"]: row["reason"] for row in ledger if row["outcome"] == "rejected"}
    # In noise a detector may report people.
    no_person_reasons = {reasons.pop(name) for name in ("odd", "portrait", "large")}
    assert no_person_reasons <= {"no_person_found", "track_too_short", "body_not_visible", "person_too_small"}
    assert reasons == {
        "empty": "not_a_video", "text": "not_a_video", "cut": "not_a_video", "sound": "no_picture_stream",
        "one": "single_frame", "gone": "missing", "a.b": "bad_id", "a/b": "bad_id", "a\nb": "bad_id",
    }  # fmt: skip
    assert report.samples == 1
    assert verify(str(tmp_path / "data")).problems == []


def test_motion_capture_passes_the_same_chain(films: Path, tmp_path: Path) -> None:
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


def test_an_unwritable_output_stops_the_job_before_work(films: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HumoError, match="cannot be written to"):
        ingest(job(films / "manifest.csv", tmp_path / "file" / "data"))


class TestReaders:
    """The same samples through the readers of common tools."""

    @pytest.fixture
    def shard(self, dataset: Path) -> Path:
        (entry,) = read_description(Storage(dataset)).shards
        return dataset / entry.path

    @pytest.fixture
    def expected_poses(self, shard: Path) -> dict[str, np.ndarray]:
        """Key -> poses, read with tarfile and numpy."""
        import tarfile

        poses = {}
        with tarfile.open(shard) as tar:
            for name in tar.getnames():
                key, _, member = name.partition(".")
                if member == "motion.npz":
                    poses[key] = np.load(io.BytesIO(tar.extractfile(name).read()))["poses"]  # type: ignore[union-attr]
        assert len(poses) == 4
        return poses

    def test_webdataset(self, shard: Path, expected_poses: dict[str, np.ndarray]) -> None:
        import webdataset

        samples = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode())
        assert [sample["__key__"] for sample in samples] == list(expected_poses)
        for sample in samples:
            np.testing.assert_array_equal(sample["motion.npz"]["poses"], expected_poses[sample["__key__"]])
            assert sample["text.json"]["body"]

    @pytest.mark.parametrize("streaming", [False, True])
    def test_hugging_face(
        self, shard: Path, expected_poses: dict[str, np.ndarray], streaming: bool, tmp_path: Path
    ) -> None:
        import datasets

        files = {"train": [str(shard)]}
        loaded = datasets.load_dataset(
            "webdataset", data_files=files, split="train", streaming=streaming, cache_dir=str(tmp_path)
        )
        samples = list(loaded.cast_column("clip.mp4", datasets.Video(decode=False)))  # decoding would need torchcodec
        assert [sample["__key__"] for sample in samples] == list(expected_poses)
        for sample in samples:
            content = sample["motion.npz"]
            poses = np.load(io.BytesIO(content))["poses"] if isinstance(content, bytes) else np.array(content["poses"])
            np.testing.assert_array_equal(poses.astype(np.float32), expected_poses[sample["__key__"]])
            assert sample["meta.json"]["licence"] == "CC0-1.0"

    def test_ray_data(self, shard: Path, expected_poses: dict[str, np.ndarray]) -> None:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        try:
            rows = ray.data.read_webdataset(str(shard), decoder=False).take_all()
        finally:
            ray.shutdown()
        assert {row["__key__"] for row in rows} == set(expected_poses)
        for row in rows:
            np.testing.assert_array_equal(
                np.load(io.BytesIO(row["motion.npz"]))["poses"], expected_poses[row["__key__"]]
            )
