"""Entry points of modules that are run with `python -m`."""

from collections.abc import Callable, Sequence

from schemas.errors import HumoError, UsageError, exit_status


def run_command(arguments: Sequence[str], usage: str, function: Callable[[Sequence[str]], object]) -> int:
    """Call `function` with the arguments, or report `usage` if there are none; returns the exit status."""
    try:
        if not arguments:
            raise UsageError(usage)
        function(arguments)
    except HumoError as error:
        return exit_status(error)
    return 0
