"""Damaged motion-capture files and manifests: each must end in a result or in a sentence.

`python -m pipeline.fault_injection.corrupt_mocap FOLDER [COUNT] [SEED]` damages the files of a folder COUNT times and reads every
copy in a process of its own kind, whose memory and time are bounded; it prints what became of them.
"""

import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import HumoError

MEMORY_BYTES, SECONDS = 2 << 30, 60
"""Most memory that reading a file may take over that of the idle process, and most time."""
MANIFESTS = (".csv", ".jsonl")
_TOKENS = (
    b"nan",
    b"1e999",
    b"-1",
    b"99999999999",
    b"",
    b"\x00",
    b"{",
    b"}",
    b"\xff\xfe",
    b"CHANNELS",
    b"cos\nsystem\n(S'id'\ntR.",
)


@dataclass(frozen=True)
class Outcome:
    """What became of one damaged file."""

    name: str
    kind: str
    """`result`, a reason of a rejection, or `crash: ...`."""
    seconds: float
    peak_bytes: int
    """Growth of the process's memory up to then."""

    @property
    def fine(self) -> bool:
        return not self.kind.startswith("crash") and self.seconds <= SECONDS and self.peak_bytes <= MEMORY_BYTES


def damage(content: bytes, rng: random.Random) -> bytes:
    """One of: cut, bytes changed, a part removed, doubled or moved, a word replaced, numbers changed."""
    data = bytearray(content)
    way = rng.randrange(7)
    place = rng.randrange(max(len(data), 1))
    length = min(rng.choice((1, 4, 32, 512, 4096)), max(len(data) - place, 1))
    if way == 0:
        del data[place:]
    elif way == 1:
        for _ in range(rng.choice((1, 8, 64))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif way == 2:
        del data[place : place + length]
    elif way == 3:
        data[place:place] = data[place : place + length] * rng.choice((1, 3))
    elif way == 4:
        data[place:place] = rng.choice(_TOKENS)
    elif way == 5:
        # The head holds the counts and sizes that a reader trusts.
        head = rng.randrange(min(len(data), 600))
        data[head : head + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x00\x00\x00\x80", b"9999"))
    else:
        digits = [index for index, byte in enumerate(data[:20_000]) if 48 <= byte <= 57]
        for index in rng.sample(digits, min(len(digits), rng.choice((1, 5, 50)))):
            data[index] = rng.choice(b"0123456789.-e")
    return bytes(data)


def read(path: Path) -> str:
    """`result`, or the reason why the file is rejected."""
    from schemas.records import Rejection, Source
    from stages.list_sources import SourceConfig, list_sources
    from stages.read_mocap import ReadMocap

    if path.suffix in MANIFESTS:
        try:
            list_sources([SourceConfig(kind="mocap", path=str(path))])
        except HumoError:
            return "usage error"
        return "result"
    stage = ReadMocap(ReadMocap.Config(min_s=0.1))
    stage.setup()
    results = list(stage.run(Source(id="damaged", uri=str(path), kind="mocap")))
    return results[0].reason if results and isinstance(results[0], Rejection) else "result"


def _serve(
    tasks: "multiprocessing.Queue[str | None]", answers: "multiprocessing.Queue[tuple[str, float, int]]"
) -> None:
    import torch

    torch.set_num_threads(1)
    read(Path("none.bvh"))
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while (task := tasks.get()) is not None:
        start = time.monotonic()
        try:
            kind = read(Path(task))
        except Exception as error:
            kind = f"crash: {type(error).__name__}: {str(error)[:200]}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers.put((kind, time.monotonic() - start, (peak - idle) * 1024))


def damaged_reads(files: Sequence[Path], count: int, seed: int = 0) -> list[Outcome]:
    """Reads `count` damaged copies of the files in turn; a reader that dies or hangs is started anew and counts as a crash."""
    rng = random.Random(seed)
    context = multiprocessing.get_context("spawn")
    outcomes: list[Outcome] = []
    reader = None
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            source = files[number % len(files)]
            name = f"{number:05d}_{source.stem}{source.suffix}"
            path = Path(folder) / name
            path.write_bytes(damage(source.read_bytes(), rng))
            for companion in source.parent.glob("*.asf"):
                target = Path(folder) / f"{name.rpartition('.')[0]}.asf"
                if source.suffix == ".amc" and source.stem.startswith(companion.stem.split("_")[0]):
                    target.write_bytes(companion.read_bytes())
            if reader is None or not reader.is_alive():
                tasks: multiprocessing.Queue[str | None] = context.Queue()  # type: ignore[assignment]
                answers: multiprocessing.Queue[tuple[str, float, int]] = context.Queue()  # type: ignore[assignment]
                reader = context.Process(target=_serve, args=(tasks, answers), daemon=True)
                reader.start()
            tasks.put(str(path))
            outcomes.append(_outcome(name, reader, answers))
            path.unlink()
        if reader is not None and reader.is_alive():
            tasks.put(None)
            reader.join(10)
    return outcomes


def _outcome(
    name: str, reader: "multiprocessing.process.BaseProcess", answers: "multiprocessing.Queue[tuple[str, float, int]]"
) -> Outcome:
    import queue

    start = time.monotonic()
    while time.monotonic() - start < 3 * SECONDS:
        try:
            kind, seconds, peak = answers.get(timeout=1)
            return Outcome(name, kind, seconds, peak)
        except queue.Empty:
            if not reader.is_alive():
                return Outcome(
                    name, f"crash: the reader ended with status {reader.exitcode}", time.monotonic() - start, 0
                )
    reader.kill()
    reader.join()
    return Outcome(name, "crash: no answer", time.monotonic() - start, 0)


def main(arguments: list[str]) -> int:
    """Exit status 1 where a file was neither a result nor a sentence."""
    if not arguments:
        print("corrupt_mocap: give FOLDER [COUNT] [SEED]", file=sys.stderr)
        return 2
    files = sorted(path for path in Path(arguments[0]).rglob("*") if path.is_file() and path.suffix != ".asf")
    count = int(arguments[1]) if len(arguments) > 1 else 1000
    seed = int(arguments[2]) if len(arguments) > 2 else 0
    outcomes = damaged_reads(files, count, seed)
    for kind, number in Counter(one.kind for one in outcomes).most_common():
        print(f"{number:6d} {kind}")
    slowest = max(outcomes, key=lambda one: one.seconds)
    memory = max(one.peak_bytes for one in outcomes) >> 20
    print(f"{len(outcomes)} files, slowest {slowest.seconds:.1f} s ({slowest.name}), memory {memory} MiB")
    bad = [one for one in outcomes if not one.fine]
    for one in bad:
        print(f"{one.name}: {one.kind}, {one.seconds:.1f} s, {one.peak_bytes >> 20} MiB")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
