"""Commands of the model: train, measure, tokenize, generate, describe, export."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.options import (
    AsJson,
    ConfigFile,
    Dataset,
    Evaluator,
    HumanTexts,
    Overrides,
    TextSources,
    print_result,
)

model_app = typer.Typer()
train_app = typer.Typer(help="Train from shards.", no_args_is_help=True)
ablate_app = typer.Typer(help="Train rivals on the same data and compare them.", no_args_is_help=True)
evaluate_app = typer.Typer(help="Measure a checkpoint on a dataset.", no_args_is_help=True)
model_app.add_typer(train_app, name="train")
model_app.add_typer(evaluate_app, name="evaluate")
model_app.add_typer(ablate_app, name="ablate")

RayWorkers = Annotated[int, typer.Option("--ray", min=0, help="Ray Train workers on this machine; 0: this process.")]


@train_app.command("tokenizer")
def train_tokenizer(
    config: ConfigFile, overrides: Overrides = None, ray: RayWorkers = 0, as_json: AsJson = False
) -> None:
    """Train the motion tokenizer (PRQ, or VQ and RQ by config)."""
    from model.training.config import TokenizerTraining
    from model.training.tokenizer import train_tokenizer as run

    _train(run, TokenizerTraining, config, overrides, ray, as_json)


@train_app.command("llm")
def train_llm(config: ConfigFile, overrides: Overrides = None, ray: RayWorkers = 0, as_json: AsJson = False) -> None:
    """Train the motion language model on a tokenizer's codes."""
    from model.training.config import LanguageModelTraining
    from model.training.llm import train_llm as run

    _train(run, LanguageModelTraining, config, overrides, ray, as_json)


@train_app.command("evaluator")
def train_evaluator(
    config: ConfigFile, overrides: Overrides = None, ray: RayWorkers = 0, as_json: AsJson = False
) -> None:
    """Train the evaluator: motions and sentences as vectors of one space, by which generated motions are judged."""
    from model.training.evaluator import EvaluatorTraining
    from model.training.evaluator import train_evaluator as run

    _train(run, EvaluatorTraining, config, overrides, ray, as_json)


def _train(run: Any, kind: Any, config: str, overrides: list[str] | None, ray: int, as_json: bool) -> None:
    from contextlib import nullcontext, redirect_stdout
    from dataclasses import asdict
    from functools import partial

    from schemas.config import load_config

    parsed = load_config(config, kind, overrides or [])
    if ray:
        from model.training.ray_launcher import train_with_ray
        from pipeline.execution.ray_token import authenticate_local_ray

        authenticate_local_ray(require_token=True)
        run = partial(train_with_ray, run, workers=ray)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        result = run(parsed)
    print_result(asdict(result), as_json, f"{result.checkpoint}  ({result.steps} steps, {result.seconds:.0f} s)")


@evaluate_app.command("tokenizer")
def evaluate_tokenizer(
    checkpoint: Annotated[str, typer.Argument(help="Folder that humo train tokenizer wrote.")],
    dataset: Dataset,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    limit: Annotated[int, typer.Option(help="Most motions; 0: all.")] = 0,
    evaluator: Evaluator = "",
    page: Annotated[str, typer.Option(help="HTML page of the worst reconstructions beside the motions.")] = "",
    as_json: AsJson = False,
) -> None:
    """Reconstruction error, drift, rFID and use of the codebooks."""
    from model.evaluation.tokenizer import evaluate_tokenizer as run

    report = run(checkpoint, dataset, split=split, limit=limit or None, evaluator=evaluator)
    if page:
        from model.evaluation.worst_reconstructions import worst_reconstructions
        from pipeline.benchmarks.reconstruction_page import write_page

        worst = worst_reconstructions(report, checkpoint, dataset, split=split)
        write_page(report, worst, page, f"Reconstructions of {split} by {Path(checkpoint).name}")
    _print_evaluation(report, as_json)


@ablate_app.command("tokenizer")
def ablate_tokenizer(
    config: ConfigFile,
    overrides: Overrides = None,
    rivals: Annotated[
        list[str] | None, typer.Option("--rival", help="A rival's name; repeatable. Default: all.")
    ] = None,
    rates: Annotated[
        list[float] | None,
        typer.Option("--rate", help="A learning rate to try; repeatable. Default: a search from the config's."),
    ] = None,
    most_rates: Annotated[int, typer.Option(min=1, help="Most learning rates of a search.")] = 5,
    search_steps: Annotated[
        int, typer.Option(min=0, help="Steps of a search's trainings; 0: those of the config.")
    ] = 0,
    on: Annotated[str, typer.Option(help="Dataset to measure on; default: the one trained on.")] = "",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    choose_split: Annotated[str, typer.Option(help="Split by which learning rates are chosen; empty: the same.")] = "",
    limit: Annotated[int, typer.Option(help="Most motions measured; 0: all.")] = 64,
    as_json: AsJson = False,
) -> None:
    """VQ, RQ, PRQ and their variants: error against bits as a table and a picture."""
    from contextlib import redirect_stdout
    from dataclasses import asdict

    from model.training.ablation import ablate, table
    from model.training.config import TokenizerTraining
    from model.training.rivals import RIVALS
    from schemas.config import load_config

    parsed = load_config(config, TokenizerTraining, overrides or [])
    with redirect_stdout(sys.stderr):
        trials = ablate(
            parsed, rivals=rivals or tuple(RIVALS), learning_rates=rates or (), most_rates=most_rates,
            search_steps=search_steps, dataset=on, split=split, choose_split=choose_split, limit=limit or None,
        )  # fmt: skip
    print_result({"trials": [asdict(trial) for trial in trials]}, as_json, table(trials))


@model_app.command()
def tokenize(
    checkpoint: Annotated[str, typer.Argument(help="Folder that humo train tokenizer wrote.")],
    dataset: Dataset,
    as_json: AsJson = False,
) -> None:
    """Write the codes of all motions beside the shards."""
    from dataclasses import asdict

    from model.training.tokenize import tokenize as run

    result = run(checkpoint, dataset)
    text = f"{result.folder}: codes of {result.motions} motions in {result.shards} shards ({result.kept_shards} kept)"
    print_result(asdict(result), as_json, text)


@evaluate_app.command("llm")
def evaluate_llm(
    checkpoint: Annotated[str, typer.Argument(help="Folder that humo train llm wrote.")],
    dataset: Dataset,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    limit: Annotated[int, typer.Option(help="Most motions; 0: all.")] = 0,
    generate: Annotated[int, typer.Option(help="Samples for which it generates, beside rivals; 0: none.")] = 50,
    seeds: Annotated[int, typer.Option(min=1, help="Motions generated for each text.")] = 1,
    evaluator: Evaluator = "",
    training: Annotated[str, typer.Option(help="Dataset it was trained on, if another: rivals are from there.")] = "",
    as_json: AsJson = False,
) -> None:
    """Likelihoods, left and right, and what it generates: motions for texts, continuations, sentences for motions, its speed."""
    from model.evaluation.llm import evaluate_llm as run

    result = run(
        checkpoint,
        dataset,
        split=split,
        limit=limit or None,
        generated=generate,
        seeds=seeds,
        evaluator=evaluator,
        training=training,
    )
    _print_evaluation(result, as_json)


@evaluate_app.command("motions")
def evaluate_motions(
    dataset: Dataset,
    evaluator: Evaluator = "",
    generated: Annotated[
        str, typer.Option(help="Folder of KEY.npz or KEY-NUMBER.npz by humo generate; empty: real motions alone.")
    ] = "",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    texts: HumanTexts = None,
    source: TextSources = None,
    limit: Annotated[int, typer.Option(help="Most samples; 0: all.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions of what is random.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of what is random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """R-precision, MM-Dist, FID, diversity and multimodality by an evaluator, with 95% intervals."""
    from model.evaluation.motions import evaluate_motions as run

    result = run(dataset, evaluator=evaluator, generated=generated, split=split, texts=texts or [], sources=source or [],
                 limit=limit or None, repeats=repeats, seed=seed)  # fmt: skip
    _print_evaluation(result, as_json)


@evaluate_app.command("texts")
def evaluate_texts(
    file: Annotated[str, typer.Argument(help='JSON lines {"prediction": text, "references": [text, ...]}.')],
    as_json: AsJson = False,
) -> None:
    """BLEU, ROUGE-L and CIDEr of sentences against references, as COCO's caption evaluation computes them."""
    from model.evaluation.text_metrics import read_predictions, score_texts

    _print_evaluation(score_texts(*read_predictions(file)), as_json)


def _print_evaluation(result: Any, as_json: bool) -> None:
    from dataclasses import asdict

    values = asdict(result)
    print_result(values, as_json, "\n".join(_lines(values)))


def _lines(values: dict[str, Any], indent: str = "") -> Iterator[str]:
    """A line a figure; groups of groups are indented."""
    for name, value in values.items():
        if isinstance(value, dict) and any(isinstance(one, dict) for one in value.values()):
            yield f"{indent}{name}"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{name:24} {value}"


@model_app.command()
def generate(
    text: Annotated[str, typer.Argument(help="What the person should do.")],
    out: Annotated[str, typer.Option(help="Path of the .npz; a video of the same name goes beside it.")] = "motion.npz",
    checkpoint: Annotated[str, typer.Option(help="Folder that humo train llm wrote; empty: the shipped model.")] = "",
    seconds: Annotated[float, typer.Option(help="Length; 0: the model decides.")] = 0.0,
    initial: Annotated[str, typer.Option(help="An .npz whose motion is continued; of one frame: the first pose.")] = "",
    keep: Annotated[str, typer.Option(help="An .npz of which all parts but those of --part are kept.")] = "",
    part: Annotated[list[str] | None, typer.Option(help="Part that is made anew, with --keep; repeatable.")] = None,
    picture: Annotated[str, typer.Option(help="An image of the person at the beginning, or a video.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest code each time.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample among the k likeliest codes; 0: among all.")] = 0,
    guidance: Annotated[float, typer.Option(help="How strongly the text steers; 1: no guidance, twice as fast.")] = 2.0,
    count: Annotated[int, typer.Option(min=1, help="Motions, with seeds that count up; files are numbered.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, or a CUDA device.")] = "cpu",
    video: Annotated[bool, typer.Option(help="Whether to render the video.")] = True,
    as_json: AsJson = False,
) -> None:
    """Turn a sentence into SMPL motion (.npz) and a video of it."""
    from model.generation.generator import Generator
    from model.generation.motion_files import load_motion, save_motion
    from schemas.devices import choose_device

    generator = Generator(checkpoint, device=str(choose_device(device)))
    given = {"initial": load_motion(initial) if initial else None, "keep": load_motion(keep) if keep else None}
    results = []
    for number in range(count):
        path = out if count == 1 else str(Path(out).with_stem(f"{Path(out).stem}-{number}"))
        generated = generator.generate(
            text, seconds=seconds or None, **given, parts=tuple(part or ()), picture=picture, seed=seed + number,
            temperature=temperature, top_k=top_k, guidance=guidance,
        )  # fmt: skip
        save_motion(path, generated)
        outputs: dict[str, Any] = {"motion": path, "seconds": generated.seconds, "body_model": generated.body_model}
        if video:
            from pipeline.rendering.animation import render_motion_video

            outputs["video"] = str(Path(path).with_suffix(".mp4"))
            render_motion_video(generated.motion, outputs["video"], caption=text)
        results.append(outputs)
    lines = [f"{name:12} {value}" for outputs in results for name, value in outputs.items()]
    print_result(results[0] if count == 1 else {"motions": results}, as_json, "\n".join(lines))


@model_app.command()
def describe(
    motion: Annotated[str, typer.Argument(help="An .npz in the layout of motion.npz.")],
    instruction: Annotated[str, typer.Option(help="What is asked.")] = "Describe this motion.",
    part: Annotated[
        list[str] | None, typer.Option(help="Part that is shown alone; repeatable. Without it: all.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Folder that humo train llm wrote; empty: the shipped model.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say in words what a motion is."""
    from model.generation.generator import Generator
    from model.generation.motion_files import load_motion

    loaded = load_motion(motion)
    text = Generator(checkpoint).describe(loaded, instruction, parts=tuple(part or ()))
    print_result({"motion": motion, "text": text}, as_json, text)


@model_app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="Folder that humo train llm wrote.")],
    folder: Annotated[str, typer.Argument(help="Folder to write to.")],
    tokenizer: Annotated[str, typer.Option(help="Tokenizer of the same codes, with a decoder trained on.")] = "",
    as_json: AsJson = False,
) -> None:
    """A trained language model in half precision, without what resuming needs."""
    from model.llm.loading import export as run

    path = run(checkpoint, folder, tokenizer=tokenizer)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print_result({"folder": str(path), "bytes": size}, as_json, f"{path}  {size / 1e6:.1f} MB")
