"""A short version of `python -m pipeline.fault_injection.kill_jobs`."""

import pytest

from pipeline.fault_injection.kill_jobs import run_trials


@pytest.mark.slow
def test_killed_and_completed_jobs_give_the_same_bytes() -> None:
    result = run_trials(2, seed=3)
    assert (result["same"], result["verified"], result["odd"]) == (2, 2, [])
    assert result["kills"] >= 2
