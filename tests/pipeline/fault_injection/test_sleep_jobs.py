"""A short version of `python -m pipeline.fault_injection.sleep_jobs`, on a disk and on an S3 server."""

import pytest
from s3_server import s3_bucket

from pipeline.fault_injection.sleep_jobs import run_trials


@pytest.mark.slow
def test_a_job_that_slept_changes_nothing_that_another_has_written() -> None:
    result = run_trials(5, seed=4)
    assert (result["intact"], result["odd"]) == (5, [])
    assert result["refused"] >= 1


@pytest.mark.slow
def test_a_job_that_slept_changes_nothing_in_a_bucket() -> None:
    with s3_bucket("sleep") as address:
        result = run_trials(2, seed=4, store=f"{address}/trials")
    assert (result["intact"], result["odd"]) == (2, [])
