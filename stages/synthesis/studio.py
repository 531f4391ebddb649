"""The interface of `film_studio`: generated motions, films of scenes, and their ground truth as clips and cameras."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from schemas.body_model import BodyModel
from schemas.records import FPS, Camera, Clip, Shot, Track
from stages.geometry.cameras import camera_in_motion
from stages.media.encoding import VideoWriter
from stages.synthesis import MIN_SECONDS
from stages.synthesis.film import Footage as SceneFootage
from stages.synthesis.motions import ACTIONS, LabelledMotion, sequence
from stages.synthesis.scenes import MotionLike, make_scene, shoot_scene


class Studio:
    """Generates motions of a body and films people with full ground truth."""

    actions = ACTIONS

    def __init__(self, body: BodyModel) -> None:
        self.body = body

    def generate_motion(self, action: str, seconds: float, seed: int) -> LabelledMotion:
        """One action or, for `*`, a sequence of random actions of about four seconds each."""
        rng = np.random.default_rng([seed, 31])
        count = max(1, round(seconds / 4)) if action == "*" else 1
        names = [str(rng.choice(ACTIONS)) if action == "*" else action for _ in range(count)]
        return sequence([(name, seconds / count) for name in names], seed, body=self.body)

    def shoot(
        self,
        motion: MotionLike,
        seed: int,
        rng: np.random.Generator,
        writer: VideoWriter,
        *,
        moving: bool,
        occluded: bool,
        company: bool,
        crossing: bool,
    ) -> SceneFootage:
        """Film a motion in a scene given by `seed`; with `company` a second person acts beside or crosses the first."""
        motions: list[MotionLike] = [motion]
        if company:
            # Slightly longer than needed: the scene ends with the shorter motion.
            motions.append(self.generate_motion("*", max(MIN_SECONDS, len(motion.trans) / FPS) + 0.2, seed))
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
    def clip(shot: Shot, number: int, footage: SceneFootage, models: dict[str, str]) -> Clip:
        """The clip of a person over a whole shot, with exact keypoints, boxes and camera rotation."""
        video, person = shot.video, footage.people[number]
        image_size = np.array([video.width, video.height, video.width, video.height])
        boxes = person.boxes.clip(0, image_size).astype(np.float32)
        keypoints = np.concatenate([person.keypoints, person.visibility[..., None]], -1).astype(np.float32)
        camera_rotation = Rotation.from_matrix(footage.R @ footage.R[0].T).as_rotvec().astype(np.float32)
        if (footage.R[0] == footage.R).all():
            camera_rotation = np.zeros_like(camera_rotation)
        track = Track(
            shot=shot,
            person=number,
            times_s=shot.start_s + np.arange(len(boxes)) / FPS,
            boxes=boxes,
            keypoints=keypoints,
            models=models,
            camera_turn=camera_rotation,
            camera_seen=1.0,
        )
        return Clip(
            track=track,
            start_s=shot.start_s,
            end_s=shot.end_s,
            boxes=boxes,
            keypoints=keypoints,
            camera_turn=camera_rotation,
        )

    @staticmethod
    def camera(footage: SceneFootage, to_source: Float[np.ndarray, "4 4"]) -> Camera:
        """The scene's camera in the world of a motion."""
        position, K = -np.einsum("tij,ti->tj", footage.R, footage.t), footage.K
        intrinsics = np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]], np.float32)
        return camera_in_motion(Camera(rotation=footage.R, position=position, intrinsics=intrinsics), to_source)
