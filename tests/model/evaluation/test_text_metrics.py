"""Text metrics against values computed by hand and against published scores of five models."""

import json
import math
from pathlib import Path

import pytest
from shared_data import SHARED_DATA

from model.evaluation.text_metrics import (
    bleu,
    cider,
    longest_common_subsequence,
    normalise,
    read_predictions,
    rouge_l,
    score_texts,
)
from schemas.errors import HumoError, UsageError

TEXTS = SHARED_DATA / "texts"


def test_bleu_by_hand() -> None:
    # 5 of 6 words, 3 of 5 pairs, 1 of 4 triples and no run of four are found; both texts have six words.
    scores = bleu(["a man walks to the left"], [["a man walks on the left"]])
    assert scores == pytest.approx((5 / 6, math.sqrt(5 / 6 * 3 / 5), (5 / 6 * 3 / 5 * 1 / 4) ** (1 / 3), 0.0))


def test_bleu_clips_repeated_words_and_punishes_brevity() -> None:
    assert bleu(["the the the the"], [["the man"]])[0] == pytest.approx(1 / 4)
    assert bleu(["a man"], [["a man walks fast"]])[0] == pytest.approx(math.exp(1 - 4 / 2))
    # Of two references the nearer in length decides.
    assert bleu(["a man"], [["a man walks fast", "a person"]])[0] == pytest.approx(1.0)


def test_bleu_is_of_the_corpus_not_a_mean() -> None:
    predictions, references = ["a b c d", "x"], [["a b c d"], ["y"]]
    assert bleu(predictions, references)[0] == pytest.approx(4 / 5)


def test_rouge_by_hand() -> None:
    assert longest_common_subsequence(["a", "b", "c", "d"], ["a", "c", "e", "d"]) == 3
    precision, recall = 3 / 4, 3 / 5
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l(["a b c d"], [["a c e d f"]]) == pytest.approx(expected)
    # The best precision and the best recall may come from different references.
    assert rouge_l(["a b"], [["a"], ["a b c"]][:1]) < rouge_l(["a b"], [["a", "a b c"]])


def test_cider_by_hand() -> None:
    references = [["walk fast"], ["jump high"]]
    # Orders 1 and 2 match wholly, 3 and 4 are empty: half of ten.
    assert cider(["walk fast", "jump high"], references) == pytest.approx(5.0)
    # One of two words of equal weight: cosine 1 / sqrt(2) of order 1, a bigram without a match, lengths equal.
    assert cider(["walk high", "jump high"], references) == pytest.approx((10 * 0.5 / 4 + 5.0) / 2)
    assert cider(["walk fast"], [["walk fast"]]) == 0.0


def test_cider_fills_missing_references_with_the_first() -> None:
    whole = [["walk fast", "run away", "walk fast"], ["jump high", "hop up", "leap far"]]
    assert cider(["walk fast", "hop up"], [whole[0][:2], whole[1]]) == pytest.approx(
        cider(["walk fast", "hop up"], whole)
    )


def test_unusable_input_is_named() -> None:
    with pytest.raises(HumoError, match="2 predictions but references of 1"):
        score_texts(["a", "b"], [["a"]])
    with pytest.raises(HumoError, match="0 predictions"):
        score_texts([], [])
    with pytest.raises(HumoError, match=r"prediction 1 \('b'\) has no reference"):
        score_texts(["a", "b"], [["a"], []])
    assert score_texts([""], [["a"]]).bleu == (0.0, 0.0, 0.0, 0.0)


def test_predictions_are_read_from_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"prediction": "a", "references": ["b", "c"]}\n\n{"prediction": "d", "references": ["e"]}\n')
    assert read_predictions(file) == (["a", "d"], [["b", "c"], ["e"]])
    for line in ('{"prediction": "a"}', "[]", "{", '{"prediction": "a", "references": "b"}'):
        file.write_text(line)
        with pytest.raises(UsageError, match="line 1"):
            read_predictions(file)
    with pytest.raises(UsageError, match="No such file"):
        read_predictions(tmp_path / "missing.jsonl")


def test_normal_form() -> None:
    tagged = [("a", "a", "DET"), ("man", "man", "NOUN"), ("kicks", "kick", "VERB"), ("left", "leave", "VERB"),
              ("feet", "foot", "NOUN"), (",", ",", "PUNCT"), ("2", "2", "NUM")]  # fmt: skip
    assert normalise(tagged) == "a man kick left foot"


@pytest.mark.shared
@pytest.mark.parametrize("model", ["tm2t", "unimumo", "gt"])
def test_published_scores_with_references_as_written(model: str) -> None:
    """4,400 answers of published models, to the six digits that are published."""
    if not TEXTS.is_dir():
        pytest.skip(f"{TEXTS} is not there: published scores were not checked")
    cases = json.loads((TEXTS / "humanml3d_test_captions.json").read_text())["cases"]
    published = json.loads((TEXTS / "humanml3d_m2t_published.json").read_text())["methods"]
    (expected,) = (method["rawReferenceMetrics"] for method in published if method["id"] == model)
    predictions = [case["references"][0] if model == "gt" else case["outputs"][model] for case in cases]
    scores = score_texts(predictions, [case["references"] for case in cases])
    assert scores.sentences == 4400
    assert scores.bleu[0] == pytest.approx(expected["bleu1"], abs=1e-6)
    assert scores.bleu[3] == pytest.approx(expected["bleu4"], abs=1e-6)
    assert scores.rouge_l == pytest.approx(expected["rougeL"], abs=1e-6)
    assert scores.cider == pytest.approx(expected["cider"], abs=1e-6)
