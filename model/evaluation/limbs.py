"""Limbs and sides that sentences name."""

SIDES = ("left", "right")


def parse_limb(caption: str) -> tuple[str, str] | None:
    """(side, joint) of the single limb in a sentence; None if it mentions both sides or no limb."""
    words = caption.lower().replace(",", " ").replace(".", " ").split()
    sides = {word for word in words if word in SIDES}
    if len(sides) != 1 or "both" in words:
        return None
    for limb, names in (("wrist", ("hand", "arm", "fist", "wrist", "elbow")), ("ankle", ("foot", "leg", "knee"))):
        if any(name in words for name in names):
            return sides.pop(), limb
    return None
