"""Damages a copy of a dataset hundreds of times, by accident and by intent, and verifies it each time: nothing may be overlooked.

    python -m pipeline.fault_injection.corrupt_datasets DATASET --count 1000 --seed 0

Accidents change, cut, move or exchange bytes and files. Intent changes a shard and all hashes that name it: objects in arrays that
run code when unpickled, names that lead out of a folder, links, sparse files and arrays that claim terabytes, playlists instead of
clips, nested JSON; or rewrites a table or description with another value. Harmless is a change after which a table or JSON still
reads the same. Exit status 1 if one is overlooked, raises anything but a HumoError, executes something, or exceeds the limits of
time and memory. Statistics, reports and saved job settings can be made again; they are not part of the trial.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dataset.verify import verify
from pipeline.dataset.versions import encode_version
from pipeline.fault_injection.corrupt_videos import blank, cut, flip, repeat, scramble
from pipeline.fault_injection.hostile_samples import ATTACKS, DEPTH, MARKER
from schemas.dataset import DESCRIPTION
from schemas.errors import HumoError, exit_status
from schemas.shards import END_OF_ARCHIVE, encode_sample, read_samples
from schemas.tables import parquet_bytes, read_parquet

MAX_SECONDS = 60.0
MAX_BYTES = 2 << 30
"""Limits of one verification."""
_COVERED = ("shards/", "parts/", "ledger/", "catalogue/", "versions/", "removals/", "tombstones.parquet", DESCRIPTION)

Files = dict[str, bytes]
Random = np.random.Generator


@dataclass(frozen=True)
class Damage:
    """Changed files of a dataset."""

    kind: str
    target: str
    files: dict[str, bytes | None] = field(repr=False)
    """Path -> new content; None: deleted."""
    link: str = ""
    """What the target is a symbolic link to instead of a file; empty: nothing."""


@dataclass
class TrialReport:
    """Result of a trial."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """found, harmless, overlooked, error -> number."""
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_growth_bytes: int = 0
    """By how much one verification raised the peak memory of the process."""


def accident(files: Files, rng: Random) -> Damage:
    """Bytes of one file, changed as by a disk or a transfer."""
    path = _choose(sorted(files), rng)
    change = _choose((flip, cut, blank, scramble, repeat), rng)
    content = bytes(change(bytearray(files[path]), rng)) if len(files[path]) > 2 else b""
    return Damage(change.__name__, path, {path: content})


def deletion(files: Files, rng: Random) -> Damage:
    """One file is gone."""
    path = _choose(sorted(files), rng)
    return Damage("delete", path, {path: None})


def exchange(files: Files, rng: Random) -> Damage:
    """Two files of a folder have each other's names."""
    folders = [[path for path in sorted(files) if path.startswith(name)] for name in ("parts/", "ledger/", "shards/")]
    one, other = rng.choice(_choose([paths for paths in folders if len(paths) > 1], rng), 2, replace=False)
    return Damage("exchange", str(one), {str(one): files[str(other)], str(other): files[str(one)]})


def device(files: Files, rng: Random) -> Damage:
    """A file that is a link to a device which never ends."""
    path = _choose([path for path in sorted(files) if path.endswith(".tar")], rng)
    return Damage("device", path, {path: None}, link="/dev/zero")


def hostile_shard(files: Files, rng: Random) -> Damage:
    """A shard with one hostile member, and the description and version changed to fit."""
    path = _choose([path for path in sorted(files) if path.startswith("shards/")], rng)
    samples = list(read_samples(io.BytesIO(files[path])))
    key, members = samples[rng.integers(len(samples))]
    attack = _choose(ATTACKS, rng)
    others = [encode_sample(one, content) for one, content in samples if one != key]
    return _rehashed(
        files, path, b"".join([*others, attack(key, dict(members)), END_OF_ARCHIVE]), attack.__name__.strip("_")
    )


def hostile_table(files: Files, rng: Random) -> Damage:
    """Another value in a table, which is written anew with right checksums."""
    path = _choose([path for path in sorted(files) if path.startswith(("catalogue/", "ledger/"))], rng)
    table = read_parquet(files[path], path)
    rows = table.to_pylist()
    names = ["key", "uri", "licence", "caption", "shard", "frames"]
    if path.startswith("ledger/"):
        names = ["part", "record_sha256", "offset", "length", "commit", "record_id", "outcome", "reason", "detail"]
    index, name = int(rng.integers(len(rows))), _choose(names, rng)
    value = rows[index][name]
    rows[index] = rows[index] | {
        name: value + 512 if isinstance(value, int) else _choose(["../../../dev/zero", "x"], rng)
    }
    return Damage(f"table {name}", path, {path: parquet_bytes(pa.Table.from_pylist(rows, schema=table.schema))})


def hostile_description(files: Files, rng: Random) -> Damage:
    """Another value or type somewhere in a description, version or proof."""
    path = _choose(
        [path for path in sorted(files) if path.startswith(("versions/", "removals/")) or path == DESCRIPTION], rng
    )
    content = json.loads(files[path])
    holder, name = _choose(list(_leaves(content)), rng)
    value = holder[name]
    other: list[Any] = [None, [], {"a": 1}, "../../etc/passwd"]
    other += [value + 1, -value - 1, 1 << 70] if isinstance(value, int | float) else [f"{value}x"]
    holder[name] = _choose(other, rng)
    return Damage("json", path, {path: json.dumps(content).encode()})


def nested_json(files: Files, rng: Random) -> Damage:
    """JSON that is nested more deeply than Python's stack."""
    path = _choose([path for path in sorted(files) if path.endswith(".json")], rng)
    return Damage("nested", path, {path: b"[" * DEPTH + b"]" * DEPTH})


DAMAGES: tuple[Callable[[Files, Random], Damage], ...] = (
    accident, accident, accident, hostile_shard, hostile_shard, hostile_table, hostile_description, deletion, exchange, device,
    nested_json,
)  # fmt: skip


def trial(dataset: Path, count: int, seed: int) -> TrialReport:
    """Damage and verify a copy of a dataset `count` times; the same arguments give the same damages.

    Raises HumoError if the dataset is not whole before.
    """
    report = TrialReport()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        shutil.copytree(dataset, root, symlinks=True)
        problems = verify(str(root)).problems
        if problems:
            raise HumoError(f"{dataset}: {problems[0]}; give a dataset without problems")
        names = [str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file()]
        files = {name: (root / name).read_bytes() for name in names if name.startswith(_COVERED)}
        marker = Path(folder) / "executed"
        os.environ[MARKER] = str(marker)
        for index in range(count):
            damage = DAMAGES[index % len(DAMAGES)](files, np.random.default_rng([seed, index]))
            _observe(root, files, damage, report, index)
            if marker.exists():
                report.failures.append(f"{index} {damage}: executed")
                marker.rmdir()
    return report


def _observe(root: Path, files: Files, damage: Damage, report: TrialReport, index: int) -> None:
    """Verify the dataset with one damage, and restore it."""
    report.kinds[damage.kind] += 1
    idle_bytes = _reset_peak_bytes()
    with _damaged(root, files, damage), _alarm():
        start = time.perf_counter()
        try:
            outcome = "found" if verify(str(root)).problems else "overlooked"
        except HumoError:
            outcome = "found"
        except Exception as error:
            outcome = "error"
            report.failures.append(f"{index} {damage}: {error!r}"[:500])
        seconds = time.perf_counter() - start
    if outcome == "overlooked" and not _matters(files, damage):
        outcome = "harmless"
    if outcome == "overlooked":
        report.failures.append(f"{index} {damage}: overlooked")
    report.outcomes[outcome] += 1
    report.slowest_s = max(report.slowest_s, seconds)
    grown_bytes = _peak_bytes() - idle_bytes
    report.peak_growth_bytes = max(report.peak_growth_bytes, grown_bytes)
    if seconds > MAX_SECONDS or grown_bytes > MAX_BYTES:
        report.failures.append(f"{index} {damage}: {seconds:.1f} s, {grown_bytes >> 20} MiB")


def _reset_peak_bytes() -> int:
    """Memory of the process, at which its peak starts anew where the system can (Linux); elsewhere the peak so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    """Peak memory of the process since it was reset."""
    with contextlib.suppress(OSError):
        return next(
            int(line.split()[1]) << 10
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM:")
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """TimeoutError in the block soon after it has exceeded its limit: a device never ends."""

    def ring(*_: Any) -> None:
        raise TimeoutError("the verification takes too long")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS + 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _damaged(root: Path, files: Files, damage: Damage) -> Iterator[None]:
    try:
        for name, content in damage.files.items():
            (root / name).unlink()
            if content is not None:
                (root / name).write_bytes(content)
        if damage.link:
            (root / damage.target).symlink_to(damage.link)
        yield
    finally:
        for name in damage.files:
            (root / name).unlink(missing_ok=True)
            (root / name).write_bytes(files[name])


def _matters(files: Files, damage: Damage) -> bool:
    """Whether any changed file reads differently."""
    return any(
        content is None or _meaning(name, content) != _meaning(name, files[name])
        for name, content in damage.files.items()
    )


def _meaning(name: str, content: bytes) -> Any:
    if name.endswith(".json"):
        return json.loads(content)
    if name.endswith(".parquet"):
        table = read_parquet(content, name)
        return repr((table.schema.remove_metadata(), table.to_pylist()))
    return content


def _rehashed(files: Files, path: str, content: bytes, kind: str) -> Damage:
    """A shard's new content with every description that names its hash and size."""
    changed: dict[str, bytes | None] = {path: content}
    for name in files:
        if name == DESCRIPTION or name.startswith("versions/"):
            description = json.loads(files[name])
            for shard in description["shards"]:
                if shard["path"] == path:
                    shard |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            changed[name] = (
                encode_version(description) if "checksum" in description else json.dumps(description).encode()
            )
    return Damage(kind, path, changed)


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of every number and text in parsed JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        if isinstance(item, dict | list):
            yield from _leaves(item)
        else:
            yield value, name


def _choose(values: Sequence[Any], rng: Random) -> Any:
    return values[int(rng.integers(len(values)))]


def main(arguments: list[str]) -> int:
    """Run a trial and print its report as JSON."""
    parser = argparse.ArgumentParser(
        prog="pipeline.fault_injection.corrupt_datasets", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "dataset", type=Path, help="a packed dataset of a few megabytes on this disk; it is copied, not changed"
    )
    parser.add_argument("--count", type=int, default=1000, help="how many damages")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    try:
        report = trial(options.dataset, options.count, options.seed)
    except HumoError as error:
        return exit_status(error)
    print(json.dumps(vars(report), indent=1))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
