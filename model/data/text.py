"""Texts of mirrored motions."""

import re

_DIRECTIONS = re.compile(r"\b(left|right)(?=\b|wards?\b)|\b(counter-?|anti-?)?(clockwise)\b", re.IGNORECASE)


def mirror_text(text: str) -> str:
    """The sentence of the mirrored motion: left and right, clockwise and counterclockwise are swapped."""

    def swap(match: re.Match[str]) -> str:
        side, counter, clockwise = match.groups()
        if clockwise:
            return clockwise if counter else f"counter{clockwise}"
        other = "right" if side.lower() == "left" else "left"
        return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other

    return _DIRECTIONS.sub(swap, text)
