"""The `humo bench` commands. As in `pipeline.commands.main`, each imports its dependencies when it runs."""

from typing import Annotated

import typer

from pipeline.commands.options import AsJson, Evaluator, HumanTexts, TextSources, print_result

bench_app = typer.Typer(help="Measure speed and accuracy against a rival in the same run.", no_args_is_help=True)


@bench_app.command("track")
def bench_track(
    video: Annotated[str, typer.Option(help="A video with people; empty: one is rendered.")] = "",
    rounds: Annotated[int, typer.Option(help="How often both are timed, in turns; the medians count.")] = 3,
    as_json: AsJson = False,
) -> None:
    """The tracking stage against a plain `model.track` loop over the same weights: speed, and whether both see the same."""
    from pipeline.benchmarks.track import bench, bench_text

    report = bench(video, rounds=rounds)
    print_result(report, as_json, bench_text(report))


@bench_app.command("ingest")
def bench_ingest(
    video: Annotated[str, typer.Option(help="A video with people; empty: one is rendered.")] = "",
    videos: Annotated[int, typer.Option(help="Copies of it that are timed.")] = 2,
    rounds: Annotated[int, typer.Option(help="How often all are timed, in turns; the medians count.")] = 3,
    ray: Annotated[bool, typer.Option(help="Whether a job under Ray on this machine is timed too.")] = True,
    memory: Annotated[
        str,
        typer.Option(help="Numbers of copies whose jobs' peaks of memory are measured, such as 20,200; empty: none."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """The whole chain against the tracking stage alone and a plain `model.track` loop; stage by stage; and memory."""
    from pipeline.benchmarks.ingest import bench, bench_text

    counts = [int(count) if count.strip().isdecimal() else 0 for count in memory.split(",")] if memory else []
    report = bench(video, videos=videos, rounds=rounds, ray=ray, memory=counts)
    print_result(report, as_json, bench_text(report))


@bench_app.command("loader")
def bench_loader(
    dataset: Annotated[str, typer.Argument(help="A packed dataset on a disk; empty: one is made up.")] = "",
    workers: Annotated[int, typer.Option(help="Processes that read, for all.")] = 2,
    batch_size: Annotated[int, typer.Option(help="Samples a batch.")] = 32,
    rounds: Annotated[int, typer.Option(help="How often each makes a whole pass, in turns; the medians count.")] = 5,
    samples: Annotated[int, typer.Option(help="Samples of the made-up dataset.")] = 2048,
    shards: Annotated[int, typer.Option(help="Shards of the made-up dataset.")] = 8,
    clip_kb: Annotated[
        int, typer.Option(help="Size of the made-up clips, kB; 0: without clips, as motion capture.")
    ] = 0,
    clips: Annotated[
        bool, typer.Option(help="Measure instead how long a training that looks at the dataset's clips waits for them.")
    ] = False,
    clip_fps: Annotated[float, typer.Option(help="With --clips: frames of a clip that are looked at, 1/s.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """The training loader against webdataset's own pipeline: the same shards, members and number of workers. With --clips: the
    share of a training's time that is waiting for data, while clips are decoded and when a tower has seen them."""
    if clips:
        from model.vision.config import VisionConfig
        from pipeline.benchmarks import clip_loading

        found = clip_loading.bench(
            dataset, vision=VisionConfig(clip_fps=clip_fps), workers=workers, batch_size=batch_size
        )
        print_result(found, as_json, clip_loading.bench_text(found))
        return
    from pipeline.benchmarks.loader import bench, bench_text

    report = bench(
        dataset, workers=workers, batch_size=batch_size, rounds=rounds, samples=samples, shards=shards,
        clip_bytes=1000 * clip_kb,
    )  # fmt: skip
    print_result(report, as_json, bench_text(report))


@bench_app.command("recovery")
def bench_recovery(
    mocap: Annotated[
        str, typer.Option(help="Motion capture not trained on: folder or file; empty: made-up motions.")
    ] = "",
    clips: Annotated[int, typer.Option(help="How many motions are measured by their keypoints.")] = 40,
    videos: Annotated[int, typer.Option(help="How many motions are filmed, each by a still and a moving camera.")] = 4,
    optimise: Annotated[int, typer.Option(help="How many of either also go through optimisation alone.")] = 4,
    focal_told: Annotated[bool, typer.Option(help="Films tell their focal length, as phones do.")] = False,
    page: Annotated[str, typer.Option(help="Folder for a page with tables and pictures; empty: none.")] = "",
    weights: Annotated[str, typer.Option(help="Lifter weights, .safetensors or .pt; empty: the shipped ones.")] = "",
    views: Annotated[
        str,
        typer.Option(
            help="Folder with videos of calibrated cameras and views.json (docs/recovery.md has its form); measures these alone. "
            "Without a truth the joints are triangulated."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Recovered bodies against the truth: from motion capture's keypoints and from films, beside optimisation alone; or in views of
    calibrated cameras."""
    if views:
        from pipeline.benchmarks import views as calibrated

        found = calibrated.bench(views, focal_known=focal_told)
        print_result(found, as_json, calibrated.bench_text(found))
        return
    from pipeline.benchmarks.recovery import bench, bench_text

    report = bench(
        mocap=mocap, clips=clips, videos=videos, optimise=optimise, focal_known=focal_told, page=page, weights=weights
    )
    print_result(report, as_json, bench_text(report))


@bench_app.command("captions")
def bench_captions(
    mocap: Annotated[
        str,
        typer.Option(help="Motion capture whose file names say what is done: folder or file; empty: made-up motions."),
    ] = "",
    clips: Annotated[int, typer.Option(help="Most takes, spread evenly over what is done in them; 0: all.")] = 0,
    videos: Annotated[int, typer.Option(help="Films of sided actions that go through all stages.")] = 0,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            help="What people wrote of the motion capture: JSON by trial, a table of tabs, or the takes' trials."
        ),
    ] = None,
    half: Annotated[
        str, typer.Option(help="With --texts: takes of the half development, held_back, or both.")
    ] = "development",
    as_json: AsJson = False,
) -> None:
    """Captions by rules against labelled motion: sides, parts and kinds, mirrored and with a fit's errors; diversity, speed.
    With --texts: false claims and recall by kind against the words of people."""
    if texts:
        from pipeline.benchmarks import caption_claims

        claims = caption_claims.bench(mocap=mocap, texts=texts, half=half)
        print_result(claims, as_json, caption_claims.bench_text(claims))
        return
    from pipeline.benchmarks.captions import bench, bench_text

    report = bench(mocap=mocap, clips=clips, videos=videos)
    print_result(report, as_json, bench_text(report))


@bench_app.command("control")
def bench_control(
    checkpoint: Annotated[str, typer.Argument(help="Folder that humo train llm wrote; empty: the shipped model.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Motions of each wording.")] = 3,
    wordings: Annotated[int, typer.Option(min=1, max=10, help="Wordings of each action.")] = 10,
    action: Annotated[list[str] | None, typer.Option(help="Action to try; repeat it. Without it: all.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of the motions.")] = 4.0,
    guidance: Annotated[float, typer.Option(help="How strongly the text steers; 1: no guidance.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Whether generated motions do what they were told, sides included, by the events of the caption rules."""
    from model.generation.generator import Generator
    from pipeline.benchmarks.control import bench, bench_text

    generator = Generator(checkpoint)
    report = bench(
        generator, seeds=seeds, wordings=wordings, seconds=seconds, guidance=guidance, actions=tuple(action or ())
    )
    print_result(report, as_json, bench_text(report))


@bench_app.command("decoding")
def bench_decoding(
    preset: Annotated[str, typer.Option(help="Preset of the language model: tiny, small or base.")] = "small",
    backbone: Annotated[
        str, typer.Option(help="Folder or hub name of a pretrained backbone, or smollm2; empty: that of the preset.")
    ] = "",
    tokenizer: Annotated[str, typer.Option(help="Preset of the tokenizer.")] = "fast",
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a motion.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, help="Motions of each layout, in turns.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda:0, ...")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Speed of generation: the step decoder beside the flat layout, in which every code takes a pass of the backbone."""
    from pipeline.benchmarks.decoding import bench, bench_text

    report = bench(
        preset=preset,
        backbone=backbone,
        tokenizer=tokenizer,
        seconds=seconds,
        rounds=rounds,
        threads=threads,
        device=device,
    )
    print_result(report, as_json, bench_text(report))


@bench_app.command("words")
def bench_words(
    dataset: Annotated[str, typer.Argument(help="Folder of a dataset of the labelled videos; any fsspec path.")],
    labels: Annotated[str, typer.Argument(help="JSON file: what an observer saw, by video, time and place.")],
    as_json: AsJson = False,
) -> None:
    """What a dataset says of real people against labels: people kept, false and missing words."""
    from pipeline.benchmarks.words import bench, bench_text

    report = bench(dataset, labels)
    print_result(report, as_json, bench_text(report))


@bench_app.command("evaluator")
def bench_evaluator(
    dataset: Annotated[str, typer.Argument(help="Dataset of motions that it was not trained on.")],
    evaluator: Evaluator = "",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    texts: HumanTexts = None,
    source: TextSources = None,
    training: Annotated[str, typer.Option(help="Dataset of its training, for the nearest motions.")] = "",
    limit: Annotated[int, typer.Option(help="Most samples; 0: all.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Whether an evaluator can be trusted: real pairs, shuffled texts, swapped sides, noise, other speeds, nearest motions."""
    from pipeline.benchmarks.evaluator import bench, bench_text

    report = bench(
        dataset,
        evaluator=evaluator,
        split=split,
        texts=texts or [],
        sources=source or [],
        training=training,
        limit=limit,
    )
    print_result(report, as_json, bench_text(report))


@bench_app.command("vision")
def bench_vision(
    dataset: Annotated[
        str, typer.Argument(help="A packed dataset with clips whose motion is known, such as films of the studio.")
    ],
    tower: Annotated[str, typer.Option(help="detector or open_clip.")] = "detector",
    model: Annotated[str, typer.Option(help="Of open_clip: a folder that it saved, or an architecture's name.")] = "",
    weights: Annotated[str, typer.Option(help="Weights file of the tower; empty: the detector's shipped ones.")] = "",
    grid: Annotated[int, typer.Option(help="Tokens of places along a side of a frame.")] = 4,
    px: Annotated[int, typer.Option(help="Side of the detector's picture, pixels.")] = 256,
    fps: Annotated[float, typer.Option(help="Frames of a clip that are looked at, 1/s.")] = 2.0,
    limit: Annotated[int, typer.Option(help="Most samples; 0: all.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Whether a vision tower's tokens tell the posture: a linear probe on held-out films, and right against shuffled pictures."""
    from model.vision.config import VisionConfig
    from pipeline.benchmarks.vision import bench, bench_text
    from schemas.config import parse_config

    settings = {"tower": tower, "model": model, "weights": weights, "grid": grid, "px": px}
    report = bench(dataset, vision=parse_config(settings, VisionConfig, "humo bench vision"), fps=fps, limit=limit)
    print_result(report, as_json, bench_text(report))


@bench_app.command("overhead")
def bench_overhead(
    sizes: Annotated[
        str, typer.Option(help="Numbers of items, growing, each of more than one commit.")
    ] = "1000,10000,100000",
    engine: Annotated[str, typer.Option(help="inline or ray.")] = "inline",
    sources_per_commit: Annotated[int, typer.Option(help="Items that are committed together.")] = 100,
    isolate: Annotated[bool, typer.Option(help="Whether the stages run in processes of their own.")] = True,
    as_json: AsJson = False,
) -> None:
    """What the engine and its commits cost an item, by number of items, beside a plain program that writes as many files."""
    from pipeline.benchmarks.overhead import bench, bench_text

    report = bench(sizes, engine=engine, sources_per_commit=sources_per_commit, isolate=isolate)
    print_result(report, as_json, bench_text(report))


@bench_app.command("device")
def bench_device(
    minutes: Annotated[float, typer.Option(help="Time for all parts together.")] = 10.0,
    only: Annotated[
        str,
        typer.Option(help="Parts, separated by commas: parity, decoding, lifter, tracking, tokenizer, llm, loader."),
    ] = "",
    out: Annotated[
        str, typer.Option(help="File for the report, written after every figure; one that exists is continued.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """What one accelerator gives in a fixed time: networks, decoding at 7B, training, loading; the most valuable first."""
    from pipeline.benchmarks.device.report import report_text
    from pipeline.benchmarks.device.run import bench

    parts = [name.strip() for name in only.split(",") if name.strip()]
    report = bench(minutes, only=parts, out=out, device=device)
    print_result(report, as_json, report_text(report))
