"""The card of a published dataset: README.md with the front matter that Hugging Face reads, to be gone through by a person."""

import json
from typing import Any

import yaml

from pipeline.audit.query import Questions
from schemas.dataset import SPLITS, DatasetDescription, ShardEntry
from schemas.sample import MEMBERS
from schemas.shards import read_samples
from schemas.storage import Storage

_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
_LICENCES = {"CC0-1.0": "cc0-1.0", "CC-BY-4.0": "cc-by-4.0", "CC-BY-SA-4.0": "cc-by-sa-4.0", "MIT": "mit"}
"""Names as manifests write them -> as Hugging Face does."""
_CONTENT = {
    "clip.mp4": "the person, cropped, at most 320 px",
    "instructions.json": "training instances: what is given, what is asked for",
    "keypoints.npz": "COCO-17 keypoints and boxes in source pixels, camera",
    "meta.json": "source, licence, consent, span, person, scores, models with versions",
    "motion.npz": "SMPL at 30 fps: poses (T,24,3) axis-angle, trans (T,3) metres, betas (10,), contacts (T,4), "
    "joint_confidence (T,24); Y up, ground at 0",
    "text.json": "sentences about the body and its parts, timed events, who wrote what and how it was checked",
}


def card_text(storage: Storage, description: DatasetDescription, *, name: str, contact: str) -> str:
    """The whole README.md of a dataset that lies there, but for it."""
    with Questions(storage.uri) as questions:
        licences = questions.rows(
            "SELECT licence, consent, count(DISTINCT source_id) AS sources, count(*) AS samples, sum(seconds) / 3600 AS hours"
            " FROM samples GROUP BY licence, consent ORDER BY samples DESC, licence, consent"
        )
        writers = questions.rows("SELECT describer, count(*) AS n FROM samples GROUP BY describer ORDER BY describer")
    title = name or storage.uri.rstrip("/").rsplit("/", 1)[-1]
    shards = description.shards
    sections = [
        f"# {title}",
        f"Human motion with descriptions: {description.counts['live']:,} samples, {description.counts['hours']:.2f} hours, "
        f"version `{description.version}`, made with humo {description.humo}. This card was written by a program from the "
        "data itself; whoever publishes it should read it through and add what only they know.",
        "## What is inside\n\n" + _table(["subset", "split", "samples", "hours", "shards"], _rows_of(shards)),
        *(f"A sample of `{subset}` has:\n\n{_members(subset)}" for subset in sorted({one.subset for one in shards})),
        "## Licences and consent\n\n"
        + _table(
            ["licence", "consent", "sources", "samples", "hours"],
            [
                [
                    one["licence"] or "unknown",
                    one["consent"] or "unknown",
                    one["sources"],
                    one["samples"],
                    f"{one['hours']:.3f}",
                ]
                for one in licences
            ],
        ),
        _on_licences(licences),
        "## How it was made\n\n" + _made(storage, description, writers),
        "## Limits\n\n" + _LIMITS,
        "## To have something removed\n\n"
        + (f"Write to {contact}" if contact else "Write to whoever publishes this")
        + " with the id of the source (`source_id` in `meta.json` and in `catalogue/`) or the key of the sample. "
        "`humo remove` takes it out for good with all that was made of it; the next publication comes without it. "
        "Whoever holds a copy should take the new one.",
        "## How to read it\n\n" + _reading(shards),
    ]
    front = yaml.safe_dump(_front(title, description, licences), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n" + "\n\n".join(section for section in sections if section) + "\n"


def _front(title: str, description: DatasetDescription, licences: list[dict[str, Any]]) -> dict[str, Any]:
    names = sorted({part for one in licences for part in (one["licence"] or "unknown").split(" AND ")})
    known = _LICENCES.get(names[0]) if len(names) == 1 else None
    live = description.counts["live"]
    subsets = sorted({shard.subset for shard in description.shards})
    samples = {subset: sum(one.samples for one in description.shards if one.subset == subset) for subset in subsets}
    biggest = max(subsets, key=lambda subset: samples[subset])
    return {
        "pretty_name": title,
        **({"license": known} if known else {"license": "other", "license_name": " AND ".join(names)}),
        "size_categories": [next((text for limit, text in _SIZES if live < limit), "10M<n<100M")],
        "tags": ["human-motion", "smpl", "motion-captioning", "webdataset"],
        "configs": [
            {
                "config_name": subset,
                **({"default": True} if subset == biggest else {}),
                "data_files": [
                    {"split": split, "path": f"shards/{subset}/{split}-*.tar"}
                    for split in SPLITS
                    if any((shard.subset, shard.split) == (subset, split) for shard in description.shards)
                ],
            }
            for subset in subsets
        ],
    }


def _rows_of(shards: list[ShardEntry]) -> list[list[Any]]:
    groups = sorted({(shard.subset, SPLITS.index(shard.split)) for shard in shards})
    rows = []
    for subset, place in groups:
        mine = [shard for shard in shards if (shard.subset, shard.split) == (subset, SPLITS[place])]
        hours = f"{sum(shard.hours for shard in mine):.3f}"
        rows.append([subset, SPLITS[place], sum(shard.samples for shard in mine), hours, len(mine)])
    return rows


def _members(subset: str) -> str:
    return "\n".join(f"- `{member}`: {_CONTENT[member]}" for member in MEMBERS[subset])


def _on_licences(licences: list[dict[str, Any]]) -> str:
    unknown = sum(one["samples"] for one in licences if "unknown" in (one["licence"] or "unknown").split(" AND "))
    unasked = sum(one["samples"] for one in licences if one["consent"] in ("", "unknown"))
    lines = ["Every sample names its source, licence and consent in `meta.json`; the source's licence holds for it."]
    if unknown:
        lines.append(f"**Nobody knows the licence of {unknown:,} samples.** They may not be free to use.")
    if unasked:
        lines.append(f"Whether the people shown have agreed is not known of {unasked:,} samples.")
    return " ".join(lines)


def _made(storage: Storage, description: DatasetDescription, writers: list[dict[str, Any]]) -> str:
    models: dict[str, set[str]] = {}
    for shard in description.shards:
        with storage.open(shard.path) as file:
            _, members = next(read_samples(file, shard.path))
        for step, model in json.loads(members["meta.json"])["models"].items():
            models.setdefault(step, set()).add(str(model))
    lines = [f"- {step}: {', '.join(sorted(some))}" for step, some in sorted(models.items())]
    lines += [f"- describer {one['describer']}: {one['n']:,} samples" for one in writers]
    lines += [f"- body model: {model}" for model in description.body_models]
    lines += [f"- settings (digests, as in `meta.json`): {', '.join(description.config_digests)}"]
    return "Models as the first sample of each shard names them:\n\n" + "\n".join(lines)


_LIMITS = """\
- Motions from video are estimates from 2D keypoints: hands and feet turn as they rest, hidden limbs and people in contact are
  guesses, body size is not told from distance. Scores of every sample are in `catalogue/`.
- Descriptions by rules are as right as the motion is; those of other describers were held against it, see `text.json`.
- The splits keep every source in one split. Whoever is seen in several sources may be in several splits."""


def _reading(shards: list[ShardEntry]) -> str:
    shard = shards[0]
    last = sum((one.subset, one.split) == (shard.subset, shard.split) for one in shards) - 1
    span = f"{{000000..{last:06d}}}" if last else "000000"
    return f"""\
```python
import datasets, webdataset

datasets.load_dataset(FOLDER, "{shard.subset}")  # then .cast_column("clip.mp4", datasets.Video(decode=False)) where there are clips
webdataset.WebDataset(FOLDER + "/shards/{shard.subset}/{shard.split}-{span}.tar", shardshuffle=False)
```

It is a humo dataset as well: `humo verify FOLDER` checks every hash and member, `humo train` takes it as `dataset`. For Megatron
Energon there is `.nv-meta` (all subsets; one by `split_config: split-SUBSET.yaml`), as a `CrudeWebdataset`: `megatron.energon`'s
`get_train_dataset(FOLDER, ...)`, with a cooker of your own."""


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [
        head,
        ["---"] * len(head),
        *([str(value).replace("|", "/").replace("\n", " ") for value in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
