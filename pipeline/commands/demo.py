"""The demo, offline on a CPU: rendered videos and a real film, a verified dataset, its report, a tiny model, generated motions."""

import csv
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from pipeline import PROJECT_ROOT, __version__
from pipeline.audit.pages import render_page
from pipeline.audit.report import write_report
from pipeline.audit.statistics import compute_statistics
from pipeline.chain.config import IngestConfig
from pipeline.dataset.verify import verify
from pipeline.job.progress import ingest_text, ingest_with_progress
from pipeline.rendering.animation import render_motion_video
from pipeline.rendering.overlay import overlay_source, read_recovered_samples
from schemas.config import load_config
from schemas.errors import HumoError

_CONFIGS = PROJECT_ROOT / "configs"
_REAL_FILM = Path(__file__).parent / "data" / "silent_film.mp4"
"""A policeman and a tramp, United States, about 1915: in the public domain."""
_GENERATED_S = 4.0
"""Length of the generated motions; a model of so little training ends none."""
_TEXTS = ("a person raises the left arm", "a person raises the right arm", "a person walks forward")


def run_demo(out: Path, *, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Run all steps into `out`; returns the results and their paths. A second run resumes and keeps what exists."""
    start = time.perf_counter()
    out = out.absolute()
    log = (lambda text: None) if quiet else (lambda text: print(text, flush=True))
    config = out / "ingest.yaml"

    log("1  rendering videos of people with known motion, beside a real film")
    _render(out, seed)
    log(f"2  running the chain with Ray; the job is {config}")
    report = ingest_with_progress(load_config(config, IngestConfig), quiet=quiet)
    log(ingest_text(report, str(out / "dataset")))
    dataset = str(out / "dataset")
    verdict = verify(dataset)
    if verdict.problems:
        raise HumoError(f"{dataset}: {'; '.join(verdict.problems[:3])}")
    log(f"3  verified: {verdict.samples} samples in {verdict.shards} shards, no problem")
    compute_statistics(dataset, featurize="model.features.motions:feature_rows")
    page = write_report(dataset)
    log(f"4  statistics (Beam) and report: {page}")
    videos = _overlays(out, dataset)
    log("5  training a tiny tokenizer and a tiny language model on the shards")
    curves = _train(out, dataset, seed, quiet)
    log("6  generating")
    generated = [_generate(out, text, seed) for text in _TEXTS]
    seconds = time.perf_counter() - start
    index = out / "index.html"
    context = {
        "videos": videos,
        "counts": report.description.counts,
        "report": os.path.relpath(page, out),
        "generated": generated,
        "curves": curves,
        "version": __version__,
        "seconds": seconds,
    }
    index.write_text(render_page("demo.html", context))
    log(f"done in {seconds / 60:.1f} minutes: open {index}")
    return {
        "page": str(index), "dataset": dataset, "report": str(page), "samples": verdict.samples,
        "generated": [str(out / motion["npz"]) for motion in generated], "seconds": round(seconds, 1),
    }  # fmt: skip


def _render(out: Path, seed: int) -> None:
    """Write the videos, their manifest and a config of a few lines, unless they exist."""
    manifest = out / "videos" / "manifest.csv"
    if not manifest.exists():
        from stages.synthesis.film import demo_films

        films = demo_films(out / "videos", seed=seed, processes=os.cpu_count() or 1)
        shutil.copyfile(_REAL_FILM, out / "videos" / _REAL_FILM.name)
        with manifest.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["uri", "id", "title", "description", "licence", "consent"])
            rows.writerow(
                [
                    _REAL_FILM.name, "silent-film", "A silent film of about 1915 (real people)",
                    "A man comes up to a policeman, turns and talks to the camera", "public domain", "actors of a published film",
                ]
            )  # fmt: skip
            for film in films:
                name = film.path.name
                rows.writerow(
                    [name, film.path.stem.replace("_", "-"), film.title, film.description, "CC0-1.0", "rendered"]
                )
    (out / "ingest.yaml").write_text(
        f"sources: [{{kind: video, path: {json.dumps(str(manifest))}}}]\n"
        f"output: {json.dumps(str(out / 'dataset'))}\n"
        "engine: {kind: ray}\n"
        "splits: {train: 1.0}  # these videos are too few for other splits\n"
    )


def _overlays(out: Path, dataset: str) -> list[dict[str, Any]]:
    """For each video its overlay and the dataset's descriptions of its people."""
    recovered = read_recovered_samples(dataset)
    with (out / "videos" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    videos = []
    for row in rows:
        samples = recovered.get(row["id"], [])
        overlay = overlay_source(str(out / "videos" / row["uri"]), samples, out / "overlays" / row["uri"])
        descriptions = [
            {
                "person": sample.meta["person"],
                "caption": sample.text["body"][-1],
                "parts": [(part, sentences[0]) for part, sentences in sample.text["parts"].items()],
            }
            for sample in samples
        ]
        relative = str(overlay.relative_to(out))
        videos.append(
            {"overlay": relative, "title": row["title"], "description": row["description"], "samples": descriptions}
        )
    return videos


def _train(out: Path, dataset: str, seed: int, quiet: bool) -> list[dict[str, str]]:
    from model.training.config import LanguageModelTraining, TokenizerTraining
    from model.training.llm import train_llm
    from model.training.tokenizer import train_tokenizer

    runs = out / "runs"
    common = [f"dataset={dataset}", f"seed={seed}"]
    tokenizer = load_config(
        _CONFIGS / "tokenizer_tiny.yaml",
        TokenizerTraining,
        [*common, f"output={runs / 'tokenizer'}", "optimisation.steps=200"],
    )
    llm = load_config(
        _CONFIGS / "llm_tiny.yaml",
        LanguageModelTraining,
        [*common, f"tokenizer={runs / 'tokenizer'}", f"output={runs / 'llm'}", "optimisation.steps=160"],
    )
    jobs: list[tuple[str, Callable[[Any], Any], Any]] = [
        ("tokenizer", train_tokenizer, tokenizer),
        ("language model", train_llm, llm),
    ]
    curves = []
    for name, train, config in jobs:
        if quiet:
            with open(os.devnull, "w") as devnull, redirect_stdout(devnull):
                train(config)
        else:
            train(config)
        curves.append({"name": name, "path": os.path.relpath(Path(config.output) / "curve.png", out)})
    return curves


def _generate(out: Path, text: str, seed: int) -> dict[str, Any]:
    from model.generation.generator import generate
    from model.generation.motion_files import save_motion

    name = "-".join(text.split()[2:])
    folder = out / "generated"
    generated = generate(out / "runs" / "llm", text, seconds=_GENERATED_S, seed=seed, temperature=0.7)
    save_motion(folder / f"{name}.npz", generated)
    render_motion_video(generated.motion, folder / f"{name}.mp4", caption=text)
    return {
        "text": text,
        "seconds": generated.seconds,
        "video": f"generated/{name}.mp4",
        "npz": f"generated/{name}.npz",
    }
