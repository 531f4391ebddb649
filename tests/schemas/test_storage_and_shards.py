import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import HumoError
from schemas.ids import config_digest, is_source_id, sample_key, source_id, unit_interval
from schemas.shards import encode_sample, read_samples, write_tar
from schemas.storage import Storage


def test_a_failed_write_is_not_published(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write_bytes("a/b.bin", b"whole")

    def fail() -> None:
        with storage.publish("a/b.bin") as file:
            file.write(b"ha")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert storage.read_bytes("a/b.bin") == b"whole"
    assert storage.read_bytes("a/b.bin", 1, 3) == b"ho"
    assert storage.list("a") == ["a/b.bin"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.bin"]
    assert storage.list("nowhere") == []


def test_another_file_system() -> None:
    storage = Storage("memory://bucket/data")
    storage.write_bytes("parts/x.tar", b"123")
    assert storage.exists("parts/x.tar")
    assert storage.list("parts", ".tar") == ["parts/x.tar"]
    assert storage.read_bytes("parts/x.tar") == b"123"
    storage.delete("parts/x.tar")
    assert not storage.exists("parts/x.tar")


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(HumoError, match="nope://x"):
        Storage("nope://x")


KEYS = st.text("0123456789abcdef", min_size=24, max_size=24)
MEMBERS = st.dictionaries(st.sampled_from(["a.json", "b.npz", "clip.mp4"]), st.binary(max_size=2000), min_size=1)


@given(st.dictionaries(KEYS, MEMBERS, min_size=1, max_size=5))
def test_tar_round_trip(samples: dict[str, dict[str, bytes]]) -> None:
    file = io.BytesIO()
    written = write_tar(file, (encode_sample(key, members) for key, members in samples.items()))
    content = file.getvalue()
    assert written.bytes == len(content)
    assert written.sha256 == hashlib.sha256(content).hexdigest()
    assert dict(read_samples(io.BytesIO(content))) == samples
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert len(tar.getnames()) == sum(map(len, samples.values()))
    for (offset, length), (key, members) in zip(written.spans, samples.items(), strict=True):
        assert content[offset : offset + length] == encode_sample(key, members)


def test_a_key_has_no_dots() -> None:
    with pytest.raises(ValueError, match="no dots"):
        encode_sample("a.b", {})


def test_ids_come_from_content() -> None:
    assert sample_key("ab", 0, 1.0, 2.0) == sample_key("ab", 0, 1.0001, 2.0)
    assert len({sample_key("ab", person, start, 2.0) for person in range(3) for start in (0.0, 1.0)}) == 6
    assert len(sample_key("ab", 0, 1.0, 2.0)) == 24
    assert source_id("/a/x.mp4") != source_id("/b/x.mp4")
    assert is_source_id(source_id("s3://bucket/Weird näme (1).mp4"))
    assert not any(map(is_source_id, ["", "a.b", "a/b", "a\n", "ä"]))
    assert config_digest({"a": 1, "b": 2}) == config_digest({"b": 2, "a": 1})
    assert 0 <= unit_interval("x") < 1
