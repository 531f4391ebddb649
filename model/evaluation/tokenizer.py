"""Reconstruction by a tokenizer, on a split of a dataset."""

import itertools
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from model.data.dataset import MotionDataset, check_body_model
from model.data.samples import MotionSample
from model.evaluation import reconstruction
from model.evaluation.motion_text_model import Evaluator, load_evaluator
from model.evaluation.protocol import fid, fid_warning
from model.features import humo263
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
    rfid: float
    """FID of the decoded motions against the motions, by an evaluator's vectors; NaN without one, and for fewer than two motions
    that it can judge."""
    rfid_evaluator: str
    """The evaluator of `rfid`, beside whose name alone the figure means something."""
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
    warnings: tuple[str, ...] = ()


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
    evaluator: str | Path | None = "",
) -> TokenizerReport:
    """Reconstruct up to `limit` motions of a split; without `quantize` from the latents, which shows what the networks alone lose.

    `evaluator` is a checkpoint whose vectors give `rfid`, by default the shipped one; with None there is no `rfid`.
    Raises HumoError for an unusable checkpoint, evaluator or dataset.
    """
    tokenizer, body = load_for(dataset, checkpoint, body_model)
    tokenizer.to(device)
    judge, warnings = _evaluator_for(evaluator, body)
    measured = Measurements(tokenizer, body.rest_joints(torch.zeros(10)), judge)
    for sample in itertools.islice(MotionDataset(dataset, split=split, subsets=subsets), limit):
        if len(sample.motion.poses) > tokenizer.config.downsample:
            measured.add(sample, motion_features([sample.motion], body, tokenizer.config.features)[0], quantize)
    if not measured.rows:
        raise HumoError(
            f"{dataset}: no motion of more than {tokenizer.config.downsample} frames in {split}; select another split"
        )
    report = measured.report()
    return replace(report, warnings=(*warnings, *report.warnings))


def load_for(dataset: str, checkpoint: str | Path, body_model: str = "") -> tuple[MotionTokenizer, BodyModel]:
    """A tokenizer for the motions of a dataset and the body of both. Raises HumoError if they do not fit."""
    tokenizer, description = load_tokenizer(checkpoint)
    body = BodyModel.load(body_model or None)
    check_body_model(dataset, body)
    if description["body_model"] != body.id:
        raise HumoError(f"{checkpoint}: trained for the body {description['body_model']}, this dataset uses {body.id}")
    return tokenizer, body


def _evaluator_for(evaluator: str | Path | None, body: BodyModel) -> tuple[Evaluator | None, tuple[str, ...]]:
    """The evaluator for motions of a body, and why there is none where the shipped one judges another body."""
    if evaluator is None:
        return None, ()
    loaded = load_evaluator(evaluator, body.id if evaluator else "")
    if (judged := loaded.description["body_model"]) != body.id:
        return None, (
            f"no rfid: the shipped evaluator judges the body {judged}, not {body.id}; name one with --evaluator",
        )
    return loaded, ()


class Measurements:
    """Errors of motion after motion."""

    def __init__(
        self, tokenizer: MotionTokenizer, rest_joints: Float[Tensor, "24 3"], judge: Evaluator | None = None
    ) -> None:
        self.tokenizer, self.rest, self.judge = tokenizer, rest_joints, judge
        self.counts = CodeCounts(tokenizer.config)
        self.rows: list[Float[Tensor, "_ F"]] = []
        self._found: dict[str, list[Tensor]] = defaultdict(list)
        self._jerks: list[float] = []
        self._actions: dict[str, list[Tensor]] = defaultdict(list)
        self._of_key: dict[str, float] = {}
        self._judged: tuple[list[Tensor], list[Tensor]] = [], []
        """Rows for the evaluator: of the motions and of the decoded ones."""

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
        fk = [_in_heading(pose.joints, features.root_path(one)) for pose, one in ((found, decoded), (true, rows))]
        if self.judge and len(rows) > self.judge.model.config.min_frames:
            for kept, one, pose in zip(self._judged, (rows, decoded), (true, found), strict=True):
                contacts = (one[:, features.CONTACTS] > 0.5).float()
                kept.append(humo263.encode(pose.rotations, pose.trans, self.rest, contacts))
        self._note(
            local=local,
            fk=reconstruction.joint_distances(*fk),
            pa=reconstruction.aligned_distances(*fk),
            rotation=reconstruction.angles_deg(found.rotations[:, 1:22], true.rotations[:, 1:22]),
            acceleration=(reconstruction.accelerations(found.joints) - reconstruction.accelerations(true.joints)).norm(
                dim=-1
            ),
            slide=reconstruction.planted_speeds(found.joints, rows[:, features.CONTACTS]),
            true_slide=reconstruction.planted_speeds(true.joints, rows[:, features.CONTACTS]),
        )
        for seconds in _DRIFT_S:
            self._add_windows(decoded, rows, seconds)
        if (jerk := reconstruction.peak_jerk(true.joints)) > 0:
            self._jerks.append(reconstruction.peak_jerk(found.joints) / jerk)
        self._actions[action_of(sample.meta)].append(local.flatten())
        self._of_key[sample.key] = 1000 * local.mean().item()

    def report(self) -> TokenizerReport:
        config = self.tokenizer.config
        local = torch.cat(self._found["local"])
        encode, decode = self._speeds()
        actions = {name: 1000 * torch.cat(errors).mean().item() for name, errors in self._actions.items()}
        steps_per_s = FPS / config.downsample
        rfid, warnings = self._rfid()
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
            rfid=rfid,
            rfid_evaluator=self.judge.name if self.judge else "",
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
            warnings=warnings,
        )

    def _note(self, **values: Tensor) -> None:
        for name, value in values.items():
            self._found[name].append(value)

    def _mean(self, name: str, scale: float) -> float:
        values = self._found[name]
        return scale * torch.cat([value.flatten() for value in values]).mean().item() if values else float("nan")

    def _pose(self, rows: Float[Tensor, "N F"]) -> "_Pose":
        rotations, trans = self.tokenizer.features.decode(rows, self.rest)
        return _Pose(rotations, forward_kinematics(rotations, self.rest, trans)[0][:, :22], trans)

    def _rfid(self) -> tuple[float, tuple[str, ...]]:
        """FID of the decoded motions, and what is wrong with it."""
        if self.judge is None:
            return float("nan"), ()
        model = self.judge.model
        warning = fid_warning(len(self._judged[0]), model.config.latent)
        if len(self._judged[0]) < 2:
            return float("nan"), (warning,)
        true, found = (model.embed_motions(rows) for rows in self._judged)
        return fid(true, found), (warning,) if warning else ()

    def _add_windows(self, decoded: Float[Tensor, "N F"], rows: Float[Tensor, "N F"], seconds: int) -> None:
        count = round(seconds * FPS)
        for start in range(0, len(rows) - count + 1, count):
            a, b = (self._pose(one[start : start + count]).joints for one in (decoded, rows))
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


class _Pose(NamedTuple):
    """A motion in the world."""

    rotations: Float[Tensor, "N 24 3 3"]
    """Local ones."""
    joints: Float[Tensor, "N 22 3"]
    """By forward kinematics."""
    trans: Float[Tensor, "N 3"]


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
