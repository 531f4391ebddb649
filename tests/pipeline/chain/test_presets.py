"""Presets as defaults for a job's settings."""

from pathlib import Path

import pytest
import yaml

from pipeline.chain.config import IngestConfig
from pipeline.chain.presets import preset_names, preset_stages
from schemas.config import load_config, parse_config
from schemas.errors import UsageError

MINIMAL = {"sources": [{"path": "videos/"}], "output": "data"}


def job(**more: object) -> IngestConfig:
    return parse_config({**MINIMAL, **more}, IngestConfig, "job.yaml")


def test_the_presets_exist() -> None:
    assert preset_names() == ["mbench", "motionmillion", "romo", "whole_bodies"]


@pytest.mark.parametrize("name", preset_names())
def test_every_setting_of_a_preset_is_valid_and_applied(name: str) -> None:
    stages = job(preset=name).stages
    for stage, settings in preset_stages(name).items():
        for key, value in settings.items():
            assert getattr(getattr(stages, stage), key) == value


def test_the_jobs_own_settings_take_precedence() -> None:
    config = job(preset="romo", stages={"score_motion": {"min_dynamic": 0.3}, "cut_clips": {"max_gap_s": 0.1}})
    assert config.stages.score_motion.min_dynamic == 0.3
    assert config.stages.score_motion.max_truncation == preset_stages("romo")["score_motion"]["max_truncation"]
    assert config.stages.cut_clips.max_gap_s == 0.1
    assert config.stages.read_videos.min_fps == 24.0


def test_a_preset_is_equivalent_to_its_settings() -> None:
    assert job(preset="mbench").digest == job(stages=preset_stages("mbench")).digest
    assert job(preset="").digest == job().digest != job(preset="mbench").digest
    config = IngestConfig.model_validate(job(preset="romo", stages={"score_motion": {"min_dynamic": 0.2}}).model_dump())
    assert config.stages.score_motion.min_dynamic == 0.2


def test_presets_by_override_and_invalid_presets(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    assert load_config(path, IngestConfig, ["preset=romo"]).stages.score_motion.min_dynamic == 0.1
    with pytest.raises(UsageError, match="'rom' is not known; presets: mbench, motionmillion, romo"):
        load_config(path, IngestConfig, ["preset=rom"])
    with pytest.raises(UsageError, match="preset"):
        load_config(path, IngestConfig, ["preset=[romo]"])
    with pytest.raises(UsageError, match="did you mean track_people"):
        load_config(path, IngestConfig, ["preset=romo", "stages.track_peple={}"])
    with pytest.raises(UsageError, match=r"stages\.score_motion"):
        load_config(path, IngestConfig, ["preset=romo", "stages.score_motion=3"])
