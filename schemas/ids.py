"""Ids derived from content: the same source, person and span always have the same id."""

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Any

from schemas.addresses import divide

KEY_DIGITS = 24
_SOURCE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def digest(*parts: object, digits: int = KEY_DIGITS) -> str:
    """Hex digest of the parts, encoded separately so that ("ab", "c") and ("a", "bc") differ."""
    text = json.dumps([str(part) for part in parts], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def config_digest(config: dict[str, Any]) -> str:
    """Twelve hex digits of a JSON-like config, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12]


def sample_key(content_sha256: str, person: int, start_s: float, end_s: float) -> str:
    """Key of a sample: 24 hex digits; spans are distinguished to the millisecond."""
    return digest("sample", content_sha256, person, round(start_s * 1000), round(end_s * 1000))


def source_id(address: str) -> str:
    """A readable id for a source without one: its file name and eight digits of the digest of its address.

    Credentials and signatures do not count, so the id stays when they change; other parameters do, even those that the public
    form leaves out (see `schemas.addresses`).
    """
    parts = divide(address)
    return readable_id(parts.public, *parts.unnamed)


def readable_id(address: str, *parameters: str) -> str:
    """An address's file name and eight digits of the digest of all that is given."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", PurePosixPath(address.replace("\\", "/")).stem).strip("-")[:48]
    return f"{stem or 'source'}-{digest('source', address, *parameters, digits=8)}"


def is_source_id(text: str) -> bool:
    """Whether an id given in a manifest can be used as it is (letters, digits, _ and -, at most 128)."""
    return _SOURCE_ID.fullmatch(text) is not None


def unit_interval(*parts: object) -> float:
    """A number in [0, 1) that depends only on the parts; it assigns sources to splits."""
    return int(digest("unit", *parts, digits=12), 16) / 16**12
