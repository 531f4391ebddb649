"""Tokens of frames on the disk."""

from pathlib import Path

import numpy as np

from model.data.frame_cache import FrameCache

RNG = np.random.default_rng(0)


def tokens(count: int) -> np.ndarray:
    return RNG.normal(size=(count, 3, 4)).astype(np.float16)


def test_frames_are_found_again_and_added_to(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, "tower", 1 << 20)
    assert cache.read("ab12", mirrored=False) is None
    first, more = tokens(2), tokens(2)
    cache.add("ab12", (np.array([0, 30]), first), mirrored=False)
    cache.add("ab12", (np.array([15, 30]), more), mirrored=False)
    numbers, found = FrameCache(tmp_path, "tower", 1 << 20).read("ab12", mirrored=False) or ((), ())
    assert list(numbers) == [0, 15, 30]
    np.testing.assert_array_equal(found, np.stack([first[0], more[0], first[1]]))
    assert cache.read("ab12", mirrored=True) is None
    assert FrameCache(tmp_path, "other tower", 1 << 20).read("ab12", mirrored=False) is None
    assert not list(tmp_path.rglob("*.partial"))


def test_nothing_is_written_beyond_the_limit(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, "tower", 2000)
    for number in range(9):
        cache.add(f"{number}0", (np.arange(10), tokens(10)), mirrored=False)
    assert 0 < len(list(tmp_path.rglob("*.npz"))) < 4
    again = FrameCache(tmp_path, "tower", 2000)
    again.add("ff", (np.arange(10), tokens(10)), mirrored=False)
    assert again.read("ff", mirrored=False) is None


def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, "tower", 1 << 20)
    cache.add("ab", (np.array([3]), tokens(1)), mirrored=True)
    (file,) = tmp_path.rglob("*.npz")
    for content in (b"", file.read_bytes()[:200], b"PK" + bytes(100)):
        file.write_bytes(content)
        assert cache.read("ab", mirrored=True) is None
    cache.add("ab", (np.array([4]), tokens(1)), mirrored=True)
    numbers, _ = cache.read("ab", mirrored=True) or ((), ())
    assert list(numbers) == [4]
