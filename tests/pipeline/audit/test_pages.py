"""Every page that humo writes: its policy, and that nothing from a dataset becomes markup or code."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import make_dataset

from pipeline.audit import report, view
from pipeline.audit.pages import render_page
from pipeline.audit.query import QuerySession
from pipeline.benchmarks import recovery_page
from pipeline.curation.duplicates import dedupe
from pipeline.curation.duplicates.config import DedupeConfig
from pipeline.curation.duplicates.search import find_pairs, select_removals
from schemas.dataset import read_description
from schemas.storage import Storage

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='alert(3)' style=\"x\" </title></style>"
    "<!-- {{ 7 * 7 }} {% raw %} javascript:alert(4) "
)


class Page(HTMLParser):
    """The structure of a page, its visible text, and what its policy has to name."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: list[str] = []
        self.policy: dict[str, str] = {}
        self.hashed: dict[str, list[str]] = {"style-src": [], "script-src": []}
        self.text, self._inside, self._attributes = "", "", {}
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, tuple(attributes)))
        self._inside, self._attributes = tag, attributes
        self.addresses += [attributes[name] for name in ("src", "href", "srcset", "action") if name in attributes]
        if attributes.get("http-equiv") == "Content-Security-Policy":
            directives = [one.split(" ", 1) for one in attributes["content"].split("; ")]
            self.policy = {name: value for name, value in directives}

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        executed = self._inside == "script" and self._attributes.get("type") != "application/json"
        if self._inside == "style" or executed:
            digest = base64.b64encode(hashlib.sha256(data.encode()).digest()).decode()
            self.hashed["style-src" if self._inside == "style" else "script-src"].append(f"'sha256-{digest}'")
        elif self._inside != "script":
            self.text += data


def report_context(dataset: str) -> dict[str, Any]:
    storage = Storage(dataset)
    with QuerySession(dataset) as session:
        return report._context(storage, read_description(storage), session)


def view_context(dataset: str) -> dict[str, Any]:
    with QuerySession(dataset) as session:
        key = session.rows("SELECT min(key) AS key FROM samples WHERE subset = 'video'")[0]["key"]
    row = view.find_sample(dataset, key)
    return view._context(row, view.read_sample(Storage(dataset), row["shard"], row["key"]))


def duplicates_context(dataset: str) -> dict[str, Any]:
    config, storage = DedupeConfig(), Storage(dataset)
    items = list(dedupe._items(storage, config))
    pairs = find_pairs(items, config)
    assert pairs, "the generated walks repeat"
    return dedupe._context(storage, items, pairs, select_removals(items, pairs, config), config)


def demo_context(_: str) -> dict[str, Any]:
    sample = {"person": 0, "caption": "walks", "parts": [("torso", "leans")]}
    return {
        "videos": [
            {"overlay": "overlays/a.mp4", "title": "A walk", "description": "rendered", "samples": [sample]},
            {"overlay": "overlays/b.mp4", "title": "A wave", "description": "rendered", "samples": []},
        ],
        "counts": {"live": 1, "hours": 0.1, "sources": 2, "sources_with_samples": 1},
        "report": "dataset/report/index.html",
        "generated": [{"video": "generated/a.mp4", "npz": "generated/a.npz", "text": "walks", "seconds": 2.0}],
        "curves": [{"path": "runs/curve.png", "name": "tokenizer"}],
        "version": "1", "seconds": 60.0,
    }  # fmt: skip


def recovery_context(_: str) -> dict[str, Any]:
    strip = {
        "file": "worst-00.jpg",
        "title": "a film",
        "metrics": "MPJPE 80 mm",
        "paths": ["0,0", "1,1"],
        "view_box": "0 0 1 1",
    }
    row = {"mpjpe": 80.0, "clips": 2.0}
    return {
        "report": {
            "motions": "two takes", "weights": "lifter", "body_model": "humo", "definitions": {"mpjpe": "joint error"},
            "keypoints": {"clean": {"lifter, refined": {"all": row}}}, "keypoints_same_clips": {}, "command": "humo bench recovery",
            "machine": "a CPU", "versions": {"torch": "2"},
        },
        "shown": ["mpjpe"], "films": [], "worst": [strip], "rejections": [],
    }  # fmt: skip


PAGES: dict[str, tuple[str | Path, Callable[[str], dict[str, Any]]]] = {
    "report": ("report.html", report_context),
    "view": ("view.html", view_context),
    "duplicates": ("duplicates.html", duplicates_context),
    "demo": ("demo.html", demo_context),
    "recovery": (recovery_page._TEMPLATE, recovery_context),
}
FILES_BESIDE = ("demo", "recovery")
"""Pages with videos or images beside them; all others hold everything."""


COMPARED = ("kind", "shown")
"""Values that templates compare or look up, and do not show."""


def hostile(value: Any) -> Any:
    """A context all of whose texts begin with markup and code; keys of mappings are the templates' own."""
    if isinstance(value, str):
        return HOSTILE + value if value else value  # an empty one is not shown at all
    if isinstance(value, dict):
        return {name: item if name in COMPARED else hostile(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [hostile(item) for item in value]
    return value


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("pages") / "walks")


@pytest.mark.parametrize("name", PAGES)
def test_pages_execute_and_fetch_nothing_else(name: str, dataset: str) -> None:
    template, context_of = PAGES[name]
    page = Page(render_page(template, context_of(dataset)))
    assert page.policy["default-src"] == page.policy["base-uri"] == page.policy["form-action"] == "'none'"
    for directive, hashes in page.hashed.items():
        assert page.policy.get(directive, "") == " ".join(hashes), directive
    assert len(page.hashed["style-src"]) == 1
    assert (
        page.policy["img-src"]
        == page.policy["media-src"]
        == ("data: 'self' file:" if name in FILES_BESIDE else "data:")
    )
    for tag, attributes in page.tags:
        assert not [one for one in attributes if one == "style" or one.startswith("on")], f"{tag} {attributes}"
    fetched = [address for address in page.addresses if not address.startswith(("data:", "#"))]
    assert all(re.fullmatch(r"[\w./-]+(#t=[\d.]+)?", address) for address in fetched)
    assert bool(fetched) == (name in FILES_BESIDE)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_from_a_dataset_becomes_markup(name: str, dataset: str) -> None:
    """With markup in front of every text the page has the same elements and attributes, the same style and the same script."""
    template, context_of = PAGES[name]
    context = context_of(dataset)
    plain, attacked = Page(render_page(template, context)), Page(render_page(template, hostile(context)))
    assert attacked.tags == plain.tags
    assert (attacked.policy, attacked.hashed) == (plain.policy, plain.hashed)
    assert HOSTILE in attacked.text
    assert not [address for address in attacked.addresses if address.lower().startswith("javascript:")]
