"""The folders' arrows: schemas imports nothing of ours, stages and model import schemas, pipeline imports stages and schemas."""

import ast

import pytest

from pipeline import PROJECT_ROOT

MAY_IMPORT = {
    "schemas": {"schemas"},
    "stages": {"stages", "schemas"},
    "model": {"model", "schemas"},
    "pipeline": {"pipeline", "stages", "schemas"},
}
LAZILY = {"bench_loader.py", "cli.py", "demo.py"}
"""Modules of the command line and what it measures model by, which may import model inside functions."""


def imports(tree: ast.AST, *, inside_functions: bool) -> set[str]:
    """Top-level packages that a module imports, at its top or inside its functions."""
    inner = {id(node) for part in ast.walk(tree) if isinstance(part, ast.FunctionDef) for node in ast.walk(part)}
    found = set()
    for node in ast.walk(tree):
        if (id(node) in inner) != inside_functions:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows(package: str) -> None:
    for path in sorted((PROJECT_ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        ours = (imports(tree, inside_functions=False) | imports(tree, inside_functions=True)) & set(MAY_IMPORT)
        if path.name in LAZILY and package == "pipeline":
            assert "model" not in imports(tree, inside_functions=False), f"{path} imports model at its top"
            ours -= {"model"}
        assert ours <= MAY_IMPORT[package], f"{path} imports {ours - MAY_IMPORT[package]}"


@pytest.mark.parametrize(
    ("library", "module"),
    [("ray", "pipeline/execution/ray_engine.py"), ("apache_beam", "pipeline/audit/statistics.py")],
)
def test_engines_stay_in_one_module(library: str, module: str) -> None:
    users = {
        str(path.relative_to(PROJECT_ROOT))
        for package in MAY_IMPORT
        for path in (PROJECT_ROOT / package).rglob("*.py")
        if library
        in imports(ast.parse(path.read_text()), inside_functions=False)
        | imports(ast.parse(path.read_text()), inside_functions=True)
    }
    assert users <= {module}
