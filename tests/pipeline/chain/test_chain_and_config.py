from pathlib import Path

import pytest

from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import STAGES, build_chain, check_chain, stage_class
from schemas.config import load_config, parse_config
from schemas.errors import UsageError

MINIMAL = {"sources": [{"path": "videos/"}], "output": "data"}


def job(**more: object) -> IngestConfig:
    return parse_config({**MINIMAL, **more}, IngestConfig, "job.yaml")


def test_the_default_chain_is_consistent() -> None:
    chain = build_chain(job().chain, job().stages, kinds=("video", "mocap", "studio"))
    assert [stage.name for stage in chain] == list(STAGES)
    video = [stage.name for stage in build_chain(job().chain, job().stages)]
    assert video == [name for name in STAGES if name not in ("read_mocap", "film_studio")]
    mocap = [stage.name for stage in build_chain(job().chain, job().stages, kinds=["mocap"])]
    common = ["score_motion", "write_captions", "score_pictures", "write_instructions", "encode_clip"]
    assert mocap == ["read_mocap", *common]
    studio = [stage.name for stage in build_chain(job().chain, job().stages, kinds=["studio"])]
    assert studio == ["film_studio", *mocap[1:]]
    for kind, reader in (("mocap", "read_mocap"), ("studio", "film_studio")):
        with pytest.raises(UsageError, match=f"put {reader} there"):
            build_chain(video, job().stages, kinds=[kind])


@pytest.mark.parametrize(
    ("left_out_stage", "message"),
    [
        ("fit_smpl", "score_motion takes Motion, cut_clips yields Clip: put fit_smpl there"),
        ("track_people", "cut_clips takes Track, split_shots yields Shot: put track_people there"),
        ("encode_clip", "it ends with write_instructions, which yields InstructedMotion: put encode_clip there"),
        ("read_videos", "transcribe takes Video, the list of sources yields Source: put read_videos there"),
    ],
)
def test_an_incomplete_chain_names_the_missing_stage(left_out_stage: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_chain([name for name in STAGES if name != left_out_stage], job().stages)


def test_optional_stages_can_be_left_out_and_unknown_ones_are_reported() -> None:
    left_out = ("transcribe", "keep_human_text", "read_mocap", "film_studio")
    check_chain([stage_class(name) for name in STAGES if name not in left_out])
    with pytest.raises(UsageError, match="'fit_smplx' is no stage"):
        build_chain(["fit_smplx"], job().stages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sources: [{path: a}]\noutput: b\nstages: {track_people: {wieghts: x}}", "did you mean weights"),
        ("sources: [{path: a}]\noutput: b\nstages: {track_peple: {}}", "did you mean track_people"),
        ("sources: [{pth: a}]\noutput: b", "did you mean path"),
        ("sources: [{path: a}]", "output: is missing"),
        ("sources: []\noutput: b", "sources"),
        ("sources: [{path: a}]\noutput: b\nsplits: {train: 0.5}", "add up to 1"),
        ("sources: [{path: a}]\noutput: b\nresources: {fit: {cpus: 1}}", "'fit' is no stage"),
        ("sources: [{path: a}]\noutput: b\nchain: [read_videos, fit]", "'fit' is no stage"),
        ("sources: [{path: a}]\noutput: b\nengine: {kind: spark}", "engine.kind"),
        ("- a\n- b", "mapping"),
        ("sources: [", "not YAML"),
    ],
)
def test_invalid_configs_give_a_remedy(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "job.yaml").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_config(tmp_path / "job.yaml", IngestConfig)


def test_the_digest_depends_on_what_determines_the_samples() -> None:
    plain = job().digest
    assert job(engine={"kind": "ray"}, shard_bytes=2_000_000, output="elsewhere").digest == plain
    assert job(stages={"film_studio": {"folder": "elsewhere"}}).digest == plain
    assert job(stages={"cut_clips": {"max_s": 5.0}}).digest != plain
    assert job(chain=[name for name in STAGES if name != "transcribe"]).digest != plain
