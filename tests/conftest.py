"""What several folders of tests share: short rendered videos, a dataset made from them, and the development data if it is there."""

import os
from pathlib import Path

import pytest
from shared_data import SHARED_DATA

os.environ.setdefault("OMP_NUM_THREADS", "1")

from schemas.offline import enforce_offline

enforce_offline()

LONGEST_FIRST = (
    "test_fit_smpl", "test_track_people", "test_film_studio", "test_lifter_training", "test_external", "test_faults",
    "test_bench_ingest", "test_camera_motion", "test_kill_jobs", "test_bench_recovery", "test_object_store",
)  # fmt: skip
"""Files of a minute or so: they begin first, so that no worker is left alone with one at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers of pytest-xdist take whole files, whose fixtures are then made once. Tests that start Ray are one group of their own:
    two of them at a time are short of memory and of time to start."""

    def group(item: pytest.Item) -> str:
        return "ray" if item.get_closest_marker("ray") else item.path.stem

    first = {name: place for place, name in enumerate(("ray", *LONGEST_FIRST))}
    items.sort(key=lambda item: first.get(group(item), len(first)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))


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
