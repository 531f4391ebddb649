"""Ends a process together with its parent, however the parent ends."""

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def exit_with_parent(parent: int) -> None:
    """End this process and its subprocesses when its parent ends; call it before anything else.

    Standard input must be a pipe whose other end only the parent holds and never writes to; it is replaced by an empty input.
    `parent` is the parent's process id. The process must lead its own process group.
    """
    end_with_parent(parent)
    lifeline = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    threading.Thread(target=_wait, args=(lifeline,), name="lifeline", daemon=True).start()


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process when the thread that started it ends; its own subprocesses are left alone.

    On Linux alone; elsewhere it does nothing but end where the parent has ended already.
    """
    if sys.platform == "linux":
        # The kernel also ends a C loop that never releases the GIL, which no Python thread can.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _wait(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(os.getpid(), signal.SIGKILL)
