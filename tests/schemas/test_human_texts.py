"""Sentences of people about takes."""

import json
from pathlib import Path

import pytest

from schemas.errors import UsageError
from schemas.human_texts import Sentence, name_words, read_texts


def test_sentences_keep_their_source_and_span(tmp_path: Path) -> None:
    content = {
        "01_01": {
            "cmu_description": "walk",
            "humanml3d_test": [{"id": "7", "start_20fps": 20, "end_20fps": 60, "texts": ["he turns", "walk"]}],
            "kitml": {"duration_s": 3.0, "texts": ["A person walks."]},
        }
    }
    (tmp_path / "texts.json").write_text(json.dumps(content))
    (tmp_path / "trials.json").write_text(json.dumps({"walking_1": {"trial": "01_01"}}))
    texts = read_texts([str(tmp_path / "texts.json"), str(tmp_path / "trials.json")])
    assert texts.sentences("walking_1") == (
        Sentence("walk", "cmu_description"),
        Sentence("he turns", "humanml3d_test", 1.0, 3.0),
        Sentence("A person walks.", "kitml"),
    )
    assert texts.of("walking_1") == ("walk", "he turns", "A person walks.")
    assert texts.of("side_step") == ("side step",)
    assert texts.sentences("side_step") == ()


def test_tables_have_descriptions(tmp_path: Path) -> None:
    (tmp_path / "index.tsv").write_text("motion\tdescription\tsubject\n02_01\twalk\tSubject 2\n")
    assert read_texts([str(tmp_path / "index.tsv")]).sentences("02_01") == (Sentence("walk", "description"),)


@pytest.mark.parametrize("content", ["[1]", "{", "null"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "texts.json").write_text(content)
    with pytest.raises(UsageError, match=r"texts\.json"):
        read_texts([str(tmp_path / "texts.json")])


@pytest.mark.parametrize(
    ("take", "words"),
    [
        ("dataset-2_wave-left-hand_active_025", "wave left hand active"),
        ("humanoid3d_spinkick", "spinkick"),
        ("train_directing_traffic_1", "directing traffic"),
        ("07_12", ""),
    ],
)
def test_words_of_names(take: str, words: str) -> None:
    assert name_words(take) == words
