"""Encoded samples that attack whoever reads or unpacks them; `corrupt_datasets` puts them into shards."""

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from schemas.sample import MAX_ARRAYS_BYTES, encode_npz
from schemas.shards import encode_sample

DEPTH = 100_000
"""Nesting of JSON that exceeds Python's stack."""
_TERABYTE = 1 << 40

Files = dict[str, bytes]


class _Executed:
    """Pickled: a call that creates the folder MARKER names."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ[MARKER],)


MARKER = "HUMO_EXECUTED"
"""Environment variable with the path of a folder that exists once something has executed a pickle."""


def _pickled_array(key: str, members: Files) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Executed()], dtype=object), allow_pickle=True)
    return encode_sample(key, members | {"motion.npz": _zipped({"poses.npy": buffer.getvalue()})})


def _pickled_member(key: str, members: Files) -> bytes:
    return encode_sample(key, members | {"motion.npz": pickle.dumps(_Executed())})


def _parent_folder(key: str, members: Files) -> bytes:
    return b"".join(_entry(f"../../{key}.{name}", content) for name, content in sorted(members.items()))


def _absolute_name(key: str, members: Files) -> bytes:
    return b"".join(_entry(f"/tmp/{key}.{name}", content) for name, content in sorted(members.items()))


def _symbolic_link(key: str, members: Files) -> bytes:
    return encode_sample(key, members) + _entry(f"{key}.x", b"", tarfile.SYMTYPE, linkname="/etc/passwd")


def _hard_link(key: str, members: Files) -> bytes:
    return encode_sample(key, members) + _entry(f"{key}.x", b"", tarfile.LNKTYPE, linkname="../dataset.json")


def _sparse_file(key: str, members: Files) -> bytes:
    headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(_TERABYTE),
        "GNU.sparse.map": "0,1",
    }
    return encode_sample(key, members) + _entry(f"{key}.x", b"1", pax_headers=headers)


def _large_claim(key: str, members: Files) -> bytes:
    header = tarfile.TarInfo(f"{key}.x")
    header.size = _TERABYTE
    return encode_sample(key, members) + header.tobuf(format=tarfile.GNU_FORMAT)


def _twice(key: str, members: Files) -> bytes:
    return encode_sample(key, members) + encode_sample(key, {"meta.json": b"{}"})


def _sample_twice(key: str, members: Files) -> bytes:
    return encode_sample(key, members) + encode_sample("0" * len(key), members) + encode_sample(key, members)


def _member_missing(key: str, members: Files) -> bytes:
    return encode_sample(key, {name: content for name, content in members.items() if name != "text.json"})


def _arrays_that_inflate(key: str, members: Files) -> bytes:
    buffer, block = io.BytesIO(), bytes(1 << 20)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("poses.npy", "w") as entry:
        for _ in range((MAX_ARRAYS_BYTES >> 20) + 1):
            entry.write(block)
    return encode_sample(key, members | {"motion.npz": buffer.getvalue()})


def _claiming_array(key: str, members: Files) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (_TERABYTE, 24, 3)})
    return encode_sample(key, members | {"motion.npz": _zipped({"poses.npy": header.getvalue() + bytes(64)})})


def _not_finite(key: str, members: Files) -> bytes:
    with np.load(io.BytesIO(members["motion.npz"])) as arrays:
        changed = {name: arrays[name].copy() for name in arrays.files}
    changed["trans"][0] = np.nan
    return encode_sample(key, members | {"motion.npz": encode_npz(changed)})


def _deep_json(key: str, members: Files) -> bytes:
    return encode_sample(key, members | {"text.json": b'{"body":' + b"[" * DEPTH + b"]" * DEPTH + b"}"})


def _list_for_mapping(key: str, members: Files) -> bytes:
    return encode_sample(key, members | {"instructions.json": b"[1, 2, 3]"})


def _long_number(key: str, members: Files) -> bytes:
    return encode_sample(key, members | {"meta.json": b'{"frames":' + b"9" * 100_000 + b"}"})


def _playlist(key: str, members: Files) -> bytes:
    """What FFmpeg takes for a playlist, and would follow; in a subset without clips a member that does not belong there."""
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    return encode_sample(key, members | {"clip.mp4": playlist})


ATTACKS: tuple[Callable[[str, Files], bytes], ...] = (
    _pickled_array, _pickled_member, _parent_folder, _absolute_name, _symbolic_link, _hard_link, _sparse_file, _large_claim, _twice,
    _sample_twice, _member_missing, _arrays_that_inflate, _claiming_array, _not_finite, _deep_json, _list_for_mapping,
    _long_number, _playlist,
)  # fmt: skip


def _entry(name: str, content: bytes, kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.type = len(content), kind
    for field_name, value in fields.items():
        setattr(header, field_name, value)
    encoded = header.tobuf(tarfile.PAX_FORMAT) if header.pax_headers else header.tobuf(tarfile.USTAR_FORMAT)
    return encoded + content + bytes(-len(content) % 512)


def _zipped(entries: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()
