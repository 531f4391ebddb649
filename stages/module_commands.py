"""Command lines of modules that are run by `python -m`."""

from collections.abc import Callable, Sequence

from schemas.errors import HumoError, UsageError, exit_status


def command(arguments: Sequence[str], usage: str, work: Callable[[Sequence[str]], object]) -> int:
    """Do `work` with a command's arguments, or, where there are none, tell its `usage`; the exit status."""
    try:
        if not arguments:
            raise UsageError(usage)
        work(arguments)
    except HumoError as error:
        return exit_status(error)
    return 0
