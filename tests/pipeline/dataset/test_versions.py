"""Versions: what each packing was made of, what came and went, and an old one told from the ledger alone."""

from pathlib import Path

import pytest
from test_remove import SHARES, keys, work_item

from pipeline.curation.remove import remove
from pipeline.dataset.commits import commit
from pipeline.dataset.pack import pack, repack
from pipeline.dataset.verify import verify
from pipeline.dataset.versions import current_version, difference, list_versions, read_version, rows_of, versions_text
from schemas.errors import HumoError, UsageError
from schemas.storage import Storage


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    root = tmp_path / "data"
    for number in (0, 1):
        commit(Storage(root), [work_item(number)], "digest")
    pack(str(root), splits=SHARES, shard_bytes=1_000_000)
    return str(root)


def test_a_version_is_a_list_of_commits(dataset: str) -> None:
    storage, before = Storage(dataset), keys(dataset)
    old_keys = {key for some in before.values() for key in some}
    first = current_version(storage)
    commit(storage, [work_item(2)], "digest")
    commit(storage, [work_item(0, generation=1, samples=3)], "other digest")
    repack(dataset)
    second = current_version(storage)
    found = difference(storage, first, second)
    assert (found.sources_came, found.sources_went, found.sources_changed) == (["source-2"], [], ["source-0"])
    assert set(found.samples_came) == {key for some in keys(dataset).values() for key in some} - old_keys
    gone = remove(dataset, ["source-1"]).removed
    third = current_version(storage)
    assert difference(storage, second, third).sources_went == ["source-1"]
    assert difference(storage, second, third).samples_went == gone
    back = difference(storage, third, first)
    assert set(back.samples_came) == old_keys - set(keys(dataset).get("source-0", []))
    assert [one.version for one in list_versions(storage)] == [first, second, third]
    assert [one.before for one in list_versions(storage)] == ["", first, second]
    assert [one.tombstones for one in list_versions(storage)] == [0, 0, 2]
    old = rows_of(storage, read_version(storage, first[:6])).to_pylist()
    assert {row["record_id"] for row in old if row["outcome"] == "accepted"} == set(before["source-0"])
    assert {row["record_id"] for row in old if row["outcome"] == "removed"} == set(gone)
    assert f"* {third}" in versions_text(list_versions(storage), third)
    assert verify(dataset).problems == []


def test_packing_the_same_again_is_no_new_version(dataset: str) -> None:
    before = (Path(dataset) / "versions").iterdir()
    content = {path: path.read_bytes() for path in before}
    repack(dataset)
    assert {path: path.read_bytes() for path in (Path(dataset) / "versions").iterdir()} == content


def test_what_cannot_be_told_is_said(dataset: str) -> None:
    storage = Storage(dataset)
    with pytest.raises(UsageError, match=f"no version 'zz'; there is {current_version(storage)}"):
        read_version(storage, "zz")
    next((Path(dataset) / "ledger").iterdir()).unlink()
    with pytest.raises(HumoError, match="that the ledger has no more"):
        rows_of(storage, read_version(storage, current_version(storage)))
    assert any("no more" in problem for problem in verify(dataset).problems)
    next((Path(dataset) / "versions").iterdir()).unlink()
    assert any("versions/" in problem for problem in verify(dataset).problems)
