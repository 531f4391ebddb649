"""Film synthetic people: video with exact SMPL ground truth, from generated motions or motion capture, with any body shape."""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import Field, field_validator

from schemas.body_model import BodyModel
from schemas.devices import torch_threads
from schemas.ids import digest, is_source_id
from schemas.kinematics import forward_kinematics, start_at_origin
from schemas.network import local_path
from schemas.picture import Picture
from schemas.records import FPS, Clip, Footage, Motion, Provenance, Rejection, Shot, Source, Video
from schemas.rotations import matrix_to_axis_angle
from schemas.skeleton import NUM_JOINTS, joint
from schemas.staging import read_source
from schemas.storage import Storage
from stages.base import Stage, StageConfig
from stages.geometry.contacts import find_contacts
from stages.media.encoding import VideoWriter
from stages.mocap import MAX_TAKE_BYTES, read_take
from stages.mocap.matching import find_map
from stages.mocap.retarget import cut, retarget
from stages.mocap.skeletons import candidate_maps
from stages.mocap.take import MocapError
from stages.synthesis import MIN_SECONDS

VERSION = "studio 1"
GENERATED = "studio:"
"""Prefix of the URI of a source without a file: `studio:ACTION#SEED`, with action `*` for any."""


class FilmStudio(Stage[Source, Motion]):
    """Make a film of each source and yield the exact motions of its people.

    A source is an action of the generator with a seed, or a motion-capture file; the pieces of the latter become the shots
    of one film. The source world, into which `Motion.to_source` maps, is that of the shot's scene, with its ground at
    y = 0. Keypoints are exact, also where they are hidden; their confidence is their visibility, 0 to 1.
    """

    class Config(StageConfig):
        """Content and camera work of the films."""

        folder: str = Field("data/films", exclude=True)
        """Folder of the films, SOURCE.mp4; any fsspec path that all workers reach. It affects nothing else."""
        seed: int = 0
        """Seed of bodies, clothes, surroundings, cameras and companions."""
        width: int = Field(640, ge=64, multiple_of=2)
        """Pixels."""
        height: int = Field(480, ge=64, multiple_of=2)
        """Pixels."""
        seconds: float = Field(5.0, ge=MIN_SECONDS)
        """Length of a film of generated motion, seconds; an action takes about four seconds."""
        min_s: float = Field(2.0, ge=MIN_SECONDS)
        """Shortest motion of a file, seconds."""
        max_s: float = 10.0
        """Longest shot, seconds; a longer take is cut into equal pieces."""
        takes: int = Field(1, ge=1)
        """How often each motion is filmed, each time with another body, scene and camera."""
        moving: float = Field(0.4, ge=0, le=1)
        """Share of the shots whose camera moves."""
        occluded: float = Field(0.3, ge=0, le=1)
        """Share of the shots with furniture that occludes people."""
        company: float = Field(0.25, ge=0, le=1)
        """Share of the shots with a second person, who performs a generated motion."""
        min_visible: float = Field(0.5, ge=0, le=1)
        """Smallest mean visibility of a person's keypoints."""
        joint_map: str = "auto"
        """Skeleton of the files; see `read_mocap`."""
        body_model: str = ""
        """Path of a licensed SMPL file (.npz or .pkl); empty for the shipped body."""

        @field_validator("folder")
        @classmethod
        def _absolute(cls, value: str) -> str:
            # Workers have other working directories.
            return value if "://" in value else str(Path(value).expanduser().absolute())

    config: Config

    @property
    def needs_network(self) -> bool:
        """For a folder in a bucket."""
        return local_path(self.config.folder) is None

    def setup(self) -> None:
        """Load the body and the studio, which jobs without films do not import. Raises UsageError for an unknown joint map."""
        from stages.synthesis.studio import Studio

        candidate_maps(self.config.joint_map)
        self._body = BodyModel.load(self.config.body_model or None)
        self._studio = Studio(self._body)
        self._contact_rig = self._body.contact_rig()

    def run(self, record: Source) -> Iterable[Motion | Rejection]:
        """A motion of each person in each shot, or a rejection."""
        if record.kind != "studio":
            return [self.reject(record, "not_studio", f"a source of kind {record.kind!r}: list it with kind: studio")]
        if not is_source_id(record.id):
            detail = f"id {record.id!r}: use at most 128 of letters, digits, - and _, or leave the column out"
            return [self.reject(record, "bad_id", detail)]
        try:
            with torch_threads(1):
                parts = self._generated(record) if record.uri.startswith(GENERATED) else self._recorded(record)
                if isinstance(parts, Rejection):
                    return [parts]
                return self._film(record, parts)
        except MocapError as error:
            return [self.reject(record, error.reason, str(error)[:2000])]
        except OSError as error:
            return [self.reject_unread(record, error)]

    def _generated(self, record: Source) -> "list[_Part] | Rejection":
        action, _, seed = record.uri.removeprefix(GENERATED).partition("#")
        actions = self._studio.actions
        if action not in (*actions, "*") or not seed.isdigit():
            detail = f"{record.uri}: write studio:ACTION#SEED with an action of *, {', '.join(actions)}"
            return self.reject(record, "no_such_action", detail)
        motion = self._studio.generate_motion(action, self.config.seconds, self._seed(action, seed))
        confidence = np.ones((len(motion), NUM_JOINTS), np.float32)
        return [_Part(f"{action}#{seed}", motion, confidence, {self.name: VERSION})]

    def _recorded(self, record: Source) -> "list[_Part] | Rejection":
        content = read_source(record.location, MAX_TAKE_BYTES)
        take = read_take(record.location, content=content, fps=record.fps or None)
        motion = retarget(take, find_map(take, record.joint_map or self.config.joint_map, file=record.uri), self._body)
        frames = len(motion.trans)
        if frames / FPS < self.config.min_s:
            return self.reject(record, "too_short", "seconds", measured=frames / FPS, limit=self.config.min_s)
        pieces = max(1, int(np.ceil(frames / FPS / self.config.max_s - 1e-9)))
        edges = [round(piece * frames / pieces) for piece in range(pieces + 1)]
        sha256, models = hashlib.sha256(content).hexdigest(), {self.name: f"{VERSION}, {take.format}"}
        cuts = [cut(motion, first, last, self._body) for first, last in pairwise(edges)]
        return [
            _Part(f"{sha256}/{first}", piece, piece.joint_confidence, models)
            for first, piece in zip(edges, cuts, strict=False)
        ]

    def _film(self, record: Source, parts: "list[_Part]") -> list[Motion | Rejection]:
        """One film with a shot for each take of each part."""
        buffer = io.BytesIO()
        shots: list[tuple[int, _Part, Any]] = []
        with VideoWriter(buffer, self.config.width, self.config.height, FPS) as writer:
            for part in parts:
                for number in range(self.config.takes):
                    start = writer.frames
                    shots.append((start, part, self._shoot(part, number, writer)))
            frames = writer.frames
        content = buffer.getvalue()
        storage = Storage(self.config.folder)
        name = f"{record.id}.mp4"
        storage.write_bytes(name, content)
        texts = sorted({label.text for _, part, _ in shots for label in getattr(part.motion, "labels", ())})
        described = replace(record, description=record.description or "; ".join(f"a person {text}" for text in texts))
        video = Video(
            source=replace(described, uri=storage.path(name) if storage.is_local else f"{self.config.folder}/{name}"),
            sha256=hashlib.sha256(content).hexdigest(),
            width=self.config.width,
            height=self.config.height,
            fps=FPS,
            duration_s=frames / FPS,
            has_audio=False,
            focal_px=float(shots[0][2].K[0, 0]) if len(shots) == 1 else 0.0,
            picture=Picture(stream=0, width=self.config.width, height=self.config.height, step_s=1 / FPS),
        )
        results: list[Motion | Rejection] = []
        for index, (start, part, footage) in enumerate(shots):
            shot = Shot(video=video, index=index, start_s=start / FPS, end_s=(start + len(footage)) / FPS)
            for number in range(len(footage.people)):
                confidence = part.joint_confidence if number == 0 else np.ones_like(part.joint_confidence)
                clip = self._studio.clip(shot, number, footage, part.models)
                results.append(self._motion(described, clip, footage, confidence))
        return results

    def _shoot(self, part: "_Part", number: int, writer: VideoWriter) -> Any:
        seed = self._seed(part.name, number, "scene")
        rng = np.random.default_rng([seed, 32])
        moving, occluded, company, crossing = rng.random(4) < [
            self.config.moving, self.config.occluded, self.config.company, 0.5,
        ]  # fmt: skip
        return self._studio.shoot(
            part.motion,
            seed,
            rng,
            writer,
            moving=bool(moving),
            occluded=bool(occluded),
            company=bool(company),
            crossing=bool(crossing),
        )

    def _seed(self, *parts: object) -> int:
        return int(digest("studio", self.config.seed, *parts, digits=12), 16)

    def _motion(
        self, source: Source, clip: Clip, footage: Any, joint_confidence: Float[np.ndarray, "T 24"]
    ) -> Motion | Rejection:
        person = footage.people[clip.track.person]
        visible = float(person.visibility.mean())
        if visible < self.config.min_visible:
            detail = "mean visibility of the keypoints"
            return self.reject(clip, "person_hidden", detail, measured=visible, limit=self.config.min_visible)
        rest = self._body.rest_joints(person.betas)
        rotations, trans, to_source = start_at_origin(person.rotations, person.trans, rest[joint("pelvis")])
        joints, global_rotations = forward_kinematics(rotations, rest, trans)
        feet = self._contact_rig.points(global_rotations, joints, person.betas).numpy()
        video = clip.track.shot.video
        return Motion(
            provenance=Provenance(
                source=source,
                sha256=video.sha256,
                person=clip.track.person,
                start_s=clip.start_s,
                end_s=clip.end_s,
                source_fps=FPS,
            ),
            footage=Footage(clip=clip, camera=self._studio.camera(footage, to_source.double().numpy())),
            poses=matrix_to_axis_angle(rotations).numpy().astype(np.float32),
            trans=trans.numpy().astype(np.float32),
            betas=person.betas.numpy().astype(np.float32),
            contacts=find_contacts(feet, 0.0),
            joint_confidence=joint_confidence,
            to_source=to_source.numpy(),
            body_model=self._body.id,
            models=clip.track.models,
        )


@dataclass(frozen=True)
class _Part:
    """A motion to be filmed; `name` identifies it."""

    name: str
    motion: Any
    joint_confidence: Float[np.ndarray, "T 24"]
    models: dict[str, str]
