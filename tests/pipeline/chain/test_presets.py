"""Presets lie under a job's own settings."""

from pathlib import Path

import pytest
import yaml

from pipeline.chain.config import IngestConfig
from pipeline.chain.presets import preset_names, preset_stages
from schemas.config import load_config, parse_config
from schemas.errors import UsageError

SMALLEST = {"sources": [{"path": "videos/"}], "output": "data"}


def job(**more: object) -> IngestConfig:
    return parse_config({**SMALLEST, **more}, IngestConfig, "job.yaml")


def test_the_published_ones_are_there() -> None:
    assert preset_names() == ["mbench", "motionmillion", "romo"]


@pytest.mark.parametrize("name", preset_names())
def test_every_setting_of_a_preset_is_one_and_reaches_the_job(name: str) -> None:
    stages = job(preset=name).stages
    for stage, settings in preset_stages(name).items():
        for key, value in settings.items():
            assert getattr(getattr(stages, stage), key) == value


def test_what_the_job_says_itself_wins() -> None:
    made = job(preset="romo", stages={"score_motion": {"min_dynamic": 0.3}, "cut_clips": {"max_gap_s": 0.1}})
    assert made.stages.score_motion.min_dynamic == 0.3
    assert made.stages.score_motion.max_truncation == preset_stages("romo")["score_motion"]["max_truncation"]
    assert made.stages.cut_clips.max_gap_s == 0.1
    assert made.stages.read_videos.min_fps == 24.0


def test_a_preset_is_nothing_but_its_settings() -> None:
    assert job(preset="mbench").digest == job(stages=preset_stages("mbench")).digest
    assert job(preset="").digest == job().digest != job(preset="mbench").digest
    again = IngestConfig.model_validate(job(preset="romo", stages={"score_motion": {"min_dynamic": 0.2}}).model_dump())
    assert again.stages.score_motion.min_dynamic == 0.2


def test_by_override_and_by_mistake(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(SMALLEST))
    assert load_config(path, IngestConfig, ["preset=romo"]).stages.score_motion.min_dynamic == 0.1
    with pytest.raises(UsageError, match="'rom' is not known; presets: mbench, motionmillion, romo"):
        load_config(path, IngestConfig, ["preset=rom"])
    with pytest.raises(UsageError, match="preset"):
        load_config(path, IngestConfig, ["preset=[romo]"])
    with pytest.raises(UsageError, match="did you mean track_people"):
        load_config(path, IngestConfig, ["preset=romo", "stages.track_peple={}"])
    with pytest.raises(UsageError, match=r"stages\.score_motion"):
        load_config(path, IngestConfig, ["preset=romo", "stages.score_motion=3"])
