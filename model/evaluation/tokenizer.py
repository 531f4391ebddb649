"""Reconstruction by a tokenizer, on a split of a dataset."""

import itertools
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from model.data.dataset import MotionDataset, check_body_model
from model.data.samples import MotionSample
from model.evaluation import reconstruction
from model.features.motions import motion_features
from model.tokenizer.code_counts import CodeCounts
from model.tokenizer.motion_tokenizer import MotionTokenizer, load_tokenizer
from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.records import FPS
from schemas.rotations import yaw_matrix
from schemas.skeleton import PARTS, SMPL_JOINTS

_WORLD_S = 2
_DRIFT_S = (2, 5, 10)
_WORST = 10
_SPEED_BATCH, _SPEED_FRAMES = 32, 128


@dataclass(frozen=True, kw_only=True)
class TokenizerReport:
    """Reconstruction error of whole motions, averaged over frames; lengths in millimetres."""

    motions: int
    frames: int
    mpjpe_mm: float
    """Joints 0..21, each frame in its own heading frame (as reported for HumanML3D); from the position columns where there are
    any."""
    fk_mpjpe_mm: float
    """The same joints from forward kinematics of the decoded rotations, in the heading frame."""
    pa_mpjpe_mm: float
    """The latter after a similarity transform of each frame (Procrustes)."""
    world_mpjpe_mm: float
    """Joints with the decoded root path, over windows of two seconds that start aligned; NaN for shorter motions."""
    rotation_error_deg: float
    """Angle between local rotations of joints 1..21."""
    acceleration_error: float
    """Difference of the joints' accelerations in the world, m/s^2."""
    root_drift_mm: float
    """Horizontal pelvis error after two seconds."""
    root_drift_5s_mm: float
    root_drift_10s_mm: float
    foot_slide_mm_s: float
    """Speed of decoded soles where the motion's are on the ground, millimetres per second."""
    true_foot_slide_mm_s: float
    """The same of the motions themselves."""
    peak_jerk_ratio: float
    """Largest jerk of the decoded joints over that of the motion, median over motions; 1 is faithful."""
    bits_per_s: float
    """Codes of a second."""
    entropy_bits_per_s: float
    """What an ideal entropy coder of single codes would need."""
    codebook_usage: list[float] = field(default_factory=list)
    """Fraction of each level's codes that were used."""
    codebook_perplexity: list[float] = field(default_factory=list)
    """Effective number of codes used per level: exponential of the entropy of the code distribution."""
    dead_codes: int = 0
    """Codes of all levels that no motion used."""
    encode_frames_per_s: float = 0.0
    """Speed from rows to codes, in batches of 32 windows, with the threads of this process."""
    decode_frames_per_s: float = 0.0
    part_mpjpe_mm: dict[str, float] = field(default_factory=dict)
    """Part -> `mpjpe_mm` of its joints."""
    action_mpjpe_mm: dict[str, float] = field(default_factory=dict)
    """Action -> `mpjpe_mm`, the worst first. The action is the source's file name without its numbers."""
    worst: dict[str, float] = field(default_factory=dict)
    """Sample key -> `mpjpe_mm` of the worst motions, for `humo view`."""


def evaluate_tokenizer(
    checkpoint: str | Path,
    dataset: str,
    *,
    split: str = "val",
    subsets: Sequence[str] = (),
    limit: int | None = None,
    body_model: str = "",
    device: str = "cpu",
    quantize: bool = True,
) -> TokenizerReport:
    """Reconstruct up to `limit` motions of a split; without `quantize` from the latents, which shows what the networks alone lose.

    Raises HumoError for an unusable checkpoint or dataset.
    """
    tokenizer, description = load_tokenizer(checkpoint)
    body = BodyModel.load(body_model or None)
    check_body_model(dataset, body)
    if description["body_model"] != body.id:
        raise HumoError(f"{checkpoint}: trained for the body {description['body_model']}, this dataset uses {body.id}")
    tokenizer.to(device)
    measured = Measurements(tokenizer, body.rest_joints(torch.zeros(10)))
    for sample in itertools.islice(MotionDataset(dataset, split=split, subsets=subsets), limit):
        if len(sample.motion.poses) > tokenizer.config.downsample:
            measured.add(sample, motion_features([sample.motion], body, tokenizer.config.features)[0], quantize)
    if not measured.rows:
        raise HumoError(
            f"{dataset}: no motion of more than {tokenizer.config.downsample} frames in {split}; select another split"
        )
    return measured.report()


class Measurements:
    """Errors of motion after motion."""

    def __init__(self, tokenizer: MotionTokenizer, rest_joints: Float[Tensor, "24 3"]) -> None:
        self.tokenizer, self.rest = tokenizer, rest_joints
        self.counts = CodeCounts(tokenizer.config)
        self.rows: list[Float[Tensor, "_ F"]] = []
        self._found: dict[str, list[Tensor]] = defaultdict(list)
        self._jerks: list[float] = []
        self._actions: dict[str, list[Tensor]] = defaultdict(list)
        self._of_key: dict[str, float] = {}

    @torch.inference_mode()
    def add(self, sample: MotionSample, rows: Float[Tensor, "N F"], quantize: bool = True) -> None:
        """Reconstruct a motion."""
        tokenizer, features = self.tokenizer, self.tokenizer.features
        if quantize:
            codes = tokenizer.encode(rows[None].to(tokenizer.device))
            self.counts.add(codes)
            decoded = tokenizer.decode(codes)[0].cpu()
        else:
            normalised = tokenizer.normalise(rows[None].to(tokenizer.device))
            decoded = tokenizer.reconstruct(tokenizer.latents(normalised))[0].cpu()
        rows = rows[: len(decoded)]
        self.rows.append(rows)
        local = reconstruction.joint_distances(
            features.local_joints(decoded, self.rest), features.local_joints(rows, self.rest)
        )
        found, true = self._pose(decoded), self._pose(rows)
        fk = [_in_heading(joints, features.root_path(one)) for joints, one in ((found[1], decoded), (true[1], rows))]
        self._note(
            local=local,
            fk=reconstruction.joint_distances(*fk),
            pa=reconstruction.aligned_distances(*fk),
            rotation=reconstruction.angles_deg(found[0][:, 1:22], true[0][:, 1:22]),
            acceleration=(reconstruction.accelerations(found[1]) - reconstruction.accelerations(true[1])).norm(dim=-1),
            slide=reconstruction.planted_speeds(found[1], rows[:, features.CONTACTS]),
            true_slide=reconstruction.planted_speeds(true[1], rows[:, features.CONTACTS]),
        )
        for seconds in _DRIFT_S:
            self._add_windows(decoded, rows, seconds)
        if (jerk := reconstruction.peak_jerk(true[1])) > 0:
            self._jerks.append(reconstruction.peak_jerk(found[1]) / jerk)
        self._actions[action_of(sample.meta)].append(local.flatten())
        self._of_key[sample.key] = 1000 * local.mean().item()

    def report(self) -> TokenizerReport:
        config = self.tokenizer.config
        local = torch.cat(self._found["local"])
        encode, decode = self._speeds()
        actions = {name: 1000 * torch.cat(errors).mean().item() for name, errors in self._actions.items()}
        steps_per_s = FPS / config.downsample
        return TokenizerReport(
            motions=len(self.rows),
            frames=len(local),
            mpjpe_mm=self._mean("local", 1000),
            fk_mpjpe_mm=self._mean("fk", 1000),
            pa_mpjpe_mm=self._mean("pa", 1000),
            world_mpjpe_mm=self._mean("world", 1000),
            rotation_error_deg=self._mean("rotation", 1),
            acceleration_error=self._mean("acceleration", 1),
            root_drift_mm=self._mean("drift_2", 1000),
            root_drift_5s_mm=self._mean("drift_5", 1000),
            root_drift_10s_mm=self._mean("drift_10", 1000),
            foot_slide_mm_s=self._mean("slide", 1000),
            true_foot_slide_mm_s=self._mean("true_slide", 1000),
            peak_jerk_ratio=torch.tensor(self._jerks).median().item() if self._jerks else float("nan"),
            bits_per_s=config.bits_per_step * steps_per_s,
            entropy_bits_per_s=self.counts.entropy_bits * len(config.streams) * config.levels * steps_per_s,
            codebook_usage=self.counts.usage.tolist(),
            codebook_perplexity=self.counts.perplexity.tolist(),
            dead_codes=self.counts.dead,
            encode_frames_per_s=encode,
            decode_frames_per_s=decode,
            part_mpjpe_mm={
                part: 1000 * local[:, [SMPL_JOINTS.index(name) for name in names]].mean().item()
                for part, names in PARTS.items()
            },
            action_mpjpe_mm=_worst_first(actions),
            worst=dict(itertools.islice(_worst_first(self._of_key).items(), _WORST)),
        )

    def _note(self, **values: Tensor) -> None:
        for name, value in values.items():
            self._found[name].append(value)

    def _mean(self, name: str, scale: float) -> float:
        values = self._found[name]
        return scale * torch.cat([value.flatten() for value in values]).mean().item() if values else float("nan")

    def _pose(self, rows: Float[Tensor, "N F"]) -> tuple[Float[Tensor, "N 24 3 3"], Float[Tensor, "N 22 3"]]:
        """Local rotations and joints in the world, by forward kinematics."""
        rotations, trans = self.tokenizer.features.decode(rows, self.rest)
        return rotations, forward_kinematics(rotations, self.rest, trans)[0][:, :22]

    def _add_windows(self, decoded: Float[Tensor, "N F"], rows: Float[Tensor, "N F"], seconds: int) -> None:
        count = round(seconds * FPS)
        for start in range(0, len(rows) - count + 1, count):
            a, b = (self._pose(one[start : start + count])[1] for one in (decoded, rows))
            self._note(**{f"drift_{seconds}": (a[-1, 0] - b[-1, 0])[[0, 2]].norm()})
            if seconds == _WORLD_S:
                self._note(world=reconstruction.joint_distances(a, b))

    @torch.inference_mode()
    def _speeds(self) -> tuple[float, float]:
        """Frames encoded and decoded per second."""
        rows = torch.cat(self.rows)
        rows = rows.repeat(-(-_SPEED_BATCH * _SPEED_FRAMES // len(rows)), 1)[: _SPEED_BATCH * _SPEED_FRAMES]
        batch = rows.unflatten(0, (_SPEED_BATCH, -1)).to(self.tokenizer.device)
        codes = self.tokenizer.encode(batch[:2])  # libraries choose their kernels
        start_s = time.perf_counter()
        codes = self.tokenizer.encode(batch)
        encoded_s = time.perf_counter()
        self.tokenizer.decode(codes).sum().item()
        decoded_s = time.perf_counter()
        return len(rows) / (encoded_s - start_s), len(rows) / (decoded_s - encoded_s)


def action_of(meta: dict[str, Any]) -> str:
    """What a motion's source is called, without its numbers: `dataset-2_walk_active_041.bvh` is `dataset walk active`."""
    stem = PurePosixPath(str(meta.get("uri") or meta.get("source_id") or "")).stem
    words = [word for word in re.split(r"[^A-Za-z]+", stem) if word]
    return " ".join(words).lower() or "unnamed"


def _in_heading(
    joints: Float[Tensor, "N 22 3"], path: tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]
) -> Float[Tensor, "N 22 3"]:
    """Joints in the world, in the heading frames of their rows."""
    yaw, pelvis = path
    return (joints - (pelvis * pelvis.new_tensor([1.0, 0.0, 1.0]))[:, None]) @ yaw_matrix(yaw)


def _worst_first(values: dict[str, float]) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda item: -item[1]))
