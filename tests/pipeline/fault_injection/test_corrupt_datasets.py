"""Damaged datasets: nothing is overlooked, nothing is executed, nothing takes long."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audit_helpers import make_sample
from commit_helpers import SPLITS, work_item

from pipeline.chain.work_item import WorkItem
from pipeline.curation.remove import remove
from pipeline.dataset.commits import commit
from pipeline.dataset.pack import pack
from pipeline.dataset.verify import verify
from pipeline.fault_injection import hostile_samples
from pipeline.fault_injection.corrupt_datasets import DAMAGES, trial
from pipeline.fault_injection.hostile_samples import ATTACKS, MARKER
from schemas.errors import HumoError
from schemas.ids import digest
from schemas.records import Rejection, Source
from schemas.sample import sample_problems
from schemas.shards import END_OF_ARCHIVE, decode_sample_bytes, read_samples
from schemas.storage import Storage


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos and mocap, a rejection, and a removal with its proof."""
    root = tmp_path_factory.mktemp("base") / "data"
    work_items = [work_item(number) for number in range(3)]
    film = Source(id="film", uri="/in/film.mp4", licence="L0", consent="given")
    work_items.append(WorkItem.of(film))
    work_items[-1].sha256 = digest(film.id) * 2
    work_items[-1].records = [make_sample("video", 0, source=film, frames=45)]
    work_items[0].rejections.append(
        Rejection(
            id="source-0-x", stage="score_motion", reason="too short", measured=1.0, limit=2.0, detail="one of three"
        )
    )
    for item in work_items:
        commit(Storage(root), [item], "digest")
    pack(str(root), splits=SPLITS, shard_bytes=1_000_000)
    remove(str(root), sources=["source-2"])
    assert verify(str(root)).problems == []
    return root


def test_a_trial_finds_every_damage(dataset: Path) -> None:
    count = 3 * len(DAMAGES)
    report = trial(dataset, count, seed=0)
    assert report.failures == []
    assert sum(report.outcomes.values()) == count
    assert report.outcomes["found"] > 0.9 * count
    assert set(report.outcomes) <= {"found", "harmless"}
    assert verify(str(dataset)).problems == [], "a trial works on a copy"


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_hostile_sample_is_refused(
    attack: Callable[[str, dict[str, bytes]], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any hash that would give it away, and without executing what its pickles call."""
    monkeypatch.setenv(MARKER, str(tmp_path / "executed"))
    sample = make_sample("mocap", 0)
    content = io.BytesIO(attack(sample.key, dict(sample.members)) + END_OF_ARCHIVE)
    problems, keys = [], []
    try:
        for key, members in read_samples(content):
            keys.append(key)
            problems += sample_problems(key, members, "mocap")
    except HumoError as error:
        problems.append(str(error))
    assert problems or len(set(keys)) < len(keys)
    assert not (tmp_path / "executed").exists()


def test_the_pickles_would_execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial's attack is a real one."""
    monkeypatch.setenv(MARKER, str(tmp_path / "executed"))
    sample = make_sample("mocap", 0)
    _, members = decode_sample_bytes(hostile_samples._pickled_member(sample.key, dict(sample.members)))
    pickle.loads(members["motion.npz"])
    assert (tmp_path / "executed").is_dir()


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "shards/../../x.tar"])
def test_names_do_not_lead_out_of_a_dataset(dataset: Path, path: str, tmp_path: Path) -> None:
    with pytest.raises(HumoError, match="leads out of it"):
        Storage(dataset).path(path)
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    description = json.loads((copy / "dataset.json").read_text())
    description["shards"][0]["path"] = path
    (copy / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(HumoError, match="leads out of it"):
        verify(str(copy))


def test_the_same_seed_gives_the_same_damages(dataset: Path) -> None:
    files = {name: (dataset / name).read_bytes() for name in Storage(dataset).list("")}
    for damage in DAMAGES:
        assert damage(files, np.random.default_rng(5)) == damage(files, np.random.default_rng(5))
