"""Reads SMPL's pickled bodies as plain arrays, without the libraries (chumpy, scipy) whose objects they contain."""

import io
import pickle
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import HumoError
from schemas.plain_pickles import PlainUnpickler


class _Stored(ABC):
    """Stand-in for a class of chumpy or scipy: keeps the pickled attributes and runs none of its code."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @abstractmethod
    def array(self) -> np.ndarray:
        """The array that the object represents."""


class _Chumpy(_Stored):
    """`chumpy.ch.Ch`: an array `x`."""

    def array(self) -> np.ndarray:
        return np.asarray(vars(self)["x"])


class _ChumpySelect(_Stored):
    """`chumpy.reordering.Select`: entries `idxs` of the flattened `a`."""

    def array(self) -> np.ndarray:
        stored = vars(self)
        flat = _to_array(stored["a"]).ravel()[_to_array(stored["idxs"])]
        return flat.reshape(stored.get("preferred_shape", flat.shape))


class _SparseColumns(_Stored):
    """`scipy.sparse.csc_matrix`."""

    def array(self) -> np.ndarray:
        stored = vars(self)
        dense = np.zeros(stored.get("_shape") or stored["shape"])
        columns = np.repeat(np.arange(dense.shape[1]), np.diff(_to_array(stored["indptr"])))
        np.add.at(dense, (_to_array(stored["indices"]), columns), _to_array(stored["data"]))
        return dense


class _SparseRows(_Stored):
    """`scipy.sparse.csr_matrix`."""

    def array(self) -> np.ndarray:
        stored = vars(self)
        dense = np.zeros(stored.get("_shape") or stored["shape"])
        rows = np.repeat(np.arange(dense.shape[0]), np.diff(_to_array(stored["indptr"])))
        np.add.at(dense, (rows, _to_array(stored["indices"])), _to_array(stored["data"]))
        return dense


def _to_array(value: Any) -> np.ndarray:
    return value.array() if isinstance(value, _Stored) else np.asarray(value)


_STAND_INS: dict[tuple[str, str], Any] = {
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _ChumpySelect,
    ("scipy.sparse.csc", "csc_matrix"): _SparseColumns,
    ("scipy.sparse._csc", "csc_matrix"): _SparseColumns,
    ("scipy.sparse.csr", "csr_matrix"): _SparseRows,
    ("scipy.sparse._csr", "csr_matrix"): _SparseRows,
    ("copyreg", "_reconstructor"): lambda kind, *_: kind.__new__(kind),
    ("builtins", "object"): object,
    ("builtins", "set"): set,
}
"""Globals in SMPL's pickles besides arrays."""


def read_smpl_pickle(path: Path, content: bytes) -> dict[str, Any]:
    """The arrays of a SMPL body by their names in the file, as far as present; `path` is only used in messages.

    Raises HumoError for content that is not such a pickle.
    """
    try:
        stored = PlainUnpickler(io.BytesIO(content), _STAND_INS).load()
        if not isinstance(stored, dict):
            raise pickle.UnpicklingError(f"it holds a {type(stored).__name__}, not a dictionary")
        names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f", "kintree_table")
        return {name: _to_array(stored[name]) for name in names if name in stored}
    except Exception as error:
        raise HumoError(
            f"{path}: not a readable SMPL pickle ({error}); download the SMPL body again, or use its .npz"
        ) from error
