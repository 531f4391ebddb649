"""Settings that were recorded under names that have changed since."""

import json
from collections import Counter
from pathlib import Path

import pytest

from pipeline.chain.config import IngestConfig
from pipeline.job.history import describe_changes, record_job, recorded_jobs
from schemas.config import parse_config
from schemas.errors import UsageError
from schemas.storage import Storage

RENAMED = {
    "read_videos": {"min_seconds": "min_s", "max_seconds": "max_s"},
    "split_shots": {"min_shot_s": "min_s"},
    "track_people": {"min_track_s": "min_s"},
}


def job(output: Path, **stages: object) -> IngestConfig:
    return parse_config(
        {"sources": [{"path": "videos"}], "output": str(output), "stages": stages}, IngestConfig, "job.yaml"
    )


@pytest.fixture
def old_dataset(tmp_path: Path) -> Storage:
    """A dataset whose job was recorded under the old names."""
    storage = Storage(tmp_path)
    record_job(storage, job(tmp_path, read_videos={"min_s": 3.0}, split_shots={"min_s": 1.5}))
    (path,) = tmp_path.glob("jobs/*.json")
    content = json.loads(path.read_text())
    for stage, names in RENAMED.items():
        for old, new in names.items():
            content["stages"][stage][old] = content["stages"][stage].pop(new)
    path.write_text(json.dumps(content))
    return storage


def test_old_names_are_refused_with_the_new_ones(tmp_path: Path) -> None:
    for stage, names in RENAMED.items():
        for old, new in names.items():
            with pytest.raises(UsageError, match=rf"stages\.{stage}\.{old}: is now called {new}; rename it"):
                job(tmp_path, **{stage: {old: 1.0}})


def test_jobs_recorded_under_old_names_are_read(old_dataset: Storage, tmp_path: Path) -> None:
    (recorded,) = recorded_jobs(old_dataset)
    same = job(tmp_path, read_videos={"min_s": 3.0}, split_shots={"min_s": 1.5})
    assert recorded.config.stages == same.stages
    assert recorded.digest == recorded.config.digest == same.digest


def test_a_changed_value_is_named_under_its_new_name(old_dataset: Storage, tmp_path: Path) -> None:
    other = job(tmp_path, read_videos={"min_s": 4.0}, split_shots={"min_s": 1.5})
    (recorded,) = recorded_jobs(old_dataset)
    assert describe_changes(old_dataset, other, Counter([recorded.digest])) == [
        "1 sources: stages.read_videos.min_s: 3.0 -> 4.0"
    ]


def test_digests_are_made_of_the_first_names(tmp_path: Path) -> None:
    """So that they are those of existing datasets."""
    for stage, names in RENAMED.items():
        settings = getattr(job(tmp_path).stages, stage).original_names()
        assert settings.keys() >= names.keys()
        assert not settings.keys() & set(names.values())
