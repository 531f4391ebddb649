"""Fixtures shared by the tests of the lifter: body, rigs, a few motions, and examples drawn from them."""

import pytest
import torch

from schemas.body_model import BodyModel
from stages.recovery.lifter.rigs import Rigs
from stages.training.lifter import motion_dataset
from stages.training.lifter.examples import Examples, draw_examples
from stages.training.lifter.settings import Augmentation


@pytest.fixture(scope="session")
def body() -> BodyModel:
    return BodyModel.load()


@pytest.fixture(scope="session")
def rigs(body: BodyModel) -> Rigs:
    return Rigs.of(body)


@pytest.fixture(scope="session")
def dataset(body: BodyModel) -> motion_dataset.MotionDataset:
    return motion_dataset.generate_studio_motions(range(1), body, seconds=3.0)


@pytest.fixture(scope="session")
def examples(dataset: motion_dataset.MotionDataset, rigs: Rigs) -> Examples:
    return draw_examples(dataset, 12, 40, rigs, Augmentation(), torch.Generator().manual_seed(3))
