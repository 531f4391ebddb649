"""Statistics over the samples in the shards, with Beam: locally, or on Dataflow, Flink or Spark.

A shard is one unit of work, since a tar cannot be split. It is streamed once into partial summaries; Beam merges those of all
shards by key and a final step writes `statistics/`. The runner only needs access to the dataset's file system.
"""

import importlib
import importlib.util
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.audit.summaries import Count, Histogram, MomentsByShard, Summary, merge
from pipeline.audit.summaries import Moments as _Moments
from schemas.coverage import seen_shares
from schemas.dataset import DatasetDescription, ShardEntry, read_description, read_tombstones
from schemas.errors import HumoError, UsageError
from schemas.sample import MotionArrays, decode_motion, encode_npz
from schemas.shards import read_samples
from schemas.skeleton import PARTS
from schemas.storage import Storage

STATISTICS = "statistics/statistics.json"
FEATURES = "statistics/features.npz"
FRAMES_PER_HOUR = 30 * 3600

Key = tuple[str, str]
"""Key of a summary: a group (`licence`) and a name in it (`CC-BY-4.0`)."""
Featurize = Callable[[MotionArrays], Float[np.ndarray, "N D"]]

_COUNTED_ONLY = ("source", "word")
"""Groups of which only the number of distinct names is kept, since there are too many."""
_GROUPS = {
    "subset": "subsets", "split": "splits", "licence": "licences", "consent": "consents", "body_model": "body_models",
    "model": "models", "coverage": "coverages", "kind": "kinds", "part": "parts", "task": "tasks", "sentences": "sentences",
}  # fmt: skip
"""Group -> its key in statistics.json."""
_REPEATING = ("kind", "part", "task", "sentences")
"""Groups whose names may occur several times in one sample."""
_BEAM_RUNNERS = {"dataflow": "DataflowRunner", "flink": "FlinkRunner", "spark": "SparkRunner"}
_WORKER_CODE = ("sdk_container_image", "setup_file", "environment_config", "environment_type")
_REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    "local": (),
    "dataflow": (("project",), ("region",), ("temp_location",), _WORKER_CODE),
    # Without a given jar Beam downloads one from Maven.
    "flink": (("flink_master", "job_endpoint"), ("flink_job_server_jar", "job_endpoint"), _WORKER_CODE),
    "spark": (("spark_master_url", "job_endpoint"), ("spark_job_server_jar", "job_endpoint"), _WORKER_CODE),
}
"""Runner -> required options; one of each tuple is enough."""


def compute_statistics(
    dataset: str, *, runner: str = "local", options: Sequence[str] = (), featurize: str | Featurize | None = None
) -> dict[str, Any]:
    """Summarise a packed dataset, write `statistics/` into it and return the content of statistics.json.

    `options` are Beam's, as `name=value`. `featurize` maps a motion to feature rows (N, D), or is the import path of such a
    function, `package.module:function`; mean and standard deviation of all rows are written to features.npz as float32 `mean`
    and `std` (D,) with int64 `count`. The same shards give the same bytes on every runner.

    Raises UsageError for an unknown runner or a missing option, HumoError if Beam or the dataset is missing.
    """
    flags = ["--" + option.lstrip("-") for option in options]
    _check_runner(runner, flags)
    beam = _import_beam(runner)
    storage = Storage(dataset)
    description = read_description(storage)
    if runner == "dataflow" and storage.is_local:
        raise UsageError(f"{dataset}: Dataflow's workers cannot read this disk; run humo publish to a bucket first")
    if isinstance(featurize, str):
        load_function(featurize)  # an invalid path should fail here, not on a worker

    pipeline = beam.Pipeline(runner=_runner(runner), options=_pipeline_options(flags))
    summaries = (
        pipeline
        | "Shards" >> beam.Create(description.shards)
        | "Spread" >> beam.Reshuffle()
        | "Summarise" >> beam.FlatMap(summarise_shard, dataset=dataset, featurize=featurize)
        | "Merge" >> beam.CombinePerKey(merge)
    )
    distinct = (
        summaries
        | "Counted only" >> beam.Filter(_is_counted_only)
        | "Group" >> beam.Map(_group)
        | "Count" >> beam.combiners.Count.PerElement()
    )
    kept = summaries | "Kept" >> beam.Filter(_is_kept)
    _ = (
        pipeline
        | "Once" >> beam.Create([description])
        | "Publish"
        >> beam.Map(
            _publish, dataset=dataset, summaries=beam.pvalue.AsDict(kept), distinct=beam.pvalue.AsDict(distinct)
        )
    )
    with _quiet_beam(runner):
        pipeline.run().wait_until_finish()
    return json.loads(storage.read_bytes(STATISTICS))


def summarise_shard(
    shard: ShardEntry, dataset: str, featurize: str | Featurize | None = None
) -> Iterator[tuple[Key, Summary]]:
    """Partial summaries of the live samples of one shard."""
    storage = Storage(dataset)
    removed = read_tombstones(storage)
    function = load_function(featurize) if isinstance(featurize, str) else featurize
    summaries: dict[Key, Summary] = {}
    features: _Moments | None = None
    with storage.open(shard.path) as file:
        for key, members in read_samples(file, f"{dataset}/{shard.path}"):
            if key in removed:
                continue
            try:
                for name, summary in sample_summaries(members, shard.split):
                    if name in summaries:
                        summaries[name].add(summary)  # type: ignore[arg-type]
                    else:
                        summaries[name] = summary
            except (KeyError, ValueError) as error:
                raise HumoError(
                    f"{shard.path}: sample {key}: {type(error).__name__} {error}; see humo verify {dataset}"
                ) from error
            if function is not None:
                rows = _Moments.of(function(decode_motion(members["motion.npz"], f"{shard.path}: {key}.motion.npz")))
                features = rows if features is None else features.merged(rows)
    if features is not None:
        summaries["features", ""] = MomentsByShard({shard.path: features})
    yield from summaries.items()


def sample_summaries(members: dict[str, bytes], split: str) -> Iterator[tuple[Key, Summary]]:
    """Contributions of one sample to the summaries."""
    meta = json.loads(members["meta.json"])
    text = json.loads(members["text.json"])
    frames = int(meta["frames"])
    groups = [("all", ""), ("split", split), ("length_s", str(int(frames / meta["fps"])))]
    groups += [(name, meta[name]) for name in ("subset", "licence", "consent", "body_model")]
    groups += [("coverage", meta.get("coverage", "whole"))]
    groups += [("model", f"{name} {version}") for name, version in meta["models"].items()]
    for group in groups:
        yield group, Count(1, 1, frames)
    yield ("source", meta["source_id"]), Count(1, 1, frames)
    for part, share in seen_shares(decode_motion(members["motion.npz"]).seen).items():
        seen_frames = round(share * frames)
        yield ("seen", part), Count(seen_frames, int(seen_frames > 0), seen_frames)

    for name in ("kind", "part"):
        for value, occurrences in _count_values(event[name] for event in text["rules"]).items():
            yield (name, value), Count(occurrences, 1, frames)
    instances = json.loads(members["instructions.json"])["instances"]
    for task, occurrences in _count_values(instance["task"] for instance in instances).items():
        yield ("task", task), Count(occurrences, 1, frames)

    sentences = {"body": text["body"], "parts": [sentence for part in text["parts"].values() for sentence in part]}
    sentences["events"] = [event["text"] for event in text["rules"]]
    lengths = Histogram()
    for level, lines in sentences.items():
        yield ("sentences", level), Count(len(lines), int(bool(lines)), frames)
        for line in lines:
            words = re.findall(r"\w+(?:['’]\w+)*", line.lower())
            lengths.observe(len(words))
            for word in set(words):
                yield ("word", word), Count(1, 1, frames)
    yield ("histogram", "words_per_sentence"), lengths
    for name, value in [("seconds", frames / meta["fps"]), *((f"score_{k}", v) for k, v in meta["scores"].items())]:
        histogram = Histogram()
        histogram.observe(value)
        yield ("histogram", name), histogram


def load_function(path: str) -> Featurize:
    """The function at `package.module:function`; raises UsageError if there is none."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{path}: no such function ({error}); give it as package.module:function") from None


def _count_values(values: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _is_counted_only(pair: tuple[Key, Summary]) -> bool:
    return pair[0][0] in _COUNTED_ONLY


def _is_kept(pair: tuple[Key, Summary]) -> bool:
    return not _is_counted_only(pair)


def _group(pair: tuple[Key, Summary]) -> str:
    return pair[0][0]


def _publish(
    description: DatasetDescription, dataset: str, summaries: dict[Key, Summary], distinct: dict[str, int]
) -> None:
    """Write statistics.json, and features.npz where features were computed."""
    storage = Storage(dataset)

    def group(name: str) -> dict[str, dict[str, int | float]]:
        counts = {key[1]: value for key, value in summaries.items() if key[0] == name and isinstance(value, Count)}
        return {key: _describe(counts[key], name in _REPEATING) for key in sorted(counts)}

    total = summaries.get(("all", ""), Count())
    assert isinstance(total, Count)
    statistics: dict[str, Any] = {
        "version": description.version,
        "samples": total.samples,
        "frames": total.frames,
        "hours": round(total.frames / FRAMES_PER_HOUR, 6),
        "sources": distinct.get("source", 0),
        "vocabulary": distinct.get("word", 0),
        "histograms": {
            key[1]: value.describe() for key, value in sorted(summaries.items()) if isinstance(value, Histogram)
        },
        "features": {},
    }
    statistics |= {plural: group(name) for name, plural in _GROUPS.items()}
    seen = {key[1]: value.frames for key, value in summaries.items() if key[0] == "seen" and isinstance(value, Count)}
    statistics["seen"] = {part: round(seen.get(part, 0) / max(total.frames, 1), 6) for part in PARTS}
    lengths = {int(key[1]): value for key, value in summaries.items() if key[0] == "length_s"}
    statistics["lengths"] = [
        {"from_s": seconds, "to_s": seconds + 1, "samples": lengths[seconds].samples}  # type: ignore[union-attr]
        for seconds in sorted(lengths)
    ]

    moments = summaries.get(("features", ""))
    if isinstance(moments, MomentsByShard):
        features = moments.total()
        arrays = {"mean": features.mean.astype(np.float32), "std": features.deviation.astype(np.float32)}
        storage.write_bytes(FEATURES, encode_npz({**arrays, "count": np.array(features.count, np.int64)}))
        statistics["features"] = {"rows": features.count, "dimensions": len(features.mean)}
    elif storage.exists(FEATURES):
        storage.delete(FEATURES)  # stale: it describes other samples than statistics.json
    text = json.dumps(statistics, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    storage.write_bytes(STATISTICS, (text + "\n").encode())


def _describe(count: Count, repeating: bool) -> dict[str, int | float]:
    described = {"samples": count.samples, "frames": count.frames, "hours": round(count.frames / FRAMES_PER_HOUR, 6)}
    return {"times": count.occurrences, **described} if repeating else described


def _check_runner(runner: str, flags: Sequence[str]) -> None:
    if runner not in _REQUIRED:
        raise UsageError(f"runner {runner!r}: unknown runner; use one of {', '.join(_REQUIRED)}")
    given = {flag.lstrip("-").partition("=")[0] for flag in flags}
    for alternatives in _REQUIRED[runner]:
        if not given & set(alternatives):
            names = " or ".join(alternatives)
            raise UsageError(f"runner {runner}: option {names} is missing; add --option {alternatives[0]}=VALUE")


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Suppress warnings that Beam's missing optional Google parts send to the root logger."""
    root = logging.getLogger()
    handler = logging.NullHandler()
    root.addHandler(handler)  # without any handler the warning would install one
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        root.removeHandler(handler)


@contextmanager
def _quiet_beam(runner: str) -> Iterator[None]:
    """Suppress the traceback that the local runner logs for an error it also raises."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    if runner == "local":
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _import_beam(runner: str) -> Any:
    try:
        with _quiet_import():
            import apache_beam as beam
    except ImportError as error:
        raise HumoError(f"statistics need Apache Beam ({error}); pip install -e .[beam]") from None
    if runner == "dataflow" and importlib.util.find_spec("apitools") is None:
        raise HumoError("runner dataflow: Beam's Google parts are not installed; pip install 'apache-beam[gcp]'")
    return beam


def _runner(runner: str) -> Any:
    """Beam's runner; the local one is given explicitly, since Beam's default tries to download Prism."""
    if runner != "local":
        return _BEAM_RUNNERS[runner]
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return FnApiRunner()


def _pipeline_options(flags: Sequence[str]) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    # without explicit flags Beam would parse this process's command line
    return PipelineOptions(flags=list(flags))
