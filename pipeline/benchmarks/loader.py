"""humo bench loader: the training loader against webdataset's own pipeline, over the same shards with as many workers."""

import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from schemas.body_model import BodyModel
from schemas.dataset import DatasetDescription, ShardEntry, read_tombstones, write_description
from schemas.errors import HumoError
from schemas.records import FPS, InstructedMotion, Motion, Provenance, ScoredMotion, Source
from schemas.rotations import matrix_to_axis_angle
from schemas.sample import encode_json, encode_sample_record
from schemas.shards import encode_sample, write_tar
from schemas.storage import Storage

_MEMBERS = ("motion.npz", "text.json", "instructions.json")
_DISTINCT = 96
"""Motions that a made-up dataset has, under as many keys as are asked for."""
_BUFFER = 1000
"""Samples that webdataset's shuffle holds, its users' habit."""


def bench(
    dataset: str = "", *, samples: int = 2048, shards: int = 8, workers: int = 2, batch_size: int = 32, rounds: int = 5,
    clip_bytes: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Samples a second over whole passes, in turns in this process; workers start within the time, indexes are read before.
    Ratios are of wall clock, and of CPU time of all processes together, which other programs on the machine disturb less.

    All decode motion.npz, text.json and instructions.json of every sample; humo's loader also meta.json, and it checks the
    arrays. webdataset runs twice: with its own decoders, and handing the members to humo's.
    """
    with tempfile.TemporaryDirectory() as work:
        made = {} if dataset else _make(Path(work), samples, shards, clip_bytes)
        path = dataset or work
        return made | _measure(path, workers, batch_size, rounds)


def bench_text(found: dict[str, Any]) -> str:
    """The figures for a terminal."""

    def against(name: str) -> str:
        rounds = ", ".join(map(str, found[name + "_ratios"]))
        return (
            f"{found[name + '_ratio']} times as fast (rounds: {rounds}), {found[name + '_cpu_ratio']} times by CPU time"
        )

    return (
        f"{found['samples']} samples in {found['shards']} shards, {found['bytes'] / 2**20:.0f} MiB, {found['workers']} workers, "
        f"batches of {found['batch_size']}, {found['machine']}\n"
        f"humo's loader {found['humo_per_s']} samples/s, index read in {found['index_s']} s\n"
        f"webdataset with its own decoders {found['webdataset_per_s']} samples/s: humo is {against('webdataset')}\n"
        f"webdataset with humo's decoding {found['same_decoding_per_s']} samples/s: humo is {against('same_decoding')}"
    )


def _measure(path: str, workers: int, batch_size: int, rounds: int) -> dict[str, Any]:
    from model.data import MotionLoader

    storage = Storage(path)
    if not storage.is_local:
        raise HumoError(f"{path}: webdataset reads no such address; copy the dataset to a disk")
    if read_tombstones(storage):
        raise HumoError(f"{path}: some samples are removed, webdataset would read them; run humo pack {path} first")
    began = time.perf_counter()
    config = MotionLoader.Config(dataset=path, batch_size=batch_size, workers=workers, epochs=1)
    loader = MotionLoader(config)
    index_s = time.perf_counter() - began
    entries = loader.dataset.reader.shards
    urls = [storage.path(shard.path) for shard in entries]
    contestants: dict[str, Callable[[int], Iterable[list[Any]]]] = {
        "humo": lambda number: MotionLoader(config.model_copy(update={"seed": number})),
        "webdataset": lambda number: _webdataset(urls, number, workers, batch_size, own_decoders=True),
        "same_decoding": lambda number: _webdataset(urls, number, workers, batch_size, own_decoders=False),
    }
    expected = sum(shard.samples for shard in entries)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    busy: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-1, rounds):  # the first round warms up the disk's cache
        for name, make in contestants.items():
            seconds, cpu_seconds = _pass(make(max(0, number)), expected, name)
            if number >= 0:
                times[name].append(seconds)
                busy[name].append(cpu_seconds)
    found: dict[str, Any] = {
        "samples": expected, "shards": len(entries), "bytes": sum(shard.bytes for shard in entries), "workers": workers,
        "batch_size": batch_size, "index_s": round(index_s, 3),
    }  # fmt: skip
    for name, seconds_of in times.items():
        found[f"{name}_per_s"] = round(expected / median(seconds_of), 1)
        found[f"{name}_cpu_us"] = round(median(busy[name]) / expected * 1e6)
        if name != "humo":
            ratios = _ratios(seconds_of, times["humo"])
            found |= {f"{name}_ratio": round(median(ratios), 3), f"{name}_ratios": ratios}
            found[f"{name}_cpu_ratio"] = round(median(_ratios(busy[name], busy["humo"])), 3)
    return found | {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}


def _ratios(theirs: list[float], ours: list[float]) -> list[float]:
    return [round(their / our, 3) for their, our in zip(theirs, ours, strict=True)]


def _pass(batches: Iterable[list[Any]], expected: int, name: str) -> tuple[float, float]:
    """Seconds of one pass and of all cores in it. Raises HumoError where it was not the whole split: such figures would
    not compare."""
    began, began_cpu = time.perf_counter(), sum(os.times()[:4])
    keys = {_key(sample) for batch in batches for sample in batch}
    seconds, cpu_seconds = time.perf_counter() - began, sum(os.times()[:4]) - began_cpu
    if len(keys) != expected:
        raise HumoError(f"{name} gave {len(keys)} samples of {expected}; run humo verify on the dataset")
    return seconds, cpu_seconds


def _key(sample: Any) -> str:
    return sample["__key__"] if isinstance(sample, dict) else sample.key


def _webdataset(
    urls: list[str], seed: int, workers: int, batch_size: int, *, own_decoders: bool
) -> Iterable[list[Any]]:
    """webdataset as its documentation shows it: shards and a buffer shuffled, members decoded, batches by torch's loader."""
    import webdataset
    from torch.utils.data import DataLoader

    wanted = _MEMBERS if own_decoders else (*_MEMBERS, "meta.json")
    pipeline = webdataset.WebDataset(
        urls, shardshuffle=len(urls), seed=seed, select_files=lambda name: name.partition(".")[2] in wanted
    ).shuffle(_BUFFER, rng=random.Random(seed))
    decoded = pipeline.decode() if own_decoders else pipeline.map(_decode)
    return DataLoader(decoded, batch_size=batch_size, num_workers=workers, collate_fn=list)


def _decode(sample: dict[str, Any]) -> Any:
    from model.data import decode_sample

    return decode_sample(sample["__key__"], {name: sample[name] for name in (*_MEMBERS, "meta.json")})


def _make(folder: Path, samples: int, shards: int, clip_bytes: int) -> dict[str, Any]:
    """A dataset of generated motions with the texts and instructions that the stages write.

    There are `_DISTINCT` motions, each under several keys, as if several people had moved alike. A clip is random bytes.
    """
    storage, body = Storage(folder), BodyModel.load()
    records = [record for _, record in zip(range(min(_DISTINCT, samples)), _motions(body), strict=False)]
    encoded = [encode_sample_record(record, None, "0" * 12).members for record in records]
    clip = np.random.default_rng(0).bytes(clip_bytes)
    entries = []
    for number in range(shards):
        members_of = {}
        for serial in range(number, samples, shards):
            record, members = records[serial % len(records)], encoded[serial % len(records)]
            motion = record.captioned.scored.motion
            provenance = replace(motion.provenance, person=serial)
            meta = {
                "key": provenance.key,
                "person": serial,
                "frames": len(motion.poses),
                "fps": FPS,
                "body_model": body.id,
            }
            members_of[provenance.key] = (
                members | {"meta.json": encode_json(meta)} | ({"clip.mp4": clip} if clip else {})
            )
        path = f"shards/mocap/train-{number:06d}.tar"
        with storage.publish(path) as file:
            content = write_tar(file, (encode_sample(key, members_of[key]) for key in sorted(members_of)))
        entries.append(
            ShardEntry(
                path=path, subset="mocap", split="train", samples=len(members_of), bytes=content.bytes,
                sha256=content.sha256, hours=0.0,
            )
        )  # fmt: skip
    write_description(storage, DatasetDescription(version="bench", body_models=[body.id], shards=entries))
    return {"made_up": True, "clip_bytes": clip_bytes}


def _motions(body: BodyModel) -> Iterator[InstructedMotion]:
    """Every action of the generator in turn, 3 to 9 seconds long, described by the stages."""
    from stages.synthesis.motions import ACTIONS, generate
    from stages.write_captions import WriteCaptions
    from stages.write_instructions import WriteInstructions

    describe, instruct = WriteCaptions(), WriteInstructions()
    for seed in range(1000):
        for number, action in enumerate(ACTIONS):
            made = generate(action, 3.0 + (seed * len(ACTIONS) + number) % 7, seed, body=body)
            frames = len(made)
            source = Source(id=f"bench-{seed}-{action.replace('_', '-')}", uri=f"studio:{action}#{seed}", kind="mocap")
            motion = Motion(
                provenance=Provenance(
                    source=source, sha256=f"{seed * 1000 + number:064x}", person=0, start_s=0.0, end_s=frames / FPS,
                    source_fps=FPS,
                ),
                footage=None, poses=matrix_to_axis_angle(made.rotations).numpy(), trans=made.trans.numpy(),
                betas=made.betas.numpy(), contacts=made.contacts.numpy().astype(np.uint8),
                joint_confidence=np.ones((frames, 24), np.float32), to_source=np.eye(4), body_model=body.id, models={},
            )  # fmt: skip
            for captioned in describe.run(ScoredMotion(motion=motion, scores={})):
                yield from instruct.run(captioned)
