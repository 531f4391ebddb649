"""Ties a process to the one that started it: it ends when that one does, however that ends."""

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def exit_with_parent(parent: int) -> None:
    """End this process, and whatever it has started, with its parent; to be called before anything else.

    Standard input must be a pipe whose other end the parent alone holds and never writes to; here it becomes empty. `parent`
    is the parent's process id. The process must lead a process group of its own.
    """
    if sys.platform == "linux":
        # The kernel also ends what no thread of Python could: a C loop that never lets go of the interpreter.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    line = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_wait, args=(line,), name="lifeline", daemon=True).start()


def _wait(line: int) -> None:
    os.read(line, 1)
    os.killpg(os.getpid(), signal.SIGKILL)
