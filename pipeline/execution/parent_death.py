"""Ends a process together with its parent, however the parent ends."""

import ctypes
import os
import signal
import sys
import threading
from contextlib import suppress

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process when the thread that started it ends; its own subprocesses are left alone.

    On Linux alone; elsewhere it does nothing but end where the parent has ended already.
    """
    if sys.platform == "linux":
        # The kernel also ends a C loop that never releases the GIL, which no Python thread can.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def fork_guarded(parent: int) -> None:
    """Go on in a child; this process stays as its guard, and ends the child and all that it has started with the parent.

    Call it before anything else, without threads: a guard does nothing else, so nothing delays it. Standard input must be a pipe
    whose other end only the parent holds and never writes to; the child gets an empty input. Closing the pipe ends the child too.
    When the child ends, so do its subprocesses, and the guard with its exit status: 128 and the number of a signal that killed it.
    """
    guard = os.getpid()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        end_with_parent(guard)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        return
    with suppress(OSError):  # the child may have done it already, or have ended
        os.setpgid(child, child)

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)

    def wait_for_parent() -> None:
        os.read(0, 1)
        end()

    if os.getppid() != parent:
        end()
    threading.Thread(target=wait_for_parent, name="lifeline", daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    end()
    os._exit(status if status >= 0 else 128 - status)
