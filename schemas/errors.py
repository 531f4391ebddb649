"""Errors shown to users, and the exit status of a command."""

import math
import sys

from schemas.secrets import hide_secrets


class HumoError(Exception):
    """A failure the user can fix: the message gives the value, the culprit and the remedy.

    The command line prints only the message (no traceback) and exits with status 1, or 2 for `UsageError`. Addresses in it have
    their public form.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(hide_secrets(message))


class UsageError(HumoError):
    """The request is invalid: a wrong config, manifest or option."""


class SourceError(Exception):
    """A source that may not or cannot be read; it becomes the source's rejection, with this reason, value and limit. Addresses in
    the detail have their public form."""

    def __init__(self, reason: str, detail: str, measured: float = math.nan, limit: float = math.nan) -> None:
        detail = hide_secrets(detail)
        super().__init__(reason, detail, measured, limit)
        self.reason, self.detail, self.measured, self.limit = reason, detail, measured, limit

    def __str__(self) -> str:
        return self.detail


def exit_status(error: HumoError, program: str = "") -> int:
    """Print the message to stderr, after the program's name if given; returns the exit status."""
    print(f"{program}: {error}" if program else error, file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1
