"""Motion capture of any known format, retargeted: `read_motion` for one take, `load_takes` for all files of a folder."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from jaxtyping import Float
from torch import Tensor

from schemas.addresses import path_part, public_form
from schemas.body_model import BodyModel
from schemas.network import folder_of
from schemas.staging import read_source, source_files
from stages.mocap.amass import parse_amass
from stages.mocap.asf_amc import Skeleton, parse_amc, parse_asf
from stages.mocap.bvh import parse_bvh
from stages.mocap.c3d import parse_c3d
from stages.mocap.deepmimic import parse_deepmimic
from stages.mocap.gltf import parse_gltf
from stages.mocap.matching import find_map
from stages.mocap.results import parse_result
from stages.mocap.retarget import Retargeted, retarget
from stages.mocap.take import MocapError, Take

SUFFIXES = (".bvh", ".amc", ".json", ".txt", ".npz", ".c3d", ".glb", ".gltf", ".pkl", ".pt", ".npy")
"""File extensions of takes: BVH, AMC (with its .asf in the same folder), two for DeepMimic's clips, AMASS, C3D, glTF, and arrays
of SMPL parameters or joints."""
MAX_TAKE_BYTES = 1 << 30
"""Largest file: takes are read as a whole."""


def read_take(uri: str, *, content: bytes | None = None, fps: float | None = None) -> Take:
    """A file of any known format, by its extension; any fsspec path. `content` is given if it has been read already; `fps`
    overrides a missing or wrong frame rate.

    Raises MocapError, SourceError, FileNotFoundError, OSError.
    """
    name = public_form(uri)
    suffix = PurePosixPath(path_part(uri)).suffix.lower()
    if suffix not in SUFFIXES:
        raise MocapError(
            "not_mocap", f"{name}: the extension is {suffix!r}; motion capture is read from {', '.join(SUFFIXES)} files"
        )
    if content is None:
        content = read_source(uri, MAX_TAKE_BYTES)
    if suffix == ".bvh":
        return parse_bvh(name, content, fps)
    if suffix == ".amc":
        return parse_amc(name, content, _find_skeleton(uri), fps)
    if suffix == ".npz":
        return parse_amass(name, content, fps)
    if suffix == ".c3d":
        return parse_c3d(name, content, fps)
    if suffix in (".glb", ".gltf"):
        return parse_gltf(name, content, lambda other: _read_beside(uri, other), fps)
    if suffix in (".pkl", ".pt", ".npy"):
        return parse_result(name, content, fps)
    return parse_deepmimic(name, content, fps)


def read_motion(uri: str | Path, *, joint_map: str = "auto", body: BodyModel | None = None) -> Retargeted:
    """A take retargeted to a body (the shipped one by default) at 30 frames/s. Raises as `read_take`."""
    take = read_take(str(uri))
    return retarget(take, find_map(take, joint_map, file=str(uri)), body or BodyModel.load())


def load_takes(folder: str | Path) -> Iterator[tuple[str, Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"]]]:
    """(file stem, local rotations, translation in metres) at 30 frames/s of every take below a folder, or of one file, in
    the order of the paths.

    Raises MocapError for a file that has a take's extension but is not a take.
    """
    root = Path(folder)
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    for path in paths:
        motion = read_motion(path)
        yield path.stem, motion.rotations, motion.trans


def _read_beside(uri: str, name: str) -> bytes:
    """A file of the same folder."""
    folder = folder_of(uri)
    return read_source(f"{folder}/{name}" if folder or uri.startswith("/") else name, MAX_TAKE_BYTES)


def _find_skeleton(uri: str) -> Skeleton:
    """The subject's ASF in the folder of an AMC: with the same stem or its part before the last underscore, or the only one."""
    stem = PurePosixPath(path_part(uri)).stem
    skeletons = [name for name in source_files().siblings(uri) if name.lower().endswith(".asf")]
    named = [name for name in skeletons if PurePosixPath(name).stem in (stem, stem.rpartition("_")[0])]
    candidates = named or skeletons
    if len(candidates) != 1:
        count = f"{len(candidates)} .asf files" if candidates else "no .asf file"
        raise MocapError(
            "no_skeleton",
            f"{public_form(uri)}: {count} in its folder; put its subject's skeleton there, named "
            f"{stem.rpartition('_')[0] or stem}.asf",
        )
    return parse_asf(public_form(candidates[0]), read_source(candidates[0], MAX_TAKE_BYTES))
