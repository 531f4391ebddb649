"""The studio as `film_studio` uses it: generated motions, films of them, and what is filmed as clips and cameras."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from schemas.body_model import BodyModel
from schemas.records import FPS, Camera, Clip, Shot, Track
from stages.geometry.cameras import camera_in_motion
from stages.media.encoding import VideoWriter
from stages.synthesis import MIN_SECONDS
from stages.synthesis.film import Footage as Filmed
from stages.synthesis.motions import ACTIONS, LabelledMotion, sequence
from stages.synthesis.scenes import Movement, make_scene, shoot_scene


class Studio:
    """Performs actions on a body and films people with everything about them known."""

    actions = ACTIONS

    def __init__(self, body: BodyModel) -> None:
        self.body = body

    def perform(self, action: str, seconds: float, seed: int) -> LabelledMotion:
        """One action, or, of any, as many one after another as there is time for."""
        rng = np.random.default_rng([seed, 31])
        count = max(1, round(seconds / 4)) if action == "*" else 1
        names = [str(rng.choice(ACTIONS)) if action == "*" else action for _ in range(count)]
        return sequence([(name, seconds / count) for name in names], seed, body=self.body)

    def shoot(
        self,
        motion: Movement,
        seed: int,
        rng: np.random.Generator,
        writer: VideoWriter,
        *,
        moving: bool,
        occluded: bool,
        company: bool,
        crossing: bool,
    ) -> Filmed:
        """Film a motion in a scene that follows from `seed`; with `company` a second person acts beside or crosses."""
        motions: list[Movement] = [motion]
        if company:
            # A little longer than needed: the scene ends with the shorter one.
            motions.append(self.perform("*", max(MIN_SECONDS, len(motion.trans) / FPS) + 0.2, seed))
        scene = make_scene(
            motions,
            seed,
            body=self.body,
            camera="moving" if moving else "static",
            occluders=int(rng.integers(1, 3)) if occluded else 0,
            crossing=bool(crossing and company),
            width=writer.width,
            height=writer.height,
        )
        return shoot_scene(scene, writer, Path(), body=self.body)

    @staticmethod
    def clip(shot: Shot, number: int, filmed: Filmed, models: dict[str, str]) -> Clip:
        """A person through a whole shot, as a perfect tracker would have seen them and the camera."""
        video, person = shot.video, filmed.people[number]
        edge = np.array([video.width, video.height, video.width, video.height])
        boxes = person.boxes.clip(0, edge).astype(np.float32)
        keypoints = np.concatenate([person.keypoints, person.visibility[..., None]], -1).astype(np.float32)
        turn = Rotation.from_matrix(filmed.R @ filmed.R[0].T).as_rotvec().astype(np.float32)
        if (filmed.R[0] == filmed.R).all():
            turn = np.zeros_like(turn)
        track = Track(
            shot=shot,
            person=number,
            times_s=shot.start_s + np.arange(len(boxes)) / FPS,
            boxes=boxes,
            keypoints=keypoints,
            models=models,
            camera_turn=turn,
            camera_seen=1.0,
        )
        return Clip(
            track=track, start_s=shot.start_s, end_s=shot.end_s, boxes=boxes, keypoints=keypoints, camera_turn=turn
        )

    @staticmethod
    def camera(filmed: Filmed, to_source: Float[np.ndarray, "4 4"]) -> Camera:
        """The scene's camera in a motion's own world."""
        eye, K = -np.einsum("tij,ti->tj", filmed.R, filmed.t), filmed.K
        intrinsics = np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]], np.float32)
        return camera_in_motion(Camera(rotation=filmed.R, position=eye, intrinsics=intrinsics), to_source)
