"""Measures of a reconstruction, on motions whose error is known."""

import math

import pytest
import torch

from model.evaluation import reconstruction as measures
from model.evaluation.motion_text_model import load_evaluator
from model.evaluation.tokenizer import Measurements, action_of
from model.features import smpl135
from model.tokenizer.config import PRESETS, TokenizerConfig
from model.tokenizer.motion_tokenizer import MotionTokenizer
from schemas.body_model import BodyModel
from schemas.rotations import axis_angle_to_matrix
from stages.synthesis.motions import generate


def test_distances_and_alignment() -> None:
    torch.manual_seed(0)
    joints = torch.randn(5, 22, 3)
    shifted = joints + torch.tensor([0.003, 0.0, 0.004])
    assert torch.allclose(measures.joint_distances(joints, shifted), torch.full((5, 22), 0.005), atol=1e-6)
    turned = 1.3 * joints @ axis_angle_to_matrix(torch.tensor([0.3, -1.0, 0.5])).T + 2
    assert measures.aligned_distances(turned, joints).max() < 1e-5
    reflected = joints * torch.tensor([-1.0, 1.0, 1.0])
    assert measures.aligned_distances(reflected, joints).mean() > 0.1


@pytest.mark.parametrize("degrees", [0.01, 1.0, 90.0, 179.0])
def test_angles(degrees: float) -> None:
    turn = axis_angle_to_matrix(torch.tensor([[0.0, math.radians(degrees), 0.0]]))[None]
    assert measures.angles_deg(turn, torch.eye(3).expand(1, 1, 3, 3)).item() == pytest.approx(degrees, rel=1e-3)


def test_accelerations_and_jerk_have_units() -> None:
    t = torch.arange(30).double() / 30
    joints = torch.stack([t**3, 2 * t**2, torch.zeros(30)], -1)[:, None]
    assert measures.accelerations(joints)[..., 1] == pytest.approx(4.0)
    assert measures.peak_jerk(joints) == pytest.approx(6.0, rel=1e-3)
    assert measures.peak_jerk(joints[:3]) == 0.0


def test_planted_speeds_count_ground_contacts_only() -> None:
    joints = torch.zeros(4, 22, 3)
    joints[:, 7, 0] = torch.tensor([0.0, 0.01, 0.02, 0.5])
    contacts = torch.zeros(4, 4)
    contacts[:3, 0] = 1
    assert measures.planted_speeds(joints, contacts).tolist() == pytest.approx([0.3, 0.3])


def test_actions_are_the_names_of_sources_without_numbers() -> None:
    assert action_of({"uri": "takes/dataset-2_walk-turn-left_active_041.bvh"}) == "dataset walk turn left active"
    assert action_of({"uri": "", "source_id": ""}) == "unnamed"


class _Shifting(MotionTokenizer):
    """A tokenizer that loses nothing but a millimetre of each step forward."""

    def encode(self, features: torch.Tensor, memory: object = None) -> torch.Tensor:
        self.kept = features[:, : features.shape[1] // 4 * 4]
        return torch.zeros(len(features), features.shape[1] // 4, 5, 4, dtype=torch.long)

    def decode(self, codes: torch.Tensor, memory: object = None) -> torch.Tensor:
        rows = self.kept.clone()
        rows[..., smpl135.ROOT_STEP] += torch.tensor([0.0, 0.001])
        return rows


def test_drift_of_a_known_error(body: BodyModel, dataset_sample: object) -> None:
    motion, rest = generate("walk", 6.0, 0, body=body), body.rest_joints(torch.zeros(10))
    rows = smpl135.encode(motion.rotations, motion.trans, rest, motion.contacts.float())
    tokenizer = _Shifting(TokenizerConfig(**{**PRESETS["fast"].model_dump(), "width": 8, "codebook_size": 16}))
    measured = Measurements(tokenizer, rest, load_evaluator())
    measured.add(dataset_sample, rows)
    report = measured.report()
    assert math.isnan(report.rfid)
    assert report.warnings == ("FID of 1 motions is not to be trusted: vectors of 128 numbers need 640",)
    assert report.mpjpe_mm == pytest.approx(0, abs=1e-3)
    assert report.rotation_error_deg == pytest.approx(0, abs=1e-2)
    assert report.root_drift_mm == pytest.approx(60, rel=0.05)
    assert report.root_drift_5s_mm == pytest.approx(150, rel=0.05)
    assert math.isnan(report.root_drift_10s_mm)
    assert report.world_mpjpe_mm == pytest.approx(30.5, rel=0.05)
    assert 0 < abs(report.foot_slide_mm_s - report.true_foot_slide_mm_s) < 31
    assert report.codebook_usage == [1 / 16] * 4
    assert report.dead_codes == 60
    assert report.bits_per_s == 20 * 4 * 30 / 4
    for seed in (1, 2):
        other = generate("squat", 3.0, seed, body=body)
        measured.add(dataset_sample, smpl135.encode(other.rotations, other.trans, rest, other.contacts.float()))
    assert 0 < measured.report().rfid < 1
