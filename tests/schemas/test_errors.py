"""Commands end with the error message and a status that distinguishes misuse from failure."""

import pytest

from schemas.errors import HumoError, UsageError, exit_status


@pytest.mark.parametrize(("error", "status"), [(HumoError("it broke"), 1), (UsageError("it broke"), 2)])
def test_exit_status_and_message(error: HumoError, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(error) == exit_status(error, "humo") == status
    assert capsys.readouterr().err == "it broke\nhumo: it broke\n"
