"""A short version of `python -m pipeline.fault_injection.kill_jobs`."""

import pytest

from pipeline.fault_injection.kill_jobs import trial


@pytest.mark.slow
def test_a_job_that_is_killed_and_completed_gives_the_same_bytes() -> None:
    found = trial(2, seed=3)
    assert (found["same"], found["verified"], found["odd"]) == (2, 2, [])
    assert found["kills"] >= 2
