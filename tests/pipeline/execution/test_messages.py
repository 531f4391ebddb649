"""Messages of a worker: everything that stages yield comes back equal, and nothing else is loaded."""

import pickle
import pickletools
from typing import Any

import numpy as np
import pytest

from pipeline.chain.work_item import WorkItem
from pipeline.execution.messages import FileRequest, Ready, StageStarted, decode, encode
from schemas.errors import HumoError, UsageError
from schemas.records import Rejection, Sample, Shot, Source, Track, Transcript, Video, Word
from schemas.staging import Look

SOURCE = Source(id="one", uri="v.mp4")


def work_item(*records: Any) -> WorkItem:
    return WorkItem(
        source=SOURCE, records=list(records), looks={"v.mp4": Look(size=1, mtime_ns=2, sha256="")}, generation=3
    )


def sent(*records: Any) -> list[Any]:
    message = decode(encode(work_item(*records)))
    assert isinstance(message, WorkItem)
    assert (message.source, message.generation, message.looks) == (SOURCE, 3, work_item().looks)
    return message.records


def test_records_come_back_equal_and_shared() -> None:
    words = (Word(text="hé", start_s=0.0, end_s=1.0, probability=0.5),)
    video = Video(
        source=SOURCE, sha256="ab", width=3, height=2, fps=float("inf"), duration_s=2.0, has_audio=True,
        transcript=Transcript(language="en", words=words),
    )  # fmt: skip
    shot = Shot(video=video, index=0, start_s=0.0, end_s=2.0)
    tracks = [
        Track(
            shot=shot, person=person, times_s=np.arange(4.0), boxes=np.ones((4, 4), np.float32),
            keypoints=np.asfortranarray(np.random.default_rng(0).random((4, 17, 3))), models={"a": "b"},
        )
        for person in range(2)
    ]  # fmt: skip
    sample = Sample(key="k", subset="video", source_id="one", members={"clip.mp4": b"\0\1"})
    first, second, found = sent(*tracks, sample)
    assert first.shot is second.shot
    assert (first.shot, found) == (shot, sample)
    for one, other in zip((first, second), tracks, strict=True):
        for name in ("times_s", "boxes", "keypoints"):
            ours, theirs = getattr(one, name), getattr(other, name)
            np.testing.assert_array_equal(ours, theirs, strict=True)
            assert (ours.flags.f_contiguous, ours.flags.writeable) == (theirs.flags.f_contiguous, True)
    assert (first.camera_turn, first.models) == (None, {"a": "b"})


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(0, np.float32), np.zeros((0, 4)), np.array(3.5), np.ones((4, 6))[:, ::2], np.array([True, False]),
        np.array(["a", "bc"]), np.arange(3, dtype=">i2"), np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1),
    ],
)  # fmt: skip
def test_arrays(array: np.ndarray) -> None:
    [found] = sent(array)
    np.testing.assert_array_equal(found, array, strict=True)


def test_other_values() -> None:
    values = [
        np.float32(0.1),
        np.int64(7),
        {"a": (1, 2.5, None, True)},
        {1, 2},
        frozenset("a"),
        b"\0",
        "é",
        float("inf"),
    ]
    found = sent(*values)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    "message",
    [
        Ready(description="no network"),
        FileRequest(method="copy", uri="s3://b/v.mp4"),
        StageStarted(
            stage="a", ids=["one"], rejections=[Rejection(id="one", stage="a", reason="b", measured=1.0, limit=2.0)],
            stage_stats={"a": (1, 2, 3, 4.0)}, sha256="",
        ),
    ],
)  # fmt: skip
def test_messages(message: Any) -> None:
    assert decode(encode(message)) == message


def test_errors() -> None:
    found = decode(encode(UsageError("by: choose another")))
    assert (type(found), str(found)) == (UsageError, "by: choose another")
    with pytest.raises(pickle.PicklingError):
        encode(ValueError("no"))  # type: ignore[arg-type]


class Runs:
    """Would run a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("run",))


MODULE = "pipeline.execution.messages"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pickle.dumps(Runs()), "builtins.print"),
        (pickle.dumps(np.dtype("f8")), "numpy.dtype"),
        (pickle.dumps(np.zeros(3)), "numpy"),
        (pickle.dumps(HumoError("x")), "schemas.errors.HumoError"),
        (pickle.dumps({"a": 1}), "a dict is no message"),
        (pickle.dumps(SOURCE), "schemas.records.Source"),
        (b"", "EOFError"),
        (encode(Ready())[:-9], ""),
        # An attribute of a callable, and of what it makes: neither may be changed, nor anything beside the records be made.
        (f"c{MODULE}\nmake_record\nN}}S'name'\nS'x'\ns\x86b.".encode("latin1"), "make_record has no state"),
        (f"c{MODULE}\nmake_record\n(S'Popen'\n(ttR.".encode(), "KeyError"),
        (f"c{MODULE}\nmake_array\n(S'O'\n(I1\ntS'C'\nS'aaaaaaaa'\ntR.".encode(), "an array of 'O'"),
        (f"c{MODULE}\nmake_array\n(S'f8'\n(I9999999\ntS'C'\nS'a'\ntR.".encode(), ""),
        (f"c{MODULE}\n_RECORDS\n.".encode(), "_RECORDS"),
    ],
)
def test_anything_else_is_refused(content: bytes, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pickle.UnpicklingError) as caught:
        decode(content)
    assert why in str(caught.value)
    assert capfd.readouterr().out == ""


def test_a_message_names_only_the_makers() -> None:
    content = encode(work_item(SOURCE, np.zeros(3), np.float64(1.0)))
    strings = [argument for code, argument, _ in pickletools.genops(content) if "UNICODE" in code.name]
    named = {one for one in strings if one and one.startswith(("make_", "numpy", "builtins", "schemas", "pipeline"))}
    assert named == {MODULE, "make_record", "make_array", "make_scalar"}


def test_secrets_stay_hidden() -> None:
    """A source keeps what opens it in memory only, and a message cannot put secrets into texts that are written."""
    source = Source(id="one", uri="https://me:CANARY@host/v.mp4?sig=CANARY")
    (received,) = sent(source)
    assert (received, received.location) == (source, source.location)
    assert "CANARY" not in repr(received)
    rejection = Rejection(id="one", stage="act", reason="error")
    object.__setattr__(rejection, "detail", source.location)
    object.__setattr__(source, "uri", source.location)
    decoded_source, decoded_rejection = sent(source, rejection)
    assert decoded_source.uri == decoded_rejection.detail == "https://host/v.mp4"
    assert "CANARY" not in repr((decoded_source, decoded_rejection))
