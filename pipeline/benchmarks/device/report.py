"""The report of `humo bench device`: written anew after every figure, so that it is complete whenever the run is stopped."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from schemas.errors import UsageError

Figure = dict[str, Any]
"""`name`, then numbers by names that end in their unit, or `skipped` with the reason."""
LATE = "s were left"
"""How the reason ends for which a figure was skipped for lack of time: it is measured when the run is continued."""
_PACKAGES = (
    "torch", "numpy", "transformers", "torchao", "torchvision", "ultralytics", "vector-quantize-pytorch", "pydantic",
)  # fmt: skip


class Report:
    """The figures so far of all parts; `content` is what the file holds."""

    def __init__(self, path: Path | None, content: dict[str, Any]) -> None:
        self.path, self.content = path, content

    @classmethod
    def open(cls, path: Path | None, about: dict[str, Any]) -> "Report":
        """An empty report, or the one at `path`; raises UsageError if that is about another machine, version or size."""
        if path is not None and path.is_file():
            try:
                before = json.loads(path.read_text())
                differing = [name for name in about if before[name] != about[name]]
                before["parts"].values()
            except (ValueError, KeyError, TypeError, AttributeError, OSError):
                raise UsageError(f"--out: {path} is no report of this benchmark; name another file") from None
            if differing:
                raise UsageError(
                    f"--out: {path} is about another run ({', '.join(differing)} differ); name another file"
                )
            return cls(path, before)
        report = cls(path, {**about, "parts": {}})
        report.write()
        return report

    def is_done(self, part: str) -> bool:
        return bool(self.content["parts"].get(part, {}).get("status") == "done")

    def measured(self, part: str) -> list[str]:
        """Names of a part's figures that have numbers."""
        figures = self.content["parts"].get(part, {}).get("figures", [])
        return [figure["name"] for figure in figures if "skipped" not in figure]

    def end(self, part: str) -> None:
        """The status of a part whose process has ended by itself."""
        late = [figure["name"] for figure in self._row(part)["figures"] if figure.get("skipped", "").endswith(LATE)]
        self.set_status(part, *(("out of time", f"no time for {', '.join(late)}") if late else ("done",)))

    def set_status(self, part: str, status: str, reason: str = "") -> None:
        row = self._row(part)
        row["status"] = status
        row.pop("reason", None)
        if reason:
            row["reason"] = reason
        self.write()

    def count_seconds(self, part: str, seconds: float) -> None:
        """Add to the time that a part has taken in all runs."""
        row = self._row(part)
        row["seconds"] = round(row["seconds"] + seconds, 1)

    def add(self, part: str, figure: Figure) -> None:
        """Add a figure, instead of an earlier one of its name."""
        row = self._row(part)
        row["figures"] = [other for other in row["figures"] if other["name"] != figure["name"]] + [figure]
        self.write()

    def write(self) -> None:
        """The file as it is now, by renaming: a reader never sees half of it."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_name(f".{self.path.name}.partial")
            partial.write_text(json.dumps(self.content, indent=1) + "\n")
            partial.replace(self.path)
        except OSError as error:
            raise UsageError(f"--out: {self.path} cannot be written ({error.strerror}); name another file") from None

    def _row(self, part: str) -> dict[str, Any]:
        row: dict[str, Any] = self.content["parts"].setdefault(part, {"status": "", "seconds": 0.0, "figures": []})
        return row


def describe_machine(device: str) -> tuple[dict[str, Any], str]:
    """The device and the versions for the report, and the device's type; raises UsageError for one that is not there."""
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device: {device!r} is not known; use auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device: cuda is not available to torch; use auto or cpu")
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine: dict[str, Any] = {
        "device": f"CPU, {platform.machine()}",
        "memory_gib": 0.0,
        "cores": cores,
        "cuda": torch.version.cuda or "",
        "python": platform.python_version(),
        "versions": versions,
    }
    if kind == "cuda":
        properties = torch.cuda.get_device_properties(0)
        machine |= {"device": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
    return machine, kind


def report_text(content: dict[str, Any]) -> str:
    """The report for a terminal: a line for each figure."""
    lines = [
        f"{content['device']}, {content['cores']} cores, {content['sizes']} sizes, torch {content['versions']['torch']}"
    ]
    for name, part in content["parts"].items():
        lines.append(f"{name}: {part['status']}" + (f" ({part['reason']})" if "reason" in part else ""))
        lines += [f"  {figure_text(figure)}" for figure in part["figures"]]
    return "\n".join(lines)


def figure_text(figure: Figure) -> str:
    """`name: key value, ...` of a figure."""
    values = {key: value for key, value in figure.items() if key != "name"}
    shown = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()]
    return f"{figure['name']}: {', '.join(shown)}"
