"""The command line. Commands import their dependencies when they run, so that `--help` is fast."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.bench import bench_app
from pipeline.commands.dataset import dataset_app
from pipeline.commands.model import model_app
from pipeline.commands.options import AsJson, ConfigFile, Dataset, Overrides, print_result
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
app.add_typer(bench_app, name="bench")
app.add_typer(dataset_app)
app.add_typer(model_app)
app.command()(skeleton)

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
