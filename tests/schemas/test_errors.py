"""Errors end a command with their sentence and a status that tells misuse from failure."""

import pytest

from schemas.errors import HumoError, UsageError, exit_status


@pytest.mark.parametrize(("error", "status"), [(HumoError("it broke"), 1), (UsageError("it broke"), 2)])
def test_commands_end_with_the_sentence(error: HumoError, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(error) == exit_status(error, "humo") == status
    assert capsys.readouterr().err == "it broke\nhumo: it broke\n"
