"""The card of a published dataset: README.md with Hugging Face's front matter, as a draft for review by the publisher."""

import json
from typing import Any

import yaml

from pipeline.audit.query import QuerySession
from schemas.dataset import SPLITS, DatasetDescription, ShardEntry
from schemas.sample import MEMBERS
from schemas.shards import read_samples
from schemas.storage import Storage

_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
_LICENCES = {"CC0-1.0": "cc0-1.0", "CC-BY-4.0": "cc-by-4.0", "CC-BY-SA-4.0": "cc-by-sa-4.0", "MIT": "mit"}
"""Licence name in manifests -> name on Hugging Face."""
_CONTENT = {
    "clip.mp4": "the person, cropped, at most 320 px",
    "instructions.json": "training instances: instruction, input, target",
    "keypoints.npz": "COCO-17 keypoints, boxes and 33 landmarks in source pixels, the landmarks in metres, camera",
    "meta.json": "source, licence, consent, span, shot, person, coverage, scores, models with versions",
    "motion.npz": "SMPL at 30 fps: poses (T,24,3) axis-angle, trans (T,3) metres, betas (10,), contacts (T,4), "
    "joint_confidence (T,24), seen (T,5): 1 where torso, left arm, right arm, left leg, right leg were seen, else the pose is made "
    "up; Y up, ground at 0",
    "text.json": "sentences about the body and its parts, timed events, writers and verdicts of the checks",
}


def card_text(storage: Storage, description: DatasetDescription, *, name: str, contact: str) -> str:
    """README.md for the published dataset in `storage`."""
    with QuerySession(storage.address) as session:
        licences = session.rows(
            "SELECT licence, consent, count(DISTINCT source_id) AS sources, count(*) AS samples, sum(seconds) / 3600 AS hours"
            " FROM samples GROUP BY licence, consent ORDER BY samples DESC, licence, consent"
        )
        coverages = session.rows(
            "SELECT coalesce(coverage, 'whole') AS coverage, count(*) AS samples, sum(seconds) / 3600 AS hours"
            " FROM samples GROUP BY 1 ORDER BY samples DESC, coverage"
        )
        writers = session.rows("SELECT describer, count(*) AS n FROM samples GROUP BY describer ORDER BY describer")
    title = name or storage.uri.rstrip("/").rsplit("/", 1)[-1]
    shards = description.shards
    sections = [
        f"# {title}",
        f"Human motion with descriptions: {description.counts['live']:,} samples, {description.counts['hours']:.2f} hours, "
        f"version `{description.version}`, made with humo {description.humo}. This card was generated from the data; the "
        "publisher should review it and add further information.",
        "## Contents\n\n" + _table(["subset", "split", "samples", "hours", "shards"], _shard_rows(shards)),
        "How much of the body was seen:\n\n"
        + _table(
            ["coverage", "samples", "hours"],
            [[one["coverage"], one["samples"], f"{one['hours']:.3f}"] for one in coverages],
        ),
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
        _licence_notes(licences),
        "## Creation\n\n" + _creation(storage, description, writers),
        "## Limits\n\n" + _LIMITS,
        "## Removal requests\n\n"
        + (f"Write to {contact}" if contact else "Write to the publisher")
        + " with the id of the source (`source_id` in `meta.json` and in `catalogue/`) or the key of the sample. "
        "`humo remove` deletes it permanently with everything derived from it; the next publication does not contain it. "
        "Please replace existing copies with the new version.",
        "## Usage\n\n" + _usage(shards),
    ]
    front = yaml.safe_dump(_front(title, description, licences), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n" + "\n\n".join(section for section in sections if section) + "\n"


def _front(title: str, description: DatasetDescription, licences: list[dict[str, Any]]) -> dict[str, Any]:
    names = sorted({part for one in licences for part in (one["licence"] or "unknown").split(" AND ")})
    known = _LICENCES.get(names[0]) if len(names) == 1 else None
    live = description.counts["live"]
    subsets = sorted({shard.subset for shard in description.shards})
    samples = {subset: sum(one.samples for one in description.shards if one.subset == subset) for subset in subsets}
    largest = max(subsets, key=lambda subset: samples[subset])
    return {
        "pretty_name": title,
        **({"license": known} if known else {"license": "other", "license_name": " AND ".join(names)}),
        "size_categories": [next((text for limit, text in _SIZES if live < limit), "10M<n<100M")],
        "tags": ["human-motion", "smpl", "motion-captioning", "webdataset"],
        "configs": [
            {
                "config_name": subset,
                **({"default": True} if subset == largest else {}),
                "data_files": [
                    {"split": split, "path": f"shards/{subset}/{split}-*.tar"}
                    for split in SPLITS
                    if any((shard.subset, shard.split) == (subset, split) for shard in description.shards)
                ],
            }
            for subset in subsets
        ],
    }


def _shard_rows(shards: list[ShardEntry]) -> list[list[Any]]:
    groups = sorted({(shard.subset, SPLITS.index(shard.split)) for shard in shards})
    rows = []
    for subset, index in groups:
        group = [shard for shard in shards if (shard.subset, shard.split) == (subset, SPLITS[index])]
        hours = f"{sum(shard.hours for shard in group):.3f}"
        rows.append([subset, SPLITS[index], sum(shard.samples for shard in group), hours, len(group)])
    return rows


def _members(subset: str) -> str:
    return "\n".join(f"- `{member}`: {_CONTENT[member]}" for member in MEMBERS[subset])


def _licence_notes(licences: list[dict[str, Any]]) -> str:
    unknown_licence = sum(
        one["samples"] for one in licences if "unknown" in (one["licence"] or "unknown").split(" AND ")
    )
    unknown_consent = sum(one["samples"] for one in licences if one["consent"] in ("", "unknown"))
    lines = [
        "Every sample gives its source, licence and consent in `meta.json`; the licence of the source applies to it."
    ]
    if unknown_licence:
        lines.append(f"**The licence of {unknown_licence:,} samples is unknown.** They may not be free to use.")
    if unknown_consent:
        lines.append(f"The consent of the people shown is unknown for {unknown_consent:,} samples.")
    return " ".join(lines)


def _creation(storage: Storage, description: DatasetDescription, writers: list[dict[str, Any]]) -> str:
    models: dict[str, set[str]] = {}
    for shard in description.shards:
        with storage.open(shard.path) as file:
            _, members = next(read_samples(file, shard.path))
        for step, model in json.loads(members["meta.json"])["models"].items():
            models.setdefault(step, set()).add(str(model))
    lines = [f"- {step}: {', '.join(sorted(names))}" for step, names in sorted(models.items())]
    lines += [f"- describer {one['describer']}: {one['n']:,} samples" for one in writers]
    lines += [f"- body model: {model}" for model in description.body_models]
    lines += [f"- settings (digests, as in `meta.json`): {', '.join(description.config_digests)}"]
    return "Models listed by the first sample of each shard:\n\n" + "\n".join(lines)


_LIMITS = """\
- Motions from video are estimates from 2D keypoints: hands and feet keep their rest rotation, hidden limbs and people in contact
  are unreliable, body size cannot be separated from distance. Scores of every sample are in `catalogue/`.
- Descriptions by rules are as accurate as the motion; those of other describers were checked against it, see `text.json`.
- Every source is in one split. A person who appears in several sources may be in several splits."""


def _usage(shards: list[ShardEntry]) -> str:
    shard = shards[0]
    last = sum((one.subset, one.split) == (shard.subset, shard.split) for one in shards) - 1
    span = f"{{000000..{last:06d}}}" if last else "000000"
    return f"""\
```python
import datasets, webdataset

datasets.load_dataset(FOLDER, "{shard.subset}")  # then .cast_column("clip.mp4", datasets.Video(decode=False)) where there are clips
webdataset.WebDataset(FOLDER + "/shards/{shard.subset}/{shard.split}-{span}.tar", shardshuffle=False)
```

It is also a humo dataset: `humo verify FOLDER` checks every hash and member, `humo train` accepts it as `dataset`. For Megatron
Energon, `.nv-meta` describes it as a `CrudeWebdataset` (all subsets; a single one with `split_config: split-SUBSET.yaml`):
`megatron.energon`'s `get_train_dataset(FOLDER, ...)`, with your own cooker."""


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [
        head,
        ["---"] * len(head),
        *([str(value).replace("|", "/").replace("\n", " ") for value in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
