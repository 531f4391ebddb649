"""Procedural textures for floors, walls and furniture, rich in corners, so that a background can be tracked."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

Texture = UInt8[np.ndarray, "H W 3"]
_LETTERS = "ABCDEFGHKLMNPRSTUVXYZ0123456789"


def value_noise(
    rng: np.random.Generator, height: int, width: int, coarsest_px: float, *, octaves: int = 5
) -> Float[np.ndarray, "H W"]:
    """Fractal value noise: the sum of octaves of smooth noise, each of half the cell size, about -1 to 1."""
    import cv2

    total = np.zeros((height, width), np.float32)
    amplitude = 0.55
    for octave in range(octaves):
        cell = coarsest_px / 2**octave
        if cell < 1:
            break
        rows, columns = (max(2, math.ceil(side / cell) + 1) for side in (height, width))
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += amplitude * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        amplitude *= 0.6
    return total


def plain(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """Plaster, concrete or carpet: one colour with stains and grain."""
    grain = rng.normal(0, rng.uniform(1, 6), (height, width)).astype(np.float32)
    stains = value_noise(rng, height, width, rng.uniform(0.3, 1.5) * px_per_m) * rng.uniform(3, 22)
    return _coloured(_colour(rng), grain + stains)


def tiles(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """Tiles with joints, of individual shades; some textures have a checkerboard pattern."""
    side_m = rng.uniform(0.2, 0.7)
    return _blocks(rng, height, width, px_per_m, side_m, side_m, shifted=False, spread=rng.uniform(4, 20))


def planks(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """Boards with a grain along their length."""
    image = _blocks(
        rng, height, width, px_per_m, rng.uniform(0.6, 1.4), rng.uniform(0.09, 0.2), shifted=True, spread=14,
        colour=_wood(rng),
    )  # fmt: skip
    streaks = value_noise(rng, height, max(2, width // 24), 0.12 * px_per_m, octaves=4).repeat(24, axis=1)[:, :width]
    streaks = np.pad(streaks, ((0, 0), (0, width - streaks.shape[1])), mode="edge")
    return _shaded(image, 16 * streaks)


def bricks(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """Rows of bricks with random offsets."""
    return _blocks(rng, height, width, px_per_m, 0.26, 0.085, shifted=True, spread=18, colour=_colour(rng, warm=True))


def wood(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """One piece of wood with its grain."""
    streaks = value_noise(rng, height, max(2, width // 16), 0.05 * px_per_m, octaves=4).repeat(16, axis=1)[:, :width]
    streaks = np.pad(streaks, ((0, 0), (0, width - streaks.shape[1])), mode="edge")
    return _coloured(_wood(rng), 30 * streaks + rng.normal(0, 3, (height, width)).astype(np.float32))


def books(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """Shelves of books."""
    image = np.tile(np.array(_wood(rng) * 0.5, np.uint8), (height, width, 1))
    shelf = max(8, round(0.32 * px_per_m))
    for top in range(0, height, shelf):
        left = 0
        while left < width:
            thickness = max(2, round(rng.uniform(0.015, 0.06) * px_per_m))
            book_height = round(shelf * rng.uniform(0.6, 0.92))
            image[top + shelf - book_height : top + shelf - 2, left : left + thickness - 1] = _colour(rng)
            left += thickness
    return image


def weave(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """Cloth with crossing stripes."""
    image = _coloured(_colour(rng), rng.normal(0, 5, (height, width)).astype(np.float32))
    for axis, side in ((0, height), (1, width)):
        pitch = rng.uniform(0.06, 0.3) * px_per_m
        stripe = np.where((np.arange(side) / pitch) % 1 < rng.uniform(0.15, 0.5), rng.uniform(-40, 40), 0.0)
        image = _shaded(image, stripe[:, None] if axis == 0 else stripe[None])
    return image


def grass(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """Grass or gravel: strong noise at all scales."""
    base = np.array([90, 120, 60]) if rng.random() < 0.5 else np.array([125, 118, 108])
    rough = value_noise(rng, height, width, 1.2 * px_per_m, octaves=6) * 40
    return _coloured(base * rng.uniform(0.8, 1.3), rough + rng.normal(0, 12, (height, width)).astype(np.float32))


def asphalt(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """Asphalt with painted lines."""
    import cv2

    image = _coloured(np.full(3, rng.uniform(80, 150)), rng.normal(0, 11, (height, width)).astype(np.float32))
    image = _shaded(image, 14 * value_noise(rng, height, width, 2 * px_per_m))
    for _ in range(rng.integers(3, 9)):
        ends = rng.uniform(0, 1, (2, 2)) * [width, height]
        if rng.random() < 0.7:
            ends[1, rng.integers(2)] = ends[0, 0]
        points = [tuple(int(value) for value in end) for end in ends]
        cv2.line(image, points[0], points[1], _rgb_tuple(_colour(rng)), max(1, round(0.09 * px_per_m)), cv2.LINE_AA)
    return image


def skyline(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """The background of a yard: sky with clouds, houses with windows, trees. Row 0 is the top."""
    import cv2

    gradient = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    image = (1 - gradient) * np.array([110, 150, 205]) + gradient * np.array([200, 215, 225])
    image = image + 60 * np.clip(value_noise(rng, height, width, 7 * px_per_m)[..., None], 0, 1)
    image = np.clip(image, 0, 255).astype(np.uint8)
    left = 0
    while left < width:
        w = round(rng.uniform(5, 12) * px_per_m)
        h = min(height - 2, round(rng.uniform(3.5, 11) * px_per_m))
        texture = (bricks, plain, plain)[rng.integers(3)]
        facade = texture(rng, h, min(w, width - left), px_per_m)
        for row in np.arange(0.6, h / px_per_m - 1.6, 2.8):
            for column in np.arange(0.5, w / px_per_m - 1.3, rng.uniform(1.7, 2.6)):
                corner = (round(column * px_per_m), round(row * px_per_m))
                size = np.array([1.0, 1.4]) * px_per_m
                _window(rng, facade, corner, (round(size[0]), round(size[1])))
        image[height - h :, left : left + facade.shape[1]] = facade
        left += w + round(rng.uniform(0, 5) * px_per_m)
    for _ in range(round(width / px_per_m / 6)):
        x, radius = rng.uniform(0, width), rng.uniform(0.5, 1.8) * px_per_m
        y = height - rng.uniform(0.5, 2.5) * px_per_m
        cv2.line(image, (int(x), int(y)), (int(x), height), (70, 52, 40), max(2, round(0.16 * px_per_m)))
        for _ in range(40):
            centre = (int(x + rng.normal(0, 0.5) * radius), int(y - radius + rng.normal(0, 0.5) * radius))
            green = _rgb_tuple(np.array([55, 85, 45]) * rng.uniform(0.6, 1.5))
            cv2.circle(image, centre, max(1, round(radius * rng.uniform(0.1, 0.3))), green, -1, cv2.LINE_AA)
    return image


FLOORS: tuple[Callable[..., Texture], ...] = (tiles, planks, plain, weave)
YARDS: tuple[Callable[..., Texture], ...] = (asphalt, grass, tiles)
MATERIALS: tuple[Callable[..., Texture], ...] = (wood, plain, weave, books)


def wall(rng: np.random.Generator, height: int, width: int, px_per_m: float) -> Texture:
    """A wall of a room with objects on it and a skirting board. Row 0 is the top."""
    texture = (plain, plain, bricks, weave, tiles)[rng.integers(5)]
    image = texture(rng, height, width, px_per_m)
    if texture is not plain:
        # Reduced contrast: wallpaper and painted brick rather than carpets and roofs.
        image = (0.5 * image + 0.5 * (0.4 * _colour(rng) + 130)).astype(np.uint8)
    left = rng.uniform(0, 0.8) * px_per_m
    while left < width - 0.4 * px_per_m:
        kind = rng.choice(["picture", "picture", "poster", "window", "door", "shelf", "nothing"])
        w, h = _SIZES[kind] * rng.uniform(0.7, 1.3, 2) * px_per_m
        w = min(w, width - left)
        bottom = 0 if kind == "door" else rng.uniform(0.9, 1.5) * px_per_m
        if bottom + h < height and kind != "nothing":
            corner = (round(left), round(height - bottom - h))
            _WALL_OBJECTS[kind](rng, image, corner, (max(2, round(w)), max(2, round(h))))
        left += w + rng.uniform(0.15, 1.1) * px_per_m
    skirting = max(1, round(0.1 * px_per_m))
    image[-skirting:] = (image[-skirting:] * 0.2 + 0.8 * _colour(rng)).astype(np.uint8)
    return image


def _painting(rng: np.random.Generator, image: Texture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    import cv2

    (x, y), (w, h) = corner, size
    border = max(1, round(0.05 * min(size)))
    image[y : y + h, x : x + w] = _colour(rng) * 0.6
    inner = image[y + border : y + h - border, x + border : x + w - border]
    if min(inner.shape[:2]) < 4:
        return
    inner[:] = _coloured(_colour(rng), 60 * value_noise(rng, inner.shape[0], inner.shape[1], inner.shape[1] / 2))
    canvas = np.ascontiguousarray(inner)
    for _ in range(rng.integers(2, 8)):
        corners = (rng.uniform(0, 1, (3, 2)) * [canvas.shape[1], canvas.shape[0]]).astype(np.int32)
        cv2.fillConvexPoly(canvas, corners, _rgb_tuple(_colour(rng)), cv2.LINE_AA)
    inner[:] = canvas


def _poster(rng: np.random.Generator, image: Texture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    import cv2

    (x, y), (w, h) = corner, size
    sheet = np.tile(_colour(rng).astype(np.uint8), (h, w, 1))
    line_px = max(6, h // 7)
    for row in range(line_px, h - 2, line_px):
        text = "".join(rng.choice(list(_LETTERS), rng.integers(2, 10)))
        scale = line_px / 40
        cv2.putText(
            sheet, text, (w // 12, row), cv2.FONT_HERSHEY_SIMPLEX, scale, _rgb_tuple(_colour(rng)),
            max(1, line_px // 14), cv2.LINE_AA,
        )  # fmt: skip
    image[y : y + h, x : x + w] = sheet


def _window(rng: np.random.Generator, image: Texture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    (x, y), (w, h) = corner, size
    frame = max(1, round(0.06 * min(size)))
    image[y : y + h, x : x + w] = rng.uniform(60, 235)
    glass = image[y + frame : y + h - frame, x + frame : x + w - frame]
    if min(glass.shape[:2]) < 3:
        return
    gradient = np.linspace(1, 0.6, glass.shape[0])[:, None, None]
    glass[:] = np.clip(gradient * np.array([150, 180, 215]) * rng.uniform(0.4, 1.15), 0, 255)
    middle = glass.shape[1] // 2
    glass[:, middle : middle + frame] = image[y, x]


def _door(rng: np.random.Generator, image: Texture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    (x, y), (w, h) = corner, size
    colour = _wood(rng) if rng.random() < 0.6 else _colour(rng)
    image[y : y + h, x : x + w] = colour * 0.6
    image[y + 4 : y + h, x + 4 : x + w - 4] = colour
    for top, bottom in ((0.08, 0.45), (0.55, 0.92)):
        panel = (slice(y + round(top * h), y + round(bottom * h)), slice(x + w // 6, x + w - w // 6))
        image[panel] = (image[panel] * 0.85).astype(np.uint8)
    image[y + h // 2 : y + h // 2 + max(2, h // 40), x + w - w // 8 : x + w - w // 20] = 210


def _shelf(rng: np.random.Generator, image: Texture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    (x, y), (w, h) = corner, size
    image[y : y + h, x : x + w] = books(rng, h, w, h / rng.uniform(0.6, 1.0))


_WALL_OBJECTS: dict[str, Callable[..., None]] = {
    "picture": _painting, "poster": _poster, "window": _window, "door": _door, "shelf": _shelf,
}  # fmt: skip
_SIZES = {
    "picture": np.array([0.7, 0.6]), "poster": np.array([0.6, 0.85]), "window": np.array([1.2, 1.2]),
    "door": np.array([0.9, 1.95]), "shelf": np.array([1.2, 0.8]), "nothing": np.array([0.8, 0.5]),
}  # fmt: skip
"""Width and height of objects on walls, metres."""


def _blocks(
    rng: np.random.Generator,
    height: int,
    width: int,
    px_per_m: float,
    width_m: float,
    height_m: float,
    *,
    shifted: bool,
    spread: float,
    colour: np.ndarray | None = None,
) -> Texture:
    """Rectangles with joints between them; `spread` is the standard deviation of their shades in grey levels."""
    w, h = max(3.0, width_m * px_per_m), max(3.0, height_m * px_per_m)
    row = (np.arange(height) / h).astype(int)
    shift = rng.uniform(0, 1, row[-1] + 1) if shifted else np.zeros(row[-1] + 1)
    position = np.arange(width)[None] / w + shift[row][:, None]
    column = position.astype(int)
    shade = rng.normal(0, spread, (row[-1] + 1, column.max() + 1)).astype(np.float32)
    image = _coloured(_colour(rng) if colour is None else colour, shade[row[:, None], column])
    if not shifted and rng.random() < 0.4:
        image[(row[:, None] + column) % 2 == 1] = (image[(row[:, None] + column) % 2 == 1] * 0.75).astype(np.uint8)
    joint = max(1.0, 0.006 * px_per_m)
    gap = ((np.arange(height) % h) < joint)[:, None] | ((position % 1) * w < joint)
    image[gap] = (image[gap] * 0.6).astype(np.uint8)
    return _shaded(image, 5 * value_noise(rng, height, width, px_per_m))


def _colour(rng: np.random.Generator, *, warm: bool = False) -> Float[np.ndarray, "3"]:
    """A mostly muted colour: grey mixed with some hue."""
    grey, hue = rng.uniform(70, 215), rng.uniform(40, 235, 3)
    if warm:
        hue = np.array([190, 120, 90]) * rng.uniform(0.6, 1.1)
    share = rng.uniform(0.15, 0.75)
    return (1 - share) * grey + share * hue


def _wood(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    return np.array([175, 130, 85]) * rng.uniform(0.45, 1.25)


def _coloured(colour: Float[np.ndarray, "3"], shade: Float[np.ndarray, "H W"]) -> Texture:
    return np.clip(colour.astype(np.float32) + shade[..., None], 0, 255).astype(np.uint8)


def _shaded(image: Texture, shade: Float[np.ndarray, "#H #W"]) -> Texture:
    return np.clip(image + shade[..., None].astype(np.float32), 0, 255).astype(np.uint8)


def _rgb_tuple(colour: Float[np.ndarray, "3"]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(colour, 0, 255))
    return red, green, blue
