"""humo bench loader: the training loader against webdataset's own pipeline, on the same shards with the same number of workers."""

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
"""Distinct motions of a synthetic dataset, each used under several keys."""
_BUFFER = 1000
"""Samples in webdataset's shuffle buffer, as is common."""


def bench(
    dataset: str = "", *, samples: int = 2048, shards: int = 8, workers: int = 2, batch_size: int = 32, rounds: int = 5,
    clip_bytes: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Samples per second over whole passes, alternating in this process; starting workers is included, reading the index is not.
    Ratios are of wall-clock time, and of CPU time of all processes, which other programs on the machine affect less.

    All decode motion.npz, text.json and instructions.json of every sample; humo's loader also decodes meta.json, and checks the
    arrays. webdataset runs twice: with its own decoders, and with humo's decoding of the members.
    """
    with tempfile.TemporaryDirectory() as work:
        dataset_info = {} if dataset else make_dataset(Path(work), samples, shards, clip_bytes)
        path = dataset or work
        return dataset_info | _measure(path, workers, batch_size, rounds)


def bench_text(report: dict[str, Any]) -> str:
    """The results for a terminal."""

    def comparison(name: str) -> str:
        rounds = ", ".join(map(str, report[name + "_ratios"]))
        return f"{report[name + '_ratio']} times as fast (rounds: {rounds}), {report[name + '_cpu_ratio']} times by CPU time"

    return (
        f"{report['samples']} samples in {report['shards']} shards, {report['bytes'] / 2**20:.0f} MiB, "
        f"{report['workers']} workers, batches of {report['batch_size']}, {report['machine']}\n"
        f"humo's loader {report['humo_per_s']} samples/s, index read in {report['index_s']} s\n"
        f"webdataset with its own decoders {report['webdataset_per_s']} samples/s: humo is {comparison('webdataset')}\n"
        f"webdataset with humo's decoding {report['same_decoding_per_s']} samples/s: humo is {comparison('same_decoding')}"
    )


def _measure(path: str, workers: int, batch_size: int, rounds: int) -> dict[str, Any]:
    from model.data.loader import MotionLoader

    storage = Storage(path)
    if not storage.is_local:
        raise HumoError(f"{path}: webdataset cannot read this location; copy the dataset to a disk")
    if read_tombstones(storage):
        raise HumoError(f"{path}: some samples are removed but webdataset would read them; run humo pack {path} first")
    start = time.perf_counter()
    config = MotionLoader.Config(dataset=path, batch_size=batch_size, workers=workers, epochs=1)
    loader = MotionLoader(config)
    index_s = time.perf_counter() - start
    entries = loader.dataset.reader.shards
    urls = [storage.path(shard.path) for shard in entries]
    loaders: dict[str, Callable[[int], Iterable[list[Any]]]] = {
        "humo": lambda round_number: MotionLoader(config.model_copy(update={"seed": round_number})),
        "webdataset": lambda round_number: _webdataset(urls, round_number, workers, batch_size, own_decoders=True),
        "same_decoding": lambda round_number: _webdataset(urls, round_number, workers, batch_size, own_decoders=False),
    }
    expected = sum(shard.samples for shard in entries)
    times: dict[str, list[float]] = {name: [] for name in loaders}
    cpu_times: dict[str, list[float]] = {name: [] for name in loaders}
    for round_number in range(-1, rounds):  # the first round warms up the disk's cache
        for name, make in loaders.items():
            seconds, cpu_seconds = _run_pass(make(max(0, round_number)), expected, name)
            if round_number >= 0:
                times[name].append(seconds)
                cpu_times[name].append(cpu_seconds)
    report: dict[str, Any] = {
        "samples": expected, "shards": len(entries), "bytes": sum(shard.bytes for shard in entries), "workers": workers,
        "batch_size": batch_size, "index_s": round(index_s, 3),
    }  # fmt: skip
    for name, seconds_of in times.items():
        report[f"{name}_per_s"] = round(expected / median(seconds_of), 1)
        report[f"{name}_cpu_us"] = round(median(cpu_times[name]) / expected * 1e6)
        if name != "humo":
            ratios = _ratios(seconds_of, times["humo"])
            report |= {f"{name}_ratio": round(median(ratios), 3), f"{name}_ratios": ratios}
            report[f"{name}_cpu_ratio"] = round(median(_ratios(cpu_times[name], cpu_times["humo"])), 3)
    return report | {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}


def _ratios(their_times: list[float], our_times: list[float]) -> list[float]:
    return [round(their_s / our_s, 3) for their_s, our_s in zip(their_times, our_times, strict=True)]


def _run_pass(batches: Iterable[list[Any]], expected: int, name: str) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one pass. Raises HumoError if it did not yield the whole split, as the results would not be
    comparable."""
    start, start_cpu = time.perf_counter(), sum(os.times()[:4])
    keys = {_key_of(sample) for batch in batches for sample in batch}
    seconds, cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - start_cpu
    if len(keys) != expected:
        raise HumoError(f"{name} yielded {len(keys)} of {expected} samples; run humo verify on the dataset")
    return seconds, cpu_seconds


def _key_of(sample: Any) -> str:
    return sample["__key__"] if isinstance(sample, dict) else sample.key


def _webdataset(
    urls: list[str], seed: int, workers: int, batch_size: int, *, own_decoders: bool
) -> Iterable[list[Any]]:
    """webdataset as in its documentation: shards and a buffer shuffled, members decoded, batches by torch's loader."""
    import webdataset
    from torch.utils.data import DataLoader

    members = _MEMBERS if own_decoders else (*_MEMBERS, "meta.json")
    pipeline = webdataset.WebDataset(
        urls, shardshuffle=len(urls), seed=seed, select_files=lambda name: name.partition(".")[2] in members
    ).shuffle(_BUFFER, rng=random.Random(seed))
    decoded = pipeline.decode() if own_decoders else pipeline.map(_decode)
    return DataLoader(decoded, batch_size=batch_size, num_workers=workers, collate_fn=list)


def _decode(sample: dict[str, Any]) -> Any:
    from model.data.samples import decode_sample

    return decode_sample(sample["__key__"], {name: sample[name] for name in (*_MEMBERS, "meta.json")})


def make_dataset(folder: Path, samples: int, shards: int, clip_bytes: int) -> dict[str, Any]:
    """A dataset of generated motions with the texts and instructions that the stages write.

    There are `_DISTINCT` motions, each under several keys, as of several people. A clip is random bytes.
    """
    storage, body = Storage(folder), BodyModel.load()
    records = [record for _, record in zip(range(min(_DISTINCT, samples)), _instructed_motions(body), strict=False)]
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


def _instructed_motions(body: BodyModel) -> Iterator[InstructedMotion]:
    """Every action of the generator in turn, 3 to 9 seconds long, with captions and instructions of the stages."""
    from stages.synthesis.motions import ACTIONS, generate
    from stages.write_captions import WriteCaptions
    from stages.write_instructions import WriteInstructions

    captioner, instructor = WriteCaptions(), WriteInstructions()
    for seed in range(1000):
        for action_index, action in enumerate(ACTIONS):
            labelled = generate(action, 3.0 + (seed * len(ACTIONS) + action_index) % 7, seed, body=body)
            frames = len(labelled)
            source = Source(id=f"bench-{seed}-{action.replace('_', '-')}", uri=f"studio:{action}#{seed}", kind="mocap")
            motion = Motion(
                provenance=Provenance(
                    source=source, sha256=f"{seed * 1000 + action_index:064x}", person=0, start_s=0.0, end_s=frames / FPS,
                    source_fps=FPS,
                ),
                footage=None, poses=matrix_to_axis_angle(labelled.rotations).numpy(), trans=labelled.trans.numpy(),
                betas=labelled.betas.numpy(), contacts=labelled.contacts.numpy().astype(np.uint8),
                joint_confidence=np.ones((frames, 24), np.float32), to_source=np.eye(4), body_model=body.id, models={},
            )  # fmt: skip
            for captioned in captioner.run(ScoredMotion(motion=motion, scores={})):
                yield from instructor.run(captioned)
