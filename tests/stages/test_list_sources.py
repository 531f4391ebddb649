import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from videos import noise_video

from schemas.errors import UsageError
from stages.base import apply
from stages.list_sources import SourceConfig, list_sources, passed_over
from stages.media.decoding import frames
from stages.read_videos import ReadVideos


def listed(path: Path | str, **more: str) -> list:
    return list_sources([SourceConfig(path=str(path), **more)])


def test_file_folder_and_glob_agree(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.mp4", "deep/b.webm", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    by_folder = listed(tmp_path)
    assert [Path(source.uri).name for source in by_folder] == ["a.mp4", "b.webm"]
    assert listed(tmp_path / "a.mp4") == by_folder[:1]
    assert listed(tmp_path / "*.mp4") == by_folder[:1]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_all_manifest_formats_give_the_same_sources(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"uri": "a.mp4", "id": "one", "title": "Läuft, schnell", "licence": "CC-BY-4.0"},
        {"uri": "/b.mp4", "id": "two"},
    ]
    path = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        path.write_text('uri,id,title,licence\na.mp4,one,"Läuft, schnell",CC-BY-4.0\n/b.mp4,two,,\n')
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    one, two = listed(path, licence="mine")
    assert (one.id, one.uri, one.title, one.licence) == ("one", str(tmp_path / "a.mp4"), "Läuft, schnell", "CC-BY-4.0")
    assert (two.uri, two.licence, two.title) == ("/b.mp4", "mine", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title\nhello\n", "column `uri`"),
        ("uri,id\na.mp4,x\nb.mp4,x\n", "'x' is used 2 times"),
        ("uri\n", "no rows"),
        ("uri,id\n,x\n", "row 1"),
    ],
)
def test_invalid_manifests_raise(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        listed(tmp_path / "list.csv")


def test_empty_folder_missing_manifest_and_pattern(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "contains no video"),
        (tmp_path / "no.csv", "does not exist"),
        (tmp_path / "*.mp4", "no file matches"),
    ):
        with pytest.raises(UsageError, match=message):
            listed(path)


def test_ids_are_stable_and_clean(tmp_path: Path) -> None:
    (tmp_path / "my clip, no. 3.mp4").write_bytes(b"x")
    (first,), (again,) = listed(tmp_path), listed(tmp_path)
    assert first.id == again.id
    assert first.id.startswith("my-clip-no-3-")
    assert not set(first.id) & set("./ ,")


def test_focal_lengths_of_manifest_and_config(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri,focal_35mm\na.mp4,50\nb.mp4,\n")
    one, two = sorted(
        list_sources([SourceConfig(path=str(tmp_path / "list.csv"), focal_35mm=24.0)]), key=lambda s: s.uri
    )
    assert (one.focal_35mm, two.focal_35mm) == (50.0, 24.0)
    assert listed(tmp_path / "a.mp4")[0].focal_35mm == 0.0
    for invalid in ("wide", "-3", "4000", "inf"):
        (tmp_path / "list.csv").write_text(f"uri,focal_35mm\na.mp4,{invalid}\n")
        with pytest.raises(UsageError, match=r"row 1: focal_35mm is"):
            listed(tmp_path / "list.csv")


@pytest.mark.parametrize(
    "name",
    ["take [1].mp4", "what*is?this.mp4", "100%25 %03d.mp4", "Läufer 走る.mp4", "a;b,c'd\"e#f.mp4", "x" * 240 + ".mp4"],
)
def test_names_as_people_write_them(tmp_path: Path, name: str) -> None:
    noise_video(tmp_path / name, frames=40)
    for path in (tmp_path / name, tmp_path):
        (source,) = listed(path)
        assert source.uri == str(tmp_path / name)
        (video,), rejected = apply(ReadVideos(), [source])
        assert not rejected
        assert len(list(frames(video.source.uri, picture=video.picture))) == 40
    (tmp_path / "list.jsonl").write_text(json.dumps({"uri": name}))
    assert [one.uri for one in listed(tmp_path / "list.jsonl")] == [str(tmp_path / name)]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("uri;id;title\na.mp4;12;Grün\n", "utf-8-sig"),
        ("sep=;\r\nURI;Id;Title\r\na.mp4;12;Grün\r\n", "cp1252"),
        ("uri\tid\ttitle\na.mp4\t12\tGrün\n", "utf-16"),
        (",uri,id,title\n0,a.mp4,12.0,Grün\n", "utf-8"),
        ('uri,id,title\n"a.mp4",12.0,"Grün"\n', "utf-16-le"),
    ],
)
def test_manifests_from_spreadsheets_and_data_frames(tmp_path: Path, content: str, encoding: str) -> None:
    (tmp_path / "list.csv").write_bytes(content.encode(encoding))
    (source,) = listed(tmp_path / "list.csv")
    assert (source.uri, source.id, source.title) == (str(tmp_path / "a.mp4"), "12", "Grün")


def test_missing_values_of_a_data_frame(tmp_path: Path) -> None:
    table = pa.table({"uri": ["a.mp4", "b.mp4"], "id": [12.0, float("nan")], "focal_35mm": [float("nan"), 50.0]})
    pq.write_table(table, tmp_path / "list.parquet")
    first, second = sorted(listed(tmp_path / "list.parquet"), key=lambda source: source.uri)
    assert (first.id, first.focal_35mm) == ("12", 0.0)
    assert second.id.startswith("b-")
    assert second.focal_35mm == 50.0


def test_files_of_unknown_kind_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.mp4", "b.GIF", "c.mts", "d.rm", "notes.txt", "clip.xyz", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    assert len(listed(tmp_path)) == 4
    assert "2 files (clip.xyz, notes.txt) passed over" in caplog.text
    assert passed_over([SourceConfig(path=str(tmp_path))]) == ["clip.xyz", "notes.txt"]
    assert passed_over([SourceConfig(path=str(tmp_path / "a.mp4"))]) == []
