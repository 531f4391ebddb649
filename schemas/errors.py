"""The one error that users are meant to read."""


class HumoError(Exception):
    """Something the user can put right: the message gives the value, the culprit and the remedy.

    The command line prints the message alone (no traceback) and exits with status 1, or 2 for `UsageError`.
    """


class UsageError(HumoError):
    """The request itself cannot be carried out as written: a wrong config, manifest or option."""
