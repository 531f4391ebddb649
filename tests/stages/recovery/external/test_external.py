"""Results written as WHAM, GVHMR, TRAM and AMASS write them, from a known motion and camera, and taken over again."""

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
    Truth,
    amass_of,
    body_file,
    clip_of,
    filmed,
    gvhmr_of,
    joblib_bytes,
    vectors,
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
from stages.recovery.external.worlds import place, rest_of_body
from stages.recovery.protocol import Fit, NoFit


@pytest.fixture(scope="module")
def bodies(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bodies")
    return {kind: body_file(folder / f"{kind.upper()}_NEUTRAL.npz", kind) for kind in ("smpl", "smplx")}


def joints_of(fit: Fit, body: BodyModel) -> np.ndarray:
    return forward_kinematics(fit.rotations, body.rest_joints(fit.betas), fit.trans)[0].numpy()


def assert_same(
    fit: Fit | NoFit, truth: np.ndarray, body: BodyModel, *, mean_m: float = 2e-4, most_m: float = 1e-3
) -> None:
    assert isinstance(fit, Fit), fit
    # The hands' rotations are not in every layout, and nothing hangs on them.
    apart = np.linalg.norm(joints_of(fit, body) - truth, axis=-1)[:, :22]
    assert apart.mean() < mean_m
    assert apart.max() < most_m
    assert np.median(fit.reprojection) < 0.005


def write(layout: str, folder: Path, truth: Truth, fps: float, monkeypatch) -> None:
    if layout == "wham":
        write_wham(folder / "walk", {0: wham_subject(truth.at(fps), first=2)}, monkeypatch)
    elif layout == "tram":
        write_tram(folder / "walk", [truth.at(fps)], gravity=True)
    else:
        np.savez(folder / "walk.npz", **amass_of(truth.at(fps), fps))


@pytest.mark.parametrize("layout", ["wham", "tram", "amass"])
@pytest.mark.parametrize(("fps", "start_s"), [(30.0, 0.2), (25.0, 0.2)])
def test_a_result_is_the_truth_in_the_level_world(layout, fps, start_s, bodies, tmp_path, monkeypatch) -> None:
    body = BodyModel.load(bodies["smpl"])
    truth = filmed(body, moving=layout != "amass")
    write(layout, tmp_path, truth, fps, monkeypatch)
    fitter = ImportFitter(body, results=str(tmp_path), body_file=str(bodies["smpl"]))
    (fit,) = fitter.fit([clip_of(truth, fps, start_s=start_s)])
    first = round(start_s * FPS)
    level = truth.at(FPS).cut(first, first + 60).in_level_world()
    # AMASS brings no camera: it is found from the keypoints. Between frames of 25 a second joints swing on.
    mean_m, most_m = (2e-3, 0.03) if fps != FPS else (1e-3, 3e-3) if layout == "amass" else (2e-4, 1e-3)
    assert_same(fit, level, body, mean_m=mean_m, most_m=most_m)
    assert fit.source.startswith(layout)
    np.testing.assert_allclose(fit.camera.position[0], 0, atol=1e-5)
    np.testing.assert_allclose(fit.camera.rotation[0, 0], [1, 0, 0], atol=1e-2 if layout == "amass" else 1e-4)
    torch.testing.assert_close(fit.betas, truth.betas)


def test_gvhmr_is_read_as_smplx_in_a_world_with_y_up(bodies, tmp_path) -> None:
    body = BodyModel.load(bodies["smplx"])
    truth = filmed(body).at(FPS)
    write_gvhmr(tmp_path / "walk", gvhmr_of(truth))
    result = read_result(str(tmp_path / "walk"))
    assert (result.layout, result.body, result.frame_count) == ("gvhmr", "smplx", len(truth.pelvis))
    np.testing.assert_allclose(result.intrinsics, guess_intrinsics(WIDTH, HEIGHT), rtol=1e-6)
    (placed,) = place(result, rest_of_body(body))
    torch.testing.assert_close(placed.pelvis, truth.pelvis, atol=1e-5, rtol=0)
    torch.testing.assert_close(placed.rotations[:, :22], truth.rotations[:, :22], atol=1e-5, rtol=0)
    torch.testing.assert_close(placed.to_camera, truth.to_camera, atol=1e-5, rtol=0)
    torch.testing.assert_close(placed.camera_place, truth.camera_place, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["smpl", "smplx"])
def test_retargeting_carries_rotations_over_and_keeps_the_picture(kind, bodies, tmp_path, monkeypatch) -> None:
    source = BodyModel.load(bodies[kind])
    truth = replace(filmed(source), betas=torch.zeros(10))
    thirty = truth.at(FPS)
    if kind == "smpl":
        write_wham(tmp_path / "walk", {0: wham_subject(thirty)}, monkeypatch)
    else:
        write_gvhmr(tmp_path / "walk", gvhmr_of(thirty))
    (fit,) = ImportFitter(SHIPPED, results=str(tmp_path), retarget=True).fit([clip_of(truth)])
    assert isinstance(fit, Fit), fit
    assert fit.source.endswith("retargeted")
    assert not fit.betas.any()
    assert np.median(fit.reprojection) < 0.06

    theirs, ours = thirty.in_level_world()[:60], joints_of(fit, SHIPPED)
    for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
        for side in ("left", "right"):
            bones = [(j[:, joint(f"{side}_{end}")] - j[:, joint(f"{side}_{start}")]) for j in (theirs, ours)]
            cosine = np.prod([1 / np.linalg.norm(bone, axis=-1) for bone in bones], 0) * (bones[0] * bones[1]).sum(-1)
            assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 1.0, (start, side)
    leg = ("left_hip", "left_knee", "left_ankle")
    legs = [np.linalg.norm(np.diff(j[0, [joint(name) for name in leg]], axis=0), axis=1).sum() for j in (theirs, ours)]
    ways = [np.linalg.norm(j[-1, 0] - j[0, 0]) for j in (theirs, ours)]
    assert ways[1] / ways[0] == pytest.approx(legs[1] / legs[0], rel=0.01)


def test_a_retargeted_walk_goes_through_the_stage(bodies, tmp_path, monkeypatch) -> None:
    truth = replace(filmed(BodyModel.load(bodies["smpl"])), betas=torch.zeros(10))
    write_wham(tmp_path / "walk", {4: wham_subject(truth.at(FPS))}, monkeypatch)
    stage = FitSmpl(FitSmpl.Config(fitter="imported", results=str(tmp_path), retarget=True))
    stage.setup()
    other = clip_of(truth, uri="elsewhere.mp4")
    other = replace(other, track=replace(other.track, shot=replace(other.track.shot, video=replace(
        other.track.shot.video, source=Source(id="away", uri="elsewhere.mp4")))))  # fmt: skip
    (motion,), (rejection,) = apply(stage, [clip_of(truth), other])
    assert rejection.reason == "no_result"
    assert "elsewhere" in rejection.detail
    assert motion.models["fit_smpl"].startswith("imported 1 wham ")
    assert motion.body_model == SHIPPED.id
    assert 0.2 < motion.contacts.mean() < 0.9
    # Planted feet stay put.
    rest = SHIPPED.rest_joints(torch.from_numpy(motion.betas))
    rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
    joints, turns = forward_kinematics(rotations, rest, torch.from_numpy(motion.trans))
    feet = SHIPPED.contact_rig().points(turns, joints, torch.from_numpy(motion.betas)).numpy()
    speed = np.linalg.norm(np.diff(feet, axis=0), axis=-1) * FPS
    assert np.median(speed[motion.contacts[1:] == 1]) < 0.15
    assert abs(np.median(feet[..., 1].min(1))) < 0.03


def test_subjects_are_told_apart_by_where_they_are_seen(bodies, tmp_path, monkeypatch) -> None:
    body = BodyModel.load(bodies["smpl"])
    left, right = filmed(body, aside_m=-0.9, moving=False), filmed(body, "wave_left", aside_m=0.9, seed=2, moving=False)
    subjects = {1: wham_subject(right.at(FPS)), 2: wham_subject(left.at(FPS))}
    write_wham(tmp_path / "yard", subjects, monkeypatch)
    fits = ImportFitter(body, results=str(tmp_path)).fit([clip_of(left), clip_of(right)])
    for fit, truth in zip(fits, (left, right), strict=True):
        assert_same(fit, truth.at(FPS).in_level_world()[:60], body)

    stranger = filmed(body, aside_m=2.5, moving=False)
    (none,) = ImportFitter(body, results=str(tmp_path)).fit([clip_of(stranger)])
    assert isinstance(none, NoFit)
    assert none.reason == "no_matching_subject"
    assert none.measured > none.limit


def test_tram_without_gravity_finds_up_by_feet_and_trunks(bodies, tmp_path) -> None:
    body = BodyModel.load(bodies["smpl"])
    people = [filmed(body, "walk_turn_left", moving=False), filmed(body, "walk", aside_m=1.2, seed=3, moving=False)]
    write_tram(tmp_path / "walk", [truth.at(FPS) for truth in people])
    result = read_result(str(tmp_path / "walk"))
    for placed, truth in zip(place(result, rest_of_body(body)), people, strict=True):
        up = placed.to_camera[0].T @ truth.to_camera[0] @ torch.tensor([0.0, 1.0, 0.0])
        assert np.degrees(float(torch.arccos(up[1].clamp(-1, 1)))) < 1.5
    (fit,) = ImportFitter(body, results=str(tmp_path)).fit([clip_of(people[0])])
    assert_same(fit, people[0].at(FPS).in_level_world()[:60], body, mean_m=0.15, most_m=0.3)
    around = fit.trans - fit.trans[0]
    assert (around.norm(dim=-1) - (people[0].at(FPS).pelvis[:60] - people[0].pelvis[0]).norm(dim=-1)).abs().max() < 2e-3


def test_frames_that_a_subject_lacks(bodies, tmp_path) -> None:
    body = BodyModel.load(bodies["smpl"])
    truth = filmed(body)
    write_tram(tmp_path / "walk", [truth.at(FPS)], gravity=True, gap=slice(20, 24))
    write_tram(tmp_path / "run", [truth.at(FPS)], gravity=True, gap=slice(20, 40))
    fitter = ImportFitter(body, results=str(tmp_path))
    (bridged,) = fitter.fit([clip_of(truth)])
    assert isinstance(bridged, Fit)
    clip = clip_of(truth, uri="run.mp4")
    (missing,) = ImportFitter(body, results=str(tmp_path)).fit([clip])
    assert isinstance(missing, NoFit)
    assert missing.reason == "frames_not_covered"
    assert missing.measured == pytest.approx(1 - 20 / 60, abs=0.02)


def test_smplx_and_strange_bodies_are_refused_unless_retargeted(bodies, tmp_path, monkeypatch) -> None:
    truth = filmed(BodyModel.load(bodies["smpl"]))
    path = write_wham(tmp_path / "walk", {0: wham_subject(truth.at(FPS))}, monkeypatch)
    (none,) = ImportFitter(SHIPPED, results=str(tmp_path)).fit([clip_of(truth)])
    assert none.reason == "other_body_model"
    for part in (str(path), "SMPL (neutral)", SHIPPED.id, "fit_smpl.body_model", "fit_smpl.retarget"):
        assert part in none.detail
    body = BodyModel.load(bodies["smpl"])
    (none,) = ImportFitter(body, results=str(tmp_path), body_file="SMPL_FEMALE.npz").fit([clip_of(truth)])
    assert none.reason == "other_body_model"
    write_gvhmr(tmp_path / "yard", gvhmr_of(truth.at(FPS)))
    (none,) = ImportFitter(body, results=str(tmp_path)).fit([clip_of(truth)])
    assert none.reason == "other_body_model"
    assert "body_model to" not in none.detail


def broken_cases(truth: Truth, monkeypatch) -> dict[str, tuple[str, bytes, str, str]]:
    """Name -> file, its bytes, reason, part of the sentence."""

    def npz(**changes) -> bytes:
        file = io.BytesIO()
        held = amass_of(truth, FPS) | changes
        np.savez(file, **{key: value for key, value in held.items() if value is not None})
        return file.getvalue()

    def wham(**changes) -> bytes:
        return joblib_bytes({0: wham_subject(truth) | changes}, monkeypatch)

    def pt(held) -> bytes:
        file = io.BytesIO()
        torch.save(held, file)
        return file.getvalue()

    n = len(truth.pelvis)
    nan = np.full((n, 3), 1.0)
    nan[5] = np.nan
    gvhmr = gvhmr_of(truth)
    y_up = amass_of(truth, FPS) | {"poses": np.concatenate([vectors(truth.rotations[:, :1]), np.zeros((n, 153))], 1)}
    flip = torch.diag(torch.tensor([1.0, -1, -1]))
    over = wham_subject(truth)["pose_world"].copy()
    over[:, :3] = vectors((flip @ truth.rotations[:, 0])[:, None])
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
        "wham over": ("walk.pkl", wham(pose_world=over), "not_upright", "upside down"),
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
def plain_truth(bodies) -> Truth:
    return filmed(BodyModel.load(bodies["smpl"])).at(FPS)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_results_reject_their_clips_and_no_others(name, plain_truth, bodies, tmp_path, monkeypatch) -> None:
    file, content, reason, part = broken_cases(plain_truth, monkeypatch)[name]
    (tmp_path / file).write_bytes(content)
    still = filmed(plain_truth.body, moving=False)
    np.savez(tmp_path / "good.npz", **amass_of(still.at(FPS), FPS))
    good = clip_of(still, uri="good.mp4")
    video = replace(good.track.shot.video, source=Source(id="fine", uri="good.mp4"))
    good = replace(good, track=replace(good.track, shot=replace(good.track.shot, video=video)))
    fitter = ImportFitter(plain_truth.body, results=str(tmp_path))
    broken, fine = fitter.fit([clip_of(filmed(plain_truth.body)), good])
    assert isinstance(broken, NoFit)
    assert broken.reason == reason
    assert str(tmp_path / file) in broken.detail
    assert part in broken.detail
    assert isinstance(fine, Fit)


def test_a_picture_of_another_shape_is_refused_and_a_smaller_one_scaled(bodies, tmp_path) -> None:
    truth = filmed(BodyModel.load(bodies["smplx"]))
    held = gvhmr_of(truth.at(FPS))
    small = held["K_fullimg"].clone()
    small[:, :2] /= 2
    write_gvhmr(tmp_path / "walk", held | {"K_fullimg": small})
    (fit,) = ImportFitter(SHIPPED, results=str(tmp_path), retarget=True).fit([clip_of(truth)])
    np.testing.assert_allclose(fit.camera.intrinsics, guess_intrinsics(WIDTH, HEIGHT), rtol=1e-5)
    small[:, 0, 2] = 100
    write_gvhmr(tmp_path / "walk", held | {"K_fullimg": small})
    (none,) = ImportFitter(SHIPPED, results=str(tmp_path), retarget=True).fit([clip_of(truth)])
    assert none.reason == "other_picture"
    assert "200x240" in none.detail


def test_folders_that_are_missing_or_ambiguous(bodies, tmp_path, monkeypatch) -> None:
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


def test_the_rate_comes_from_the_times_seen(plain_truth) -> None:
    clip = clip_of(filmed(plain_truth.body))
    track = clip.track
    video = replace(track.shot.video, fps=1 / 0.033)
    milliseconds = replace(track, shot=replace(track.shot, video=video), times_s=np.round(track.times_s, 3))
    assert frame_rate(milliseconds) == pytest.approx(30.0, rel=1e-3)


def test_the_command_tells_what_a_file_holds(plain_truth, tmp_path, monkeypatch, capsys) -> None:
    subjects = {0: wham_subject(plain_truth), 7: wham_subject(plain_truth, first=10)}
    path = write_wham(tmp_path / "walk", subjects, monkeypatch)
    tram = write_tram(tmp_path / "tram", [plain_truth], gap=slice(20, 30))
    assert main([str(path), str(tram)]) == 0
    told = capsys.readouterr().out
    for part in (
        "wham, body smpl neutral",
        "subject 7: 62 frames from 10 to 71",
        "focal length 800.0 px",
        "with 1 gaps",
    ):
        assert part in told
    path.write_bytes(b"nothing")
    assert main([str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert main([]) == 2
