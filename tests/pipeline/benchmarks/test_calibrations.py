"""Calibrations of other programs: the same camera from each of them, projection, triangulation."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.benchmarks.calibrations import Calibration, read_calibrations, triangulate
from schemas.errors import UsageError

# Two cameras of Pose2Sim's demonstration (BSD-3), as Qualisys wrote them and as Pose2Sim converted them.
QUALISYS = """<?xml version='1.0' encoding='ASCII'?>
<calibration type="regular"><cameras>
<camera active="1" model="none" serial="cam02">
  <fov_video bottom="1919" left="0" right="1087" top="0"/>
  <transform r11="-0.1966832217091926" r12="0.979523227309506" r13="-0.043011131806342306" r21="-0.31478107085300017"
    r22="-0.02153908797812718" r23="0.9489198834051846" r31="0.9285626460991909" r32="0.20017570994064315"
    r33="0.3125717476340885" x="2582.0136248568124" y="706.5662881637625" z="1690.9818366061595"/>
  <intrinsic centerPointU="34207.652344" centerPointV="61646.457031" focalLengthU="107118.695313"
    focalLengthV="107123.023438" radialDistortion1="-0.047847" radialDistortion2="0.136786" radialDistortion3="0.0"
    skew="0.0" tangentalDistortion1="0.000972" tangentalDistortion2="0.000291"/>
</camera>
<camera active="1" model="none" serial="cam03">
  <fov_video bottom="1919" left="0" right="1087" top="0"/>
  <transform r11="-0.740641130147863" r12="-0.6704153360235378" r13="-0.044654154988568895" r21="0.25251118212268814"
    r22="-0.3393170985114385" r23="0.9061467925015139" r31="-0.6226466246887545" r32="0.6598539110153292"
    r33="0.4205995683324882" x="-3216.86586729648" y="2231.1786368869416" z="2088.19103027083"/>
  <intrinsic centerPointU="32845.335938" centerPointV="61120.328125" focalLengthU="107622.296875"
    focalLengthV="107616.632813" radialDistortion1="-0.046705" radialDistortion2="0.137622" radialDistortion3="0.0"
    skew="0.0" tangentalDistortion1="-0.000542" tangentalDistortion2="-0.000517"/>
</camera>
</cameras></calibration>
"""
CONVERTED = """
[cam_2]
name = "cam02"
matrix = [[1673.729614265625, 0.0, 534.494567875], [0.0, 1673.79724121875, 963.225891109375], [0.0, 0.0, 1.0]]
rotation = [1.34975875, 1.5963809099999993, -1.1983285799999999]
translation = [-0.1115282900000002, 0.7766184800000001, 3.0675519599999994]

[cam_3]
name = "cam03"
matrix = [[1681.598388671875, 0.0, 513.20837403125], [0.0, 1681.509887703125, 955.005126953125], [0.0, 0.0, 1.0]]
rotation = [0.8109654899999995, -2.1972129299999996, 1.3760277799999996]
translation = [-0.7934803899999995, 0.32283594000000126, 4.353514870000001]

[metadata]
error = 0.0
"""


@pytest.fixture
def qualisys(tmp_path: Path) -> dict[str, Calibration]:
    (tmp_path / "Calib.qca.txt").write_text(QUALISYS)
    return read_calibrations([tmp_path / "Calib.qca.txt"])


def test_qualisys_as_converted_by_pose2sim(qualisys: dict[str, Calibration], tmp_path: Path) -> None:
    (tmp_path / "Calib.toml").write_text(CONVERTED)
    converted = read_calibrations([tmp_path / "Calib.toml"])
    assert list(qualisys) == list(converted) == ["cam02", "cam03"]
    for name, camera in qualisys.items():
        np.testing.assert_allclose(camera.intrinsics, converted[name].intrinsics, atol=1e-6)
        np.testing.assert_allclose(camera.rotation, converted[name].rotation, atol=1e-6)
        np.testing.assert_allclose(camera.translation, converted[name].translation, atol=1e-6)
        assert (camera.rotation @ [0, 0, 1])[1] < -0.9, "z is up, and y is down in the image"


def test_opencv_files(qualisys: dict[str, Calibration], tmp_path: Path) -> None:
    """Intrinsics and extrinsics apart, the rotation as a vector or as a matrix."""
    for name in ("R", "Rot"):
        paths = [tmp_path / f"intri_{name}.yml", tmp_path / f"extri_{name}.yml"]
        files = [cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE) for path in paths]
        for file in files:
            file.startWriteStruct("names", cv2.FileNode_SEQ)
            for camera in qualisys:
                file.write("", camera)
            file.endWriteStruct()
        for camera, calibration in qualisys.items():
            files[0].write(f"K_{camera}", calibration.intrinsics)
            files[0].write(f"dist_{camera}", calibration.distortion[None])
            rotation = cv2.Rodrigues(calibration.rotation)[0] if name == "R" else calibration.rotation
            files[1].write(f"{name}_{camera}", rotation)
            files[1].write(f"T_{camera}", calibration.translation[:, None])
        for file in files:
            file.release()
        found = read_calibrations(paths)
        assert list(found) == list(qualisys)
        for camera, calibration in qualisys.items():
            np.testing.assert_allclose(found[camera].intrinsics, calibration.intrinsics)
            np.testing.assert_allclose(found[camera].distortion, calibration.distortion)
            np.testing.assert_allclose(found[camera].rotation, calibration.rotation, atol=1e-9)
            np.testing.assert_allclose(found[camera].translation, calibration.translation)


def test_points_are_found_again(qualisys: dict[str, Calibration]) -> None:
    cameras = list(qualisys.values())
    world = np.random.default_rng(0).normal([0.0, 0.0, 1.0], 0.4, (5, 4, 3))
    pixels = np.stack([camera.project(world) for camera in cameras])
    for camera, seen in zip(cameras, pixels, strict=True):
        in_camera = camera.to_camera(world)
        np.testing.assert_allclose(camera.rays(seen), in_camera[..., :2] / in_camera[..., 2:], atol=1e-3)
    confidence = np.ones(pixels.shape[:-1])
    confidence[0, 2, 1] = 0.0
    found = triangulate(cameras, pixels, confidence)
    assert np.isnan(found[2, 1]).all(), "one camera alone sees no depth"
    found[2, 1] = world[2, 1]
    np.testing.assert_allclose(found, world, atol=3e-3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.qca.txt", "no xml"),
        ("a.qca.txt", "<calibration/>"),
        ("a.toml", "x = 1"),
        ("a.yml", "%YAML:1.0\n---\nK: 1\n"),
        ("b.xml", None),
    ],
)
def test_other_files_are_named(name: str, text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=name):
        read_calibrations([tmp_path / name])
