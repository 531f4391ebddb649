"""Image-text similarity with small open_clip models of random weights: the code path is real, the values are meaningless."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip_models import WIDTH, open_clip, save_model
from videos import noise_video

from schemas.errors import HumoError
from schemas.records import (
    Camera,
    CaptionedMotion,
    Captions,
    Clip,
    Footage,
    InstructedMotion,
    Motion,
    Provenance,
    ScoredMotion,
    Shot,
    Source,
    Track,
    Transcript,
    Video,
)
from schemas.sample import decode_npz, encode_sample_record, sample_problems
from schemas.skeleton import PARTS
from stages.base import apply
from stages.language.describers.coca import Coca, CocaConfig
from stages.language.describers.protocol import Scene
from stages.score_pictures import SIMILARITY, ScorePictures


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> CaptionedMotion:
    """A constant motion over a video of noise."""
    path = noise_video(tmp_path_factory.mktemp("video") / "noise.mp4", frames=60)
    source, count = Source(id="noise", uri=str(path)), 60
    video = Video(
        source=source, sha256="cd" * 32, width=320, height=240, fps=30.0, duration_s=2.0, has_audio=False
    )  # fmt: skip
    boxes, keypoints = np.tile([40.0, 40.0, 120.0, 200.0], (count, 1)), np.ones((count, 17, 3))
    track = Track(
        shot=Shot(video=video, index=0, start_s=0, end_s=2), person=0, times_s=np.arange(count) / 30, boxes=boxes,
        keypoints=keypoints, models={},
    )  # fmt: skip
    camera = Camera(rotation=np.tile(np.eye(3), (count, 1, 1)), position=np.zeros((count, 3)), intrinsics=np.ones(4))
    motion = Motion(
        provenance=Provenance(source=source, sha256="cd" * 32, person=0, start_s=0.0, end_s=2.0, source_fps=30.0),
        footage=Footage(clip=Clip(track=track, start_s=0.0, end_s=2.0, boxes=boxes, keypoints=keypoints), camera=camera),
        poses=np.zeros((count, 24, 3)), trans=np.zeros((count, 3)), betas=np.zeros(10),
        contacts=np.zeros((count, 4), np.uint8), joint_confidence=np.ones((count, 24)), to_source=np.eye(4),
        body_model="none", models={},
    )  # fmt: skip
    captions = Captions(
        body=("A person stands.", "Somebody waits."), parts=dict.fromkeys(PARTS, ("It rests.",)), events=(),
        writers={"body": "rules", "parts": "rules", "events": "rules", "transcript": "none"},
    )  # fmt: skip
    return CaptionedMotion(
        scored=ScoredMotion(motion=motion, scores={"jitter": 0.1}), captions=captions, transcript=Transcript()
    )


def scored(record: CaptionedMotion, **settings: Any) -> list[Any]:
    stage = ScorePictures(ScorePictures.Config(device="cpu", **settings))
    stage.setup()
    results, rejections = apply(stage, [record])
    return [*results, *rejections]


def test_without_weights_records_pass_and_the_remark_gives_the_reason(captioned: CaptionedMotion) -> None:
    (result,) = scored(captioned)
    assert result.scored.scores == {"jitter": 0.1, SIMILARITY: 0.0}
    assert result.visual_embedding.shape == (0,)
    assert result.scored.motion.models == {}
    assert "no weights come with humo" in ScorePictures().remark()


def test_records_get_a_score_and_an_embedding(captioned: CaptionedMotion, weights: Path) -> None:
    (result,) = scored(captioned, model=str(weights), frames=4)
    assert -1 <= result.scored.scores[SIMILARITY] <= 1
    assert result.scored.scores[SIMILARITY] != 0
    assert result.visual_embedding.shape == (WIDTH,)
    assert np.linalg.norm(result.visual_embedding) == pytest.approx(1, abs=1e-5)
    assert result.scored.motion.models["score_pictures"].startswith("open_clip ")
    (again,) = scored(captioned, model=str(weights), frames=4)
    np.testing.assert_array_equal(again.visual_embedding, result.visual_embedding)
    assert ScorePictures(ScorePictures.Config(model=str(weights))).remark() == ""


def test_the_score_is_the_cosine_of_open_clip(captioned: CaptionedMotion, weights: Path) -> None:
    from PIL import Image

    from stages.language.describers.clip_images import person_crops

    footage = captioned.scored.motion.footage
    assert footage is not None
    (result,) = scored(captioned, model=str(weights), frames=1)
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{weights}")
    (crop,) = person_crops(footage.clip, 1)
    with torch.no_grad():
        image = model.encode_image(prepare(Image.fromarray(crop))[None])
        words = model.encode_text(open_clip.get_tokenizer(f"local-dir:{weights}")(list(captioned.captions.body)))
        cosine = torch.nn.functional.cosine_similarity(image, words).mean()
    assert result.scored.scores[SIMILARITY] == pytest.approx(float(cosine), abs=1e-5)


def test_an_architecture_with_a_weights_file(captioned: CaptionedMotion, weights: Path) -> None:
    """Weights of another architecture are rejected with the cause."""
    file = weights / "open_clip_model.safetensors"
    with pytest.raises(HumoError, match="does not load"):
        scored(captioned, model="RN50", weights=str(file))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "ViT-B-32"}, "is not a folder and has no weights"),
        ({"model": "ViT-B-32", "weights": "nowhere.pt"}, "is not a file"),
        ({"model": "hf-hub:nobody/nothing"}, "does not load"),
    ],
)
def test_missing_weights_are_reported(captioned: CaptionedMotion, settings: dict[str, str], message: str) -> None:
    with pytest.raises(HumoError, match=message):
        scored(captioned, **settings)


def test_records_below_the_limit_are_rejected(captioned: CaptionedMotion, weights: Path) -> None:
    (rejection,) = scored(captioned, model=str(weights), min_similarity=1.0)
    assert rejection.reason == "low_clip_similarity"
    assert rejection.measured < rejection.limit == 1.0


def test_motion_capture_passes(captioned: CaptionedMotion, weights: Path) -> None:
    bare = replace(captioned.scored, motion=replace(captioned.scored.motion, footage=None))
    (result,) = scored(replace(captioned, scored=bare), model=str(weights))
    assert result.scored.scores[SIMILARITY] == 0.0


def test_the_embedding_is_stored(captioned: CaptionedMotion, weights: Path) -> None:
    for settings, length in (({}, 0), ({"model": str(weights)}, WIDTH)):
        (result,) = scored(captioned, **settings)
        sample = encode_sample_record(InstructedMotion(captioned=result, instructions=()), b"clip", "digest")
        stored = decode_npz(sample.members["keypoints.npz"])["visual_embedding"]
        assert (stored.shape, stored.dtype) == ((length,), np.float32)
        assert not [
            problem for problem in sample_problems(sample.key, sample.members, "video") if "keypoints" in problem
        ]


def test_coca_generates_a_sentence(captioned: CaptionedMotion, tmp_path: Path) -> None:
    describer = Coca(
        CocaConfig(model=str(save_model(tmp_path / "coca", generates_text=True)), device="cpu", max_words=5)
    )
    scene = Scene(motion=captioned.scored.motion, rule_captions=captioned.captions, transcript=captioned.transcript)
    answer = describer.describe(scene)
    assert answer.usage.outcome == "answered"
    assert answer.usage.describer.startswith("coca open_clip")
    assert answer.sentences["body"]
    assert describer.describe(scene) == answer
    bare = replace(scene, motion=replace(scene.motion, footage=None))
    assert describer.describe(bare).usage.outcome == "skipped"


def test_a_clip_model_generates_no_text(weights: Path) -> None:
    with pytest.raises(HumoError, match="generates no text"):
        Coca(CocaConfig(model=str(weights), device="cpu"))
