"""Results are read as plain values, whatever wrote them, and no pickle runs code."""

import base64
import pickle
import zlib

import numpy as np
import pytest
import torch

from stages.recovery.external.parsers import parse
from stages.recovery.external.reading import ResultError, read_plain

JOBLIB = (
    "eNp9T89LAkEU1lVrUyIl6FBEUR20g106eAg0hA4tCHXpuMzujs3Y7A92ZgsPgR00g7n1vPcn9h/YzK5ZIfQxbx7vzbzvfd+oOBvkcylkxQ0Zw66g"
    "YcBBVjzcRwkTHnUFvIM0nYQyQfVTcdEbwy3InSDxo2HTdsMYN301QFEcoyHINe4ihmI9W0r/qOyJYYR1x6AteJu+KoK6VZD5C+j1etdzhfSycgKc"
    "rlnIhOVgov49Q10Wo5BjkNuD0GHUaaasdkTdB6a6tZ4uL/XyuxhFEdarGy/poMkTx2WIcyAVuR54mUStjBOkFFmGVZioKow9NSbz3aVWsimN/vmP"
    "VlJbVSrLiLHwyfZ9FMFU7mW60h02YvQ+8HEgbGcoMAermjjl+RKZwVFbXR11VIxUfHRmZwvvcqMfIx/b1FPadzM7ZJ8ckEPLGAM5IsfkhFRJY0pO"
    "NfXW/C+KC5rSIs9uvnlLjzgWq5yWMVGsMn8Fild7b/3vfbm59MvPEp0sfbazbHYS3vwCCqzukw=="
)
"""Output of joblib 1.6.0 for {3: {pose, frame_ids, verts in Fortran order}}."""


def test_a_file_by_joblib_is_read() -> None:
    data = read_plain("wham_output.pkl", zlib.decompress(base64.b64decode(JOBLIB)))
    assert list(data) == [3]
    np.testing.assert_array_equal(data[3]["pose"], np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(data[3]["frame_ids"], [4, 5])
    np.testing.assert_array_equal(data[3]["verts"], np.arange(4.0).reshape(2, 2))


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(protocol: int) -> None:
    data = {np.int64(1): {"a": np.ones((2, 2), np.float32), "b": np.float64(2), "c": torch.arange(4)[1:]}}
    ((key, value),) = read_plain("a.pkl", pickle.dumps(data, protocol=protocol)).items()
    assert (key, value["b"], value["c"].tolist()) == (1, 2.0, [1, 2, 3])
    np.testing.assert_array_equal(value["a"], np.ones((2, 2)))


class Calls:
    """Pickles to a function call."""

    def __init__(self, *call) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        (eval, ("1",)),
        (np.ndarray, ((1,), "O", bytes(8))),
        (np._core.numeric._frombuffer, (bytes(8), np.dtype("O"), (1,), "C")),
        (np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)),
    ],
)
def test_no_pickle_can_call_functions_or_forge_pointers(call) -> None:
    # An empty stand-in is not converted to an array, and every other call is rejected.
    with pytest.raises(ResultError):
        parse("a.pkl", read_plain("a.pkl", pickle.dumps({"a": Calls(*call)})))
