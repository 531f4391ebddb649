"""Text of motion-capture files as tools write it: any line ends, byte order marks, UTF-16, decimal commas."""

import codecs
import re

import numpy as np
from jaxtyping import Float

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")


def decode_text(content: bytes) -> str:
    """The text of a file without its byte order mark, lines ending in `\\n`. Bytes that are no UTF-8 become U+FFFD."""
    encoding = "utf-8"
    for mark, name in _MARKS:
        if content.startswith(mark):
            content, encoding = content[len(mark) :], name
            break
    else:
        # UTF-16 without a mark: every second byte of Latin letters is zero.
        head = content[:200]
        if len(head) > 20 and head[1::2].count(0) > 0.9 * len(head[1::2]):
            encoding = "utf-16-le"
        elif len(head) > 20 and head[::2].count(0) > 0.9 * len(head[::2]):
            encoding = "utf-16-be"
    return content.decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")


def plain_numbers(text: str) -> str:
    """Numbers separated by blanks: commas between digits are decimal signs where no number has a point, else separators."""
    if "," not in text:
        return text
    if "." in text or ", " in text:
        return text.replace(",", " ")
    return _DECIMAL_COMMA.sub(".", text).replace(";", " ")


def parse_numbers(text: str) -> Float[np.ndarray, "N"]:
    """All numbers of a text. Raises ValueError."""
    return np.array(plain_numbers(text).split(), np.float64)
