"""Near-duplicates: copies are found and the right one is removed, similar motions stay."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audit_helpers import mp4, walker

from pipeline.chain.work_item import WorkItem
from pipeline.curation.duplicates.config import DedupeConfig
from pipeline.curation.duplicates.dedupe import dedupe
from pipeline.curation.duplicates.search import Item, find_pairs, select_removals
from pipeline.curation.duplicates.signatures import FrameHashes, hash_frames, jaccard, motion_signature, shingles
from pipeline.dataset.commits import commit
from pipeline.dataset.pack import pack
from pipeline.dataset.verify import verify
from schemas.body_model import BodyModel
from schemas.dataset import iterate_samples, read_causes
from schemas.ids import digest
from schemas.records import Source
from schemas.sample import MotionArrays, decode_npz, encode_json, encode_npz
from schemas.storage import Storage

BODY = BodyModel.load()


def moving(seed: int, frames: int = 120) -> MotionArrays:
    """A random motion: each joint swings at its own frequency."""
    rng = np.random.default_rng(seed)
    arrays = walker(0, frames)
    time_s = np.arange(frames)[:, None, None] / 30
    swing = rng.uniform(0.2, 0.6, (1, 24, 3)) * np.sin(
        rng.uniform(1, 4, (1, 24, 3)) * time_s + rng.uniform(0, 6, (1, 24, 3))
    )
    swing[:, 0] *= 0.2
    return MotionArrays(**{**arrays, "poses": (arrays["poses"] + swing).astype(np.float32)})


def with_noise(motion: MotionArrays, seed: int = 0) -> MotionArrays:
    """Gaussian noise of 0.02 rad on every joint, and another shape."""
    rng = np.random.default_rng(seed)
    poses = motion.poses + 0.02 * rng.normal(size=motion.poses.shape)
    return replace(motion, poses=poses.astype(np.float32), betas=motion.betas + np.float32(0.4))


def select_frames(motion: MotionArrays, frames: np.ndarray) -> MotionArrays:
    return MotionArrays(**{name: v if name == "betas" else v[frames] for name, v in vars(motion).items()})


def item(
    key: str, motion: MotionArrays, *, split: str = "train", score: float = 0.0, clip: bytes = b"", speech: str = ""
) -> Item:
    return Item(
        key=key, subset="mocap", split=split, sources=frozenset({key}), score=score, caption="a person moves",
        motion=motion_signature(motion, 30.0, BODY), words=shingles([speech]),
        frame_hashes=clip_hashes(clip) if clip else None, embedding=np.zeros(0),
    )  # fmt: skip


COPIES = {
    "noise of 2 %": with_noise,
    "5 % faster": lambda motion: select_frames(motion, np.round(np.arange(0, 119, 1.05)).astype(int)),
    "cut 0.2 s later": lambda motion: select_frames(motion, np.arange(6, 120)),
    "cut 1.3 s later": lambda motion: select_frames(motion, np.arange(39, 120)),
    "the first 2.2 s of it": lambda motion: select_frames(motion, np.arange(66)),
    "at another position": lambda motion: replace(
        motion, trans=motion.trans + np.float32(2) * np.array([1, 0, 1], np.float32)
    ),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_among_others(kind: str) -> None:
    items = [item(f"m{number:02d}", moving(number)) for number in range(16)]
    copies = [item(f"n{number:02d}", COPIES[kind](moving(number))) for number in range(0, 16, 2)]
    pairs = find_pairs(items + copies, DedupeConfig())
    found = {(pair.one, pair.other) for pair in pairs}
    expected = {(f"m{number:02d}", f"n{number:02d}") for number in range(0, 16, 2)}
    assert not found - expected
    assert len(found & expected) == 8
    assert all(pair.kind == "motion" and not pair.mirrored for pair in pairs)


def test_mirror_images_are_reported_and_kept() -> None:
    motion = moving(1)
    one = item("a", motion)
    mirrored = replace(one, key="b", sources=frozenset({"b"}), motion=one.motion.mirrored())
    (pair,) = find_pairs([one, mirrored, item("c", moving(2))], DedupeConfig())
    assert pair.mirrored
    assert pair.distance_mm < 1
    assert select_removals([one, mirrored], [pair], DedupeConfig()) == {}
    assert select_removals([one, mirrored], [pair], DedupeConfig(with_mirrored=True)) == {"b": "a"}


def test_standing_still_and_clips_of_one_source_are_no_duplicates() -> None:
    still = select_frames(moving(3), np.zeros(90, int))
    assert find_pairs([item("a", with_noise(still, 1)), item("b", with_noise(still, 2))], DedupeConfig()) == []
    same = [replace(item(key, moving(4)), sources=frozenset({"tape"})) for key in ("a", "b")]
    assert find_pairs(same, DedupeConfig()) == []


def test_clips_with_too_little_overlap_are_no_duplicates() -> None:
    motion = moving(8, frames=300)
    items = [item("a", select_frames(motion, np.arange(180))), item("b", select_frames(motion, np.arange(105, 285)))]
    assert find_pairs(items, DedupeConfig()) == []
    (pair,) = find_pairs(items, DedupeConfig(min_overlap=0.3))
    assert pair.shift_s == pytest.approx(3.5, abs=0.01)
    assert pair.overlap == pytest.approx(0.38, abs=0.02)
    assert pair.distance_mm < 3


def test_matching_texts_alone_are_no_duplicate_but_relax_the_limits() -> None:
    speech = "and when you are done you hang the towel over the chair beside the door and go out"
    items = [item(f"m{number}", moving(number), speech=speech) for number in range(5)]
    assert jaccard(items[0].words, items[1].words) == 1.0
    assert find_pairs(items, DedupeConfig()) == []
    motion = moving(6)
    other = with_offset(motion)
    (pair,) = find_pairs([item("a", motion, speech=speech), item("b", other, speech=speech)], DedupeConfig())
    assert pair.kind == "text"
    assert find_pairs([item("a", motion, speech=speech), item("b", other, speech=speech[::-1])], DedupeConfig()) == []
    assert (
        find_pairs([item("a", motion, speech="thank you"), item("b", other, speech="thank you")], DedupeConfig()) == []
    )


def test_removals_prefer_train_and_the_worse_score() -> None:
    motion = moving(5)
    items = [item("a", motion, score=0.1), item("b", motion, split="val", score=0.9), item("c", motion, split="test", score=0.9),
             item("d", motion, score=0.05)]  # fmt: skip
    pairs = find_pairs(items, DedupeConfig())
    assert select_removals(items, pairs, DedupeConfig()) == {"a": "c", "b": "c", "d": "c"}
    train = [items[0], items[3]]
    assert select_removals(train, find_pairs(train, DedupeConfig()), DedupeConfig()) == {"a": "d"}
    assert select_removals(train[::-1], find_pairs(train[::-1], DedupeConfig()), DedupeConfig()) == {"a": "d"}


def draw_frames(seed: int, width: int = 160) -> list[np.ndarray]:
    """Frames of moving discs at any width."""
    import cv2

    rng = np.random.default_rng(seed)
    centres, speeds = rng.uniform(0.1, 0.9, (6, 2)), rng.uniform(-0.2, 0.2, (6, 2))
    shades = rng.integers(0, 255, 6)
    frames = []
    for time in np.linspace(0, 1, 24):
        frame = np.full((120 * width // 160, width, 3), 120, np.uint8)
        for centre, speed, shade in zip(centres, speeds, shades, strict=True):
            position = ((centre + speed * time) * frame.shape[1::-1]).astype(int)
            cv2.circle(frame, tuple(map(int, position)), width // 5, (int(shade),) * 3, -1)
        frames.append(frame)
    return frames


def make_clip(seed: int, width: int = 160, flipped: bool = False) -> bytes:
    return mp4([np.ascontiguousarray(frame[:, ::-1] if flipped else frame) for frame in draw_frames(seed, width)])


def clip_hashes(clip: bytes) -> FrameHashes:
    """Hashes of a person who fills the clip."""
    return hash_frames(clip, (0, 0, 160, 120), np.tile(np.float32([0, 0, 160, 120]), (24, 1)), 30.0)


def test_hashes_are_stable_over_encodings() -> None:
    one = clip_hashes(make_clip(1))
    frames = np.arange(len(one.bits))
    assert len(frames) == 8
    assert one.bit_difference(frames, clip_hashes(make_clip(1, width=96)), frames).mean() < 0.1
    assert one.bit_difference(frames, clip_hashes(make_clip(2)), frames).mean() > 0.25
    assert one.bit_difference(frames, clip_hashes(make_clip(1, flipped=True)).mirrored(), frames).mean() < 0.1


def test_hashes_do_not_depend_on_the_crop() -> None:
    wide = [np.pad(frame, ((0, 0), (200, 40), (0, 0))) for frame in draw_frames(1)]
    boxes = np.tile(np.float32([200, 0, 360, 120]), (24, 1))
    one = hash_frames(mp4(wide), (0, 0, 400, 120), boxes, 30.0)
    same = hash_frames(make_clip(1), (200, 0, 360, 120), boxes, 30.0)
    frames = np.arange(8)
    assert one.bit_difference(frames, same, frames).mean() < 0.1


def with_offset(motion: MotionArrays) -> MotionArrays:
    """Constant Gaussian offsets of 0.03 rad on every joint."""
    offset = 0.03 * np.random.default_rng(0).normal(size=(1, 24, 3))
    return replace(motion, poses=(motion.poses + offset).astype(np.float32))


def test_matching_images_relax_the_limits_of_the_motion() -> None:
    motion = moving(6)
    other = with_offset(motion)
    near = [item("a", motion, clip=make_clip(1)), item("b", other, clip=make_clip(1, width=96))]
    (pair,) = find_pairs(near, DedupeConfig())
    assert pair.kind == "video"
    assert find_pairs([item("a", motion), item("b", other)], DedupeConfig()) == []
    elsewhere = [item("a", motion, clip=make_clip(1)), item("b", moving(7), clip=make_clip(1, width=96))]
    assert find_pairs(elsewhere, DedupeConfig()) == []


def test_duplicates_are_removed_from_a_dataset(tmp_path: Path) -> None:
    from audit_helpers import make_sample

    root = tmp_path / "data"
    for number in range(4):
        source = Source(id=f"source-{number}", uri=f"/in/{number}.bvh", licence="CC0-1.0", consent="given")
        work_item = WorkItem.of(source)
        work_item.sha256 = digest(source.id) * 2
        sample = make_sample("mocap", number, frames=120, source=source)
        arrays = vars(with_noise(moving(0)) if number == 3 else moving(number))
        meta = json.loads(sample.members["meta.json"])
        meta["scores"]["jitter"] = 0.5 if number == 3 else 0.1
        sample.members["motion.npz"] = encode_npz(
            {name: arrays[name] for name in decode_npz(sample.members["motion.npz"])}
        )
        sample.members["meta.json"] = encode_json(meta)
        work_item.records = [sample]
        commit(Storage(root), [work_item], "digest")
    pack(str(root), splits={"train": 1.0}, shard_bytes=1_000_000)
    keys = {json.loads(members["meta.json"])["source_id"]: key for _, key, members in iterate_samples(Storage(root))}
    report = dedupe(str(root), DedupeConfig())
    assert report.to_remove == {keys["source-3"]: keys["source-0"]}
    page = (root / "report" / "duplicates.html").read_text()
    assert keys["source-3"] in page
    assert "<line" in page
    assert len(list(iterate_samples(Storage(root)))) == 4
    applied = dedupe(str(root), DedupeConfig(), apply=True)
    assert applied.to_remove == report.to_remove
    assert read_causes(Storage(root)) == {keys["source-3"]: f"near-duplicate of {keys['source-0']}"}
    assert {key for _, key, _ in iterate_samples(Storage(root))} == set(keys.values()) - {keys["source-3"]}
    assert not (root / "report" / "duplicates.html").exists()
    assert verify(str(root)).problems == []
    assert dedupe(str(root), DedupeConfig(), apply=True).to_remove == {}
