"""Motion capture of any format on the body: `read_motion` for one take, `load_takes` for all files of a folder."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import fsspec
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import BodyModel
from stages.mocap.amass import parse_amass
from stages.mocap.asf_amc import Skeleton, parse_amc, parse_asf
from stages.mocap.bvh import parse_bvh
from stages.mocap.deepmimic import parse_deepmimic
from stages.mocap.retarget import Retargeted, retarget
from stages.mocap.skeletons import find_map
from stages.mocap.take import MocapError, Take

SUFFIXES = (".bvh", ".amc", ".json", ".txt", ".npz")
"""Endings of files that hold takes: BVH, AMC (its .asf beside it), DeepMimic's clips under two endings, AMASS."""


def read_take(uri: str, *, content: bytes | None = None, fps: float | None = None) -> Take:
    """A file of any known format, by its ending; any fsspec path. `content`, if it has been read already; `fps`, if the
    file's own rate is missing or wrong.

    Raises MocapError, FileNotFoundError, OSError.
    """
    ending = PurePosixPath(uri).suffix.lower()
    if ending not in SUFFIXES:
        raise MocapError(
            "not_mocap", f"{uri}: ends in {ending!r}; motion capture is read from {', '.join(SUFFIXES)} files"
        )
    if content is None:
        with fsspec.open(uri, "rb") as file:
            content = file.read()
    if ending == ".bvh":
        return parse_bvh(uri, content, fps)
    if ending == ".amc":
        return parse_amc(uri, content, _skeleton_beside(uri), fps)
    if ending == ".npz":
        return parse_amass(uri, content, fps)
    return parse_deepmimic(uri, content, fps)


def read_motion(uri: str | Path, *, joint_map: str = "auto", body: BodyModel | None = None) -> Retargeted:
    """A take on the body (the shipped one unless another is given) at 30 frames a second. Raises as `read_take`."""
    take = read_take(str(uri))
    return retarget(take, find_map(take, joint_map, file=str(uri)), body or BodyModel.load())


def load_takes(folder: str | Path) -> Iterator[tuple[str, Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"]]]:
    """(file name without ending, local rotations, translation in metres) at 30 frames a second of every take below a
    folder, or of one file, in the order of the paths.

    Raises MocapError for a file that has a take's ending but is none.
    """
    root = Path(folder)
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    for path in paths:
        motion = read_motion(path)
        yield path.stem, motion.rotations, motion.trans


def _skeleton_beside(uri: str) -> Skeleton:
    """The subject's ASF in the folder of an AMC: of the same name or its part before the underscore, or the only one."""
    fs, path = fsspec.core.url_to_fs(uri)
    folder = str(PurePosixPath(path).parent)
    stem = PurePosixPath(path).stem
    beside = sorted(found for found in fs.ls(folder, detail=False) if found.lower().endswith(".asf"))
    named = [found for found in beside if PurePosixPath(found).stem in (stem, stem.rpartition("_")[0])]
    chosen = named or beside
    if len(chosen) != 1:
        what = f"{len(chosen)} .asf files" if chosen else "no .asf file"
        raise MocapError(
            "no_skeleton",
            f"{uri}: {what} beside it; put its subject's skeleton there, named {stem.rpartition('_')[0] or stem}.asf",
        )
    return parse_asf(chosen[0], fs.cat_file(chosen[0]))
