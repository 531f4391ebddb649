"""The command line. Commands import their dependencies when they run, so that `--help` is fast."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.bench import AsJson, bench_app, print_result
from pipeline.commands.dataset import Dataset, dataset_app
from pipeline.commands.skeleton import skeleton
from pipeline.job.signals import Stopped
from schemas.errors import HumoError, exit_status
from schemas.offline import enforce_offline
from schemas.secrets import hide_secrets_in_output

app = typer.Typer(
    name="humo",
    help="Video to human-motion data, and a motion model trained on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train from shards.", no_args_is_help=True)
ablate_app = typer.Typer(help="Train rivals on the same data and compare them.", no_args_is_help=True)
evaluate_app = typer.Typer(help="Measure a checkpoint on a dataset.", no_args_is_help=True)
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(ablate_app, name="ablate")
app.add_typer(bench_app, name="bench")
app.add_typer(dataset_app)
app.command()(skeleton)

ConfigFile = Annotated[str, typer.Argument(help="YAML file; see configs/.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key.inner=value over the config; repeat it.")]
Evaluator = Annotated[str, typer.Option(help="Folder that humo train evaluator wrote; empty: the shipped one.")]
RayWorkers = Annotated[int, typer.Option("--ray", min=0, help="Ray Train workers on this machine; 0: this process.")]
Preset = Annotated[str, typer.Option(help="What a published dataset filters by: a name from configs/presets.")]


def main() -> None:
    """Entry point: errors for the user go to stderr without a traceback; exit status 1, or 2 for misuse."""
    enforce_offline()
    hide_secrets_in_output()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads should not occupy a core that others need
    try:
        app()
    except HumoError as error:
        sys.exit(exit_status(error, "humo"))
    except Stopped as stopped:
        print(f"humo: {stopped}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Folder for all that the demo makes.")] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the people, their motions and the training.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Render short videos, turn them into a dataset, look into it, train a tiny model on it and generate a motion."""
    from pipeline.commands.demo import run_demo

    result = run_demo(Path(out), seed=seed, quiet=as_json)
    print_result(result, as_json, "")


@app.command()
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    preset: Preset = "",
    sample: Annotated[
        int,
        typer.Option(
            min=0, help="Sources of each kind to take through the chain here, to measure; 0: only lengths are read."
        ),
    ] = 0,
    probe: Annotated[int, typer.Option(min=1, help="Most sources of each kind to ask for their length.")] = 50,
    seed: Annotated[int, typer.Option(help="Which sources are drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Dry run: chain, resources, sources to do; with --sample also clips, hours, bytes and cost, each with its interval.

    Writes nothing and starts no engine. Sampled sources take as long as they would in the job, and a describer's endpoint is
    asked about them.
    """
    from pipeline.chain.config import IngestConfig
    from pipeline.planning.plan import make_plan
    from pipeline.planning.plan_text import plan_text
    from schemas.config import load_config

    extra = [f"preset={preset}"] if preset else []
    job = load_config(config, IngestConfig, [*(overrides or []), *extra])
    result = make_plan(job, sample=sample, probed=probe, seed=seed, log=lambda line: print(line, file=sys.stderr))
    print_result(result, as_json, plan_text(result))


@app.command()
def ingest(
    config: ConfigFile,
    overrides: Overrides = None,
    engine: Annotated[str, typer.Option(help="inline or ray; over the config's engine.kind.")] = "",
    address: Annotated[str, typer.Option(help="Ray cluster to join; over the config's engine.address.")] = "",
    preset: Preset = "",
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Do sources anew that were decided under other settings.")
    ] = False,
    max_failures: Annotated[
        int, typer.Option(help="Stop when more sources fail; over the config's; -1: as there.")
    ] = -1,
    as_json: AsJson = False,
) -> None:
    """Turn sources into a dataset. Run it again after a crash or with more sources: it does only what is missing."""
    from pipeline.chain.config import IngestConfig
    from pipeline.job.ingest import as_json as report_json
    from pipeline.job.progress import ingest_text, ingest_with_progress
    from schemas.config import load_config

    extra = [f"engine.kind={engine}"] if engine else []
    extra += [f"engine.address={address}"] if address else []
    extra += [f"preset={preset}"] if preset else []
    extra += [f"faults.max_failures={max_failures}"] if max_failures >= 0 else []
    job = load_config(config, IngestConfig, [*(overrides or []), *extra])
    report = ingest_with_progress(job, quiet=as_json, recompute=recompute)
    print_result(report_json(report), as_json, ingest_text(report, job.output))


@app.command()
def retry(
    dataset: Dataset,
    reason: Annotated[
        list[str] | None, typer.Option(help="reason or stage:reason; repeat it. None: whatever failed.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="Id of a source; repeat it. None: all of them.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Try again what failed, or was turned down for the reasons named; what comes of it takes the place of what stood."""
    from pipeline.job.ingest import as_json as report_json
    from pipeline.job.progress import ingest_text
    from pipeline.job.retry import retry as run

    reports = run(dataset, reasons=reason or [], sources=source or [], overrides=overrides or [])
    text = "\n".join(ingest_text(report, dataset) for report in reports) or f"{dataset}: nothing to try again"
    print_result([report_json(report) for report in reports], as_json, text)


@app.command()
def stats(
    dataset: Dataset,
    runner: Annotated[str, typer.Option(help="local, dataflow, flink or spark.")] = "local",
    option: Annotated[list[str] | None, typer.Option("--option", help="A Beam option, name=value; repeat it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count and measure what the shards hold, with Beam; writes statistics/ into the dataset."""
    from pipeline.audit.query import QuerySession
    from pipeline.audit.statistics import compute_statistics
    from pipeline.audit.waterfall import ledger_waterfall, stages_json

    statistics = compute_statistics(
        dataset, runner=runner, options=option or [], featurize="model.features.motions:feature_rows"
    )
    with QuerySession(dataset) as session:
        statistics["waterfall"] = stages_json(ledger_waterfall(session))
    print_result(statistics, as_json, json.dumps(statistics, ensure_ascii=False, indent=1))


@app.command()
def query(
    dataset: Dataset,
    sql: Annotated[str, typer.Argument(help="SQL over the tables samples, ledger and removed.")],
    as_json: AsJson = False,
) -> None:
    """Ask the catalogue and the ledger anything, with DuckDB."""
    from pipeline.audit.query import print_table, table_rows
    from pipeline.audit.query import query as run

    table = run(dataset, sql)
    if as_json:
        print(json.dumps(table_rows(table), ensure_ascii=False, indent=1))
    else:
        print_table(table)


@app.command()
def waterfall(
    dataset: Dataset,
    preset: Annotated[str, typer.Option(help="One preset, limit by limit; empty: what each would keep.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what each stage turned away, and what the limits of published datasets would drop, by the stored scores."""
    from pipeline.audit.query import QuerySession
    from pipeline.audit.waterfall import ledger_waterfall, preset_waterfalls, presets_json, stages_json, waterfall_text

    with QuerySession(dataset) as session:
        stages, presets = ledger_waterfall(session), preset_waterfalls(session, preset)
    result = {"stages": stages_json(stages), "presets": presets_json(presets)}
    print_result(result, as_json, waterfall_text(stages, presets, detailed=bool(preset)))


@app.command()
def report(
    dataset: Dataset,
    out: Annotated[str, typer.Option(help="The page's path; empty: report/ in the dataset.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write one HTML page on what the dataset holds, what was turned down and why."""
    from pipeline.audit.report import write_report

    path = write_report(dataset, out or None)
    print_result({"path": str(path)}, as_json, str(path))


@app.command()
def view(
    dataset: Dataset,
    key: Annotated[str, typer.Argument(help="A sample's key, or as much of it as makes it unique.")],
    out: Annotated[str, typer.Option(help="The page's path; empty: report/ in the dataset.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write a page for one sample: clip and motion side by side, with every description as it happens."""
    from pipeline.audit.view import view as run

    path = run(dataset, key, out or None)
    print_result({"path": str(path)}, as_json, str(path))


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


@app.command()
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
    as_json: AsJson = False,
) -> None:
    """Likelihood of motions and texts, and whether left and right are told apart."""
    from model.evaluation.llm import evaluate_llm as run

    _print_evaluation(run(checkpoint, dataset, split=split, limit=limit or None), as_json)


@evaluate_app.command("motions")
def evaluate_motions(
    dataset: Dataset,
    evaluator: Evaluator = "",
    generated: Annotated[
        str, typer.Option(help="Folder of KEY.npz or KEY-NUMBER.npz by humo generate; empty: real motions alone.")
    ] = "",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    texts: Annotated[
        list[str] | None, typer.Option(help="What people wrote of the takes, as for humo bench captions; repeat it.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Only sentences under this key of the texts, such as kitml; repeat it.")
    ] = None,
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
    print_result(values, as_json, "\n".join(f"{name:24} {value}" for name, value in values.items()))


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """List engines, devices, weights, body models, their licences, and what is missing."""
    from pipeline.commands.doctor import doctor_text, examine

    result = examine()
    print_result(result, as_json, doctor_text(result))
    if any(not item["ok"] and item["needed"] for items in result.values() for item in items):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
