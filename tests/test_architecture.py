"""The arrows between folders. Imports inside functions count as much as those at the top of a module."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import PROJECT_ROOT

ARROWS = {
    "schemas": "",
    # model, from the ground up; `model` alone is its checkpoints
    "model": "schemas",
    "model.features": "schemas",
    "model.data": "schemas",
    "model.vision": "schemas model.data",
    "model.tokenizer": "schemas model model.features",
    "model.llm": "schemas model model.data model.features model.vision model.tokenizer",
    "model.generation": "schemas model model.data model.features model.vision model.tokenizer model.llm",
    "model.evaluation": "schemas model model.data model.features model.vision model.tokenizer model.llm model.generation",
    "model.training": "schemas model model.data model.features model.vision model.tokenizer model.llm model.evaluation",
    # stages, from the ground up
    "stages.base": "schemas",
    "stages.geometry": "schemas",
    "stages.media": "schemas",
    "stages.quality": "schemas stages.geometry",
    "stages.mocap": "schemas stages.geometry",
    "stages.synthesis": "schemas stages.base stages.geometry stages.media",
    "stages.perception": "schemas stages.base stages.media",
    "stages.joining": "schemas stages.geometry",
    "stages.recovery": "schemas stages.base stages.geometry stages.mocap",
    "stages.language": "schemas stages.base stages.media stages.joining",
    "stages.training": "schemas stages.base stages.geometry stages.media stages.mocap stages.synthesis stages.perception "
    "stages.recovery",
    "stages": "schemas stages.base stages.geometry stages.media stages.quality stages.mocap stages.synthesis stages.perception "
    "stages.joining stages.recovery stages.language",
    # pipeline, from the ground up
    "pipeline.chain": "schemas stages stages.base",
    "pipeline.rendering": "schemas stages.geometry stages.media stages.synthesis",
    "pipeline.dataset": "schemas stages.base pipeline.chain",
    "pipeline.audit": "schemas stages pipeline.chain pipeline.rendering pipeline.dataset",
    "pipeline.execution": "schemas stages.base pipeline.chain pipeline.dataset",
    "pipeline.fault_injection": "schemas stages stages.media stages.synthesis pipeline.chain pipeline.dataset",
    "pipeline.job": "schemas stages pipeline.chain pipeline.dataset pipeline.execution",
    "pipeline.curation": "schemas stages stages.base stages.joining pipeline.chain pipeline.dataset pipeline.audit",
    "pipeline.publishing": "schemas pipeline.dataset pipeline.audit",
    "pipeline.benchmarks": "schemas model.data model.features model.vision model.tokenizer model.llm model.generation "
    "model.evaluation stages stages.base stages.geometry stages.media stages.synthesis stages.perception "
    "stages.recovery stages.training pipeline.chain pipeline.rendering pipeline.dataset pipeline.audit pipeline.execution",
    "pipeline.planning": "schemas stages stages.base stages.media stages.mocap pipeline.chain pipeline.execution pipeline.job",
    "pipeline.commands": "schemas model.data model.vision model.llm model.training model.evaluation model.generation "
    "stages.language stages.mocap stages.perception stages.recovery stages.synthesis "
    "pipeline.chain pipeline.rendering pipeline.dataset pipeline.audit pipeline.execution pipeline.job pipeline.curation "
    "pipeline.publishing pipeline.benchmarks pipeline.planning",
}
"""Room -> the rooms that it may import besides itself. A room is a folder; `stages` alone are the verbs, `stages.base` the modules
beside them that every room may use. Whatever a room imports stands above it here, so there is no circle."""
GROUND = {"base", "failures", "module_commands"}
"""Modules of the room `stages.base`."""
INNER_ARROWS = {
    "stages.language": {"rules": "", "instructions": "rules", "describers": "rules"},
    "stages.recovery": {"lifter": "", "external": ""},
    "stages.training": {"lifter": ""},
}
"""Room -> folder in it -> the folders beside it that it may import; modules of the room itself may be imported by all."""
ENTRIES = {"pipeline": 12, "stages": 30}
"""Most entries of a folder, besides `__init__.py`."""
PACKAGES = ("schemas", "stages", "pipeline", "model")


def modules(package: str) -> Iterator[Path]:
    return (path for path in sorted((PROJECT_ROOT / package).rglob("*.py")))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything of ours that a module imports; `from a import b` is a.b where that is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{one.name}" for one in node.names]
        for name in names:
            if name.split(".")[0] in PACKAGES:
                yield node.lineno, name


def room(dotted: str) -> str:
    """The room that a module, or a name in one, belongs to; a package's own `__init__` belongs to nobody."""
    package, *inner = dotted.split(".")
    if package == "schemas":
        return package
    if not inner or not (
        (PROJECT_ROOT / package / inner[0]).is_dir() or (PROJECT_ROOT / package / f"{inner[0]}.py").is_file()
    ):
        return ""
    if package == "stages" and inner[0] in GROUND:
        return "stages.base"
    return f"{package}.{inner[0]}" if (PROJECT_ROOT / package / inner[0]).is_dir() else package


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT_ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_table_has_no_circle() -> None:
    above: set[str] = set()
    for name, may in ARROWS.items():
        assert set(may.split()) <= above, f"{name}: {set(may.split()) - above} do not stand above it"
        above.add(name)


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows(package: str) -> None:
    wrong = []
    for path in modules(package):
        here = room(dotted(path))
        for line, name in imported(path):
            there = room(name)
            if here and there and there != here and there not in ARROWS[here].split():
                wrong.append(f"{path.relative_to(PROJECT_ROOT)}:{line} imports {name}: {here} may not import {there}")
    assert not wrong, "\n".join(wrong)


def test_arrows_inside_rooms() -> None:
    wrong = []
    for outer, inner in INNER_ARROWS.items():
        for path in modules(outer.replace(".", "/")):
            here = dotted(path).removeprefix(f"{outer}.").split(".")[0]
            for line, name in imported(path):
                there = name.removeprefix(f"{outer}.").split(".")[0]
                if (
                    name.startswith(f"{outer}.")
                    and here in inner
                    and there in inner
                    and there not in (here, *inner[here].split())
                ):
                    wrong.append(
                        f"{path.relative_to(PROJECT_ROOT)}:{line} imports {name}: {here} may not import {there}"
                    )
    assert not wrong, "\n".join(wrong)


def test_verbs_do_not_import_one_another() -> None:
    verbs = {path.stem for path in (PROJECT_ROOT / "stages").glob("*.py")} - GROUND - {"__init__"}
    for verb in sorted(verbs):
        for line, name in imported(PROJECT_ROOT / "stages" / f"{verb}.py"):
            assert name.split(".")[1] not in verbs, f"stages/{verb}.py:{line} imports {name}"


def test_only_commands_and_benchmarks_import_the_model_and_when_it_is_wanted() -> None:
    for path in modules("pipeline"):
        tree = ast.parse(path.read_text())
        top = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "model":
                assert id(node) not in top, f"{path}:{node.lineno} imports model at its top"


@pytest.mark.parametrize(
    ("library", "modules_of"),
    [
        ("ray", {"pipeline/execution/ray_engine.py", "model/training/ray_launcher.py"}),  # Ray Data, Ray Train
        ("apache_beam", {"pipeline/audit/statistics.py"}),
    ],
)
def test_each_engine_stays_in_its_module(library: str, modules_of: set[str]) -> None:
    users = set()
    for path in (path for package in PACKAGES for path in modules(package)):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if library in {name.split(".")[0] for name in names}:
                users.add(str(path.relative_to(PROJECT_ROOT)))
    assert users == modules_of


@pytest.mark.parametrize(("folder", "most"), ENTRIES.items())
def test_folders_stay_small(folder: str, most: int) -> None:
    entries = {path.name for path in (PROJECT_ROOT / folder).iterdir() if not path.name.startswith("__")}
    assert len(entries) <= most, f"{folder}/ has {len(entries)} entries: {', '.join(sorted(entries))}"


def test_packages_say_what_lives_there() -> None:
    for path in (path for package in PACKAGES for path in modules(package) if path.name == "__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path}: has no docstring"


def test_tests_mirror_the_folders() -> None:
    for folder in (
        path for path in (PROJECT_ROOT / "tests").rglob("*") if path.is_dir() and path.name != "__pycache__"
    ):
        mirrored = folder.relative_to(PROJECT_ROOT / "tests")
        assert (PROJECT_ROOT / mirrored).is_dir(), f"tests/{mirrored} mirrors no folder"


def test_a_job_on_videos_and_mocap_imports_neither_training_nor_studio() -> None:
    program = """
import sys
from pipeline.chain.config import IngestConfig
from pipeline.chain.stage_order import build_chain
import pipeline.job.ingest, pipeline.job.retry, pipeline.execution.worker_main, pipeline.execution.ray_engine
config = IngestConfig.model_validate({"sources": [{"path": "videos"}], "output": "data"})
for stage in build_chain(config.chain, config.stages, config.digest, kinds=["video", "mocap"]):
    stage.setup()
found = [name for name in sys.modules if name.startswith(("stages.training", "stages.synthesis.", "model"))]
assert not found, found
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr


def test_paths_named_in_the_documentation_exist() -> None:
    documents = [PROJECT_ROOT / name for name in ("README.md", "BENCHMARKS.md", "NOTICE")]
    documents += (PROJECT_ROOT / "docs").glob("*.md")
    for document in documents:
        for path in re.findall(
            r"`((?:schemas|stages|pipeline|model|configs|tests|docs)/[\w./-]+)`", document.read_text()
        ):
            assert (PROJECT_ROOT / path).exists(), f"{document.name} names {path}"


def test_tests_named_in_the_documentation_exist() -> None:
    text = (PROJECT_ROOT / "docs" / "SECURITY.md").read_text()
    named = re.findall(r"`(tests/[\w/.]+\.py)((?:::\w+)+)`", text)
    assert len(named) > 15
    for path, names in named:
        assert f"def {names.rsplit('::', 1)[-1]}(" in (PROJECT_ROOT / path).read_text(), (
            f"docs/SECURITY.md names {path}{names}"
        )
