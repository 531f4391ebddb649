"""Pictures for floors, walls and furniture, made by rule: full of corners, so that a background can be tracked."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

Picture = UInt8[np.ndarray, "H W 3"]
_LETTERS = "ABCDEFGHKLMNPRSTUVXYZ0123456789"


def noise(
    rng: np.random.Generator, height: int, width: int, coarsest_px: float, *, octaves: int = 5
) -> Float[np.ndarray, "H W"]:
    """Clouds: smooth noise at halving sizes added up, about -1 to 1."""
    import cv2

    total = np.zeros((height, width), np.float32)
    strength = 0.55
    for octave in range(octaves):
        cell = coarsest_px / 2**octave
        if cell < 1:
            break
        rows, columns = (max(2, math.ceil(side / cell) + 1) for side in (height, width))
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += strength * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        strength *= 0.6
    return total


def plain(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """Plaster, concrete or carpet: one colour with stains and grain."""
    grain = rng.normal(0, rng.uniform(1, 6), (height, width)).astype(np.float32)
    stains = noise(rng, height, width, rng.uniform(0.3, 1.5) * px_per_m) * rng.uniform(3, 22)
    return _coloured(_colour(rng), grain + stains)


def tiles(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """Tiles with joints, each of a shade of its own, some of another colour."""
    side_m = rng.uniform(0.2, 0.7)
    return _blocks(rng, height, width, px_per_m, side_m, side_m, shifted=False, spread=rng.uniform(4, 20))


def planks(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """Boards with a grain along them."""
    image = _blocks(
        rng, height, width, px_per_m, rng.uniform(0.6, 1.4), rng.uniform(0.09, 0.2), shifted=True, spread=14,
        colour=_wood(rng),
    )  # fmt: skip
    streaks = noise(rng, height, max(2, width // 24), 0.12 * px_per_m, octaves=4).repeat(24, axis=1)[:, :width]
    streaks = np.pad(streaks, ((0, 0), (0, width - streaks.shape[1])), mode="edge")
    return _shaded(image, 16 * streaks)


def bricks(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """Bricks in a bond."""
    return _blocks(rng, height, width, px_per_m, 0.26, 0.085, shifted=True, spread=18, colour=_colour(rng, warm=True))


def wood(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """The grain of one piece of wood."""
    streaks = noise(rng, height, max(2, width // 16), 0.05 * px_per_m, octaves=4).repeat(16, axis=1)[:, :width]
    streaks = np.pad(streaks, ((0, 0), (0, width - streaks.shape[1])), mode="edge")
    return _coloured(_wood(rng), 30 * streaks + rng.normal(0, 3, (height, width)).astype(np.float32))


def books(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """Shelves of books."""
    image = np.tile(np.array(_wood(rng) * 0.5, np.uint8), (height, width, 1))
    shelf = max(8, round(0.32 * px_per_m))
    for top in range(0, height, shelf):
        left = 0
        while left < width:
            thick = max(2, round(rng.uniform(0.015, 0.06) * px_per_m))
            tall = round(shelf * rng.uniform(0.6, 0.92))
            image[top + shelf - tall : top + shelf - 2, left : left + thick - 1] = _colour(rng)
            left += thick
    return image


def weave(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """Cloth with stripes across each other."""
    image = _coloured(_colour(rng), rng.normal(0, 5, (height, width)).astype(np.float32))
    for axis, side in ((0, height), (1, width)):
        pitch = rng.uniform(0.06, 0.3) * px_per_m
        stripe = np.where((np.arange(side) / pitch) % 1 < rng.uniform(0.15, 0.5), rng.uniform(-40, 40), 0.0)
        image = _shaded(image, stripe[:, None] if axis == 0 else stripe[None])
    return image


def grass(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """Grass or gravel: strong noise at all sizes."""
    base = np.array([90, 120, 60]) if rng.random() < 0.5 else np.array([125, 118, 108])
    rough = noise(rng, height, width, 1.2 * px_per_m, octaves=6) * 40
    return _coloured(base * rng.uniform(0.8, 1.3), rough + rng.normal(0, 12, (height, width)).astype(np.float32))


def asphalt(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """A yard with painted lines."""
    import cv2

    image = _coloured(np.full(3, rng.uniform(80, 150)), rng.normal(0, 11, (height, width)).astype(np.float32))
    image = _shaded(image, 14 * noise(rng, height, width, 2 * px_per_m))
    for _ in range(rng.integers(3, 9)):
        ends = rng.uniform(0, 1, (2, 2)) * [width, height]
        if rng.random() < 0.7:
            ends[1, rng.integers(2)] = ends[0, 0]
        points = [tuple(int(value) for value in end) for end in ends]
        cv2.line(image, points[0], points[1], _ink(_colour(rng)), max(1, round(0.09 * px_per_m)), cv2.LINE_AA)
    return image


def skyline(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """What stands around a yard: sky with clouds, houses with windows, trees. Row 0 is the top."""
    import cv2

    fall = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    image = (1 - fall) * np.array([110, 150, 205]) + fall * np.array([200, 215, 225])
    image = image + 60 * np.clip(noise(rng, height, width, 7 * px_per_m)[..., None], 0, 1)
    image = np.clip(image, 0, 255).astype(np.uint8)
    left = 0
    while left < width:
        wide = round(rng.uniform(5, 12) * px_per_m)
        tall = min(height - 2, round(rng.uniform(3.5, 11) * px_per_m))
        make = (bricks, plain, plain)[rng.integers(3)]
        front = make(rng, tall, min(wide, width - left), px_per_m)
        for row in np.arange(0.6, tall / px_per_m - 1.6, 2.8):
            for column in np.arange(0.5, wide / px_per_m - 1.3, rng.uniform(1.7, 2.6)):
                corner = (round(column * px_per_m), round(row * px_per_m))
                size = np.array([1.0, 1.4]) * px_per_m
                _window(rng, front, corner, (round(size[0]), round(size[1])))
        image[height - tall :, left : left + front.shape[1]] = front
        left += wide + round(rng.uniform(0, 5) * px_per_m)
    for _ in range(round(width / px_per_m / 6)):
        x, radius = rng.uniform(0, width), rng.uniform(0.5, 1.8) * px_per_m
        y = height - rng.uniform(0.5, 2.5) * px_per_m
        cv2.line(image, (int(x), int(y)), (int(x), height), (70, 52, 40), max(2, round(0.16 * px_per_m)))
        for _ in range(40):
            spot = (int(x + rng.normal(0, 0.5) * radius), int(y - radius + rng.normal(0, 0.5) * radius))
            green = _ink(np.array([55, 85, 45]) * rng.uniform(0.6, 1.5))
            cv2.circle(image, spot, max(1, round(radius * rng.uniform(0.1, 0.3))), green, -1, cv2.LINE_AA)
    return image


FLOORS: tuple[Callable[..., Picture], ...] = (tiles, planks, plain, weave)
YARDS: tuple[Callable[..., Picture], ...] = (asphalt, grass, tiles)
MATERIALS: tuple[Callable[..., Picture], ...] = (wood, plain, weave, books)


def wall(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Picture:
    """A wall of a room with what hangs on it and a skirting board. Row 0 is the top."""
    make = (plain, plain, bricks, weave, tiles)[rng.integers(5)]
    image = make(rng, height, width, px_per_m)
    if make is not plain:
        # Wallpaper and painted brick rather than carpets and roofs.
        image = (0.5 * image + 0.5 * (0.4 * _colour(rng) + 130)).astype(np.uint8)
    left = rng.uniform(0, 0.8) * px_per_m
    while left < width - 0.4 * px_per_m:
        kind = rng.choice(["picture", "picture", "poster", "window", "door", "shelf", "nothing"])
        wide, tall = _SIZES[kind] * rng.uniform(0.7, 1.3, 2) * px_per_m
        wide = min(wide, width - left)
        bottom = 0 if kind == "door" else rng.uniform(0.9, 1.5) * px_per_m
        if bottom + tall < height and kind != "nothing":
            corner = (round(left), round(height - bottom - tall))
            _HUNG[kind](rng, image, corner, (max(2, round(wide)), max(2, round(tall))))
        left += wide + rng.uniform(0.15, 1.1) * px_per_m
    skirting = max(1, round(0.1 * px_per_m))
    image[-skirting:] = (image[-skirting:] * 0.2 + 0.8 * _colour(rng)).astype(np.uint8)
    return image


def _picture(rng: np.random.Generator, image: Picture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    import cv2

    (x, y), (wide, tall) = corner, size
    border = max(1, round(0.05 * min(size)))
    image[y : y + tall, x : x + wide] = _colour(rng) * 0.6
    inner = image[y + border : y + tall - border, x + border : x + wide - border]
    if min(inner.shape[:2]) < 4:
        return
    inner[:] = _coloured(_colour(rng), 60 * noise(rng, inner.shape[0], inner.shape[1], inner.shape[1] / 2))
    canvas = np.ascontiguousarray(inner)
    for _ in range(rng.integers(2, 8)):
        spots = (rng.uniform(0, 1, (3, 2)) * [canvas.shape[1], canvas.shape[0]]).astype(np.int32)
        cv2.fillConvexPoly(canvas, spots, _ink(_colour(rng)), cv2.LINE_AA)
    inner[:] = canvas


def _poster(rng: np.random.Generator, image: Picture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    import cv2

    (x, y), (wide, tall) = corner, size
    sheet = np.tile(_colour(rng).astype(np.uint8), (tall, wide, 1))
    line = max(6, tall // 7)
    for row in range(line, tall - 2, line):
        text = "".join(rng.choice(list(_LETTERS), rng.integers(2, 10)))
        scale = line / 40
        cv2.putText(
            sheet, text, (wide // 12, row), cv2.FONT_HERSHEY_SIMPLEX, scale, _ink(_colour(rng)),
            max(1, line // 14), cv2.LINE_AA,
        )  # fmt: skip
    image[y : y + tall, x : x + wide] = sheet


def _window(rng: np.random.Generator, image: Picture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    (x, y), (wide, tall) = corner, size
    frame = max(1, round(0.06 * min(size)))
    image[y : y + tall, x : x + wide] = rng.uniform(60, 235)
    glass = image[y + frame : y + tall - frame, x + frame : x + wide - frame]
    if min(glass.shape[:2]) < 3:
        return
    fall = np.linspace(1, 0.6, glass.shape[0])[:, None, None]
    glass[:] = np.clip(fall * np.array([150, 180, 215]) * rng.uniform(0.4, 1.15), 0, 255)
    middle = glass.shape[1] // 2
    glass[:, middle : middle + frame] = image[y, x]


def _door(rng: np.random.Generator, image: Picture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    (x, y), (wide, tall) = corner, size
    colour = _wood(rng) if rng.random() < 0.6 else _colour(rng)
    image[y : y + tall, x : x + wide] = colour * 0.6
    image[y + 4 : y + tall, x + 4 : x + wide - 4] = colour
    for top, bottom in ((0.08, 0.45), (0.55, 0.92)):
        panel = (slice(y + round(top * tall), y + round(bottom * tall)), slice(x + wide // 6, x + wide - wide // 6))
        image[panel] = (image[panel] * 0.85).astype(np.uint8)
    image[y + tall // 2 : y + tall // 2 + max(2, tall // 40), x + wide - wide // 8 : x + wide - wide // 20] = 210


def _shelf(rng: np.random.Generator, image: Picture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    (x, y), (wide, tall) = corner, size
    image[y : y + tall, x : x + wide] = books(rng, tall, wide, tall / rng.uniform(0.6, 1.0))


_HUNG: dict[str, Callable[..., None]] = {
    "picture": _picture, "poster": _poster, "window": _window, "door": _door, "shelf": _shelf,
}  # fmt: skip
_SIZES = {
    "picture": np.array([0.7, 0.6]), "poster": np.array([0.6, 0.85]), "window": np.array([1.2, 1.2]),
    "door": np.array([0.9, 1.95]), "shelf": np.array([1.2, 0.8]), "nothing": np.array([0.8, 0.5]),
}  # fmt: skip
"""Width and height of what is on walls, metres."""


def _blocks(
    rng: np.random.Generator,
    height: int,
    width: int,
    px_per_m: float,
    wide_m: float,
    tall_m: float,
    *,
    shifted: bool,
    spread: float,
    colour: np.ndarray | None = None,
) -> Picture:
    """Rectangles with joints between them, `spread` the differences of their shades in grey levels."""
    wide, tall = max(3.0, wide_m * px_per_m), max(3.0, tall_m * px_per_m)
    row = (np.arange(height) / tall).astype(int)
    shift = rng.uniform(0, 1, row[-1] + 1) if shifted else np.zeros(row[-1] + 1)
    across = np.arange(width)[None] / wide + shift[row][:, None]
    column = across.astype(int)
    shade = rng.normal(0, spread, (row[-1] + 1, column.max() + 1)).astype(np.float32)
    image = _coloured(_colour(rng) if colour is None else colour, shade[row[:, None], column])
    if not shifted and rng.random() < 0.4:
        image[(row[:, None] + column) % 2 == 1] = (image[(row[:, None] + column) % 2 == 1] * 0.75).astype(np.uint8)
    joint = max(1.0, 0.006 * px_per_m)
    gap = ((np.arange(height) % tall) < joint)[:, None] | ((across % 1) * wide < joint)
    image[gap] = (image[gap] * 0.6).astype(np.uint8)
    return _shaded(image, 5 * noise(rng, height, width, px_per_m))


def _colour(rng: np.random.Generator, *, warm: bool = False) -> Float[np.ndarray, "3"]:
    """Mostly muted: a grey with some hue in it."""
    grey, hue = rng.uniform(70, 215), rng.uniform(40, 235, 3)
    if warm:
        hue = np.array([190, 120, 90]) * rng.uniform(0.6, 1.1)
    share = rng.uniform(0.15, 0.75)
    return (1 - share) * grey + share * hue


def _wood(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    return np.array([175, 130, 85]) * rng.uniform(0.45, 1.25)


def _coloured(colour: Float[np.ndarray, "3"], shade: Float[np.ndarray, "H W"]) -> Picture:
    return np.clip(colour.astype(np.float32) + shade[..., None], 0, 255).astype(np.uint8)


def _shaded(image: Picture, shade: Float[np.ndarray, "#H #W"]) -> Picture:
    return np.clip(image + shade[..., None].astype(np.float32), 0, 255).astype(np.uint8)


def _ink(colour: Float[np.ndarray, "3"]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(colour, 0, 255))
    return red, green, blue
