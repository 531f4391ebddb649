"""BLEU, ROUGE-L and CIDEr of generated sentences against reference sentences, over a corpus.

The figures of motion-to-text papers are those of COCO's caption evaluation (Chen et al. 2015, "Microsoft COCO captions: data
collection and evaluation server") on texts split at white space, without its tokenizer: case counts, and a full stop sticks to
the word before it. So do these:

    BLEU-n    Papineni et al. 2002; over the corpus, against the reference of the nearest length, no smoothing
    ROUGE-L   Lin 2004; the best precision and the best recall of the references, beta 1.2, mean over sentences
    CIDEr     Vedantam et al. 2015; CIDEr-D with sigma 6 and factor 10, document frequencies from the references

Papers also differ in the references: as people wrote them, or in the normal form of `normalise`, which HumanML3D's
annotations have. A score is comparable only with others of the same form, so it is printed with every report.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import HumoError, UsageError

Ngrams = Counter[tuple[str, ...]]

_MAX_ORDER = 4
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0


@dataclass(frozen=True, kw_only=True)
class TextScores:
    """Scores of a corpus; all but CIDEr lie between 0 and 1, CIDEr between 0 and 10."""

    sentences: int
    bleu: tuple[float, float, float, float]
    """BLEU-1 to BLEU-4."""
    rouge_l: float
    cider: float


def score_texts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> TextScores:
    """Scores of predicted sentences, each against its references.

    CIDEr averages over a sentence's references. Where their number varies, its first reference fills up to the largest number,
    as the published evaluations do; BLEU and ROUGE-L take the best reference, so repeated ones change nothing.
    Raises HumoError if the numbers of sentences differ, there are none, or a sentence has no reference.
    """
    if len(predictions) != len(references):
        raise HumoError(
            f"{len(predictions)} predictions but references of {len(references)}: give a list of references for each prediction"
        )
    if not predictions:
        raise HumoError("0 predictions: nothing can be scored; give at least one sentence and its references")
    missing = [number for number, several in enumerate(references) if not several]
    if missing:
        raise HumoError(
            f"prediction {missing[0]} ({predictions[missing[0]]!r}) has no reference; leave it out or give one"
        )
    return TextScores(
        sentences=len(predictions),
        bleu=bleu(predictions, references),
        rouge_l=rouge_l(predictions, references),
        cider=cider(predictions, references),
    )


def read_predictions(path: str | Path) -> tuple[list[str], list[list[str]]]:
    """Predictions and their references from JSON lines {"prediction": text, "references": [text, ...]}.

    Raises UsageError for another file."""
    predictions, references = [], []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}; give a readable file of JSON lines") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prediction, several = row["prediction"], row["references"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}, line {number}: {error}; give an object with prediction and references") from None
        if (
            not isinstance(prediction, str)
            or not isinstance(several, list)
            or not all(isinstance(x, str) for x in several)
        ):
            raise UsageError(f"{path}, line {number}: prediction must be a text and references a list of texts")
        predictions.append(prediction)
        references.append(several)
    return predictions, references


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 of a corpus; an order without any match is 0."""
    matches, possible = [0] * _MAX_ORDER, [0] * _MAX_ORDER
    length = reference_length = 0
    for prediction, several in zip(predictions, references, strict=True):
        words, reference_words = prediction.split(), [reference.split() for reference in several]
        length += len(words)
        reference_length += min((abs(len(one) - len(words)), len(one)) for one in reference_words)[1]
        for order in range(1, _MAX_ORDER + 1):
            most: Ngrams = Counter()
            for one in reference_words:
                most |= ngrams(one, order)
            own = ngrams(words, order)
            matches[order - 1] += (own & most).total()
            possible[order - 1] += own.total()
    brevity = 1.0 if length >= reference_length else math.exp(1 - reference_length / max(length, 1))
    scores, log_precision = [], 0.0
    for order in range(_MAX_ORDER):
        if not matches[order]:
            log_precision = -math.inf
        else:
            log_precision += math.log(matches[order] / possible[order])
        scores.append(brevity * math.exp(log_precision / (order + 1)))
    return scores[0], scores[1], scores[2], scores[3]


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean ROUGE-L; texts are split at single spaces, so that two in a row enclose an empty word."""
    total = 0.0
    for prediction, several in zip(predictions, references, strict=True):
        words = prediction.split(" ")
        precision = recall = 0.0
        for reference in several:
            reference_words = reference.split(" ")
            common = longest_common_subsequence(words, reference_words)
            precision, recall = max(precision, common / len(words)), max(recall, common / len(reference_words))
        if precision and recall:
            total += (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)
    return total / len(predictions)


def cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean CIDEr-D; 0 for a corpus of one sentence, in which no word is rarer than another."""
    most = max(map(len, references))
    cooked = [[_all_ngrams(one) for one in (*several, *[several[0]] * (most - len(several)))] for several in references]
    frequency: Ngrams = Counter()
    for one in cooked:
        frequency.update({gram for orders in one for counts in orders for gram in counts})
    log_documents = math.log(len(cooked))
    total = 0.0
    for prediction, several in zip(predictions, cooked, strict=True):
        own = _Weighted.of(_all_ngrams(prediction), frequency, log_documents)
        similarity = sum(own.similarity(_Weighted.of(one, frequency, log_documents)) for one in several)
        total += 10.0 * similarity / len(several)
    return total / len(predictions)


@dataclass(frozen=True)
class _Weighted:
    """A sentence as TF-IDF vectors, one for each order of n-grams."""

    weights: list[dict[tuple[str, ...], float]]
    norms: list[float]
    length: int
    """Number of bigrams, as in the authors' code."""

    @classmethod
    def of(cls, counts: Sequence[Ngrams], frequency: Ngrams, log_documents: float) -> "_Weighted":
        weights = [
            {gram: count * (log_documents - math.log(max(1, frequency[gram]))) for gram, count in one.items()}
            for one in counts
        ]
        norms = [math.sqrt(sum(value * value for value in one.values())) for one in weights]
        return cls(weights, norms, counts[1].total())

    def similarity(self, other: "_Weighted") -> float:
        """Mean over the orders of the clipped cosine, less the further the lengths are apart."""
        total = 0.0
        for mine, theirs, norm, other_norm in zip(self.weights, other.weights, self.norms, other.norms, strict=True):
            product = sum(min(value, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, value in mine.items())
            if norm and other_norm:
                total += product / (norm * other_norm)
        return total / _MAX_ORDER * math.exp(-((self.length - other.length) ** 2) / (2 * _CIDER_SIGMA**2))


def ngrams(words: Sequence[str], order: int) -> Ngrams:
    """Counts of the runs of `order` words."""
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest sequence of words that both contain in this order, gaps allowed."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, start=1):
            diagonal, row[column] = (
                row[column],
                diagonal + 1 if word == other else max(row[column], row[column - 1]),
            )
    return row[-1]


def _all_ngrams(text: str) -> list[Ngrams]:
    words = text.split()
    return [ngrams(words, order) for order in range(1, _MAX_ORDER + 1)]


def normalise(tagged: Iterable[tuple[str, str, str]]) -> str:
    """The normal form of HumanML3D's annotations from (word, lemma, part of speech): letters only, nouns and verbs as their
    lemmas. `left` keeps its form, which a tagger takes for a form of "leave"."""
    return " ".join(
        lemma if part in ("NOUN", "VERB") and word != "left" else word for word, lemma, part in tagged if word.isalpha()
    )
