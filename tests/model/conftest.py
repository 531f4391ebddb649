"""Datasets of synthetic motions that tests of the model share."""

import pytest
import torch
from motion_datasets import write_dataset

from model.data.dataset import MotionDataset
from model.data.samples import MotionSample
from schemas.body_model import BodyModel


@pytest.fixture(scope="session")
def body() -> BodyModel:
    return BodyModel.load()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve clips of three seconds in three shards, for each of train and val."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("dataset")
    return write_dataset(root, clips=12, shards=3, seconds=3.0, splits="train val")


@pytest.fixture(scope="session")
def uneven_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven clips in seven train shards, which two ranks cannot split equally."""
    return write_dataset(tmp_path_factory.mktemp("uneven"), clips=7, shards=7, seconds=2.0)


@pytest.fixture(scope="session")
def dataset_sample(dataset: str) -> MotionSample:
    return next(iter(MotionDataset(dataset)))
