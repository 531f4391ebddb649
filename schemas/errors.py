"""The one error that users are meant to read, and how a command ends with it."""

import sys


class HumoError(Exception):
    """Something the user can put right: the message gives the value, the culprit and the remedy.

    The command line prints the message alone (no traceback) and exits with status 1, or 2 for `UsageError`.
    """


class UsageError(HumoError):
    """The request itself cannot be carried out as written: a wrong config, manifest or option."""


def exit_status(error: HumoError, program: str = "") -> int:
    """Print the message to stderr, behind the program's name if it is given; the status to exit with."""
    print(f"{program}: {error}" if program else error, file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1
