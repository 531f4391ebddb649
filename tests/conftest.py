"""What several folders of tests share: short rendered videos, a dataset made from them, and the development data if it is there."""

import os
from pathlib import Path
from typing import Any

import pytest
from shared_data import SHARED_DATA

os.environ.setdefault("OMP_NUM_THREADS", "1")

from schemas.offline import enforce_offline

enforce_offline()

RAY_FILES = (
    "test_ray_cluster.py", "test_ray_token.py", "test_jobs.py", "test_shipped_code.py", "test_distributed.py",
    "test_secrets.py",
)  # fmt: skip
"""They start Ray. Two at a time are short of memory and of time to start, so one worker of pytest-xdist runs them all."""
LONGEST_FIRST = (
    *RAY_FILES, "test_fit_smpl.py", "test_track_people.py", "test_film_studio.py", "test_lifter_training.py",
    "test_external.py", "test_faults.py", "test_bench_ingest.py", "test_camera_motion.py", "test_kill_jobs.py",
    "test_bench_recovery.py", "test_object_store.py",
)  # fmt: skip
"""Files of a minute or so: they begin first, so that no worker is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `--dist loadfile`: workers take whole files, whose fixtures are then made once."""
    from xdist.scheduler import LoadFileScheduling

    class FilesScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "ray" if Path(file).name in RAY_FILES else file

    return FilesScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """The development videos beside the repository; the test is skipped where they are not."""
    folder = SHARED_DATA / "video"
    if not folder.is_dir():
        pytest.skip(f"no development videos at {folder}")
    return folder


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three rendered videos of three seconds: a wave, a walk, two people; and a manifest."""
    from schemas.body_model import BodyModel
    from stages.synthesis.film import film
    from stages.synthesis.motions import generate
    from stages.synthesis.outfit import Outfit
    from stages.synthesis.renderer import Person

    folder = tmp_path_factory.mktemp("films")
    body = BodyModel.load()
    rows = ["uri,id,title,description,licence"]
    for number, (name, actions) in enumerate(
        {"wave": ["wave_left"], "walk": ["walk"], "pair": ["raise_right", "stand"]}.items()
    ):
        people = [
            Person(
                motion=generate(action, 3.0, number, body=body),
                outfit=Outfit.draw(number + index),
                offset=(1.4 * index, 0.0),
            )
            for index, action in enumerate(actions)
        ]
        film(people, folder / f"{name}.mp4", width=480, height=360, seed=number, body=body)
        rows.append(f"{name}.mp4,{name},A person,Somebody does a {name},CC0-1.0")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder
