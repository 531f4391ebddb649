"""The dry run: its report on pending, done and unreadable sources; and that it writes nothing."""

import json
from pathlib import Path

import pytest
from mocap_files import body_motion, write_known_bvh
from videos import audio_only, noise_video

from pipeline.chain.config import IngestConfig
from pipeline.chain.work_item import WorkItem
from pipeline.dataset.commits import commit
from pipeline.job.ingest import ingest
from pipeline.planning.plan import make_plan
from pipeline.planning.plan_text import WIDTH, plan_text
from schemas.config import parse_config
from schemas.records import Rejection
from schemas.storage import Storage
from stages.list_sources import list_sources


@pytest.fixture(scope="module")
def mocap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five takes of 3 to 11 s and one that cannot be read."""
    folder = tmp_path_factory.mktemp("takes")
    for number, seconds in enumerate((3.0, 4.0, 6.0, 8.0, 11.0)):
        write_known_bvh(folder / f"take{number}.bvh", body_motion("walk", seconds), "cmu_bvh")
    (folder / "broken.bvh").write_text("HIERARCHY\nROOT")
    return folder


def job(sources: list[dict[str, object]], output: Path, **more: object) -> IngestConfig:
    return parse_config({"sources": sources, "output": str(output), **more}, IngestConfig, "job.yaml")


def mocap_job(mocap_folder: Path, output: Path, **more: object) -> IngestConfig:
    return job([{"kind": "mocap", "path": str(mocap_folder)}], output, **more)


def check_text(plan: dict) -> str:
    text = plan_text(plan)
    assert all(len(line) <= WIDTH for line in text.splitlines()), max(text.splitlines(), key=len)
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan
    return text


def test_probing_without_a_sample(mocap_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise_video(tmp_path / "in" / "noise.mp4", frames=60)
    audio_only(tmp_path / "in" / "sound.mp4")
    sources = [{"kind": "mocap", "path": str(mocap_folder)}, {"path": str(tmp_path / "in")}]
    sources += [{"kind": "studio", "path": "generated", "count": 2}]
    plan = make_plan(job(sources, tmp_path / "data"))
    assert plan["sources"]["to_do"] == plan["sources"]["probed"] == 10
    unreadable = plan["sources"]["probed_and_unreadable"]
    assert unreadable.pop("no_picture_stream") == 1
    assert list(unreadable.values()) == [1], "the broken take"
    hours = plan["media_hours"]
    assert hours["value"] == pytest.approx((32 + 2 + 10) / 3600, rel=0.03)
    assert hours["low"] == hours["high"]
    assert plan["estimate"] is plan["measured"] is None
    assert "--sample" in check_text(plan)
    assert not (tmp_path / "data").exists()


def test_a_sample_of_all_sources_matches_the_job(mocap_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    config = mocap_job(mocap_folder, output, prices={"cpu_hour_usd": 0.04, "gib_month_usd": 0.02})
    messages: list[str] = []
    plan = make_plan(config, sample=10, log=messages.append)
    assert len(messages) == 6
    assert not output.exists()
    report = ingest(config)
    measured = plan["measured"]["stages"]
    for name, count in report.stages.items():
        assert (measured[name]["in"], measured[name]["out"]) == (count.records_in, count.records_out)
        assert measured[name]["rejected"] == dict(count.reasons)
    estimate = plan["estimate"]
    assert estimate["clips"] == pytest.approx({"value": report.samples, "low": report.samples, "high": report.samples})
    assert estimate["motion_hours"]["value"] == pytest.approx(report.description.counts["hours"], rel=1e-4)
    parts = sum(path.stat().st_size - 1024 for path in (output / "parts").glob("*.tar"))  # less each tar's end mark
    assert estimate["part_bytes"]["value"] == pytest.approx(parts)
    assert estimate["gpu_hours"]["value"] == 0
    assert 0 < estimate["cost"]["computing_usd"]["value"] == pytest.approx(0.04 * estimate["cpu_core_hours"]["value"])
    assert estimate["cost"]["storage_usd_a_month"]["value"] == pytest.approx(2 * parts / 2**30 * 0.02)
    assert estimate["cost"]["not_priced"] == ["gpu_hour_usd"]
    text = check_text(plan)
    assert "all measured" in text
    assert "not priced: gpu_hour_usd" in text
    again = make_plan(config, sample=10)
    assert (again["sources"]["to_do"], again["sources"]["done"], again["estimate"]) == (0, 6, None)
    assert "nothing to do" in check_text(again)


def test_a_partial_sample_extrapolates_to_all_sources(mocap_folder: Path, tmp_path: Path) -> None:
    readable = [{"kind": "mocap", "path": str(mocap_folder / "take*.bvh")}]
    expected = make_plan(job(readable, tmp_path / "data"), sample=5)["estimate"]
    partial = make_plan(job(readable, tmp_path / "data"), sample=3)
    motion_hours = partial["estimate"]["motion_hours"]
    assert motion_hours["low"] <= expected["motion_hours"]["value"] <= motion_hours["high"]
    assert motion_hours["value"] == pytest.approx(expected["motion_hours"]["value"], rel=0.05)
    one = make_plan(job(readable, tmp_path / "data"), sample=1)
    assert one["estimate"]["clips"]["low"] is None
    assert "unknown: one measured" in check_text(one)


def test_gpu_hours_and_wall_clock_follow_the_resources(mocap_folder: Path, tmp_path: Path) -> None:
    resources = {"score_motion": {"cpus": 1, "gpus": 0.25, "workers": 4}, "read_mocap": {"workers": 50}}
    cluster = {"kind": "ray", "address": "auto"}
    plan = make_plan(mocap_job(mocap_folder, tmp_path / "data", engine=cluster, resources=resources), sample=2)
    stages = plan["measured"]["stages"]
    assert plan["estimate"]["gpu_hours"]["value"] == pytest.approx(stages["score_motion"]["wall_hours"]["value"] / 4)
    workers = {row["stage"]: row["workers"] for row in plan["chain"]}
    assert (workers["score_motion"], workers["read_mocap"], workers["encode_clip"]) == (4, 6, 1)
    assert "joins no cluster" in plan["remarks"]["engine"]
    hours = plan["estimate"]["wall_clock"]["hours"]["value"]
    assert hours >= stages["score_motion"]["wall_hours"]["value"] / 4
    assert hours >= stages["write_captions"]["wall_hours"]["value"]
    assert plan["estimate"]["wall_clock"]["bound_by"].split(" to ")[0] in stages
    check_text(plan)


def test_failed_and_outdated_sources_are_counted(mocap_folder: Path, tmp_path: Path) -> None:
    config = mocap_job(mocap_folder, tmp_path / "data")
    failed, *_, judged = make_work_items(config)
    failed.rejections.append(Rejection(id=failed.source.id, stage="score_motion", reason="timed_out"))
    judged.rejections.append(Rejection(id=judged.source.id, stage="read_mocap", reason="too_short"))
    commit(Storage(config.output), [failed], config.digest)
    commit(Storage(config.output), [judged], "0" * 12)
    sources = make_plan(config)["sources"]
    assert (sources["to_do"], sources["done"]) == (4, 2)
    assert (sources["quarantined"], sources["done_under_other_settings"]) == (1, 1)
    assert "2 done (1 quarantined, 1 under other settings)" in check_text(make_plan(config))


def make_work_items(config: IngestConfig) -> list[WorkItem]:
    return [WorkItem(source=source, records=[]) for source in list_sources(config.sources)]


@pytest.mark.slow
def test_a_sampled_film_leaves_no_files(tmp_path: Path) -> None:
    films = tmp_path / "films"
    studio = {"folder": str(films), "width": 96, "height": 72, "seconds": 2.0, "company": 0.0, "occluded": 0.0}
    sources = [{"kind": "studio", "path": "generated:stand", "count": 3}]
    plan = make_plan(job(sources, tmp_path / "data", stages={"film_studio": studio}), sample=1)
    assert plan["estimate"]["film_bytes"]["value"] > 0
    assert plan["measured"]["media_s"] == 2.0
    assert not films.exists()
    assert not (tmp_path / "data").exists()
    check_text(plan)
