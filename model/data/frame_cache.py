"""Tokens of frames on the disk: what a frozen tower once saw is neither decoded nor seen again.

FOLDER/FINGERPRINT/ab/IDENTITY.npz, or IDENTITY-mirrored.npz: `numbers` (n,) of frames, `tokens` (n, t, width) in half precision.
"""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

SeenFrames = tuple[Int[np.ndarray, "_"], Float[np.ndarray, "_ t width"]]
"""Ascending numbers of frames, and their tokens."""


class FrameCache:
    """Tokens of one tower, by what identifies a clip."""

    def __init__(self, folder: str | Path, fingerprint: str, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = Path(folder) / fingerprint, limit_bytes
        self._bytes = -1

    def read(self, identity: str, *, mirrored: bool) -> SeenFrames | None:
        """What is known of a clip, or of its mirror image; None if nothing is, or its file is damaged."""
        try:
            with np.load(self._path(identity, mirrored), allow_pickle=False) as file:
                numbers, tokens = file["numbers"], file["tokens"]
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        return (numbers, tokens) if tokens.ndim == 3 and numbers.shape == tokens.shape[:1] else None

    def add(self, identity: str, seen: SeenFrames, *, mirrored: bool) -> None:
        """Keep these frames beside those that are known; nothing is written beyond the limit, or where the disk is full."""
        known = self.read(identity, mirrored=mirrored)
        numbers, tokens = seen if known is None else merged(known, seen)
        path = self._path(identity, mirrored)
        if self._used() + tokens.nbytes > self.limit_bytes:
            return
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, numbers=numbers, tokens=tokens.astype(np.float16))
            self._bytes += partial.stat().st_size
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)

    def _used(self) -> int:
        """Bytes of the folder when it was first written to, and of all that this process has added."""
        if self._bytes < 0:
            self._bytes = sum(path.stat().st_size for path in self.folder.glob("*/*.npz"))
        return self._bytes

    def _path(self, identity: str, mirrored: bool) -> Path:
        return self.folder / identity[:2] / f"{identity}{'-mirrored' if mirrored else ''}.npz"


def merged(one: SeenFrames, other: SeenFrames) -> SeenFrames:
    """Frames of both, ascending; those of `one` where both have a frame."""
    extra = ~np.isin(other[0], one[0])
    numbers = np.concatenate([one[0], other[0][extra]])
    order = np.argsort(numbers, kind="stable")
    return numbers[order], np.concatenate([one[1], other[1][extra].astype(one[1].dtype)])[order]
