"""Small motion-capture files for tests: a body's motion in the skeletons that `read_mocap` supports."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from schemas.body_model import BodyModel
from schemas.kinematics import forward_kinematics
from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS, joint
from stages.mocap.skeletons import KNOWN_MAPS
from stages.synthesis.motions import LabelledMotion, generate

Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Rotation from Y up to Z up."""


def body_motion(action: str = "walk", seconds: float = 3.0, seed: int = 0) -> LabelledMotion:
    return generate(action, seconds, seed, body=BodyModel.load())


def global_poses(motion: LabelledMotion) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, 24, 3) and global rotations (T, 24, 3, 3) on the mean body."""
    rest = BodyModel.load().rest_joints(torch.zeros(10))
    positions, rotations = forward_kinematics(motion.rotations, rest, motion.trans)
    return positions.double().numpy(), rotations.double().numpy()


def splayed_leg_axes(degrees: float = 20.0) -> dict[str, np.ndarray]:
    """Global rotations, in the body's T-pose, of the leg joints of a source whose zero pose has the legs apart, as CMU's."""
    return {
        f"{side}_{name}": Rotation.from_euler("z", sign * degrees, degrees=True).as_matrix()
        for side, sign in (("left", -1), ("right", 1))
        for name in ("hip", "knee", "ankle", "foot")
    }


def skeleton_of(map_name: str) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """(SMPL joint -> name in the file, SMPL joint -> the file's global axes in the body's T-pose) of a known BVH skeleton."""
    known = KNOWN_MAPS[map_name]
    names = {name: source if isinstance(source, str) else source[1] for name, source in known.joints.items()}
    if map_name == "bandai_namco":
        names["spine1"] = "Waist"
        axes = {name: np.array(known.axes[source]).T for name, source in names.items() if source in known.axes}
        axes["spine1"] = axes["spine2"]
        # The table is rounded, so it has to be orthonormalized.
        return names, {name: Rotation.from_matrix(matrix).as_matrix() for name, matrix in axes.items()}
    return names, splayed_leg_axes()


def write_bvh(
    path: Path,
    motion: LabelledMotion,
    names: Mapping[str, str],
    axes: Mapping[str, np.ndarray],
    *,
    order: str = "ZXY",
    units_per_m: float = 100.0,
    fps: float = 30.0,
    extra: Sequence[str] = (),
    t_pose_first: bool = False,
) -> Path:
    """A body's motion as a BVH with the given joint names and global axes in the T-pose.

    `extra` are joints of zero length below the root that complete the names of a known skeleton.
    """
    rest = BodyModel.load().rest_joints(torch.zeros(10)).double().numpy()
    positions, rotations = global_poses(motion)
    kept = [name for name in SMPL_JOINTS if name in names]
    axes = {name: axes.get(name, np.eye(3)) for name in kept}
    globals_ = {name: rotations[:, joint(name)] @ axes[name] for name in kept}
    if t_pose_first:
        globals_ = {name: np.concatenate([axes[name][None], value]) for name, value in globals_.items()}
        positions = np.concatenate([positions[:1], positions])
    columns, lines = [positions[:, 0] * units_per_m], ["HIERARCHY"]

    def add(name: str, depth: int) -> None:
        parent = SMPL_PARENTS[joint(name)]
        indent = "  " * depth
        if parent < 0:
            offset, local = np.zeros(3), globals_[name]
        else:
            parent_name = SMPL_JOINTS[parent]
            offset = axes[parent_name].T @ (rest[joint(name)] - rest[parent]) * units_per_m
            local = globals_[parent_name].swapaxes(-1, -2) @ globals_[name]
        kind = "ROOT" if parent < 0 else "JOINT"
        channels = " ".join(f"{axis}rotation" for axis in order)
        shift = "Xposition Yposition Zposition " if parent < 0 else ""
        lines.append(f"{indent}{kind} {names[name]}")
        lines.append(f"{indent}{{")
        lines.append(f"{indent}  OFFSET {' '.join(f'{value:.5f}' for value in offset)}")
        lines.append(f"{indent}  CHANNELS {6 if parent < 0 else 3} {shift}{channels}")
        columns.append(Rotation.from_matrix(local).as_euler(order, degrees=True))
        children = [child for child in kept if SMPL_PARENTS[joint(child)] == joint(name)]
        for child in children:
            add(child, depth + 1)
        if parent < 0:
            for other in extra:
                lines.extend([f"  JOINT {other}", "  {", "  OFFSET 0 0 0", "  CHANNELS 0", "  End Site", "  {"])
                lines.extend(["  OFFSET 0 0 0", "  }", "  }"])
        if not children:
            lines.extend([f"{indent}  End Site", f"{indent}  {{", f"{indent}  OFFSET 0 0 1", f"{indent}  }}"])
        lines.append(f"{indent}}}")

    add("pelvis", 0)
    rows = np.concatenate(columns, 1)
    lines.extend(["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / fps:.7f}"])
    lines.extend(" ".join(f"{value:.4f}" for value in row) for row in rows)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_known_bvh(path: Path, motion: LabelledMotion, map_name: str, **options: object) -> Path:
    """As `write_bvh`, with the names and axes of a known skeleton."""
    names, axes = skeleton_of(map_name)
    missing = sorted(KNOWN_MAPS[map_name].required_joints() - set(names.values()))
    return write_bvh(path, motion, names, axes, extra=missing, **options)  # type: ignore[arg-type]


def write_asf_amc(folder: Path, motion: LabelledMotion, *, stem: str = "07_01") -> Path:
    """A body's motion as `07.asf` and `07_01.amc`, with individual bone axes, in inches scaled by 0.45."""
    bvh_axes = skeleton_of("cmu_bvh")[1]
    known = KNOWN_MAPS["cmu_asf"]
    bone = {name: source if isinstance(source, str) else source[1] for name, source in known.joints.items()}
    rest = BodyModel.load().rest_joints(torch.zeros(10)).double().numpy()
    positions, rotations = global_poses(motion)
    unit_m = 0.0254 / 0.45
    axes = {name: bvh_axes.get(name, np.eye(3)) for name in bone}
    lines = [":version 1.10", ":units", "  length 0.45", "  angle deg", ":root", "  order TX TY TZ RX RY RZ"]
    lines += ["  axis XYZ", "  position 0 0 0", "  orientation 0 0 0", ":bonedata"]
    tilt = Rotation.from_euler("xyz", [10, -20, 30], degrees=True)
    tree = {"root": ["lowerneck"]}
    ends = {}
    for name in bone:
        children = [child for child in bone if SMPL_PARENTS[joint(child)] == joint(name)]
        # A bone ends where its first child starts; fixed bones connect it to the other children.
        ends[name] = rest[joint(children[0])] if children else rest[joint(name)] + [0, 0, 0.01]
    columns: dict[str, np.ndarray] = {}
    for name, bone_name in bone.items():
        parent = SMPL_PARENTS[joint(name)]
        if parent < 0:
            root = np.concatenate(
                [positions[:, 0] / unit_m, Rotation.from_matrix(rotations[:, 0]).as_euler("xyz", degrees=True)], 1
            )
            columns["root"] = root
            continue
        parent_name = SMPL_JOINTS[parent]
        start = rest[parent] if parent_name == "pelvis" else ends[parent_name]
        holder = bone[parent_name]
        if np.linalg.norm(rest[joint(name)] - start) > 1e-6:
            holder = f"to_{bone_name}"
            lines += _bone(holder, axes[parent_name].T @ (rest[joint(name)] - start) / unit_m, "0 0 0", "")
            tree.setdefault(bone[parent_name], []).append(holder)
        tree.setdefault(holder, []).append(bone_name)
        angles = " ".join(f"{value:.6f}" for value in tilt.as_euler("xyz", degrees=True))
        lines += _bone(bone_name, axes[name].T @ (ends[name] - rest[joint(name)]) / unit_m, angles, "rx ry rz")
        local = (rotations[:, parent] @ axes[parent_name]).swapaxes(-1, -2) @ (rotations[:, joint(name)] @ axes[name])
        inner = tilt.inv() * Rotation.from_matrix(local) * tilt
        columns[bone_name] = inner.as_euler("xyz", degrees=True)
    lines += _bone("lowerneck", np.array([0, 0.01, 0]), "0 0 0", "")
    lines += [":hierarchy", "  begin"]
    order = ["root"]
    for name in order:
        if name in tree:
            lines.append(f"    {name} {' '.join(tree[name])}")
            order.extend(tree[name])
    lines.append("  end")
    (folder / f"{stem.partition('_')[0]}.asf").write_text("\n".join(lines) + "\n")
    text = [":FULLY-SPECIFIED", ":DEGREES"]
    for frame in range(len(rotations)):
        text.append(str(frame + 1))
        text.extend(f"{name} {' '.join(f'{value:.5f}' for value in values[frame])}" for name, values in columns.items())
    path = folder / f"{stem}.amc"
    path.write_text("\n".join(text) + "\n")
    return path


def _bone(name: str, vector: np.ndarray, axis: str, dof: str) -> list[str]:
    length = float(np.linalg.norm(vector))
    lines = ["  begin", f"    name {name}", f"    direction {' '.join(f'{value:.8f}' for value in vector / length)}"]
    lines += [f"    length {length:.8f}", f"    axis {axis} XYZ"]
    return [*lines, f"    dof {dof}", "  end"] if dof else [*lines, "  end"]


def write_deepmimic(path: Path, frames: int = 91, **joints: Sequence[float]) -> Path:
    """A standing humanoid at (2, 0.88, 3); keywords set a joint's rotation: w, x, y, z or one angle."""
    limbs = [f"{side}_{name}" for side in ("right", "left") for name in ("hip", "knee", "ankle", "shoulder", "elbow")]
    order = ["root", "chest", "neck", *limbs]
    row = [1 / 30, 2.0, 0.88, 3.0]
    for name in order:
        row += list(joints.get(name, [0.0] if name.endswith(("knee", "elbow")) else [1.0, 0.0, 0.0, 0.0]))
    path.write_text(json.dumps({"Loop": "none", "Frames": [row] * frames}))
    return path


def write_amass(path: Path, motion: LabelledMotion, *, fps: float = 30.0, columns: int = 156, **more: object) -> Path:
    """A body's motion in the AMASS format, Z up, in SMPL's axes; fingers are zero."""
    poses = np.zeros((len(motion.trans), columns))
    rotations = motion.rotations.double().numpy().copy()
    rotations[:, 0] = Z_UP @ rotations[:, 0]
    poses[:, :66] = Rotation.from_matrix(rotations[:, :22].reshape(-1, 3, 3)).as_rotvec().reshape(-1, 66)
    arrays = {"poses": poses, "trans": motion.trans.double().numpy() @ Z_UP.T, "betas": np.ones(16), "gender": "male"}
    np.savez(path, **{**arrays, "mocap_framerate": fps, **more})  # type: ignore[arg-type]
    return path


def write_c3d(path: Path, points_m: Mapping[str, np.ndarray], *, fps: float = 60.0, units: str = "mm") -> Path:
    """Trajectories by label as a C3D with Z up."""
    import ezc3d

    scale = {"mm": 1000.0, "m": 1.0}[units]
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [fps]
    file["parameters"]["POINT"]["LABELS"]["value"] = list(points_m)
    file["parameters"]["POINT"]["UNITS"]["value"] = [units]
    positions = np.stack([points @ Z_UP.T * scale for points in points_m.values()], 0)
    file["data"]["points"] = np.concatenate([positions.transpose(2, 0, 1), np.ones((1, *positions.shape[:2]))], 0)
    file.write(str(path))
    return path


def write_gltf(path: Path, motion: LabelledMotion, *, prefix: str = "mixamorig:", scale: float = 0.01) -> Path:
    """A body's motion as a skin with one animation, below an armature that is turned and scaled; `.glb` or `.gltf`."""
    import pygltflib as g

    rest = BodyModel.load().rest_joints(torch.zeros(10)).double().numpy()
    positions, rotations = global_poses(motion)
    names = [prefix + name for name in SMPL_JOINTS[:22]]
    armature = Rotation.from_euler("x", 90, degrees=True)
    inverse = armature.inv().as_matrix()
    local_rest = (rest - rest[0]) @ inverse.T / scale
    blob = b""
    views: list[g.BufferView] = []
    accessors: list[g.Accessor] = []

    def add(values: np.ndarray, kind: str) -> int:
        nonlocal blob
        data = np.ascontiguousarray(values, np.float32).tobytes()
        views.append(g.BufferView(buffer=0, byteOffset=len(blob), byteLength=len(data)))
        accessors.append(
            g.Accessor(bufferView=len(views) - 1, componentType=5126, count=len(values), type=kind,
                       min=[float(values.min())], max=[float(values.max())])
        )  # fmt: skip
        blob += data
        return len(accessors) - 1

    times = add(np.arange(len(positions)) / 30.0, "SCALAR")
    nodes, samplers, channels = [g.Node(name="Armature", rotation=list(armature.as_quat()), scale=[scale] * 3)], [], []
    for index, name in enumerate(names):
        parent = SMPL_PARENTS[index]
        offset = local_rest[index] - (local_rest[parent] if parent >= 0 else 0)
        nodes.append(g.Node(name=name, translation=[float(value) for value in offset], children=[]))
        nodes[parent + 1 if parent >= 0 else 0].children.append(index + 1)
        turn = inverse @ rotations[:, index] @ inverse.T
        if parent >= 0:
            turn = (inverse @ rotations[:, parent] @ inverse.T).swapaxes(-1, -2) @ turn
        paths = [("rotation", add(Rotation.from_matrix(turn).as_quat(), "VEC4"))]
        if parent < 0:
            paths.append(("translation", add(positions[:, 0] @ inverse.T / scale, "VEC3")))
        for target, output in paths:
            samplers.append(g.AnimationSampler(input=times, output=output, interpolation="LINEAR"))
            channels.append(
                g.AnimationChannel(
                    sampler=len(samplers) - 1, target=g.AnimationChannelTarget(node=index + 1, path=target)
                )
            )
    file = g.GLTF2(
        scene=0, scenes=[g.Scene(nodes=[0])], nodes=nodes, skins=[g.Skin(joints=list(range(1, len(names) + 1)))],
        animations=[g.Animation(samplers=samplers, channels=channels)], accessors=accessors, bufferViews=views,
        buffers=[g.Buffer(byteLength=len(blob))],
    )  # fmt: skip
    file.set_binary_blob(blob)
    if path.suffix == ".gltf":
        file.convert_buffers(g.BufferFormat.DATAURI)
    file.save(str(path))
    return path
