"""Commands on an existing dataset: pack, join, remove, verify, versions, publish, dedupe.

As in `pipeline.commands.main`, each command imports its dependencies when it runs.
"""

from typing import Annotated

import typer

from pipeline.commands.options import AsJson, Dataset, print_result

dataset_app = typer.Typer()


@dataset_app.command()
def pack(
    dataset: Dataset,
    shard_bytes: Annotated[int, typer.Option(help="Size at which a new shard begins, bytes; 0: as before.")] = 0,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact", help="Take passwords, signatures and the like out of all that was written of addresses."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write shards, catalogue and dataset.json anew from the commits; the same commits give the same bytes. What was removed
    goes for good."""
    from dataclasses import asdict

    from pipeline.dataset.pack import repack

    description = repack(dataset, shard_bytes=shard_bytes, redacting=redact)
    text = "\n".join(f"{shard.path}  {shard.samples} samples  {shard.bytes:,} bytes" for shard in description.shards)
    counts = description.counts
    text += f"\n{counts['live']} samples, {counts['hours']:.4f} hours: {dataset}"
    print_result(asdict(description), as_json, text)


@dataset_app.command()
def join(
    dataset: Dataset,
    out: Annotated[str, typer.Argument(help="Folder of the dataset that the long motions go to; it may be the same.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as join_clips.max_s=30; repeat it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Join clips into long motions, 10 to 60 s each, as subset `long`. Run it again: it does only what is missing."""
    from pipeline.curation.join import JoinConfig, join_dataset, join_text
    from pipeline.curation.join import as_json as report_json
    from schemas.config import apply_overrides, parse_config

    config = parse_config(apply_overrides({}, overrides or []), JoinConfig, "--set")
    report = join_dataset(dataset, out, config)
    print_result(report_json(report), as_json, join_text(report, out))


@dataset_app.command()
def remove(
    dataset: Dataset,
    source: Annotated[list[str] | None, typer.Option(help="Id of a source; repeat it.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="Key of a sample, or as much of it as makes it unique; repeat it.")
    ] = None,
    licence: Annotated[list[str] | None, typer.Option(help="A licence as the manifests name it; repeat it.")] = None,
    packing: Annotated[
        bool, typer.Option("--pack/--no-pack", help="Delete the bytes at once, or at the next packing.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Take sources, samples or licences out, with all that was made from them, long motions too. Loaders leave them out at
    once; a training that is under way goes on."""
    from dataclasses import asdict

    from pipeline.curation.remove import remove as run

    result = run(dataset, source or [], keys=key or [], licences=licence or [], packing=packing)
    text = f"{len(result.removed)} samples removed, {result.joined} of them joined from several"
    text += "" if result.packed else f"; their bytes go with the next humo pack {dataset}"
    print_result(asdict(result), as_json, text)


@dataset_app.command()
def verify(dataset: Dataset, as_json: AsJson = False) -> None:
    """Check every shard, part, sample and member, that catalogue and ledger tell the same, and that nothing is left of what
    was removed. Exit status 1 on any problem."""
    from dataclasses import asdict

    from pipeline.dataset.verify import verify as run

    verdict = run(dataset)
    lines = [
        *verdict.problems,
        f"{verdict.shards} shards, {verdict.parts} parts, {verdict.samples} samples, {len(verdict.problems)} problems",
    ]
    print_result(asdict(verdict), as_json, "\n".join(lines))
    if verdict.problems:
        raise typer.Exit(1)


@dataset_app.command()
def versions(
    dataset: Dataset,
    diff: Annotated[
        tuple[str, str] | None, typer.Option(help="Two versions: what came and went from the first to the second.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what the dataset was packed of each time, or compare two versions."""
    from dataclasses import asdict

    from pipeline.dataset.versions import current_version, difference, difference_text, list_versions, versions_text
    from schemas.storage import Storage

    storage = Storage(dataset)
    if diff:
        result = difference(storage, *diff)
        print_result(asdict(result), as_json, difference_text(result))
    else:
        current, all_versions = current_version(storage), list_versions(storage)
        summaries = [
            {name: value for name, value in asdict(version).items() if name != "shards"} for version in all_versions
        ]
        print_result({"current": current, "versions": summaries}, as_json, versions_text(all_versions, current))


@dataset_app.command()
def publish(
    dataset: Dataset,
    destination: Annotated[str, typer.Argument(help="Folder that the copy goes to; any fsspec path.")],
    version: Annotated[str, typer.Option(help="See humo versions; empty: the dataset as it is packed.")] = "",
    subset: Annotated[list[str] | None, typer.Option(help="Only this subset; repeat it.")] = None,
    licence_allowed: Annotated[
        list[str] | None, typer.Option(help="Only samples all of whose licences are among these; repeat it.")
    ] = None,
    name: Annotated[str, typer.Option(help="Title of the card; empty: the folder's name.")] = "",
    contact: Annotated[str, typer.Option(help="Whom to write to for a removal; it stands in the card.")] = "",
    as_json: AsJson = False,
) -> None:
    """Copy a version in the layout that Hugging Face, webdataset and Megatron Energon read, with a card. Run it again after a
    crash: shards that arrived are kept."""
    from dataclasses import asdict

    from pipeline.publishing.publish import publication_text
    from pipeline.publishing.publish import publish as run

    result = run(
        dataset, destination, version=version, subsets=subset or [], licences=licence_allowed or [], name=name,
        contact=contact,
    )  # fmt: skip
    print_result(asdict(result), as_json, publication_text(result, destination))


@dataset_app.command()
def dedupe(
    dataset: Dataset,
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove what should go, for good; else it is only told.")
    ] = False,
    out: Annotated[str, typer.Option(help="The page's path; empty: report/ in the dataset, unless --apply.")] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A limit, such as max_distance_mm=15; repeat it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find near-duplicates by motion and pictures, within and across splits, and write a page of them side by side."""
    from pipeline.curation.duplicates.config import DedupeConfig
    from pipeline.curation.duplicates.dedupe import as_json as report_json
    from pipeline.curation.duplicates.dedupe import dedupe as run
    from pipeline.curation.duplicates.dedupe import dedupe_text
    from schemas.config import apply_overrides, parse_config

    config = parse_config(apply_overrides({}, overrides or []), DedupeConfig, "--set")
    result = run(dataset, config, apply=apply, out=out)
    print_result(report_json(result), as_json, dedupe_text(result, dataset))
