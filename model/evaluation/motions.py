"""humo evaluate motions: generated motions against those of a dataset, or its motions against themselves."""

import itertools
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model.data.dataset import MotionDataset, check_body_model
from model.data.described_motions import DescribedMotion, described
from model.evaluation.motion_text_model import FPS, load_evaluator
from model.evaluation.protocol import (
    REPEATS,
    SAME_MEANING,
    Interval,
    Retrieval,
    diversity,
    fid,
    fid_warning,
    multimodality,
    retrieval,
    split_fid,
)
from model.features.motions import motion_features
from model.llm.sentence_encoder import SentenceEncoder, same_meaning
from schemas.body_model import BodyModel
from schemas.errors import HumoError
from schemas.human_texts import Texts, read_texts
from schemas.sample import MotionArrays, decode_motion, decode_npz


@dataclass(frozen=True, kw_only=True)
class MotionReport:
    """Measures of `model.evaluation.protocol`; `real_` ones are of the dataset's own motions."""

    evaluator: str
    """The checkpoint that judged, or `shipped` with the hash of its weights."""
    pairs: int
    """Real motions with a sentence."""
    sentences: int
    """Distinct ones among them."""
    too_short: int
    """Motions left out because they are shorter than the evaluator's `min_frames`."""
    real: Retrieval
    """Batches from all pairs, as papers draw them."""
    real_distinct: Retrieval
    """Batches without sentences that mean the same."""
    real_diversity: Interval
    real_split_fid: Interval | None
    """FID of random halves of the real motions; None for fewer than four."""
    generated: int = 0
    """Generated motions."""
    fid: float | None = None
    generated_retrieval: Retrieval | None = None
    generated_distinct: Retrieval | None = None
    generated_diversity: Interval | None = None
    multimodality: Interval | None = None
    """None unless sentences have several motions."""
    warnings: tuple[str, ...] = ()


def evaluate_motions(
    dataset: str,
    *,
    evaluator: str | Path = "",
    generated: str = "",
    split: str = "test",
    subsets: Sequence[str] = (),
    texts: Sequence[str] = (),
    sources: Sequence[str] = (),
    limit: int | None = None,
    repeats: int = REPEATS,
    seed: int = 0,
    body_model: str = "",
    device: str = "cpu",
) -> MotionReport:
    """Judge the motions of a split and, if `generated` names a folder, those in it: `KEY.npz` or `KEY-NUMBER.npz` for the sentence
    of the sample KEY, as `humo generate` writes them.

    `evaluator` is a checkpoint, by default the shipped one. Sentences are the first captions of the samples, or with `texts` what
    people wrote (see `described`). Raises HumoError for an unusable evaluator, dataset or motion.
    """
    judge = Judge(evaluator, body_model=body_model, device=device)
    check_body_model(dataset, judge.body)
    real = judge.described(dataset, split=split, subsets=subsets, texts=read_texts(texts) if texts else None,
                           sources=sources, limit=limit)  # fmt: skip
    if len(real) < 2:
        raise HumoError(
            f"{dataset}: {len(real)} motions with a sentence in {split}; select another split or other texts"
        )
    motions, words = judge.vectors([one.motion for one in real]), judge.text_vectors([one.text for one in real])
    sentences = [one.text for one in real]
    options: dict[str, Any] = {"repeats": repeats, "seed": seed}
    warnings = [fid_warning(len(real) // 2, motions.shape[1])] if not generated else []
    result = MotionReport(
        evaluator=judge.name,
        pairs=len(real),
        sentences=len(set(sentences)),
        too_short=judge.too_short,
        real=retrieval(motions, words, **options),
        real_distinct=retrieval(motions, words, judge.same(sentences), **options),
        real_diversity=diversity(motions, **options),
        real_split_fid=split_fid(motions, **options) if len(real) >= 4 else None,
        warnings=tuple(filter(None, warnings)),
    )
    if not generated:
        return result
    made = read_generated(generated, {one.key: one.text for one in real}, judge)
    vectors, made_words = judge.vectors([one.motion for one in made]), judge.text_vectors([one.text for one in made])
    by_text: dict[str, list[int]] = {}
    for number, one in enumerate(made):
        by_text.setdefault(one.key, []).append(number)
    made_sentences = [one.text for one in made]
    warnings = [fid_warning(min(len(real), len(made)), motions.shape[1])]
    return MotionReport(
        **{
            **vars(result),
            "too_short": judge.too_short,
            "generated": len(made),
            "fid": fid(motions, vectors),
            "generated_retrieval": retrieval(vectors, made_words, **options),
            "generated_distinct": retrieval(vectors, made_words, judge.same(made_sentences), **options),
            "generated_diversity": diversity(vectors, **options),
            "multimodality": multimodality([vectors[numbers] for numbers in by_text.values()], **options),
            "warnings": tuple(filter(None, warnings)),
        }
    )


class Judge:
    """An evaluator with all that turns motions and sentences into its vectors."""

    def __init__(self, evaluator: str | Path = "", *, body_model: str = "", device: str = "cpu") -> None:
        """By default the shipped evaluator. Raises HumoError if it is none, or made for another body, layout or frame rate."""
        self.body = BodyModel.load(body_model or None)
        loaded = load_evaluator(evaluator, self.body.id)
        self.name, self.model = loaded.name, loaded.model.to(device)
        self.encoder = SentenceEncoder.load(loaded.description.get("training", {}).get("sentence_encoder", ""))
        self.too_short = 0

    def described(
        self,
        dataset: str,
        *,
        split: str,
        subsets: Sequence[str] = (),
        texts: Texts | None = None,
        sources: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[DescribedMotion]:
        """Motions of a split with their sentences, without those that are too short."""
        samples = itertools.islice(MotionDataset(dataset, split=split, subsets=subsets), limit)
        found = [one for sample in samples for one in described(sample, texts, sources=tuple(sources), min_frames=1)]
        return [one for one in found if self.is_long_enough(one.motion)]

    def is_long_enough(self, motion: MotionArrays) -> bool:
        """Whether a motion can be judged; counts those that cannot in `too_short`."""
        enough = len(motion.poses) > self.model.config.min_frames
        self.too_short += not enough
        return enough

    def rows(self, motion: MotionArrays, name: str = "motion") -> Float[Tensor, "N 263"]:
        """Feature rows of a motion; raises HumoError for one with NaN or infinite numbers."""
        for array in ("poses", "trans", "betas"):
            if not np.isfinite(getattr(motion, array)).all():
                raise HumoError(f"{name}: {array} holds NaN or infinity; leave that motion out or generate it again")
        return motion_features([motion], self.body)[0]

    def vectors(self, motions: Sequence[MotionArrays]) -> Float[Tensor, "N L"]:
        """Vectors of motions, not normalised."""
        return self.model.embed_motions([self.rows(one) for one in motions])

    @torch.no_grad()
    def text_vectors(self, sentences: Sequence[str]) -> Float[Tensor, "N L"]:
        """Vectors of sentences, not normalised."""
        return self.model.text_vectors(self.encoder.encode(sentences).to(self.model.mean.device)).cpu()

    def same(self, sentences: Sequence[str]) -> Bool[Tensor, "N N"]:
        """Which sentences mean the same."""
        return same_meaning(sentences, self.encoder.encode(sentences), SAME_MEANING)


def read_generated(folder: str, texts: dict[str, str], judge: Judge) -> list[DescribedMotion]:
    """The motions in a folder that belong to samples, by file name. Raises HumoError if there are none or one is unusable."""
    if not Path(folder).is_dir():
        raise HumoError(f"{folder}: no such folder; give the folder with the generated motions")
    found = []
    for path in sorted(Path(folder).glob("*.npz")):
        key = path.stem.split("-")[0]
        if key not in texts:
            continue
        try:
            content = path.read_bytes()
            motion, extra = decode_motion(content, str(path)), decode_npz(content)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise HumoError(f"{path}: not a motion .npz ({error}); use one written by humo generate") from None
        body, fps = str(extra.get("body_model", judge.body.id)), float(extra.get("fps", FPS))
        if body != judge.body.id or fps != FPS:
            raise HumoError(
                f"{path}: body {body} at {fps:g} frames/s, the evaluator judges {judge.body.id} at {FPS}; convert the motion"
            )
        judge.rows(motion, str(path))
        if judge.is_long_enough(motion):
            found.append(DescribedMotion(key=key, motion=motion, text=texts[key]))
    if len(found) < 2:
        frames = judge.model.config.min_frames
        raise HumoError(
            f"{folder}: {len(found)} usable motions; name them KEY.npz or KEY-NUMBER.npz, KEY a sample's; {frames} frames at least"
        )
    return found
