"""glTF and GLB: a skin's joints moved by an animation, read with `pygltflib`.

The bind pose becomes the zero pose, with every joint's axes along the world's. Of several skins the one with most joints is read,
of several animations the one that moves most of them. Nodes above the skin (armatures with a turn or a scale) count; buffers are
inside the file, in data URIs, or in files beside it.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from stages.mocap.take import MocapError, Take, check_numbers

_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_DEFAULT_FPS = 30.0
_MAX_FRAMES, _MAX_NODES = 1_000_000, 20_000


def parse_gltf(name: str, content: bytes, beside: Callable[[str], bytes], fps: float | None = None) -> Take:
    """A take from the content of a `.gltf` or `.glb`. `beside` reads a file of the same folder; `fps` is the rate of sampling, by
    default that of the keys. Raises MocapError."""
    try:
        return _Scene(name, content, beside).take(fps)
    except MocapError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        detail = f"{type(error).__name__}: {str(error)[:200]}"
        raise MocapError("broken_file", f"{name}: no readable glTF ({detail}); export it again") from None


@dataclass(frozen=True)
class _Curve:
    times_s: np.ndarray
    values: np.ndarray
    step: bool


class _Scene:
    def __init__(self, name: str, content: bytes, beside: Callable[[str], bytes]) -> None:
        from pygltflib import GLTF2

        self.name, self.beside = name, beside
        if content[:4] == b"glTF":
            if int.from_bytes(content[8:12], "little") != len(content):
                raise MocapError(
                    "truncated", f"{name}: the GLB's length is not that of its header; copy or download it again"
                )
            self.gltf: Any = GLTF2.load_from_bytes(content)
            self.blob = bytes(self.gltf.binary_blob() or b"")
        else:
            if not isinstance(json.loads(content), dict):
                raise MocapError("not_mocap", f"{name}: JSON that is no glTF; check the file's extension")
            self.gltf = GLTF2.gltf_from_json(content.decode("utf-8-sig"))
            self.blob = b""
        self.nodes = self.gltf.nodes or []
        if len(self.nodes) > _MAX_NODES:
            raise MocapError(
                "broken_file", f"{name}: {len(self.nodes)} nodes, the most is {_MAX_NODES}; export the skeleton alone"
            )
        self.buffers: dict[int, bytes] = {}
        self.parents = [-1] * len(self.nodes)
        for index, node in enumerate(self.nodes):
            for child in node.children or []:
                self.parents[child] = index

    def take(self, fps: float | None) -> Take:
        if not self.gltf.skins or not self.gltf.animations:
            lacks = "skin" if not self.gltf.skins else "animation"
            raise MocapError("not_mocap", f"{self.name}: it has no {lacks}; export the animated skeleton with its skin")
        skin = max(self.gltf.skins, key=lambda one: len(one.joints or []))
        joints = list(dict.fromkeys(skin.joints or []))
        order = self._above_first(joints)
        animation = max(self.gltf.animations, key=lambda one: len({c.target.node for c in one.channels} & set(order)))
        curves = self._curves(animation)
        moving = [curve for (node, _), curve in curves.items() if node in order]
        if not moving:
            raise MocapError(
                "no_frames", f"{self.name}: no animation moves a joint of the skin; export it with its keys"
            )
        start, end = min(one.times_s[0] for one in moving), max(one.times_s[-1] for one in moving)
        rate = fps or self._rate(moving)
        count = round((end - start) * rate) + 1
        if not 0 < count <= _MAX_FRAMES:
            raise MocapError(
                "broken_file", f"{self.name}: {end - start:.0f} s at {rate:g} frames/s; set read_mocap.fps"
            )
        times = start + np.arange(count) / rate
        rotations, positions = self._world(order, curves, times)
        bind_rotations, bind_positions = self._bind(skin, joints, order)
        chosen = [order.index(joint) for joint in joints]
        kept = sorted(chosen)
        names = self._names([order[one] for one in kept])
        parents = [self._joint_parent(order[one], joints) for one in kept]
        places = {order[one]: place for place, one in enumerate(kept)}
        parent_places = tuple(places[parent] if parent >= 0 else -1 for parent in parents)
        # Axes along the world's in the bind pose.
        globals_ = rotations[:, kept] @ bind_rotations[kept].swapaxes(-1, -2)
        at, rest = positions[:, kept], bind_positions[kept]
        check_numbers(self.name, np.concatenate([globals_.reshape(count, -1), at.reshape(count, -1)], 1))
        local, offsets, moving_offsets = globals_.copy(), np.zeros((len(kept), 3)), {}
        size = max(float(np.ptp(at[0], axis=0).max()), 1e-9)
        for place, parent in enumerate(parent_places):
            if parent < 0:
                moving_offsets[place] = at[:, place]
                continue
            above = globals_[:, parent].swapaxes(-1, -2)
            local[:, place] = above @ globals_[:, place]
            path = (above @ (at[:, place] - at[:, parent])[..., None])[..., 0]
            offsets[place] = rest[place] - rest[parent]
            if np.abs(path - offsets[place]).max() > 1e-3 * size:
                moving_offsets[place] = path
        return Take(
            format="gltf", names=names, parents=parent_places, offsets=offsets, rotations=local,
            moving_offsets=moving_offsets, times_s=times - start,
        )  # fmt: skip

    def _above_first(self, joints: list[int]) -> list[int]:
        """The joints and all nodes above them, parents first. Raises MocapError for a circle."""
        order: list[int] = []
        for joint in joints:
            way, node = [], joint
            while node >= 0 and node not in order:
                if node in way:
                    raise MocapError("broken_file", f"{self.name}: node {node} is its own ancestor; export it again")
                way.append(node)
                node = self.parents[node]
            order.extend(reversed(way))
        return order

    def _joint_parent(self, node: int, joints: list[int]) -> int:
        node = self.parents[node]
        while node >= 0 and node not in joints:
            node = self.parents[node]
        return node

    def _names(self, nodes: list[int]) -> tuple[str, ...]:
        seen: dict[str, int] = {}
        names = []
        for node in nodes:
            name = self.nodes[node].name or f"node {node}"
            seen[name] = seen.get(name, 0) + 1
            names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
        return tuple(names)

    def _curves(self, animation: Any) -> dict[tuple[int, str], _Curve]:
        curves = {}
        for channel in animation.channels:
            path = channel.target.path
            if path not in ("rotation", "translation", "scale") or channel.target.node is None:
                continue
            sampler = animation.samplers[channel.sampler]
            times, values = self._accessor(sampler.input)[:, 0], self._accessor(sampler.output)
            if sampler.interpolation == "CUBICSPLINE":
                values = values.reshape(len(times), 3, -1)[:, 1]
            if len(times) != len(values) or not len(times) or (np.diff(times) <= 0).any():
                raise MocapError(
                    "broken_file", f"{self.name}: keys of node {channel.target.node} are not in the order of time"
                )
            curves[channel.target.node, path] = _Curve(times, values, sampler.interpolation == "STEP")
        return curves

    def _rate(self, curves: list[_Curve]) -> float:
        densest = max(curves, key=lambda one: len(one.times_s))
        if len(densest.times_s) < 2:
            return _DEFAULT_FPS
        rate = 1 / float(np.median(np.diff(densest.times_s)))
        # Exporters leave out keys that do not change anything, so sparse keys tell no rate.
        return float(round(rate, 2)) if rate >= 12 else _DEFAULT_FPS

    def _world(
        self, order: list[int], curves: dict[tuple[int, str], _Curve], times: np.ndarray
    ) -> tuple[Float[np.ndarray, "T N 3 3"], Float[np.ndarray, "T N 3"]]:
        rotations = np.empty((len(times), len(order), 3, 3))
        positions = np.empty((len(times), len(order), 3))
        scales = np.empty((len(times), len(order), 3))
        for place, node in enumerate(order):
            translation, quaternion, scale = self._local(node)
            local = np.broadcast_to(quaternion.as_matrix(), (len(times), 3, 3))
            if (node, "rotation") in curves:
                local = _slerp(curves[node, "rotation"], times)
            moved = _interp(curves.get((node, "translation")), translation, times)
            size = _interp(curves.get((node, "scale")), scale, times)
            parent = self.parents[node]
            if parent < 0:
                rotations[:, place], positions[:, place], scales[:, place] = local, moved, size
                continue
            above = order.index(parent)
            rotations[:, place] = rotations[:, above] @ local
            scales[:, place] = scales[:, above] * size
            positions[:, place] = (
                positions[:, above] + (rotations[:, above] @ (scales[:, above] * moved)[..., None])[..., 0]
            )
        return rotations, positions

    def _local(self, node: int) -> tuple[np.ndarray, Rotation, np.ndarray]:
        one = self.nodes[node]
        if one.matrix:
            matrix = np.array(one.matrix, np.float64).reshape(4, 4).T
            return _decomposed(matrix)
        return (
            np.array(one.translation or (0, 0, 0), np.float64),
            Rotation.from_quat(np.array(one.rotation or (0, 0, 0, 1), np.float64)),
            np.array(one.scale or (1, 1, 1), np.float64),
        )

    def _bind(self, skin: Any, joints: list[int], order: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Global rotations and positions in the bind pose; those of the nodes at rest where the skin has no matrices."""
        rotations, positions = self._world(order, {}, np.zeros(1))
        rotations, positions = rotations[0], positions[0]
        if skin.inverseBindMatrices is not None:
            matrices = np.linalg.inv(
                self._accessor(skin.inverseBindMatrices).reshape(-1, 4, 4).swapaxes(-1, -2).astype(np.float64)
            )
            bones = np.array([order.index(joint) for joint in joints])
            poses = [_decomposed(matrix) for matrix in matrices[: len(joints)]]
            bound = np.array([pose[0] for pose in poses])
            # Matrices are in the mesh's units, nodes in the scene's.
            spread = np.ptp(bound, axis=0).max()
            scale = np.ptp(positions[bones], axis=0).max() / spread if spread > 0 else 1.0
            rotations[bones] = np.array([pose[1].as_matrix() for pose in poses])
            positions[bones] = bound * scale
        return rotations, positions

    def _accessor(self, index: int) -> np.ndarray:
        accessor = self.gltf.accessors[index]
        if accessor.bufferView is None or accessor.sparse is not None:
            raise MocapError(
                "broken_file", f"{self.name}: accessor {index} is sparse or empty; export it with plain buffers"
            )
        view = self.gltf.bufferViews[accessor.bufferView]
        width, dtype = _COMPONENTS[accessor.type], np.dtype(_TYPES[accessor.componentType])
        stride = view.byteStride or width * dtype.itemsize
        start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        raw = self._buffer(view.buffer)
        need = start + stride * (accessor.count - 1) + width * dtype.itemsize
        if accessor.count < 1 or start < 0 or stride < width * dtype.itemsize or need > len(raw):
            raise MocapError(
                "truncated", f"{self.name}: accessor {index} reaches beyond its buffer; copy or download it again"
            )
        values = np.ndarray((accessor.count, width), dtype, raw, start, (stride, dtype.itemsize))
        if not np.isfinite(values).all():
            raise MocapError(
                "not_finite", f"{self.name}: accessor {index} has non-finite values; export the take again"
            )
        values = values.astype(np.float64)
        if dtype.kind != "f" and accessor.normalized:
            values = np.maximum(values / np.iinfo(dtype).max, -1)
        return values

    def _buffer(self, index: int) -> bytes:
        if index not in self.buffers:
            uri = self.gltf.buffers[index].uri
            if not uri:
                self.buffers[index] = self.blob
            elif uri.startswith("data:"):
                self.buffers[index] = base64.b64decode(uri.partition(",")[2])
            elif "://" in uri or uri.startswith("/") or ".." in uri.split("/"):
                raise MocapError(
                    "broken_file", f"{self.name}: buffer {uri[:80]!r} is not beside the file; export it as GLB"
                )
            else:
                self.buffers[index] = self.beside(uri)
        return self.buffers[index]


def _decomposed(matrix: np.ndarray) -> tuple[np.ndarray, Rotation, np.ndarray]:
    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    return matrix[:3, 3], Rotation.from_matrix(matrix[:3, :3] / np.maximum(scale, 1e-12)), scale


def _slerp(curve: _Curve, times: np.ndarray) -> np.ndarray:
    turns = Rotation.from_quat(curve.values)
    clamped = np.clip(times, curve.times_s[0], curve.times_s[-1])
    if curve.step or len(curve.times_s) == 1:
        return turns[np.searchsorted(curve.times_s, clamped + 1e-9, side="right") - 1].as_matrix()
    return Slerp(curve.times_s, turns)(clamped).as_matrix()


def _interp(curve: _Curve | None, rest: np.ndarray, times: np.ndarray) -> np.ndarray:
    if curve is None:
        return np.broadcast_to(rest, (len(times), 3))
    if curve.step:
        return curve.values[np.clip(np.searchsorted(curve.times_s, times + 1e-9, side="right") - 1, 0, None)]
    return np.stack([np.interp(times, curve.times_s, curve.values[:, axis]) for axis in range(3)], -1)
