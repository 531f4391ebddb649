"""Print pins of everything that pyproject.toml's extras need, as installed in the environment that runs this.

    .venv/bin/python requirements/make_lock.py > requirements/lock.txt

torch and what it alone needs are left out: its build (CPU or CUDA) decides them, and `make setup` installs it first.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("vision", "beam", "training", "test")
INSTEAD = {"opencv-python": "opencv-python-headless"}
"""The windowed build of OpenCV does not import on a machine without libGL."""
LEFT_OUT = {"torch", "triton", "ultralytics-platform", "openvino-telemetry"}
"""The first two come with torch; the others only report usage to their makers."""


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """Name -> version of all that the requirements lead to, by the installed packages' own metadata."""
    pins: dict[str, str] = {}
    waiting = list(requirements)
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = INSTEAD.get(canonicalize_name(wanted.name), canonicalize_name(wanted.name))
        for extra in {"", *wanted.extras}:
            if (
                name in LEFT_OUT
                or (name, extra) in seen
                or (wanted.marker and not wanted.marker.evaluate({"extra": ""}))
            ):
                continue
            seen.add((name, extra))
            try:
                found = distribution(name)
            except PackageNotFoundError:
                sys.exit(f"{name} is needed and not installed; install it in this environment first")
            pins[name] = found.version
            for line in found.requires or []:
                inner = Requirement(line)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    inner.marker = None
                    waiting.append(inner)
    return pins


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    pins = closure([Requirement(one) for one in [*wanted, "setuptools", "wheel", "packaging"]])
    print("# Made by requirements/make_lock.py; installed without resolution, after torch (see the Makefile).")
    for name, version in sorted(pins.items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
