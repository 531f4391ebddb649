"""Scenes and the stage that films them: the ground truth agrees with the images."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mocap_files import body_motion, write_known_bvh

from pipeline.chain.config import IngestConfig
from pipeline.dataset.verify import verify
from pipeline.job.ingest import ingest
from schemas.body_model import BodyModel
from schemas.config import parse_config
from schemas.errors import HumoError
from schemas.kinematics import forward_kinematics
from schemas.ledger import read_ledger
from schemas.records import Motion, Rejection, Source
from schemas.rotations import axis_angle_to_matrix
from schemas.skeleton import COCO_KEYPOINTS
from schemas.storage import Storage
from stages.base import apply
from stages.film_studio import FilmStudio
from stages.geometry.cameras import project
from stages.list_sources import SourceConfig, list_sources
from stages.synthesis.camera_moves import MOVES
from stages.synthesis.environment import TexturedEnvironment
from stages.synthesis.film import Footage
from stages.synthesis.furniture import Box, occluded_points
from stages.synthesis.motions import generate
from stages.synthesis.renderer import Camera, Renderer
from stages.synthesis.scenes import Scene, UnlabelledMotion, film_scene, make_scene, transfer_to_body

SIZE = {"width": 192, "height": 144}


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


@pytest.fixture(scope="module")
def occluded(body: BodyModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Footage]:
    """A person behind furniture."""
    scene = make_scene([generate("wave_left", 2.0, 1, body=body)], 1, body=body, occluders=2, **SIZE)
    return scene, film_scene(scene, tmp_path_factory.mktemp("occluded") / "a.mp4", body=body)


def noiseless_renderer(scene: Scene, body: BodyModel, *, empty: bool = False) -> Renderer:
    """A renderer of the scene without noise and, if `empty`, without its people."""
    people = scene.people
    if empty:
        moved = [replace(p.motion, trans=p.motion.trans + torch.tensor([0.0, 500.0, 0.0])) for p in people]
        people = tuple(replace(p, motion=motion) for p, motion in zip(people, moved, strict=True))
    environment = replace(scene.environment, noise=0.0)
    return Renderer(people, scene.cameras, environment, body, scene.width, scene.height, scene.seed)


def test_visible_keypoints_show_the_person_and_hidden_ones_do_not(
    occluded: tuple[Scene, Footage], body: BodyModel
) -> None:
    scene, footage = occluded
    assert scene.occluders > 0
    (person,) = footage.people
    assert 0.02 < (person.visibility == 0).mean() < 0.6
    full, empty = noiseless_renderer(scene, body), noiseless_renderer(scene, body, empty=True)
    for frame in (0, 30, 59):
        changed = (np.abs(full.render(frame).astype(int) - empty.render(frame)) > 3).any(-1)
        for (x, y), visible in zip(person.keypoints[frame], person.visibility[frame], strict=True):
            if visible == 1:
                assert changed[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].any()
            if visible == 0 and 0 <= x < scene.width and 0 <= y < scene.height:
                assert not changed[int(y), int(x)]
        # The top of the head is the top of the box; nothing of the person is above it.
        rows = np.nonzero(changed.any(1))[0]
        assert rows.min() >= person.boxes[frame, 1] - 2


def test_without_furniture_all_keypoints_are_visible(occluded: tuple[Scene, Footage], body: BodyModel) -> None:
    scene, footage = occluded
    unobstructed = replace(scene, environment=replace(scene.environment, pieces=()))
    points = footage.people[0].keypoints_3d[None]
    for frame in (0, 30):
        visibility = noiseless_renderer(unobstructed, body).visibility(frame, points[:, frame])
        assert (visibility == 1).all()
        assert (visibility >= footage.people[0].visibility[frame]).all()


@pytest.mark.parametrize("move", MOVES)
def test_cameras_move_and_motions_stay_the_same(move: str, body: BodyModel, tmp_path: Path) -> None:
    motion = generate("walk", 2.0, 2, body=body)
    static = make_scene([motion], 3, body=body, **SIZE)
    moving = make_scene([motion], 3, body=body, camera="moving", move=move, **SIZE)
    assert (len(static.cameras), len(moving.cameras)) == (1, 60)
    one, other = static.people[0].placed(body), moving.people[0].placed(body)
    torch.testing.assert_close(one.trans, other.trans, rtol=0, atol=0)
    rotations = np.stack([camera.R for camera in moving.cameras])
    eyes = np.stack([camera.eye for camera in moving.cameras])
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (60, 1, 1)), atol=1e-9)
    angle = np.degrees(np.arccos(np.clip((np.einsum("tij,ij->t", rotations, rotations[0]) - 1) / 2, -1, 1)))
    if move in ("dolly", "arc", "push"):
        assert np.ptp(eyes, axis=0).max() > 0.15
    else:
        assert angle.max() > 0.5
    # No jumps between adjacent frames.
    assert np.abs(np.diff(angle)).max() < 4
    assert np.linalg.norm(np.diff(eyes, axis=0), axis=1).max() < 0.15
    if move == "hand_held":
        footage = film_scene(moving, tmp_path / "a.mp4", body=body)
        (person,) = footage.people
        in_camera = np.einsum("tij,tkj->tki", footage.R, person.keypoints_3d) + footage.t[:, None]
        pixels = in_camera @ footage.K.T
        np.testing.assert_allclose(pixels[..., :2] / pixels[..., 2:], person.keypoints, atol=1e-6)
        low, high = person.boxes[:, None, :2] - 1, person.boxes[:, None, 2:] + 1
        assert ((person.keypoints > low) & (person.keypoints < high)).all()
        assert person.visibility.mean() > 0.8


def test_the_same_scene_gives_the_same_bytes(body: BodyModel, tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        motions = [generate("squat", 1.5, 0, body=body), generate("walk", 2.0, 1, body=body)]
        scene = make_scene(motions, 4, body=body, camera="moving", occluders=1, crossing=True, **SIZE)
        assert len(scene) == 45
        path = tmp_path / f"{name}.mp4"
        film_scene(scene, path, body=body)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_people_keep_a_distance(body: BodyModel) -> None:
    for seed in range(2):
        motions = [generate("walk", 2.0, seed, body=body), generate("run", 2.0, seed, body=body)]
        motions.append(generate("wave_both", 2.0, seed, body=body))
        scene = make_scene(motions, seed, body=body, **SIZE)
        joints = []
        for person in scene.people:
            motion = person.placed(body)
            rest = body.rest_joints(motion.betas)
            joints.append(forward_kinematics(motion.rotations, rest, motion.trans)[0])
        for a in range(3):
            for b in range(a):
                gap = (joints[a][:, :, None] - joints[b][:, None])[..., [0, 2]].norm(dim=-1)
                assert gap.min() > 0.2


@pytest.mark.parametrize("size", [-1.5, 1.5])
def test_transfer_to_another_body_keeps_feet_planted(size: float, body: BodyModel) -> None:
    motion = generate("walk", 3.0, 0, body=body, betas=torch.zeros(10))
    plain = UnlabelledMotion(motion.rotations, motion.trans)
    betas = torch.zeros(10)
    betas[0] = size
    transferred = transfer_to_body(plain, betas, body)
    joints, rotations = forward_kinematics(transferred.rotations, body.rest_joints(betas), transferred.trans)
    feet = body.contact_rig().points(rotations, joints, betas)
    standing = transferred.contacts[1:] & transferred.contacts[:-1]
    assert standing.float().mean() > 0.3
    step = (feet[1:] - feet[:-1])[..., [0, 2]].norm(dim=-1)[standing]
    assert step.median() < 0.004
    assert feet[..., 1].quantile(0.1).abs() < 0.03


def test_boxes_occlude_points_behind_them() -> None:
    box = Box((0.0, 1.0, 0.0), (0.5, 1.0, 0.1), 0.4, 0)
    eyes = np.array([[0.0, 1.0, 5.0]])
    points = np.array([[[0.0, 1.0, -2.0], [0.0, 1.0, 2.0], [2.0, 1.0, -2.0], [0.0, 2.5, -1.0]]])
    assert occluded_points([(box,)], eyes, points).tolist() == [[True, False, False, False]]
    np.testing.assert_allclose(np.abs(box.to_local(box.corners)), np.tile(box.half_extents, (8, 1)), atol=1e-12)


def test_a_wall_point_has_the_same_colour_from_all_cameras() -> None:
    rng = np.random.default_rng(3)
    environment = TexturedEnvironment.draw(
        rng, np.array([-4.0, 0.0, -4.0]), np.array([4.0, 3.0, 4.0]), [], outdoors=False
    )
    points = np.stack([rng.uniform(-1.5, 1.5, 400), rng.uniform(0.5, 2.2, 400), np.full(400, -4.0)], 1)
    colours = []
    for x in (-1.0, 0.8):
        camera = Camera.look_at(np.array([x, 1.5, 1.0]), np.array([0.0, 1.4, -4.0]), 400.0, 640, 480)
        view = environment.render_background(camera, 640, 480)
        pixels = np.floor(camera.project(points)).astype(int)
        colours.append(view.image[pixels[:, 1], pixels[:, 0]])
        assert view.depth is not None
        depth = (points @ camera.R.T + camera.t)[:, 2]
        np.testing.assert_allclose(view.depth[pixels[:, 1], pixels[:, 0]], depth, rtol=0.02)
    # The images differ only by slight blur and shifts of a pixel.
    assert np.median(np.abs(colours[0] - colours[1])) < 6
    mean = colours[0].mean(0)
    assert np.median(np.abs(colours[0] - mean)) > 0


def test_invalid_scenes_raise(body: BodyModel) -> None:
    motion = generate("stand", 1.5, 0, body=body)
    with pytest.raises(HumoError, match="no camera move"):
        make_scene([motion], 0, body=body, camera="moving", move="fly")
    with pytest.raises(HumoError, match="no motion"):
        make_scene([], 0, body=body)
    with pytest.raises(HumoError, match=r"60\.0 frames/s"):
        make_scene([replace(motion, fps=60.0)], 0, body=body)


def studio(folder: Path, **settings: object) -> FilmStudio:
    stage = FilmStudio(FilmStudio.Config(folder=str(folder), seconds=2.0, **{**SIZE, **settings}))
    stage.setup()
    return stage


def source(uri: str, name: str = "one", kind: str = "studio") -> Source:
    return Source(id=name, uri=uri, kind=kind)


def test_motions_project_onto_their_keypoints(body: BodyModel, tmp_path: Path) -> None:
    stage = studio(tmp_path, moving=1.0, occluded=0.0, company=1.0, takes=2, min_visible=0.0)
    motions, rejections = apply(stage, [source("studio:walk#3")])
    assert rejections == []
    assert [(m.footage.clip.track.shot.index, m.provenance.person) for m in motions] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len({motion.id for motion in motions}) == 4
    for motion in motions:
        assert isinstance(motion, Motion)
        assert motion.footage is not None
        clip = motion.footage.clip
        rest = body.rest_joints(torch.from_numpy(motion.betas))
        rotations = axis_angle_to_matrix(torch.from_numpy(motion.poses))
        joints, global_rotations = forward_kinematics(rotations, rest, torch.from_numpy(motion.trans))
        assert np.abs(joints[0, 0, [0, 2]].numpy()).max() < 1e-5
        points = body.keypoint_rig().points(global_rotations, joints, torch.from_numpy(motion.betas)).numpy()
        np.testing.assert_allclose(project(points, motion.footage.camera), clip.keypoints[..., :2], atol=0.05)
        assert clip.keypoints.shape == (60, len(COCO_KEYPOINTS), 3)
        assert clip.start_s == pytest.approx(2.0 * clip.track.shot.index)
        assert clip.camera_turn is not None
        assert np.abs(clip.camera_turn[0]).max() < 1e-6
        assert np.abs(clip.camera_turn).max() > 1e-3
        assert motion.contacts.any()
    walker = motions[0]
    assert walker.provenance.source.description.startswith("a person walks")
    assert walker.provenance.source.uri == "studio:walk#3"
    assert walker.provenance.sha256 == hashlib.sha256((tmp_path / "one.mp4").read_bytes()).hexdigest()


def test_sources_that_cannot_be_filmed_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "short.bvh").write_text("HIERARCHY\nROOT")
    reasons = {
        "studio:fly#1": "no_such_action", "studio:walk": "no_such_action", str(tmp_path / "gone.bvh"): "missing",
        str(tmp_path / "film.mp4"): "missing", str(tmp_path / "short.bvh"): None,
    }  # fmt: skip
    sources = [source(uri, f"s{number}") for number, uri in enumerate(reasons)]
    sources += [source("studio:walk#0", "kind", "mocap"), source("studio:walk#0", "a.b")]
    motions, rejections = apply(studio(tmp_path), sources)
    assert motions == []
    assert len(rejections) == len(sources)
    for rejection, reason in zip(rejections, [*reasons.values(), "not_studio", "bad_id"], strict=True):
        assert isinstance(rejection, Rejection)
        assert reason is None or rejection.reason == reason


def test_generated_sources_have_consecutive_seeds() -> None:
    sources = list_sources([SourceConfig(kind="studio", path="generated:walk", count=3, seed=7, licence="CC0-1.0")])
    assert [(source.id, source.uri) for source in sources] == [
        (f"studio-walk-{seed:06d}", f"studio:walk#{seed}") for seed in (7, 8, 9)
    ]
    assert {source.licence for source in sources} == {"CC0-1.0"}
    with pytest.raises(HumoError, match="no such action"):
        list_sources([SourceConfig(kind="studio", path="generated:fly")])
    with pytest.raises(ValueError, match="count and seed belong to"):
        SourceConfig(path="videos", count=3)


def test_a_file_can_be_both_mocap_and_studio_source(tmp_path: Path) -> None:
    path = write_known_bvh(tmp_path / "walk.bvh", body_motion("walk", 3.0), "cmu_bvh")
    kinds = [SourceConfig(kind=kind, path=str(path)) for kind in ("mocap", "studio")]
    assert len({one.id for one in list_sources(kinds)}) == 2


def test_a_job_with_films_is_reproducible(tmp_path: Path) -> None:
    write_known_bvh(tmp_path / "walk.bvh", body_motion("walk", 3.0), "cmu_bvh")
    shards = []
    for name in ("a", "b"):
        settings = {
            "sources": [
                {"kind": "studio", "path": "generated:wave_left", "seed": 5},
                {"kind": "studio", "path": str(tmp_path / "walk.bvh")},
                {"kind": "mocap", "path": str(tmp_path / "walk.bvh")},
            ],
            "output": str(tmp_path / name),
            "splits": {"train": 1.0},
            "stages": {
                "film_studio": {"folder": str(tmp_path / name / "films"), "seconds": 2.0, "company": 0.0, **SIZE}
            },
        }  # fmt: skip
        report = ingest(parse_config(settings, IngestConfig, "job.yaml"))
        assert {shard.subset: shard.samples for shard in report.description.shards} == {"video": 2, "mocap": 1}
        assert verify(str(tmp_path / name)).problems == []
        assert all(len(row["sha256"]) == 64 for row in read_ledger(Storage(tmp_path / name)).to_pylist())
        shards.append([path.read_bytes() for path in sorted((tmp_path / name / "shards").rglob("*.tar"))])
    assert shards[0] == shards[1]
