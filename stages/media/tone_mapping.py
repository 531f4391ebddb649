"""HDR to SDR: a lookup table for FFmpeg's `lut3d`, and whether a video is HDR at all.

Transfer functions and reference levels are those of ITU-R BT.2100 and BT.2408 (diffuse white at 203 cd/m2), the tone curve is the
EETF of BT.2390. Colours up to about 90 cd/m2 are reproduced exactly, highlights up to `PEAK_NITS` are compressed into SDR.
"""

import functools

import numpy as np
from jaxtyping import Float

from schemas.picture import Transfer

WHITE_NITS = 203.0
"""Luminance of diffuse white in HDR, which becomes SDR's white, cd/m2."""
PEAK_NITS = 1000.0
"""Luminance of the brightest highlights, cd/m2: the nominal peak of HLG, and of most PQ masters."""
MAX_FRAME_AVERAGE_NITS = 400.0
"""Highest mean luminance of a frame in mastered HDR (the limit of MaxFALL in the UHD Blu-ray guidelines), cd/m2. A brighter one
is SDR with a wrong label: its white would have 10,000."""
_LUT_SIDE = 33
_HLG_GAMMA = 1.2
"""Of BT.2100's opto-optical transfer function at `PEAK_NITS`."""
_BT2020_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593])
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_to_nits(values: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """Luminance of PQ values from 0 to 1, cd/m2."""
    power = np.clip(values, 0, 1) ** (1 / _M2)
    return 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def nits_to_pq(nits: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """The inverse of `pq_to_nits`."""
    power = (np.clip(nits, 0, 10_000) / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_to_nits(values: Float[np.ndarray, "*S 3"]) -> Float[np.ndarray, "*S 3"]:
    """Light of a display with a peak of `PEAK_NITS` for HLG values from 0 to 1, cd/m2."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    luminance = (scene @ _BT2020_LUMA)[..., None]
    return PEAK_NITS * scene * np.maximum(luminance, 1e-9) ** (_HLG_GAMMA - 1)


def to_sdr(values: Float[np.ndarray, "*S 3"], transfer: Transfer) -> Float[np.ndarray, "*S 3"]:
    """SDR values (BT.709 primaries, gamma 2.4) of HDR ones with BT.2020 primaries, both from 0 to 1."""
    light = pq_to_nits(values) if transfer == "pq" else hlg_to_nits(values)
    brightest = light.max(axis=-1, keepdims=True)
    light = light * _compressed(brightest) / np.maximum(brightest, 1e-6)
    linear = light / WHITE_NITS @ _BT2020_TO_BT709.T
    return np.clip(linear, 0, 1) ** (1 / 2.4)


def _compressed(nits: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """BT.2390's tone curve from `PEAK_NITS` to `WHITE_NITS`, without a lift of black."""
    peak, white = nits_to_pq(np.array([PEAK_NITS, WHITE_NITS])).tolist()
    target = white / peak
    knee = 1.5 * target - 0.5
    value = np.minimum(nits_to_pq(nits) / peak, 1)
    t = (value - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * target
    return pq_to_nits(np.where(value < knee, value, spline) * peak)


@functools.lru_cache(maxsize=2)
def lookup_table(transfer: Transfer) -> str:
    """The conversion as text of a .cube file, red fastest, as `lut3d` reads it."""
    levels = np.linspace(0, 1, _LUT_SIDE)
    blue, green, red = np.meshgrid(levels, levels, levels, indexing="ij")
    rows = to_sdr(np.stack([red, green, blue], axis=-1), transfer).reshape(-1, 3)
    return "\n".join([f"LUT_3D_SIZE {_LUT_SIDE}", *(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in rows)]) + "\n"


def is_mastered(image: Float[np.ndarray, "H W 3"]) -> bool:
    """Whether an image of PQ values is as bright on average as an HDR video can be."""
    return float(pq_to_nits(image.max(axis=-1)).mean()) <= MAX_FRAME_AVERAGE_NITS
