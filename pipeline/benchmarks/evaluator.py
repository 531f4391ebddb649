"""humo bench evaluator: whether an evaluator can be trusted, on motions of a dataset whose faults are known.

Texts of real pairs must find their motions, texts that were shuffled must not, and FID must grow with each step of a fault. The
training motion nearest to a text is what copying gives: a generator has to beat it.
"""

import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.devices import torch_threads
from schemas.errors import UsageError
from schemas.human_texts import read_texts

if TYPE_CHECKING:
    from model.evaluation.protocol import Retrieval

NOISE_DEG = (1.0, 2.0, 5.0, 10.0, 20.0)
SPEEDS = (1.2, 1.5, 2.0, 3.0)
DEFINITIONS = {
    "batches": "sentences of different meaning, at most 32; chance is one over their number",
    "all pairs": "batches of 32 from all pairs, as papers draw them",
    "shuffled": "each text with another pair's motion",
    "sides swapped": "mirrored motions with the texts of the others; pairs whose text names one side",
    "nearest": "for each text the training motion with the highest cosine",
    "noise": "deviation about each axis of every joint in every frame, degrees",
    "FID": "against the same motions without the fault",
}
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def bench(
    dataset: str,
    *,
    evaluator: str = "",
    split: str = "test",
    texts: Sequence[str] = (),
    sources: Sequence[str] = (),
    training: str = "",
    limit: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Retrieval and FID of real and of faulty motions (see DEFINITIONS), by default with the shipped evaluator.

    `training` is the dataset of the evaluator's training, for the nearest motions. Raises HumoError for an unusable evaluator or
    dataset, UsageError for too few motions.
    """
    import torch

    from model.data.dataset import check_body_model
    from model.evaluation.corruptions import shaken, sides_swapped, warped
    from model.evaluation.motions import Judge
    from model.evaluation.protocol import diversity, fid, fid_warning, retrieval, split_fid

    with torch_threads(1):
        judge = Judge(evaluator)
        check_body_model(dataset, judge.body)
        told = read_texts(texts) if texts else None
        pairs = judge.described(dataset, split=split, texts=told, sources=sources, limit=limit or None)
        if len(pairs) < 4:
            raise UsageError(
                f"{dataset}: {len(pairs)} motions with a sentence in {split}: name another split or texts about them"
            )
        motions, sentences = [one.motion for one in pairs], [one.text for one in pairs]
        vectors, words = judge.vectors(motions), judge.text_vectors(sentences)
        shift = int(np.random.default_rng(seed).integers(1, len(pairs)))
        order = np.random.default_rng(seed).permutation(len(pairs))
        shuffled = torch.empty(len(pairs), dtype=torch.long)
        shuffled[order] = torch.from_numpy(np.roll(order, shift))
        same = judge.same(sentences)
        retrievals = {
            "real": retrieval(vectors, words, same, seed=seed),
            "real, all pairs": retrieval(vectors, words, seed=seed),
            "shuffled": retrieval(vectors[shuffled], words, same, seed=seed),
        }
        sided = [number for number, text in enumerate(sentences) if len({*map(str.lower, _SIDE.findall(text))}) == 1]
        if len({sentences[number].lower() for number in sided}) > 2:
            mirrored = judge.vectors([sides_swapped(motions[number]) for number in sided])
            own = [sentences[number] for number in sided]
            retrievals["sided"] = retrieval(vectors[sided], words[sided], judge.same(own), seed=seed)
            retrievals["sides swapped"] = retrieval(mirrored, words[sided], judge.same(own), seed=seed)
        if training:
            known = judge.vectors([one.motion for one in judge.described(training, split="train")])
            unit_words, unit_known = (torch.nn.functional.normalize(one, dim=-1) for one in (words, known))
            nearest = known[(unit_words @ unit_known.mT).argmax(1)]
            retrievals["nearest"] = retrieval(nearest, words, same, seed=seed)
        faults = {
            "noise, degrees": {f"{one:g}": [shaken(m, one, seed) for m in motions] for one in NOISE_DEG},
            "speed": {f"{one:g}": [warped(m, one) for m in motions] for one in SPEEDS},
            "sides": {"swapped": [sides_swapped(m) for m in motions]},
        }
        distances = {
            fault: {step: fid(vectors, judge.vectors(_long_enough(faulty, judge))) for step, faulty in steps.items()}
            for fault, steps in faults.items()
        }
        if training:
            distances["training motions"] = {"nearest": fid(vectors, nearest)}
        halves = split_fid(vectors, seed=seed)
    return {
        "command": shlex.join(["humo", *sys.argv[1:]]),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "definitions": DEFINITIONS,
        "evaluator": judge.name,
        "pairs": len(pairs),
        "sentences": len(set(sentences)),
        "diversity": diversity(vectors, seed=seed).mean,
        "retrieval": {name: _row(one) for name, one in retrievals.items()},
        "fid": distances,
        "fid_of_halves": halves.mean,
        "warning": fid_warning(len(pairs), vectors.shape[1]),
    }


def _long_enough(motions: Sequence[Any], judge: Any) -> list[Any]:
    """Those that can still be judged: a fast motion is a short one."""
    return [one for one in motions if judge.is_long_enough(one)]


def _row(one: "Retrieval") -> dict[str, float]:
    first = one.r_precision[0]
    return {
        "batch": one.batch,
        "r1": first.mean,
        "r1_interval": first.half_width,
        "r1_over_chance": first.mean / one.chance,
        "r2": one.r_precision[1].mean,
        "r3": one.r_precision[2].mean,
        "mm_dist": one.mm_dist.mean,
    }


def bench_text(report: dict[str, Any]) -> str:
    """The report as a table."""
    lines = [
        f"evaluator {report['evaluator']}",
        f"{report['pairs']} pairs, {report['sentences']} sentences, diversity {report['diversity']:.2f}",
    ]
    for name, row in report["retrieval"].items():
        lines.append(
            f"{name:18} R@1 {row['r1']:.3f} ±{row['r1_interval']:.3f} ({row['r1_over_chance']:.1f} x chance of batches of "
            f"{row['batch']:.1f})  R@2 {row['r2']:.3f}  R@3 {row['r3']:.3f}  MM-Dist {row['mm_dist']:.3f}"
        )
    lines.append(f"FID of random halves {report['fid_of_halves']:.3f}")
    for fault, steps in report["fid"].items():
        lines.append(f"FID, {fault}: " + ", ".join(f"{step} {value:.3f}" for step, value in steps.items()))
    return "\n".join([*lines, report["warning"]]).rstrip()
