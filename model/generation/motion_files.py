"""Generated motions as files in the layout of a sample."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.errors import HumoError, UsageError
from schemas.records import FPS
from schemas.sample import MOTION_ARRAYS, MotionArrays, decode_motion, encode_npz


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedMotion:
    """A generated motion, the id of its body model and the prompt."""

    motion: MotionArrays
    body_model: str
    text: str

    @property
    def seconds(self) -> float:
        return len(self.motion.poses) / FPS


def save_motion(path: str | Path, generated: GeneratedMotion) -> None:
    """Write an .npz with the arrays of motion.npz and additionally `fps`, `body_model` and `text`."""
    path = Path(path)
    if path.suffix != ".npz":
        raise UsageError(f"{path}: a motion is saved as .npz; use a name that ends in .npz")
    arrays = {name: getattr(generated.motion, name).astype(dtype) for name, (dtype, _) in MOTION_ARRAYS.items()}
    metadata = {"fps": np.array(FPS), "body_model": np.array(generated.body_model), "text": np.array(generated.text)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(encode_npz({**arrays, **metadata}))
    partial.replace(path)


def load_motion(path: str | Path) -> MotionArrays:
    """Load a motion.npz or a file written by `save_motion`. Raises HumoError for any other file."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise HumoError(f"{path}: cannot be read ({error.strerror}); use an .npz written by humo") from None
    try:
        return decode_motion(content, str(path))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise HumoError(f"{path}: not a motion .npz ({error}); use one written by humo") from None
