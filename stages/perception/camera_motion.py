"""How the camera of a shot turns, from what the background does between frames.

Corners outside people are followed from a key picture straight to each later one (Lucas and Kanade's optical flow), and
one rotation is fitted to their rays. As long as a key picture stays in view nothing adds up, so the shake of a hand does
not drift; when too little of it is left, the current picture becomes the next key, unless an older one is in view again.

Where the corners do not agree on one turn, as near ones move against far ones, the camera also went somewhere: then the turn
is that of an essential matrix. How far it went nobody can tell from pictures alone, so that is left to who recovers the body.

Camera axes are OpenCV's: x right, y down, z forward. A turn R takes the direction of a ray in the first picture's axes to
its direction in a later one's.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import median_filter
from scipy.spatial.transform import Rotation, Slerp

from stages.media.decoding import Image

_SIDE_PX = 320
"""Longer side of the pictures that are compared, about."""
_CORNERS = 90
"""In a key picture, at most."""
_FEWEST = 8
"""Corners that must agree on a turn."""
_AGREE_PX = 1.0
"""Distance, in the small picture, up to which a corner agrees with a turn, and up to which it must return to its start
when it is followed back."""
_SURE = 0.9
"""Share of the corners followed from which their agreement is proof enough; with less they are followed back too."""
_LEAST_CONTRAST = 1e-4
"""Eigenvalue of a corner, as OpenCV scales it, below which it is noise on a bare wall."""
_NOISE_PX = 0.2
"""Deviation of a corner that was followed, in the small picture."""
_MOST_OFF = 3.0
"""Deviations by which half of the corners must miss a turn for the camera to be asked whether it also went somewhere."""
_GOES_ALONG = 0.8
"""Share of the corners that must agree with a camera that turns and goes."""
_CARRIED = 0.2
"""Share of the pictures in which the camera must be seen to go somewhere for it to be taken to be carried."""
_OLD_KEY_SHARE = 0.6
"""Share of a key's corners that must still be in sight and agree; with fewer another key is sought."""
_MOST_KEYS = 64
_PERSON_MARGIN = 0.08
"""By which people's boxes are widened on every side, as a share of their size."""
_STILL_PX = 0.3
_SETTLE_S = 0.5
"""A camera stands still that shifts the small picture by less than `_STILL_PX`, in the median over this long."""
_BLIND_S = 1.0
"""After so long without an answer the turn is taken to be what it was, and a new key begins."""
_RETRY_S = 0.5
"""Between attempts to find a key on a bare background."""
LEAST_SEEN = 0.7
"""Share of pictures with an answer below which the camera is said to stand still, for want of anything better."""
_WINDOW_PX = 11
"""Side of the patch by which a corner is recognised."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraTurns:
    """The turns of a shot's camera at the frames that were looked at."""

    times_s: Float[np.ndarray, "N"]
    rotations: Rotation
    """From the first frame's camera axes to each frame's; N of them."""
    seen: float
    """Share of frames in which enough of the background agreed on one turn, 0 to 1. Below `LEAST_SEEN` nothing is known,
    and all turns are zero."""
    still: bool
    """The camera neither turns nor goes anywhere, or nothing is known: every turn is exactly zero."""

    def at(self, times_s: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K 3"]:
        """Rotation vectors, radians, from the camera axes at the first of these times to those at each."""
        if self.still or len(times_s) == 0:
            return np.zeros((len(times_s), 3), np.float32)
        return rotations_at(self.times_s, self.rotations, times_s)


def rotations_at(
    known_s: Float[np.ndarray, "N"], rotations: Rotation, times_s: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "K 3"]:
    """Rotations known at some times, at others: on the shortest arcs between them, held beyond the ends.

    Rotation vectors, radians, counted from the first of `times_s`.
    """
    turned = _between(known_s, rotations, times_s)
    vectors = (turned * turned[0].inv()).as_rotvec()
    vectors[0] = 0.0
    return vectors.astype(np.float32)


def _between(known_s: Float[np.ndarray, "N"], rotations: Rotation, times_s: Float[np.ndarray, "K"]) -> Rotation:
    """As `rotations_at`, from the axes that `rotations` start from."""
    known_s, first = np.unique(known_s, return_index=True)  # broken files show two frames at one time
    if len(known_s) == 1:
        return Rotation.concatenate([rotations[int(first[0])]] * len(times_s))
    return Slerp(known_s, rotations[first])(np.clip(times_s, known_s[0], known_s[-1]))


@dataclass(frozen=True, eq=False)
class _View:
    """A small grey picture and where it shows people."""

    grey: UInt8[np.ndarray, "h w"]
    people: Float[np.ndarray, "P 4"]

    def shows_background(self, points: Float[np.ndarray, "K 2"]) -> Bool[np.ndarray, "K"]:
        height, width = self.grey.shape
        edge = _WINDOW_PX // 2
        x, y = points[:, :1], points[:, 1:]
        x0, y0, x1, y1 = self.people.T
        hidden = ((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)).any(axis=1)
        far = (x >= edge) & (y >= edge) & (x < width - edge) & (y < height - edge)
        return far[:, 0] & ~hidden


@dataclass(frozen=True, eq=False)
class _Key:
    """A picture that later ones are compared with."""

    view: _View
    corners: Float[np.ndarray, "K 2"]
    rays: Float[np.ndarray, "K 3"]
    turn: Float[np.ndarray, "3 3"]
    """From the first picture's axes to this one's."""


@dataclass(frozen=True, eq=False)
class _Match:
    turn: Float[np.ndarray, "3 3"]
    """From the key's axes to the current picture's."""
    share: float
    """Agreeing corners among all of the key's."""


class CameraRotationEstimator:
    """Look at a shot's frames one after another; then ask for the turns.

    `intrinsics` (fx, fy, cx, cy) are in pixels of a picture `width` wide; the frames handed in may be smaller.
    """

    def __init__(self, width: int, intrinsics: Float[np.ndarray, "4"]) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._cv2: Any = cv2
        self._width, self._intrinsics = width, intrinsics.astype(np.float64)
        self._focal = self._centre = np.ones(2)
        self._keys: list[_Key] = []
        self._key: _Key | None = None
        self._last: tuple[_View, np.ndarray] | None = None
        self._turn = np.eye(3)
        self._carried = 0
        self._answer_s = self._retry_s = -math.inf
        self._times_s: list[float] = []
        self._turns: list[np.ndarray | None] = []

    def look(self, time_s: float, image: Image, people: Float[np.ndarray, "P 4"]) -> None:
        """Take in the next frame; `people` are boxes in its pixels."""
        view = self._shrink(image, people)
        turn = self._begin(view, time_s) if self._key is None else self._follow(view, self._key)
        self._times_s.append(time_s)
        self._turns.append(turn)
        if turn is not None:
            self._turn, self._last, self._answer_s = turn, (view, turn), time_s
        elif time_s - self._answer_s > _BLIND_S:
            self._key = self._last = None

    def turns(self) -> CameraTurns:
        """The turns at all frames seen so far; where no answer was found, on the shortest arc between its neighbours."""
        times_s = np.array(self._times_s)
        known = np.array([turn is not None for turn in self._turns], bool)
        seen = float(known.mean()) if len(known) else 0.0
        none = CameraTurns(times_s=times_s, rotations=Rotation.identity(len(times_s)), seen=seen, still=True)
        if seen < LEAST_SEEN or known.sum() < 2:
            return none
        rotations = Rotation.from_matrix(np.stack([turn for turn in self._turns if turn is not None]))
        carried = self._carried >= _CARRIED * len(times_s)
        if not carried and self._stands_still(rotations, float(np.median(np.diff(times_s)))):
            return none
        every = _between(times_s[known], rotations, times_s)
        return CameraTurns(times_s=times_s, rotations=every, seen=seen, still=False)

    def _stands_still(self, rotations: Rotation, step_s: float) -> bool:
        """Whether the picture never leaves its place for long: a knock at the tripod does not count, a slow pan does."""
        vectors = rotations.as_rotvec()
        away_px = np.linalg.norm(vectors - np.median(vectors, axis=0), axis=1) * self._focal.max()
        window = max(1, round(_SETTLE_S / step_s)) // 2 * 2 + 1
        return bool(median_filter(away_px, size=window, mode="nearest").max() < _STILL_PX)

    def _shrink(self, image: Image, people: Float[np.ndarray, "P 4"]) -> _View:
        cv2 = self._cv2
        height, width = image.shape[:2]
        step = max(1, round(max(height, width) / _SIDE_PX))  # by a whole number: anything else costs ten times as much
        size = width // step, height // step
        if step > 1:
            image = cv2.resize(image[: size[1] * step, : size[0] * step], size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small = width / self._width / step
        self._focal, self._centre = self._intrinsics[:2] * small, self._intrinsics[2:] * small - 0.5
        boxes = people.astype(np.float64) / step
        margin = _PERSON_MARGIN * (boxes[:, 2:] - boxes[:, :2]) + 2
        return _View(grey, np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1))

    def _begin(self, view: _View, time_s: float) -> Float[np.ndarray, "3 3"] | None:
        """A first key, or one after the view was lost: the camera is taken to have stood still meanwhile."""
        if time_s < self._retry_s:
            return None
        self._retry_s = time_s + _RETRY_S
        self._key = self._new_key(view, self._turn)
        return self._turn if self._key else None

    def _follow(self, view: _View, key: _Key) -> Float[np.ndarray, "3 3"] | None:
        """The turn by the current key, else by an older one that is in view again, else by the last picture as a key."""
        match = self._match(key, view)
        if match and match.share >= _OLD_KEY_SHARE:
            return match.turn @ key.turn
        turn = match.turn @ key.turn if match else self._turn
        old = self._nearest_key(turn)
        if old is not None and (found := self._match(old, view)) and found.share >= _OLD_KEY_SHARE:
            self._key = old
            return found.turn @ old.turn
        if match:
            self._key = self._new_key(view, turn) or key
            return turn
        if self._last is not None:
            last = self._new_key(*self._last)
            self._last = None  # once is enough: it will not look different the next time
            if last is not None and (found := self._match(last, view)):
                self._key = last
                return found.turn @ last.turn
        return None

    def _nearest_key(self, turn: Float[np.ndarray, "3 3"]) -> _Key | None:
        others = [key for key in self._keys if key is not self._key]
        near = max(others, key=lambda key: float(np.trace(turn @ key.turn.T)), default=None)
        if near is None:
            return None
        away_rad = math.acos(min(1.0, max(-1.0, (float(np.trace(turn @ near.turn.T)) - 1) / 2)))
        return near if away_rad * self._focal.max() < _SIDE_PX / 5 else None

    def _new_key(self, view: _View, turn: Float[np.ndarray, "3 3"]) -> _Key | None:
        """A key with corners all over the background; None where that is too bare."""
        cv2 = self._cv2
        free = np.full(view.grey.shape, 255, np.uint8)
        for x0, y0, x1, y1 in np.rint(np.maximum(view.people, 0)).astype(int):
            free[y0:y1, x0:x1] = 0
        strength = cv2.cornerMinEigenVal(view.grey, 5, ksize=3)
        free[strength < _LEAST_CONTRAST] = 0
        apart = max(4.0, math.sqrt(0.4 * np.count_nonzero(free) / _CORNERS))
        found = cv2.goodFeaturesToTrack(view.grey, _CORNERS, 0.003, apart, mask=free, blockSize=5)
        corners = np.zeros((0, 2), np.float32) if found is None else found[:, 0]
        corners = corners[view.shows_background(corners)]
        if len(corners) < _FEWEST:
            return None
        key = _Key(view, corners, self._rays(corners), turn)
        self._keys = [*self._keys[-_MOST_KEYS + 1 :], key]
        return key

    def _match(self, key: _Key, view: _View) -> _Match | None:
        """Follow a key's corners to this picture and fit a turn; where they disagree, only to those that lead back."""
        cv2 = self._cv2
        guess = self._turn @ key.turn.T
        expected = self._pixels(key.rays @ guess.T)
        near = view.shows_background(expected)
        if near.sum() < _FEWEST:
            return None
        corners, expected = key.corners[near], expected[near].astype(np.float32)
        options = {
            "winSize": (_WINDOW_PX, _WINDOW_PX),
            "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 12, 0.02),
            "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        }
        ahead, there, _ = cv2.calcOpticalFlowPyrLK(
            key.view.grey, view.grey, corners, expected.copy(), maxLevel=2, **options
        )
        sound = (there[:, 0] > 0) & view.shows_background(ahead)
        turn, agree, carried = self._fit(key.rays[near], ahead, sound, guess)
        if agree < _SURE * sound.sum():
            start = corners + (ahead - expected)  # as far from the truth as the way there began
            back, again, _ = cv2.calcOpticalFlowPyrLK(view.grey, key.view.grey, ahead, start, maxLevel=1, **options)
            sound &= (again[:, 0] > 0) & (np.linalg.norm(back - corners, axis=1) < _AGREE_PX)
            turn, agree, carried = self._fit(key.rays[near], ahead, sound, guess)
        if agree < max(_FEWEST, 0.5 * sound.sum()):
            return None
        self._carried += carried
        return _Match(turn, agree / len(key.corners))

    def _fit(
        self,
        rays: Float[np.ndarray, "K 3"],
        pixels: Float[np.ndarray, "K 2"],
        sound: Bool[np.ndarray, "K"],
        guess: Float[np.ndarray, "3 3"],
    ) -> tuple[Float[np.ndarray, "3 3"], int, bool]:
        """The turn by the sound ones, how many of them agree with it (none where they are too few), and whether the camera
        also went somewhere."""
        if sound.sum() < _FEWEST:
            return guess, 0, False
        after = self._rays(pixels[sound])
        agree_rad = _AGREE_PX / self._focal.max()
        turn, agree = fit_turn(rays[sound], after, guess, agree_rad)
        noise_rad = _NOISE_PX / self._focal.max()
        # People and reflections that move are a few of the corners; that most are off is the camera's doing.
        if np.median(np.linalg.norm(after - rays[sound] @ turn.T, axis=1)) > _MOST_OFF * noise_rad:
            moved = fit_motion(rays[sound], after, turn, noise_rad)
            if moved is not None:
                return moved[0], int(moved[1].sum()), True
        return turn, int(agree.sum()), False

    def _rays(self, pixels: Float[np.ndarray, "K 2"]) -> Float[np.ndarray, "K 3"]:
        flat = np.concatenate([(pixels - self._centre) / self._focal, np.ones((len(pixels), 1))], axis=1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    def _pixels(self, rays: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "K 2"]:
        return rays[:, :2] / np.maximum(rays[:, 2:], 0.05) * self._focal + self._centre


def fit_motion(
    before: Float[np.ndarray, "K 3"],
    after: Float[np.ndarray, "K 3"],
    turn: Float[np.ndarray, "3 3"],
    noise_rad: float,
) -> tuple[Float[np.ndarray, "3 3"], Bool[np.ndarray, "K"]] | None:
    """The turn of a camera that also went somewhere, and which rays agree with that; None where the turn alone, as given,
    explains the rays as well for what it is (Torr 1998, geometric robust information criterion).

    The essential matrix (Nister 2004, sampled as OpenCV's USAC does), then least squares on Sampson's distances.
    """
    import cv2
    from scipy.optimize import least_squares

    vision: Any = cv2
    flat = [rays[:, :2] / rays[:, 2:] for rays in (before, after)]
    found, _ = vision.findEssentialMat(*flat, np.eye(3), method=vision.USAC_MAGSAC, prob=0.999, threshold=2 * noise_rad)
    if found is None or found.shape != (3, 3):
        return None
    one, other, way = vision.decomposeEssentialMat(found)
    start = max(
        (one, other), key=lambda guess: float(np.trace(guess @ turn.T))
    )  # the other one is turned about the way
    first = [np.column_stack([points, np.ones(len(points))]) for points in flat]
    axes = np.linalg.svd(way.reshape(1, 3))[2]

    def distances(change: Float[np.ndarray, "5"]) -> Float[np.ndarray, "K"]:
        direction = axes[0] + change[3] * axes[1] + change[4] * axes[2]
        direction = direction / np.linalg.norm(direction)
        x, y, z = direction
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        return sampson(cross @ Rotation.from_rotvec(change[:3]).as_matrix() @ start, *first)

    best = least_squares(distances, np.zeros(5), loss="cauchy", f_scale=noise_rad, max_nfev=25)
    count = len(before)
    off = (distances(best.x) / noise_rad) ** 2
    alone = ((np.linalg.norm(after - before @ turn.T, axis=1)) / noise_rad) ** 2
    if (off < 9).mean() < _GOES_ALONG:
        return None
    # Dimensions of what the models say of two points (2 and 3), and their parameters (3 and 5).
    cost = np.minimum(off, 2).sum() + 3 * math.log(4) * count + 5 * math.log(4 * count)
    if cost > np.minimum(alone, 4).sum() + 2 * math.log(4) * count + 3 * math.log(4 * count):
        return None
    return Rotation.from_rotvec(best.x[:3]).as_matrix() @ start, off < 9


def sampson(
    essential: Float[np.ndarray, "3 3"], before: Float[np.ndarray, "K 3"], after: Float[np.ndarray, "K 3"]
) -> Float[np.ndarray, "K"]:
    """First-order distances of pairs of points at depth 1 from an essential matrix (Hartley and Zisserman, 11.4.3)."""
    ahead, back = before @ essential.T, after @ essential
    scale = (ahead[:, :2] ** 2).sum(1) + (back[:, :2] ** 2).sum(1)
    return (after * ahead).sum(1) / np.sqrt(np.maximum(scale, 1e-18))


def fit_turn(
    before: Float[np.ndarray, "K 3"],
    after: Float[np.ndarray, "K 3"],
    guess: Float[np.ndarray, "3 3"],
    agree_rad: float,
) -> tuple[Float[np.ndarray, "3 3"], Bool[np.ndarray, "K"]]:
    """The rotation R with after = R before for as many unit rays as possible, and which rays agree to `agree_rad`.

    Begins at `guess` moved by the median of what it leaves, so that up to half of the rays may belong to something else;
    then Wahba's problem (Kabsch 1976) with Geman and McClure's weights, whose width narrows down to `agree_rad`.
    """
    moved = before @ guess.T
    shift = np.median(np.cross(moved, after), axis=0)
    starts = [guess, Rotation.from_rotvec(shift).as_matrix() @ guess]
    left = [np.linalg.norm(after - before @ start.T, axis=1) for start in starts]
    turn = starts[int(np.argmin([np.median(one) for one in left]))]
    for width in agree_rad * np.array([8, 4, 2, 1, 1]):
        error = ((after - before @ turn.T) ** 2).sum(axis=1)
        weight = 1 / (1 + error / width**2) ** 2
        u, _, vt = np.linalg.svd((after * weight[:, None]).T @ before)
        turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return turn, np.linalg.norm(after - before @ turn.T, axis=1) < agree_rad
