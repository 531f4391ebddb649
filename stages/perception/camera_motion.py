"""Rotation of a shot's camera, estimated from the motion of the background between frames.

Corners outside people are tracked from a keyframe directly to each later frame (Lucas-Kanade optical flow), and one rotation
is fitted to their rays. While a keyframe stays in view no error accumulates, so hand shake does not cause drift; when too
little of it is left, the current frame becomes the next keyframe, unless an older one is in view again.

Where the corners do not agree on one rotation, e.g. near ones move against far ones, the camera also translated: then the
rotation is that of an essential matrix. The length of the translation cannot be estimated from images alone, so it is left to
the recovery of the body.

Camera axes are OpenCV's: x right, y down, z forward. A rotation R maps the direction of a ray in the first frame's axes to its
direction in a later one's.
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
"""Approximate longer side of the downscaled images that are compared."""
_MAX_CORNERS = 90
"""In a keyframe."""
_MIN_CORNERS = 8
"""Corners that must agree on a rotation."""
_INLIER_PX = 1.0
"""Distance, in the small image, up to which a corner agrees with a rotation, and up to which it must return to its start
when it is tracked backward."""
_SUFFICIENT_SHARE = 0.9
"""Share of agreeing corners above which the backward check is skipped."""
_MIN_EIGENVALUE = 1e-4
"""Smallest eigenvalue of a corner, as OpenCV scales it; below is noise on a textureless wall."""
_NOISE_PX = 0.2
"""Standard deviation of a tracked corner, in the small image."""
_TRANSLATION_RESIDUAL = 3.0
"""Median residual of the corners under a pure rotation, in standard deviations, above which translation is tested for."""
_MIN_TRANSLATION_SHARE = 0.8
"""Share of the corners that must agree with a rotating and translating camera."""
_MIN_TRANSLATING_FRAMES = 0.2
"""Share of the frames with detected translation from which the camera counts as moving."""
_KEYFRAME_SHARE = 0.6
"""Share of a keyframe's corners that must still be in view and agree; below, another keyframe is sought."""
_MAX_KEYFRAMES = 64
_PERSON_MARGIN = 0.08
"""By which people's boxes are widened on every side, as a share of their size."""
_STATIC_PX = 0.3
_SETTLE_S = 0.5
"""A camera is static if it shifts the small image by less than `_STATIC_PX`, in the median over this time."""
_LOST_S = 1.0
"""After this time without an estimate the last rotation is kept and a new keyframe begins."""
_RETRY_S = 0.5
"""Between attempts to find a keyframe on a textureless background."""
MIN_COVERAGE = 0.7
"""Share of frames with an estimate below which the camera is assumed to be static."""
_WINDOW_PX = 11
"""Side of the patch that identifies a corner."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraRotations:
    """Rotations of a shot's camera at the processed frames."""

    times_s: Float[np.ndarray, "N"]
    rotations: Rotation
    """From the first frame's camera axes to each frame's; N of them."""
    coverage: float
    """Share of frames in which enough of the background agreed on one rotation, 0 to 1. Below `MIN_COVERAGE` nothing is known,
    and all rotations are zero."""
    static: bool
    """The camera neither rotates nor translates, or nothing is known: every rotation is exactly zero."""

    def at(self, times_s: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K 3"]:
        """Rotation vectors, radians, from the camera axes at the first of these times to those at each."""
        if self.static or len(times_s) == 0:
            return np.zeros((len(times_s), 3), np.float32)
        return rotations_at(self.times_s, self.rotations, times_s)


def rotations_at(
    known_s: Float[np.ndarray, "N"], rotations: Rotation, times_s: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "K 3"]:
    """Interpolate rotations to other times along the shortest arcs, constant beyond the ends.

    Rotation vectors, radians, relative to the first of `times_s`.
    """
    interpolated = _interpolate(known_s, rotations, times_s)
    vectors = (interpolated * interpolated[0].inv()).as_rotvec()
    vectors[0] = 0.0
    return vectors.astype(np.float32)


def _interpolate(known_s: Float[np.ndarray, "N"], rotations: Rotation, times_s: Float[np.ndarray, "K"]) -> Rotation:
    """As `rotations_at`, relative to the axes of `rotations`."""
    known_s, first = np.unique(known_s, return_index=True)  # broken files have two frames at one time
    if len(known_s) == 1:
        return Rotation.concatenate([rotations[int(first[0])]] * len(times_s))
    return Slerp(known_s, rotations[first])(np.clip(times_s, known_s[0], known_s[-1]))


@dataclass(frozen=True, eq=False)
class _View:
    """A small grey image and the boxes of people in it."""

    grey: UInt8[np.ndarray, "h w"]
    people: Float[np.ndarray, "P 4"]

    def shows_background(self, points: Float[np.ndarray, "K 2"]) -> Bool[np.ndarray, "K"]:
        height, width = self.grey.shape
        edge = _WINDOW_PX // 2
        x, y = points[:, :1], points[:, 1:]
        x0, y0, x1, y1 = self.people.T
        hidden = ((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)).any(axis=1)
        inside = (x >= edge) & (y >= edge) & (x < width - edge) & (y < height - edge)
        return inside[:, 0] & ~hidden


@dataclass(frozen=True, eq=False)
class _Keyframe:
    """A frame that later ones are compared with."""

    view: _View
    corners: Float[np.ndarray, "K 2"]
    rays: Float[np.ndarray, "K 3"]
    rotation: Float[np.ndarray, "3 3"]
    """From the first frame's axes to this one's."""


@dataclass(frozen=True, eq=False)
class _Match:
    rotation: Float[np.ndarray, "3 3"]
    """From the keyframe's axes to the current frame's."""
    share: float
    """Agreeing corners as a share of all of the keyframe's."""


class CameraRotationEstimator:
    """Takes a shot's frames one after another, then returns the rotations.

    `intrinsics` (fx, fy, cx, cy) are in pixels of an image `width` wide; the frames given may be smaller.
    """

    def __init__(self, width: int, intrinsics: Float[np.ndarray, "4"]) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._cv2: Any = cv2
        self._width, self._intrinsics = width, intrinsics.astype(np.float64)
        self._focal = self._centre = np.ones(2)
        self._keyframes: list[_Keyframe] = []
        self._keyframe: _Keyframe | None = None
        self._last: tuple[_View, np.ndarray] | None = None
        self._rotation = np.eye(3)
        self._translating = 0
        self._estimate_s = self._retry_s = -math.inf
        self._times_s: list[float] = []
        self._rotations: list[np.ndarray | None] = []

    def add_frame(self, time_s: float, image: Image, people: Float[np.ndarray, "P 4"]) -> None:
        """Process the next frame; `people` are boxes in its pixels."""
        view = self._downscale(image, people)
        rotation = self._start(view, time_s) if self._keyframe is None else self._track(view, self._keyframe)
        self._times_s.append(time_s)
        self._rotations.append(rotation)
        if rotation is not None:
            self._rotation, self._last, self._estimate_s = rotation, (view, rotation), time_s
        elif time_s - self._estimate_s > _LOST_S:
            self._keyframe = self._last = None

    def rotations(self) -> CameraRotations:
        """Rotations of all frames so far; those without an estimate are interpolated."""
        times_s = np.array(self._times_s)
        known = np.array([rotation is not None for rotation in self._rotations], bool)
        coverage = float(known.mean()) if len(known) else 0.0
        static = CameraRotations(
            times_s=times_s, rotations=Rotation.identity(len(times_s)), coverage=coverage, static=True
        )
        if coverage < MIN_COVERAGE or known.sum() < 2:
            return static
        rotations = Rotation.from_matrix(np.stack([rotation for rotation in self._rotations if rotation is not None]))
        moving = self._translating >= _MIN_TRANSLATING_FRAMES * len(times_s)
        if not moving and self._is_static(rotations, float(np.median(np.diff(times_s)))):
            return static
        interpolated = _interpolate(times_s[known], rotations, times_s)
        return CameraRotations(times_s=times_s, rotations=interpolated, coverage=coverage, static=False)

    def _is_static(self, rotations: Rotation, step_s: float) -> bool:
        """Whether the image never shifts for long: a knock against the tripod does not count, a slow pan does."""
        vectors = rotations.as_rotvec()
        shift_px = np.linalg.norm(vectors - np.median(vectors, axis=0), axis=1) * self._focal.max()
        window = max(1, round(_SETTLE_S / step_s)) // 2 * 2 + 1
        return bool(median_filter(shift_px, size=window, mode="nearest").max() < _STATIC_PX)

    def _downscale(self, image: Image, people: Float[np.ndarray, "P 4"]) -> _View:
        cv2 = self._cv2
        height, width = image.shape[:2]
        step = max(1, round(max(height, width) / _SIDE_PX))  # an integer: any other factor is ten times slower
        size = width // step, height // step
        if step > 1:
            image = cv2.resize(image[: size[1] * step, : size[0] * step], size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        scale = width / self._width / step
        self._focal, self._centre = self._intrinsics[:2] * scale, self._intrinsics[2:] * scale - 0.5
        boxes = people.astype(np.float64) / step
        margin = _PERSON_MARGIN * (boxes[:, 2:] - boxes[:, :2]) + 2
        return _View(grey, np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1))

    def _start(self, view: _View, time_s: float) -> Float[np.ndarray, "3 3"] | None:
        """First keyframe, or one after tracking was lost: the camera is assumed to have been static meanwhile."""
        if time_s < self._retry_s:
            return None
        self._retry_s = time_s + _RETRY_S
        self._keyframe = self._new_keyframe(view, self._rotation)
        return self._rotation if self._keyframe else None

    def _track(self, view: _View, keyframe: _Keyframe) -> Float[np.ndarray, "3 3"] | None:
        """Rotation from the current keyframe, else from an older one in view again, else from the last frame as a keyframe."""
        match = self._match(keyframe, view)
        if match and match.share >= _KEYFRAME_SHARE:
            return match.rotation @ keyframe.rotation
        rotation = match.rotation @ keyframe.rotation if match else self._rotation
        old = self._nearest_keyframe(rotation)
        if old is not None and (old_match := self._match(old, view)) and old_match.share >= _KEYFRAME_SHARE:
            self._keyframe = old
            return old_match.rotation @ old.rotation
        if match:
            self._keyframe = self._new_keyframe(view, rotation) or keyframe
            return rotation
        if self._last is not None:
            last = self._new_keyframe(*self._last)
            self._last = None  # a second attempt would fail alike
            if last is not None and (last_match := self._match(last, view)):
                self._keyframe = last
                return last_match.rotation @ last.rotation
        return None

    def _nearest_keyframe(self, rotation: Float[np.ndarray, "3 3"]) -> _Keyframe | None:
        candidates = [keyframe for keyframe in self._keyframes if keyframe is not self._keyframe]
        nearest = max(candidates, key=lambda keyframe: float(np.trace(rotation @ keyframe.rotation.T)), default=None)
        if nearest is None:
            return None
        angle_rad = math.acos(min(1.0, max(-1.0, (float(np.trace(rotation @ nearest.rotation.T)) - 1) / 2)))
        return nearest if angle_rad * self._focal.max() < _SIDE_PX / 5 else None

    def _new_keyframe(self, view: _View, rotation: Float[np.ndarray, "3 3"]) -> _Keyframe | None:
        """A keyframe with corners spread over the background; None if that has too little texture."""
        cv2 = self._cv2
        mask = np.full(view.grey.shape, 255, np.uint8)
        for x0, y0, x1, y1 in np.rint(np.maximum(view.people, 0)).astype(int):
            mask[y0:y1, x0:x1] = 0
        eigenvalue = cv2.cornerMinEigenVal(view.grey, 5, ksize=3)
        mask[eigenvalue < _MIN_EIGENVALUE] = 0
        spacing = max(4.0, math.sqrt(0.4 * np.count_nonzero(mask) / _MAX_CORNERS))
        features = cv2.goodFeaturesToTrack(view.grey, _MAX_CORNERS, 0.003, spacing, mask=mask, blockSize=5)
        corners = np.zeros((0, 2), np.float32) if features is None else features[:, 0]
        corners = corners[view.shows_background(corners)]
        if len(corners) < _MIN_CORNERS:
            return None
        keyframe = _Keyframe(view, corners, self._rays(corners), rotation)
        self._keyframes = [*self._keyframes[-_MAX_KEYFRAMES + 1 :], keyframe]
        return keyframe

    def _match(self, keyframe: _Keyframe, view: _View) -> _Match | None:
        """Track a keyframe's corners to this frame and fit a rotation; if they disagree, only to those that track back."""
        cv2 = self._cv2
        guess = self._rotation @ keyframe.rotation.T
        expected = self._pixels(keyframe.rays @ guess.T)
        visible = view.shows_background(expected)
        if visible.sum() < _MIN_CORNERS:
            return None
        corners, expected = keyframe.corners[visible], expected[visible].astype(np.float32)
        options = {
            "winSize": (_WINDOW_PX, _WINDOW_PX),
            "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 12, 0.02),
            "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        }
        forward, forward_status, _ = cv2.calcOpticalFlowPyrLK(
            keyframe.view.grey, view.grey, corners, expected.copy(), maxLevel=2, **options
        )
        valid = (forward_status[:, 0] > 0) & view.shows_background(forward)
        rotation, inliers, translating = self._fit(keyframe.rays[visible], forward, valid, guess)
        if inliers < _SUFFICIENT_SHARE * valid.sum():
            start = corners + (forward - expected)  # with the same initial error as the forward tracking
            backward, backward_status, _ = cv2.calcOpticalFlowPyrLK(
                view.grey, keyframe.view.grey, forward, start, maxLevel=1, **options
            )
            valid &= (backward_status[:, 0] > 0) & (np.linalg.norm(backward - corners, axis=1) < _INLIER_PX)
            rotation, inliers, translating = self._fit(keyframe.rays[visible], forward, valid, guess)
        if inliers < max(_MIN_CORNERS, 0.5 * valid.sum()):
            return None
        self._translating += translating
        return _Match(rotation, inliers / len(keyframe.corners))

    def _fit(
        self,
        rays: Float[np.ndarray, "K 3"],
        pixels: Float[np.ndarray, "K 2"],
        valid: Bool[np.ndarray, "K"],
        guess: Float[np.ndarray, "3 3"],
    ) -> tuple[Float[np.ndarray, "3 3"], int, bool]:
        """Rotation by the valid corners, the number that agree with it (0 if there are too few), and whether the camera also
        translated."""
        if valid.sum() < _MIN_CORNERS:
            return guess, 0, False
        after = self._rays(pixels[valid])
        inlier_rad = _INLIER_PX / self._focal.max()
        rotation, inliers = fit_rotation(rays[valid], after, guess, inlier_rad)
        noise_rad = _NOISE_PX / self._focal.max()
        # Moving people and reflections cover few of the corners; if most have large residuals, the camera is the cause.
        residual = np.linalg.norm(after - rays[valid] @ rotation.T, axis=1)
        if np.median(residual) > _TRANSLATION_RESIDUAL * noise_rad:
            motion = fit_motion(rays[valid], after, rotation, noise_rad)
            if motion is not None:
                return motion[0], int(motion[1].sum()), True
        return rotation, int(inliers.sum()), False

    def _rays(self, pixels: Float[np.ndarray, "K 2"]) -> Float[np.ndarray, "K 3"]:
        homogeneous = np.concatenate([(pixels - self._centre) / self._focal, np.ones((len(pixels), 1))], axis=1)
        return homogeneous / np.linalg.norm(homogeneous, axis=1, keepdims=True)

    def _pixels(self, rays: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "K 2"]:
        return rays[:, :2] / np.maximum(rays[:, 2:], 0.05) * self._focal + self._centre


def fit_motion(
    before: Float[np.ndarray, "K 3"],
    after: Float[np.ndarray, "K 3"],
    rotation: Float[np.ndarray, "3 3"],
    noise_rad: float,
) -> tuple[Float[np.ndarray, "3 3"], Bool[np.ndarray, "K"]] | None:
    """Rotation of a camera that also translated, and which rays agree with that motion; None where the given pure rotation
    explains the rays as well for its complexity (Torr 1998, geometric robust information criterion).

    The essential matrix (Nister 2004, sampled by OpenCV's USAC), then least squares on Sampson distances.
    """
    import cv2
    from scipy.optimize import least_squares

    vision: Any = cv2
    points = [rays[:, :2] / rays[:, 2:] for rays in (before, after)]
    essential, _ = vision.findEssentialMat(
        *points, np.eye(3), method=vision.USAC_MAGSAC, prob=0.999, threshold=2 * noise_rad
    )
    if essential is None or essential.shape != (3, 3):
        return None
    first, second, translation = vision.decomposeEssentialMat(essential)
    # Of the two solutions, the other is rotated by half a turn about the translation.
    start = max((first, second), key=lambda solution: float(np.trace(solution @ rotation.T)))
    homogeneous = [np.column_stack([xy, np.ones(len(xy))]) for xy in points]
    axes = np.linalg.svd(translation.reshape(1, 3))[2]

    def distances(change: Float[np.ndarray, "5"]) -> Float[np.ndarray, "K"]:
        direction = axes[0] + change[3] * axes[1] + change[4] * axes[2]
        direction = direction / np.linalg.norm(direction)
        x, y, z = direction
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        return sampson_distances(cross @ Rotation.from_rotvec(change[:3]).as_matrix() @ start, *homogeneous)

    if (np.abs(distances(np.zeros(5))) < 3 * noise_rad).mean() < _MIN_TRANSLATION_SHARE / 2:
        return None  # noise; the refinement below would take ten times as long to find the same
    solution = least_squares(distances, np.zeros(5), loss="cauchy", f_scale=noise_rad, max_nfev=25)
    count = len(before)
    motion_residual = (distances(solution.x) / noise_rad) ** 2
    rotation_residual = ((np.linalg.norm(after - before @ rotation.T, axis=1)) / noise_rad) ** 2
    if (motion_residual < 9).mean() < _MIN_TRANSLATION_SHARE:
        return None
    # Dimensions of the models' manifolds of point pairs (2 and 3), and their parameters (3 and 5).
    motion_cost = np.minimum(motion_residual, 2).sum() + 3 * math.log(4) * count + 5 * math.log(4 * count)
    rotation_cost = np.minimum(rotation_residual, 4).sum() + 2 * math.log(4) * count + 3 * math.log(4 * count)
    if motion_cost > rotation_cost:
        return None
    return Rotation.from_rotvec(solution.x[:3]).as_matrix() @ start, motion_residual < 9


def sampson_distances(
    essential: Float[np.ndarray, "3 3"], before: Float[np.ndarray, "K 3"], after: Float[np.ndarray, "K 3"]
) -> Float[np.ndarray, "K"]:
    """First-order distances of pairs of points at depth 1 from an essential matrix (Hartley and Zisserman, 11.4.3)."""
    line_after, line_before = before @ essential.T, after @ essential
    scale = (line_after[:, :2] ** 2).sum(1) + (line_before[:, :2] ** 2).sum(1)
    return (after * line_after).sum(1) / np.sqrt(np.maximum(scale, 1e-18))


def fit_rotation(
    before: Float[np.ndarray, "K 3"],
    after: Float[np.ndarray, "K 3"],
    guess: Float[np.ndarray, "3 3"],
    inlier_rad: float,
) -> tuple[Float[np.ndarray, "3 3"], Bool[np.ndarray, "K"]]:
    """The rotation R with after = R before for as many unit rays as possible, and which rays agree within `inlier_rad`.

    Starts at `guess` shifted by its median residual, so that up to half of the rays may belong to another motion; then solves
    Wahba's problem (Kabsch 1976) with Geman-McClure weights, whose width narrows down to `inlier_rad`.
    """
    rotated = before @ guess.T
    shift = np.median(np.cross(rotated, after), axis=0)
    starts = [guess, Rotation.from_rotvec(shift).as_matrix() @ guess]
    residuals = [np.linalg.norm(after - before @ start.T, axis=1) for start in starts]
    rotation = starts[int(np.argmin([np.median(residual) for residual in residuals]))]
    for width in inlier_rad * np.array([8, 4, 2, 1, 1]):
        error = ((after - before @ rotation.T) ** 2).sum(axis=1)
        weight = 1 / (1 + error / width**2) ** 2
        u, _, vt = np.linalg.svd((after * weight[:, None]).T @ before)
        rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return rotation, np.linalg.norm(after - before @ rotation.T, axis=1) < inlier_rad
