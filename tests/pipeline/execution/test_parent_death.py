"""A guarded process ends with its parent, and everything that it has started ends with it."""

import os
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from pipeline import PROJECT_ROOT

PROGRAM = """
import os, subprocess, sys
from pipeline.execution.parent_death import fork_guarded
fork_guarded(int(sys.argv[1]))
assert sys.stdin.read() == ""
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=False)
print(os.getpid(), grandchild.pid, flush=True)
{then}
"""


def start(then: str) -> tuple["subprocess.Popen[str]", list[int]]:
    """The guard, and the ids of what it guards."""
    guard = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(then=then), str(os.getpid())], cwd=PROJECT_ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert guard.stdout is not None
    return guard, [int(word) for word in guard.stdout.readline().split()]


def gone(processes: list[int]) -> bool:
    """Whether all end within twenty seconds."""
    deadline = time.monotonic() + 20
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(_runs(process) for process in processes)


def _runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("then", ["import time; time.sleep(600)", "while True: pass"])
def test_closing_the_pipe_ends_all(then: str) -> None:
    guard, guarded = start(then)
    assert len(guarded) == 2
    assert guard.stdin is not None
    guard.stdin.close()
    assert guard.wait(20) == 128 + 9
    assert gone(guarded)


@pytest.mark.parametrize(
    ("then", "status"), [("sys.exit(3)", 3), ("os._exit(0)", 0), ("os.kill(os.getpid(), 15)", 143)]
)
def test_what_it_started_ends_with_it(then: str, status: Any) -> None:
    guard, guarded = start(then)
    assert len(guarded) == 2
    assert guard.wait(20) == status
    assert gone(guarded)
