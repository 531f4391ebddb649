"""Import of results in the formats of WHAM, GVHMR, TRAM and AMASS, generated from a synthetic motion and camera."""

import io
import os
import pickle
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from result_files import (
    HEIGHT,
    SHIPPED,
    WIDTH,
    Target,
    amass_of,
    axis_angles,
    body_file,
    clip_of,
    filmed,
    gvhmr_of,
    joblib_bytes,
    wham_subject,
    write_gvhmr,
    write_tram,
    write_wham,
)

from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.records import FPS, Source
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import joint
from stages.base import apply
from stages.fit_smpl import FitSmpl
from stages.geometry.cameras import guess_intrinsics
from stages.recovery.external.__main__ import main
from stages.recovery.external.files import read_result
from stages.recovery.external.fitter import ImportFitter, frame_rate
from stages.recovery.external.reading import ResultError
from stages.recovery.external.worlds import place_subjects, rest_of_body
from stages.recovery.protocol import Fit, NoFit


@pytest.fixture(scope="module")
def bodies(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bodies")
    return {kind: body_file(folder / f"{kind.upper()}_NEUTRAL.npz", kind) for kind in ("smpl", "smplx")}


def joints_of(fit: Fit, body: BodyModel) -> np.ndarray:
    return forward_kinematics(fit.rotations, body.rest_joints(fit.betas), fit.trans)[0].numpy()


def assert_same(
    fit: Fit | NoFit, target: np.ndarray, body: BodyModel, *, mean_m: float = 2e-4, max_m: float = 1e-3
) -> None:
    assert isinstance(fit, Fit), fit
    # Not every layout has the rotations of the hands, and no keypoint depends on them.
    error = np.linalg.norm(joints_of(fit, body) - target, axis=-1)[:, :22]
    assert error.mean() < mean_m
    assert error.max() < max_m
    assert np.median(fit.reprojection) < 0.005


def write(layout: str, folder: Path, target: Target, fps: float, monkeypatch) -> None:
    if layout == "wham":
        write_wham(folder / "walk", {0: wham_subject(target.at(fps), first=2)}, monkeypatch)
    elif layout == "tram":
        write_tram(folder / "walk", [target.at(fps)], gravity=True)
    else:
        np.savez(folder / "walk.npz", **amass_of(target.at(fps), fps))


@pytest.mark.parametrize("layout", ["wham", "tram", "amass"])
@pytest.mark.parametrize(("fps", "start_s"), [(30.0, 0.2), (25.0, 0.2)])
def test_a_result_matches_the_target_in_the_level_world(layout, fps, start_s, bodies, tmp_path, monkeypatch) -> None:
    body = BodyModel.load(bodies["smpl"])
    target = filmed(body, moving_camera=layout != "amass")
    write(layout, tmp_path, target, fps, monkeypatch)
    fitter = ImportFitter(body, results=str(tmp_path), body_file=str(bodies["smpl"]))
    (fit,) = fitter.fit([clip_of(target, fps, start_s=start_s)])
    first = round(start_s * FPS)
    level = target.at(FPS).cut(first, first + 60).in_level_world()
    # AMASS has no camera: it is estimated from the keypoints. Between frames at 25 fps joints move on arcs.
    mean_m, max_m = (2e-3, 0.03) if fps != FPS else (1e-3, 3e-3) if layout == "amass" else (2e-4, 1e-3)
    assert_same(fit, level, body, mean_m=mean_m, max_m=max_m)
    assert fit.source.startswith(layout)
    np.testing.assert_allclose(fit.camera.position[0], 0, atol=1e-5)
    np.testing.assert_allclose(fit.camera.rotation[0, 0], [1, 0, 0], atol=1e-2 if layout == "amass" else 1e-4)
    torch.testing.assert_close(fit.betas, target.betas)


def test_gvhmr_is_read_as_smplx_in_a_world_with_y_up(bodies, tmp_path) -> None:
    body = BodyModel.load(bodies["smplx"])
    target = filmed(body).at(FPS)
    write_gvhmr(tmp_path / "walk", gvhmr_of(target))
    result = read_result(str(tmp_path / "walk"))
    assert (result.layout, result.body, result.frame_count) == ("gvhmr", "smplx", len(target.pelvis))
    np.testing.assert_allclose(result.intrinsics, guess_intrinsics(WIDTH, HEIGHT), rtol=1e-6)
    (placed,) = place_subjects(result, rest_of_body(body))
    torch.testing.assert_close(placed.pelvis, target.pelvis, atol=1e-5, rtol=0)
    torch.testing.assert_close(placed.rotations[:, :22], target.rotations[:, :22], atol=1e-5, rtol=0)
    torch.testing.assert_close(placed.to_camera, target.to_camera, atol=1e-5, rtol=0)
    torch.testing.assert_close(placed.camera_position, target.camera_position, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["smpl", "smplx"])
def test_retargeting_keeps_limb_directions_and_the_projection(kind, bodies, tmp_path, monkeypatch) -> None:
    source = BodyModel.load(bodies[kind])
    target = replace(filmed(source), betas=torch.zeros(10))
    at_fps = target.at(FPS)
    if kind == "smpl":
        write_wham(tmp_path / "walk", {0: wham_subject(at_fps)}, monkeypatch)
    else:
        write_gvhmr(tmp_path / "walk", gvhmr_of(at_fps))
    (fit,) = ImportFitter(SHIPPED, results=str(tmp_path), retarget=True).fit([clip_of(target)])
    assert isinstance(fit, Fit), fit
    assert fit.source.endswith("retargeted")
    assert not fit.betas.any()
    assert np.median(fit.reprojection) < 0.06

    source_joints, retargeted_joints = at_fps.in_level_world()[:60], joints_of(fit, SHIPPED)
    for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
        for side in ("left", "right"):
            bones = [
                (j[:, joint(f"{side}_{end}")] - j[:, joint(f"{side}_{start}")])
                for j in (source_joints, retargeted_joints)
            ]
            cosine = np.prod([1 / np.linalg.norm(bone, axis=-1) for bone in bones], 0) * (bones[0] * bones[1]).sum(-1)
            assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 1.0, (start, side)
    leg = ("left_hip", "left_knee", "left_ankle")
    legs = [
        np.linalg.norm(np.diff(j[0, [joint(name) for name in leg]], axis=0), axis=1).sum()
        for j in (source_joints, retargeted_joints)
    ]
    displacements = [np.linalg.norm(j[-1, 0] - j[0, 0]) for j in (source_joints, retargeted_joints)]
    assert displacements[1] / displacements[0] == pytest.approx(legs[1] / legs[0], rel=0.01)


def test_a_retargeted_walk_goes_through_the_stage(bodies, tmp_path, monkeypatch) -> None:
    target = replace(filmed(BodyModel.load(bodies["smpl"])), betas=torch.zeros(10))
    write_wham(tmp_path / "walk", {4: wham_subject(target.at(FPS))}, monkeypatch)
    stage = FitSmpl(FitSmpl.Config(fitter="imported", results=str(tmp_path), retarget=True))
    stage.setup()
    other = clip_of(target, uri="elsewhere.mp4")
    other = replace(other, track=replace(other.track, shot=replace(other.track.shot, video=replace(
        other.track.shot.video, source=Source(id="away", uri="elsewhere.mp4")))))  # fmt: skip
    (motion,), (rejection,) = apply(stage, [clip_of(target), other])
    assert rejection.reason == "no_result"
    assert "elsewhere" in rejection.detail
    assert motion.models["fit_smpl"].startswith("imported 1 wham ")
    assert motion.body_model == SHIPPED.id
    assert 0.2 < motion.contacts.mean() < 0.9
    # Planted feet do not slide.
    rest = SHIPPED.rest_joints(torch.from_numpy(motion.betas))
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
    joints, global_rotations = forward_kinematics(rotations, rest, torch.from_numpy(motion.trans))
    feet = SHIPPED.contact_rig().points(global_rotations, joints, torch.from_numpy(motion.betas)).numpy()
    speed = np.linalg.norm(np.diff(feet, axis=0), axis=-1) * FPS
    assert np.median(speed[motion.contacts[1:] == 1]) < 0.15
    assert abs(np.median(feet[..., 1].min(1))) < 0.03


def test_subjects_are_matched_by_their_image_position(bodies, tmp_path, monkeypatch) -> None:
    body = BodyModel.load(bodies["smpl"])
    left, right = (
        filmed(body, offset_m=-0.9, moving_camera=False),
        filmed(body, "wave_left", offset_m=0.9, seed=2, moving_camera=False),
    )
    subjects = {1: wham_subject(right.at(FPS)), 2: wham_subject(left.at(FPS))}
    write_wham(tmp_path / "yard", subjects, monkeypatch)
    fits = ImportFitter(body, results=str(tmp_path)).fit([clip_of(left), clip_of(right)])
    for fit, target in zip(fits, (left, right), strict=True):
        assert_same(fit, target.at(FPS).in_level_world()[:60], body)

    stranger = filmed(body, offset_m=2.5, moving_camera=False)
    (no_fit,) = ImportFitter(body, results=str(tmp_path)).fit([clip_of(stranger)])
    assert isinstance(no_fit, NoFit)
    assert no_fit.reason == "no_matching_subject"
    assert no_fit.measured > no_fit.limit


def test_the_vertical_of_tram_is_estimated_from_feet_and_trunks(bodies, tmp_path) -> None:
    body = BodyModel.load(bodies["smpl"])
    people = [
        filmed(body, "walk_turn_left", moving_camera=False),
        filmed(body, "walk", offset_m=1.2, seed=3, moving_camera=False),
    ]
    write_tram(tmp_path / "walk", [target.at(FPS) for target in people])
    result = read_result(str(tmp_path / "walk"))
    for placed, target in zip(place_subjects(result, rest_of_body(body)), people, strict=True):
        up = placed.to_camera[0].T @ target.to_camera[0] @ torch.tensor([0.0, 1.0, 0.0])
        assert np.degrees(float(torch.arccos(up[1].clamp(-1, 1)))) < 1.5
    (fit,) = ImportFitter(body, results=str(tmp_path)).fit([clip_of(people[0])])
    assert_same(fit, people[0].at(FPS).in_level_world()[:60], body, mean_m=0.15, max_m=0.3)
    displacement = fit.trans - fit.trans[0]
    assert (
        displacement.norm(dim=-1) - (people[0].at(FPS).pelvis[:60] - people[0].pelvis[0]).norm(dim=-1)
    ).abs().max() < 2e-3


def test_missing_frames_of_a_subject(bodies, tmp_path) -> None:
    body = BodyModel.load(bodies["smpl"])
    target = filmed(body)
    write_tram(tmp_path / "walk", [target.at(FPS)], gravity=True, gap=slice(20, 24))
    write_tram(tmp_path / "run", [target.at(FPS)], gravity=True, gap=slice(20, 40))
    fitter = ImportFitter(body, results=str(tmp_path))
    (interpolated,) = fitter.fit([clip_of(target)])
    assert isinstance(interpolated, Fit)
    clip = clip_of(target, uri="run.mp4")
    (missing,) = ImportFitter(body, results=str(tmp_path)).fit([clip])
    assert isinstance(missing, NoFit)
    assert missing.reason == "frames_not_covered"
    assert missing.measured == pytest.approx(1 - 20 / 60, abs=0.02)


def test_other_bodies_are_rejected_unless_retargeted(bodies, tmp_path, monkeypatch) -> None:
    target = filmed(BodyModel.load(bodies["smpl"]))
    path = write_wham(tmp_path / "walk", {0: wham_subject(target.at(FPS))}, monkeypatch)
    (no_fit,) = ImportFitter(SHIPPED, results=str(tmp_path)).fit([clip_of(target)])
    assert no_fit.reason == "other_body_model"
    for part in (str(path), "SMPL (neutral)", SHIPPED.id, "fit_smpl.body_model", "fit_smpl.retarget"):
        assert part in no_fit.detail
    body = BodyModel.load(bodies["smpl"])
    (no_fit,) = ImportFitter(body, results=str(tmp_path), body_file="SMPL_FEMALE.npz").fit([clip_of(target)])
    assert no_fit.reason == "other_body_model"
    write_gvhmr(tmp_path / "yard", gvhmr_of(target.at(FPS)))
    (no_fit,) = ImportFitter(body, results=str(tmp_path)).fit([clip_of(target)])
    assert no_fit.reason == "other_body_model"
    assert "body_model to" not in no_fit.detail


def broken_cases(target: Target, monkeypatch) -> dict[str, tuple[str, bytes, str, str]]:
    """Name -> file, its bytes, reason, part of the message."""

    def npz(**changes) -> bytes:
        file = io.BytesIO()
        values = amass_of(target, FPS) | changes
        np.savez(file, **{key: value for key, value in values.items() if value is not None})
        return file.getvalue()

    def wham(**changes) -> bytes:
        return joblib_bytes({0: wham_subject(target) | changes}, monkeypatch)

    def pt(values) -> bytes:
        file = io.BytesIO()
        torch.save(values, file)
        return file.getvalue()

    n = len(target.pelvis)
    nan = np.full((n, 3), 1.0)
    nan[5] = np.nan
    gvhmr = gvhmr_of(target)
    y_up = amass_of(target, FPS) | {
        "poses": np.concatenate([axis_angles(target.rotations[:, :1]), np.zeros((n, 153))], 1)
    }
    flip = torch.diag(torch.tensor([1.0, -1, -1]))
    upside_down = wham_subject(target)["pose_world"].copy()
    upside_down[:, :3] = axis_angles((flip @ target.rotations[:, 0])[:, None])
    return {
        "columns": ("walk.npz", npz(poses=np.zeros((n, 100))), "wrong_shape", "100 columns"),
        "rate": ("walk.npz", npz(mocap_framerate=np.array(0.0)), "no_frame_rate", "mocap_framerate is 0.0"),
        "no rate": ("walk.npz", npz(mocap_framerate=None), "no_frame_rate", "write it into the file"),
        "nan": ("walk.npz", npz(trans=nan), "not_finite", "row 5"),
        "betas": ("walk.npz", npz(betas=np.zeros(4)), "wrong_shape", "'betas'"),
        "y up": ("walk.npz", npz(**y_up), "not_upright", "AMASS has Z up"),
        "slow": ("walk.npz", npz(mocap_framerate=np.array(20.0)), "wrong_frame_count", "another rate"),
        "wham shape": ("walk.pkl", wham(trans=np.zeros((n, 2))), "wrong_shape", "'trans'"),
        "wham text": ("walk.pkl", wham(trans=np.array(["a"] * n)), "wrong_shape", "'trans'"),
        "wham frames": ("walk.pkl", wham(frame_ids=np.zeros(n, int)), "wrong_frame_numbers", "frame_ids"),
        "wham later": ("walk.pkl", wham(frame_ids=np.arange(n) + 300), "wrong_frame_count", "the video has 72"),
        "wham lacks": ("walk.pkl", pickle.dumps({0: {"frame_ids": np.arange(n)}}), "unknown_layout", "lacks 'pose'"),
        "wham over": ("walk.pkl", wham(pose_world=upside_down), "not_upright", "upside down"),
        "code": ("walk.pkl", pickle.dumps({0: os.system}), "unreadable_result", "posix.system"),
        "objects": ("walk.pkl", pickle.dumps(np.array([{}, None], object)[:1].astype("O")), "unknown_layout", "list"),
        "cut": ("walk.pkl", wham()[:5000], "unreadable_result", "no readable .pkl"),
        "packed": ("walk.pkl", zlib.compress(wham()), "unreadable_result", "compressed with zlib"),
        "module": ("walk.pt", pt(torch.nn.Linear(2, 2)), "unreadable_result", "no readable .pt"),
        "other": ("walk.pt", pt({"body_params_global": torch.zeros(3)}), "unknown_layout", "body_params_global"),
        "frames": ("walk.pt", pt(gvhmr | {"K_fullimg": gvhmr["K_fullimg"][:9]}), "wrong_shape", "(9, 3)"),
        "part": (
            "walk.npy",
            (lambda f: (np.save(f, np.zeros(3)), f.getvalue())[1])(io.BytesIO()),
            "unknown_layout",
            "TRAM",
        ),
    }


BROKEN = (
    "columns", "rate", "no rate", "nan", "betas", "y up", "slow", "wham shape", "wham text", "wham frames", "wham later",
    "wham lacks", "wham over", "code", "objects", "cut", "packed", "module", "other", "frames", "part",
)  # fmt: skip


@pytest.fixture(scope="module")
def plain_target(bodies) -> Target:
    return filmed(BodyModel.load(bodies["smpl"])).at(FPS)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_results_reject_only_their_clips(name, plain_target, bodies, tmp_path, monkeypatch) -> None:
    file, content, reason, part = broken_cases(plain_target, monkeypatch)[name]
    (tmp_path / file).write_bytes(content)
    static = filmed(plain_target.body, moving_camera=False)
    np.savez(tmp_path / "good.npz", **amass_of(static.at(FPS), FPS))
    good = clip_of(static, uri="good.mp4")
    video = replace(good.track.shot.video, source=Source(id="fine", uri="good.mp4"))
    good = replace(good, track=replace(good.track, shot=replace(good.track.shot, video=video)))
    fitter = ImportFitter(plain_target.body, results=str(tmp_path))
    broken, intact = fitter.fit([clip_of(filmed(plain_target.body)), good])
    assert isinstance(broken, NoFit)
    assert broken.reason == reason
    assert str(tmp_path / file) in broken.detail
    assert part in broken.detail
    assert isinstance(intact, Fit)


def test_intrinsics_of_smaller_frames_are_scaled_and_other_aspect_ratios_rejected(bodies, tmp_path) -> None:
    target = filmed(BodyModel.load(bodies["smplx"]))
    results = gvhmr_of(target.at(FPS))
    small = results["K_fullimg"].clone()
    small[:, :2] /= 2
    write_gvhmr(tmp_path / "walk", results | {"K_fullimg": small})
    (fit,) = ImportFitter(SHIPPED, results=str(tmp_path), retarget=True).fit([clip_of(target)])
    np.testing.assert_allclose(fit.camera.intrinsics, guess_intrinsics(WIDTH, HEIGHT), rtol=1e-5)
    small[:, 0, 2] = 100
    write_gvhmr(tmp_path / "walk", results | {"K_fullimg": small})
    (no_fit,) = ImportFitter(SHIPPED, results=str(tmp_path), retarget=True).fit([clip_of(target)])
    assert no_fit.reason == "other_picture"
    assert "200x240" in no_fit.detail


def test_missing_and_ambiguous_folders(bodies, tmp_path, monkeypatch) -> None:
    for results in ("", str(tmp_path / "gone")):
        with pytest.raises(HumoError, match="results"):
            FitSmpl(FitSmpl.Config(fitter="imported", results=results)).setup()
    (tmp_path / "walk").mkdir()
    with pytest.raises(ResultError, match="no result file"):
        read_result(str(tmp_path / "walk"))
    for name in ("a.npz", "b.npz"):
        (tmp_path / "walk" / name).write_bytes(b"")
    with pytest.raises(ResultError, match=r"2 result files \(a.npz, b.npz\)"):
        read_result(str(tmp_path / "walk"))
    np.save(tmp_path / "walk" / "camera.npy", {"pred_cam_R": np.eye(3)})
    with pytest.raises(ResultError, match="hps_track"):
        read_result(str(tmp_path / "walk"))


def test_the_rate_comes_from_the_timestamps(plain_target) -> None:
    clip = clip_of(filmed(plain_target.body))
    track = clip.track
    video = replace(track.shot.video, fps=1 / 0.033)
    milliseconds = replace(track, shot=replace(track.shot, video=video), times_s=np.round(track.times_s, 3))
    assert frame_rate(milliseconds) == pytest.approx(30.0, rel=1e-3)


def test_the_command_describes_files(plain_target, tmp_path, monkeypatch, capsys) -> None:
    subjects = {0: wham_subject(plain_target), 7: wham_subject(plain_target, first=10)}
    path = write_wham(tmp_path / "walk", subjects, monkeypatch)
    tram = write_tram(tmp_path / "tram", [plain_target], gap=slice(20, 30))
    assert main([str(path), str(tram)]) == 0
    printed = capsys.readouterr().out
    for part in (
        "wham, body smpl neutral",
        "subject 7: 62 frames from 10 to 71",
        "focal length 800.0 px",
        "with 1 gaps",
    ):
        assert part in printed
    path.write_bytes(b"nothing")
    assert main([str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert main([]) == 2
