"""Jobs and Ray's tokens: real head nodes on this machine with and without authentication."""

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mocap_files import body_motion, write_known_bvh
from ray_head import environment_of, ray_head

from pipeline.dataset.verify import verify
from pipeline.execution.ray_token import authenticate_local_ray, authenticate_to, check_joined, requires_token
from schemas.errors import HumoError

TIMEOUT_S = 300
TOKEN = "f00d" * 16
LOCAL_RAY = """
import json, os
import ray  # before the environment is set, as in a process that has used it
from pipeline.chain.config import IngestConfig
from pipeline.execution.ray_engine import local_ray
from pipeline.execution.ray_token import requires_token
config = IngestConfig.model_validate({"sources": [{"path": "x"}], "output": "y", "engine": {"kind": "ray", "cpus": 1}})
with local_ray(config):
    context = ray.get_runtime_context()
    print(json.dumps({"required": requires_token(context.gcs_address), "mode": os.environ["RAY_AUTH_MODE"]}))
"""


@pytest.fixture(scope="module")
def authenticated() -> Iterator[str]:
    with ray_head(environment_of(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)) as address:
        yield address


@pytest.fixture(scope="module")
def open_head() -> Iterator[str]:
    with ray_head(environment_of(RAY_AUTH_MODE="disabled")) as address:
        yield address


def ingest(folder: Path, address: str, *settings: str, **environment: str) -> tuple[int, str]:
    """Exit status of `humo ingest` of one take on the Ray at an address, and what it printed."""
    takes = folder / "takes"
    takes.mkdir(exist_ok=True)
    write_known_bvh(takes / "walk.bvh", body_motion("walk", 3.0, 0), "cmu_bvh")
    job = folder / "job.yaml"
    engine = {"kind": "ray", "address": address, "isolate": False}
    job.write_text(
        json.dumps(
            {"sources": [{"kind": "mocap", "path": str(takes)}], "output": str(folder / "data"), "engine": engine}
        )
    )
    command = [sys.executable, "-m", "pipeline.commands.main", "ingest", str(job)]
    done = subprocess.run(
        [*command, *(word for setting in settings for word in ("--set", setting))],
        env=environment_of(HOME=str(folder), **environment), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_jobs_without_the_token_are_refused(authenticated: str, tmp_path: Path) -> None:
    status, output = ingest(tmp_path, authenticated)
    assert status == 1
    assert "requires a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in output
    assert not (tmp_path / "data" / "ledger").exists()


@pytest.mark.slow
def test_ray_itself_refuses_missing_and_wrong_tokens(authenticated: str, tmp_path: Path) -> None:
    """Ray's own driver, without humo's check before it connects."""
    program = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); print('joined')"
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", program, authenticated], env=environment_of(HOME=str(tmp_path), **settings), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for settings in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "beef" * 16})
    ]  # fmt: skip
    for driver in drivers:
        output, errors = driver.communicate(timeout=TIMEOUT_S)
        assert driver.returncode
        assert "InvalidAuthToken" in errors
        assert "joined" not in output


@pytest.mark.slow
def test_an_unauthenticated_ray_is_named_or_refused(open_head: str, tmp_path: Path) -> None:
    status, output = ingest(tmp_path, open_head, "engine.require_token=true")
    assert status == 1
    assert f"engine.require_token: the Ray at {open_head} accepts requests without a token" in output
    assert not (tmp_path / "data" / "ledger").exists()
    status, output = ingest(tmp_path, open_head)
    assert status == 0, output[-2000:]
    assert f"the Ray at {open_head} accepts requests without a token" in output
    assert verify(str(tmp_path / "data")).samples == 1


def test_a_local_ray_refuses_requests_without_its_token(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOCAL_RAY], env=environment_of(HOME=str(tmp_path)), capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"required": True, "mode": "token"}
    assert not (tmp_path / ".ray" / "auth_token").exists(), "the token stays in memory"


class TestEnvironment:
    """What is set before Ray starts."""

    @pytest.fixture(autouse=True)
    def clean(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.setenv(name, "")  # restored at the end, whatever the code under test sets
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))

    def test_tokens_are_long_and_of_this_process_alone(self) -> None:
        authenticate_local_ray(require_token=True)
        assert os.environ["RAY_AUTH_MODE"] == "token"
        token = os.environ["RAY_AUTH_TOKEN"]
        assert len(bytes.fromhex(token)) == 32
        authenticate_local_ray(require_token=True)
        assert os.environ["RAY_AUTH_TOKEN"] == token, "Ray reads it once per process"

    def test_the_users_token_is_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
        authenticate_local_ray(require_token=True)
        assert "RAY_AUTH_TOKEN" not in os.environ
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        authenticate_local_ray(require_token=True)
        assert os.environ["RAY_AUTH_TOKEN"] == TOKEN

    def test_disabled_authentication_is_named_or_refused(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        authenticate_local_ray(require_token=False)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "RAY_AUTH_MODE=disabled" in record.message
        with pytest.raises(HumoError, match=r"engine\.require_token.*unset it"):
            authenticate_local_ray(require_token=True)

    def test_a_token_file_is_not_sent_to_an_address(self, tmp_path: Path) -> None:
        """As Ray does: only a token that the user names for this job leaves the machine."""
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
        authenticate_to("auto")
        assert "RAY_AUTH_MODE" not in os.environ

    def test_what_does_not_answer_is_not_trusted(self, caplog: pytest.LogCaptureFixture) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        assert requires_token(address) is None
        check_joined(address, require_token=False)
        assert "cannot be asked" in caplog.text
        with pytest.raises(HumoError, match="cannot be asked"):
            check_joined(address, require_token=True)
