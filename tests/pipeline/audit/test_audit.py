"""Statistics, queries, report, view, drawings and animations of a small synthetic dataset."""

import importlib.util
import itertools
import json
import random
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from audit_helpers import HEIGHT, WIDTH, XSS, body_joints, footage, make_dataset, make_sample, mp4, walker
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.query import print_table, query, table_rows
from pipeline.audit.report import write_report
from pipeline.audit.summaries import ACCURACY, Count, Histogram, Moments, MomentsByShard, merge
from pipeline.audit.view import view
from pipeline.rendering import animation, drawing, overlay
from schemas.dataset import TOMBSTONES, read_description, write_description, write_table
from schemas.errors import HumoError, UsageError
from schemas.records import Source
from schemas.sample import MotionArrays, decode_motion, decode_npz, sample_problems
from schemas.storage import Storage
from stages.media.decoding import frames, open_container


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("audit") / "walks", title=XSS)


@pytest.fixture
def dataset(packed: str, tmp_path: Path) -> str:
    """A writable copy."""
    return str(shutil.copytree(packed, tmp_path / "walks"))


def remove(dataset: str, key: str) -> None:
    write_table(Storage(dataset), TOMBSTONES, pa.table({"key": [key]}))


def pose_and_position(motion: MotionArrays) -> np.ndarray:
    """Features (T, 75)."""
    return np.concatenate([motion.poses.reshape(len(motion.poses), -1), motion.trans], axis=1)


def test_the_helper_writes_valid_samples() -> None:
    for subset in ("video", "mocap"):
        sample = make_sample(subset, 1)
        assert sample_problems(sample.key, sample.members, subset) == []
        assert sample == make_sample(subset, 1)


class TestSummaries:
    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.randoms())
    def test_histograms_merge_in_any_order_and_grouping(self, values: list[float], rng: random.Random) -> None:
        whole = Histogram()
        for value in values:
            whole.observe(value)
        parts = []
        for value in rng.sample(values, len(values)):
            part = Histogram()
            part.observe(value)
            parts.append(part)
        cut = rng.randrange(len(parts) + 1)
        halves = [merge(some) for some in (parts[cut:], parts[:cut]) if some]
        assert merge(halves) == merge(reversed(halves)) == whole

    @given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=200), st.floats(0, 1))
    def test_quantiles_are_within_the_accuracy(self, values: list[float], share: float) -> None:
        histogram = Histogram()
        for value in values:
            histogram.observe(value)
        exact = float(np.quantile(values, share, method="lower"))
        rank = share * (len(values) - 1)
        upper = float(np.quantile(values, share, method="higher"))
        low, high = sorted([exact, upper])
        tolerance = ACCURACY * max(abs(low), abs(high)) + 1e-8
        assert low - tolerance <= histogram.quantile(share) <= high + tolerance, rank

    def test_counts_merge(self) -> None:
        parts = [Count(1, 1, 30), Count(5, 1, 60), Count(0, 1, 10)]
        assert merge(parts) == merge(parts[::-1]) == merge([merge(parts[:2]), parts[2]]) == Count(6, 3, 100)
        assert parts[0] == Count(1, 1, 30)

    def test_moments_merge_by_chan(self) -> None:
        rows = np.random.default_rng(0).normal(1e3, [1e-2, 5.0], (500, 2))
        pieces = [Moments.of(piece) for piece in np.split(rows, [3, 3, 170, 499])]
        forward, backward = pieces[0], pieces[-1]
        for piece in pieces[1:]:
            forward = forward.merged(piece)
        for piece in pieces[-2::-1]:
            backward = piece.merged(backward)
        for total in (forward, backward, Moments.of(rows)):
            assert total.count == 500
            np.testing.assert_allclose(total.mean, rows.mean(0), rtol=1e-12)
            np.testing.assert_allclose(total.deviation, rows.std(0), rtol=1e-8)

    def test_moments_of_shards_do_not_depend_on_order_to_the_last_bit(self) -> None:
        rng = np.random.default_rng(1)
        shards = [MomentsByShard({f"s{n}": Moments.of(rng.normal(size=(7, 3)) * 10**n)}) for n in range(6)]
        totals = [merge(order).total() for order in (shards, shards[::-1], [merge(shards[3:]), *shards[:3]])]
        assert len({(total.mean.tobytes(), total.squares.tobytes()) for total in totals}) == 1


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="needs the extra beam")
class TestStatistics:
    def test_counts_match_the_catalogue(self, dataset: str) -> None:
        from pipeline.audit.statistics import FEATURES, STATISTICS, compute_statistics

        found = compute_statistics(dataset, featurize=pose_and_position)
        catalogue = query(dataset, "SELECT sum(frames) AS frames, count(DISTINCT source_id) AS sources FROM samples")
        assert found["samples"] == 8
        assert found["frames"] == catalogue["frames"][0].as_py()
        assert found["sources"] == catalogue["sources"][0].as_py()
        assert found["subsets"]["video"]["samples"] == 2
        assert sum(split["samples"] for split in found["splits"].values()) == 8
        assert found["kinds"]["raise"]["times"] == 8
        assert found["parts"]["left_arm"]["samples"] == 8
        assert sum(length["samples"] for length in found["lengths"]) == 8
        assert found["histograms"]["score_reprojection"]["count"] == 2
        assert found["models"]["mocap bvh 1"]["samples"] == 6
        assert found["version"] == read_description(Storage(dataset)).version
        assert found == json.loads(Storage(dataset).read_bytes(STATISTICS))
        features = decode_npz(Storage(dataset).read_bytes(FEATURES))
        assert features["mean"].shape == features["std"].shape == (75,)
        assert features["count"] == found["frames"]

    def test_bytes_do_not_depend_on_the_order_of_shards(self, dataset: str) -> None:
        from pipeline.audit.statistics import FEATURES, STATISTICS, compute_statistics

        storage, results = Storage(dataset), []
        description = read_description(storage)
        for shards in (description.shards, description.shards[::-1]):
            write_description(storage, replace(description, shards=shards))
            compute_statistics(dataset, featurize=pose_and_position)
            results.append((storage.read_bytes(STATISTICS), storage.read_bytes(FEATURES)))
        assert results[0] == results[1]

    def test_removed_samples_and_stale_features_are_dropped(self, dataset: str) -> None:
        from pipeline.audit.statistics import FEATURES, compute_statistics

        compute_statistics(dataset, featurize=pose_and_position)
        remove(dataset, make_sample("mocap", 0, frames=45).key)
        assert compute_statistics(dataset)["samples"] == 7
        assert not Storage(dataset).exists(FEATURES)

    def test_features_by_import_path(self, dataset: str) -> None:
        from pipeline.audit.statistics import compute_statistics

        assert compute_statistics(dataset, featurize="test_audit:pose_and_position")["features"]["dimensions"] == 75
        with pytest.raises(UsageError, match="no such function"):
            compute_statistics(dataset, featurize="schemas.sample:nothing")

    def test_missing_options_of_other_runners_are_reported(self, dataset: str) -> None:
        from pipeline.audit.statistics import compute_statistics

        for runner, options, missing in (
            ("dataflow", [], "project"),
            ("dataflow", ["project=p", "region=r"], "temp_location"),
            ("flink", [], "flink_master or job_endpoint"),
            ("flink", ["flink_master=h:1"], "flink_job_server_jar or job_endpoint"),
            ("spark", ["--job_endpoint=h:1"], "sdk_container_image"),
            ("abacus", [], "one of local, dataflow"),
        ):
            with pytest.raises(UsageError, match=missing):
                compute_statistics(dataset, runner=runner, options=options)

    def test_a_broken_shard_is_named(self, dataset: str, caplog: pytest.LogCaptureFixture) -> None:
        from pipeline.audit.statistics import compute_statistics

        shard = Path(dataset, "shards/mocap/train-000000.tar")
        shard.write_bytes(shard.read_bytes()[:700])  # inside the first member
        with pytest.raises(HumoError, match=r"mocap/train-000000\.tar.*fetch it again"):
            compute_statistics(dataset)
        assert "Traceback" not in caplog.text

    def test_a_missing_dataset_is_reported(self, tmp_path: Path) -> None:
        from pipeline.audit.statistics import compute_statistics

        with pytest.raises(HumoError, match=r"no dataset\.json"):
            compute_statistics(str(tmp_path))


class TestQuery:
    def test_views(self, packed: str) -> None:
        joined = query(packed, "SELECT count(*) AS n FROM samples JOIN ledger ON key = record_id")
        assert table_rows(joined) == [{"n": 8}]

    def test_missing_scores_are_null(self, packed: str) -> None:
        rows = table_rows(query(packed, "SELECT DISTINCT score_reprojection AS r FROM samples ORDER BY r NULLS LAST"))
        assert rows == [{"r": 0.03}, {"r": None}]

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT * FROM read_csv('/etc/passwd')", "COPY samples TO 'stolen.csv'", "ATTACH 'other.db'",
            "INSTALL httpfs", "SET enable_external_access = true", "CREATE TABLE t AS SELECT 1", "DELETE FROM samples",
            "SELECT 1; SELECT 2", "", "EXPLAIN ANALYZE COPY samples TO 'stolen.csv'", "SELECT * FROM secret",
        ],
    )  # fmt: skip
    def test_queries_read_no_other_data_and_write_nothing(
        self, packed: str, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret = pa.table({"password": ["x"]})
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError):
            query(packed, sql)
        assert list(tmp_path.iterdir()) == []
        assert secret.num_rows

    def test_errors_name_tables_and_columns(self, packed: str, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no_such.*(?s:.*)samples\(key, subset.*score_dynamic") as caught:
            query(packed, "SELECT no_such FROM samples")
        assert "ledger(source_id" in str(caught.value)
        with pytest.raises(HumoError, match="no dataset there"):
            query(str(tmp_path / "nothing"), "SELECT 1")

    def test_removed_and_a_bucket(self, dataset: str) -> None:
        remove(dataset, "0" * 24)
        bucket = Storage("memory://audit-query")
        for path in Storage(dataset).list("", ".parquet"):
            bucket.write_bytes(path, Storage(dataset).read_bytes(path))
        for address in (dataset, bucket.uri):
            assert query(address, "SELECT key FROM removed")["key"].to_pylist() == ["0" * 24]
            assert query(address, "SELECT key FROM samples").num_rows == 8

    def test_printing(self, packed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "100")
        print_table(query(packed, "SELECT key, frames FROM samples ORDER BY key"), limit=3)
        assert "3 of 8 rows" in capsys.readouterr().out
        print_table(query(packed, "SELECT * FROM samples LIMIT 1"))
        assert re.search(r"score_visibility\s+0\.9", capsys.readouterr().out)


class _Page(HTMLParser):
    """Collects the scripts, fetched addresses and text of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.scripts, self.fetched, self.text, self._tag = 0, [], "", ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action") and not (value or "").startswith(("data:", "#")):
                self.fetched.append(value)
            assert not name.startswith("on"), f"{tag} has a handler {name}"

    def handle_data(self, data: str) -> None:
        if self._tag not in ("script", "style"):
            self.text += data


class TestReport:
    def test_is_self_contained_escaped_and_reproducible(self, dataset: str) -> None:
        path = Path(write_report(dataset))
        assert path == Path(dataset) / "report" / "index.html"
        content = path.read_text()
        page = _Page(content)
        assert page.scripts == 2
        assert page.fetched == []
        assert XSS in page.text
        assert "url(" not in content
        for word in ("CC-BY-4.0", "foot slide", "too short", "A person walks forward", "humo-anny", "0123456789ab"):
            assert word in page.text
        write_report(dataset)
        assert path.read_text() == content

    def test_leaves_removed_samples_out_and_writes_elsewhere(self, dataset: str, tmp_path: Path) -> None:
        key = make_sample("video", 0, title=XSS).key
        remove(dataset, key)
        content = Path(write_report(dataset, tmp_path / "deep" / "page.html")).read_text()
        assert key not in content
        assert "1 sample was removed" in _Page(content).text

    def test_a_dataset_without_accepted_samples(self, dataset: str) -> None:
        storage = Storage(dataset)
        for path in [*storage.list("catalogue"), *storage.list("shards")]:
            storage.delete(path)
        write_description(storage, replace(read_description(storage), shards=[]))
        assert "No samples yet" in Path(write_report(dataset)).read_text()


class TestView:
    def test_a_prefix_is_enough(self, packed: str, tmp_path: Path) -> None:
        for subset, has_clip in (("video", True), ("mocap", False)):
            key = query(packed, f"SELECT min(key) AS key FROM samples WHERE subset = '{subset}'")["key"][0].as_py()
            content = Path(view(packed, key[:10], tmp_path / "page.html")).read_text()
            page = _Page(content)
            assert page.fetched == []
            assert page.scripts == 2
            assert ("data:video/mp4" in content) == has_clip
            assert key in page.text
            assert "the left hand goes up" in page.text

    def test_errors(self, dataset: str) -> None:
        keys = query(dataset, "SELECT key FROM samples ORDER BY key")["key"].to_pylist()
        with pytest.raises(UsageError, match="no sample of"):
            view(dataset, "0" * 23)
        with pytest.raises(UsageError, match="hexadecimal"):
            view(dataset, "' OR 1=1 --")
        shared = next(key[0] for key, after in itertools.pairwise(keys) if key[0] == after[0])
        with pytest.raises(UsageError, match="give more digits"):
            view(dataset, shared)
        remove(dataset, keys[0])
        with pytest.raises(UsageError, match="was removed"):
            view(dataset, keys[0])


class TestDrawing:
    def test_left_is_blue_right_is_orange(self) -> None:
        video, _ = footage(walker(0, 2), Source(id="a", uri="b"))
        blank = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        drawn = drawing.draw_keypoints(blank, video.clip.keypoints[0])
        assert (blank == 128).all()
        # The person faces the camera: their left is on the right of the image.
        for colour, sign in ((drawing.LEFT, 1), (drawing.RIGHT, -1)):
            columns = np.nonzero((drawn == colour).all(-1))[1]
            assert len(columns) > 10
            assert sign * (columns.mean() - video.clip.keypoints[0, :, 0].mean()) > 0

    def test_hidden_points_and_points_outside_the_image_are_skipped(self) -> None:
        blank = np.zeros((40, 60, 3), np.uint8)
        assert (drawing.draw_keypoints(blank, np.zeros((17, 3))) == blank).all()
        points = np.full((24, 2), np.nan)
        points[:3] = [[1e12, -1e12], [30, 20], [-5, 20]]
        assert drawing.draw_body(blank, points).any()
        assert (
            drawing.draw_legend(drawing.draw_box(blank, np.array([-9.0, -9, 99, 99]), "person 1")).shape == blank.shape
        )

    def test_overlay_of_a_source(self, tmp_path: Path) -> None:
        dataset = make_dataset(tmp_path / "data", video=2, mocap=1)
        (samples,) = list(overlay.read_recovered_samples(dataset).values())[:1]
        images = [np.zeros((240, 320, 3), np.uint8)] * 12
        (tmp_path / "in.mp4").write_bytes(mp4(images))
        path = overlay.overlay_source(str(tmp_path / "in.mp4"), samples, tmp_path / "out.mp4")
        shown = [frame.image for frame in frames(str(path))]
        assert len(shown) == 12
        assert shown[0].shape == images[0].shape
        assert shown[0].max() > 60

    def test_an_overlay_shows_the_black_borders(self, tmp_path: Path) -> None:
        picture = np.random.default_rng(0).integers(60, 255, (240, 240, 3), np.uint8)
        (tmp_path / "in.mp4").write_bytes(mp4([np.pad(picture, ((0, 0), (40, 40), (0, 0)))] * 12))
        path = overlay.overlay_source(str(tmp_path / "in.mp4"), [], tmp_path / "out.mp4")
        with open_container(str(path)) as container:
            assert (container.streams.video[0].width, container.streams.video[0].height) == (320, 240)


class TestAnimation:
    def test_all_joints_stay_in_the_image(self) -> None:
        for seed in range(3):
            arrays = walker(seed, 90)
            arrays["trans"][:, 2] *= 6
            joints = body_joints(arrays)
            for row, camera in zip(joints, animation.following_views(joints, width=320, height=240), strict=True):
                pixels = camera.project(row)
                assert (camera.depth(row) > 0.3).all()
                assert (pixels > 0).all()
                assert (pixels < (320, 240)).all()
                np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-9)
                assert np.linalg.det(camera.rotation) > 0

    def test_stick_figure_and_body(self, tmp_path: Path) -> None:
        motion = decode_motion(make_sample("mocap", 0, frames=4).members["motion.npz"])
        joints = animation.motion_joints(motion)
        for source, name in ((joints, "stick.mp4"), (motion, "body.mp4")):
            text = "Ein Mensch geht über die Straße – and the caption goes on and on"
            assert animation.render_motion_video(source, tmp_path / name, text, width=160, height=120) == 4
            shown = [frame.image for frame in frames(str(tmp_path / name))]
            assert len(shown) == 4
            assert shown[0].shape == (120, 160, 3)
            assert shown[0].std() > 10
        with pytest.raises(ValueError, match="expected"):
            animation.render_motion_video(joints[:, :22], tmp_path / "no.mp4")

    def test_packed_joints_round_trip(self) -> None:
        import base64

        joints = body_joints(walker(2, 30))
        packed = animation.pack_joints(joints, every=2)
        values = np.frombuffer(base64.b64decode(packed["data"]), "<i2").reshape(-1, 24, 3) * packed["unit"]
        np.testing.assert_allclose(values, joints[::2], atol=1e-4)
