"""Versions: commits of each packing, differences between versions, and old versions read from the ledger."""

import json
from pathlib import Path

import pytest
from commit_helpers import SPLITS, keys_by_source, work_item

from pipeline.curation.remove import remove
from pipeline.dataset.commits import commit
from pipeline.dataset.pack import pack, repack
from pipeline.dataset.verify import verify
from pipeline.dataset.versions import (
    current_version,
    difference,
    encode_version,
    list_versions,
    read_version,
    rows_of,
    versions_text,
)
from schemas.errors import HumoError, UsageError
from schemas.storage import Storage


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    root = tmp_path / "data"
    for number in (0, 1):
        commit(Storage(root), [work_item(number)], "digest")
    pack(str(root), splits=SPLITS, shard_bytes=1_000_000)
    return str(root)


def test_a_version_is_a_list_of_commits(dataset: str) -> None:
    storage, before = Storage(dataset), keys_by_source(dataset)
    old_keys = {key for source_keys in before.values() for key in source_keys}
    first = current_version(storage)
    commit(storage, [work_item(2)], "digest")
    commit(storage, [work_item(0, generation=1, samples=3)], "other digest")
    repack(dataset)
    second = current_version(storage)
    found = difference(storage, first, second)
    assert (found.sources_came, found.sources_went, found.sources_changed) == (["source-2"], [], ["source-0"])
    assert (
        set(found.samples_came)
        == {key for source_keys in keys_by_source(dataset).values() for key in source_keys} - old_keys
    )
    removed = remove(dataset, ["source-1"]).removed
    third = current_version(storage)
    assert difference(storage, second, third).sources_went == ["source-1"]
    assert difference(storage, second, third).samples_went == removed
    reverse = difference(storage, third, first)
    assert set(reverse.samples_came) == old_keys - set(keys_by_source(dataset).get("source-0", []))
    assert [version.version for version in list_versions(storage)] == [first, second, third]
    assert [version.before for version in list_versions(storage)] == ["", first, second]
    assert [version.tombstones for version in list_versions(storage)] == [0, 0, 2]
    old = rows_of(storage, read_version(storage, first[:6])).to_pylist()
    assert {row["record_id"] for row in old if row["outcome"] == "accepted"} == set(before["source-0"])
    assert {row["record_id"] for row in old if row["outcome"] == "removed"} == set(removed)
    assert f"* {third}" in versions_text(list_versions(storage), third)
    assert verify(dataset).problems == []


def test_repacking_the_same_commits_gives_no_new_version(dataset: str) -> None:
    content = {path: path.read_bytes() for path in (Path(dataset) / "versions").iterdir()}
    repack(dataset)
    assert {path: path.read_bytes() for path in (Path(dataset) / "versions").iterdir()} == content


def test_changed_versions_are_reported(dataset: str) -> None:
    path = next((Path(dataset) / "versions").iterdir())
    content = json.loads(path.read_text())
    content["counts"]["sources"] += 1
    path.write_text(json.dumps(content))
    assert f"versions/{path.name}: was changed; restore it from a copy" in verify(dataset).problems
    path.write_bytes(
        encode_version(content | {"counts": content["counts"] | {"sources": content["counts"]["sources"] - 1}})
    )
    assert verify(dataset).problems == []
    path.write_text(json.dumps({**json.loads(path.read_text()), "checksum": ""}))
    assert verify(dataset).problems == [], "written without one"


def test_missing_versions_and_commits_are_reported(dataset: str) -> None:
    storage = Storage(dataset)
    with pytest.raises(UsageError, match=f"no version 'zz'; known: {current_version(storage)}"):
        read_version(storage, "zz")
    next((Path(dataset) / "ledger").iterdir()).unlink()
    with pytest.raises(HumoError, match="missing from the ledger"):
        rows_of(storage, read_version(storage, current_version(storage)))
    assert any("missing from the ledger" in problem for problem in verify(dataset).problems)
    next((Path(dataset) / "versions").iterdir()).unlink()
    assert any("versions/" in problem for problem in verify(dataset).problems)
