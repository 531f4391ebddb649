"""humo bench device: complete reports in time, whatever is missing or killed; decoders that agree with decoding without a cache."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from packaging.requirements import Requirement
from typer.testing import CliRunner

from pipeline import PROJECT_ROOT
from pipeline.benchmarks.device import decoding, run
from pipeline.benchmarks.device.measure import Setting, rate, rate_of_workers
from pipeline.benchmarks.device.parity import NETWORKS, TOLERANCE, parity_difference, relative_difference
from pipeline.benchmarks.device.report import Report, report_text
from pipeline.commands.main import app
from schemas.errors import UsageError

COMMAND = [sys.executable, "-m", "pipeline.benchmarks.device", "--device", "cpu"]
ABOUT = {"device": "a card", "versions": {"torch": "2"}, "cores": 2, "sizes": "small"}


def test_flat_and_step_decoding_agree_with_decoding_without_a_cache() -> None:
    steps = 3
    positions = decoding.PROMPT + 20 * steps
    with torch.inference_mode():
        for layout, expected in ((decoding.STEP_DECODER, _steps_without_cache), (decoding.FLAT, _flat_without_cache)):
            model = decoding.build("tiny", layout, "bf16", positions, "cpu")
            if model.flat is not None:
                model.flat.tokens.weight *= 20
            decoder = decoding.layout_of(layout, model)
            found = torch.stack([decoder.step() for _ in range(steps)])
            assert torch.equal(found, expected(model, steps))
            assert len(found.unique()) > 5


def _prompt(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batch = decoding.prompt_batch(model, decoding.PROMPT)
    return model.embed(batch), model.prompt_vector(batch)


def _steps_without_cache(model: Any, steps: int) -> torch.Tensor:
    """All positions again at every step, and all codes again at every code."""
    sequence, prompt = _prompt(model)
    codebooks = decoding.codebooks_of(model)
    out = []
    for _ in range(steps):
        state = model.text_model(sequence)[:, -1]
        codes = torch.zeros(1, model.parts, model.levels, dtype=torch.long)
        for level in range(model.levels):
            for part in range(model.parts):  # those of the first level come in turn
                codes[:, part, level] = model.step_decoder(state, codes)[:, level, part].argmax(-1)
        out.append(codes[0].clone())
        latents = codebooks.decode(codes[:, None]).transpose(1, 2)
        sequence = torch.cat([sequence, model.embed_steps(latents, prompt)], 1)
    return torch.stack(out)


def _flat_without_cache(model: Any, steps: int) -> torch.Tensor:
    sequence, prompt = _prompt(model)
    out = []
    for number in range(steps * 20):
        place = torch.tensor([number % 20])
        code = model.flat.logits(model.text_model(sequence)[:, -1], place[0]).argmax(-1)
        out.append(code)
        sequence = torch.cat([sequence, model.embed_code(model.flat.embed(code, place)[:, None], prompt)], 1)
    return torch.cat(out).view(steps, model.parts, model.levels)


def test_a_figure_of_decoding_says_what_a_step_takes() -> None:
    setting = Setting("cpu", small=True)
    names = [one.name for one in decoding.measurements(setting)]
    assert names[:2] == ["tiny, step decoder, fp32", "tiny, flat layout, fp32"]
    step, flat = (one.measure(0.5) for one in decoding.measurements(setting)[:2])
    assert (step["passes_per_step"], flat["passes_per_step"]) == (1, 20)
    assert step["frames_per_s"] == pytest.approx(4000 / step["ms_per_step"])
    assert flat["ms_per_step"] > step["ms_per_step"]


def test_work_is_counted_over_the_time_that_it_takes() -> None:
    calls = []

    def work() -> int:
        calls.append(1)
        time.sleep(0.01)
        return 5

    assert 50 < rate(work, 0.1, "cpu") <= 500
    assert 3 < len(calls) <= 11


def test_workers_share_the_device() -> None:
    assert 0 < rate_of_workers(2, _sleeper, (0.02,), 1.0, "cpu") <= 2 * 50


def _sleeper(seconds: float) -> Any:
    def work() -> int:
        time.sleep(seconds)
        return 1

    return work


def test_parity_finds_a_difference() -> None:
    expected = torch.randn(100)
    assert relative_difference(expected + 2e-3, expected) > TOLERANCE
    assert relative_difference(expected * torch.nan, expected) == float("inf")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_the_parity_check_runs(name: str) -> None:
    assert parity_difference(name, "cpu") < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_the_same_numbers_on_cuda(name: str) -> None:
    assert parity_difference(name, "cuda") <= TOLERANCE


def test_a_report_is_continued_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    report = Report.open(path, ABOUT)
    report.set_status("llm", "running")
    report.add("llm", {"name": "a", "skipped": "1 s were left"})
    report.add("llm", {"name": "b", "tokens_per_s": 2.0})
    again = Report.open(path, ABOUT)
    assert again.measured("llm") == ["b"]
    again.end("llm")
    assert not again.is_done("llm")
    again.add("llm", {"name": "a", "tokens_per_s": 3.0})
    again.end("llm")
    content = json.loads(path.read_text())
    assert content["parts"]["llm"]["status"] == "done"
    assert [figure["name"] for figure in content["parts"]["llm"]["figures"]] == ["b", "a"]
    assert "tokens_per_s 3" in report_text(content)
    with pytest.raises(UsageError, match="about another run \\(device differ"):
        Report.open(path, {**ABOUT, "device": "another"})
    path.write_text("[]")
    with pytest.raises(UsageError, match="no report"):
        Report.open(path, ABOUT)
    assert path.read_text() == "[]"


def test_a_run_ends_in_time_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    start = time.monotonic()
    first = run.bench(0.02, only=["decoding", "tokenizer"], out=out, device="cpu")
    assert time.monotonic() - start < 0.02 * 60 + 2
    assert {part["status"] for part in first["parts"].values()} == {"not started"}
    seen = []
    second = run.bench(3.0, only=["decoding"], out=out, device="cpu", on_figure=lambda part, one: seen.append(one))
    assert second == json.loads(out.read_text())
    figures = second["parts"]["decoding"]["figures"]
    assert seen == figures
    assert figures[0]["frames_per_s"] > 0
    again = run.bench(3.0, only=["decoding"], out=out, device="cpu", on_figure=lambda part, one: pytest.fail("again"))
    assert again["parts"] == second["parts"]


def test_a_part_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_MIN_PART_S", 0.1)
    start = time.monotonic()
    part = run.bench(0.03, only=["decoding"], device="cpu")["parts"]["decoding"]
    assert part["status"] == "out of time"
    assert time.monotonic() - start < 0.03 * 60 + 3
    assert not _parts()


def _parts() -> list[psutil.Process]:
    """Processes of parts that this process has started, or their orphans."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if any(f'"parent": {os.getpid()},' in word for word in process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def test_a_killed_run_leaves_its_figures_and_no_process(tmp_path: Path) -> None:
    """The reading processes of a loader are the part's own subprocesses."""
    out = tmp_path / "report.json"
    command = [*COMMAND, "--minutes", "5", "--only", "loader", "--out", str(out)]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started: list[psutil.Process] = []
    try:
        while len(started) < 4 and process.poll() is None:  # the guard, the part and two that read
            started = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(started) == 4
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    content = json.loads(out.read_text())
    assert content["parts"]["loader"]["status"] == "running"
    assert content["parts"]["loader"]["figures"][0]["samples_per_s"] > 0


def test_a_part_without_its_packages_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.PARTS, "tracking", (1.0, ("torch", "no_such_package")))
    part = run.bench(0.2, only=["tracking"], device="cpu")["parts"]["tracking"]
    assert (part["status"], part["reason"]) == ("skipped", "not installed: no_such_package")


@pytest.fixture
def bare_environment(tmp_path: Path) -> dict[str, str]:
    """Environment variables of an interpreter that sees torch, numpy and safetensors with what they need, and nothing else."""
    modules = tmp_path / "modules"
    modules.mkdir()
    names_of: dict[str, list[str]] = {}
    for module, owners in packages_distributions().items():
        for owner in owners:
            names_of.setdefault(_normal(owner), []).append(module)
    waiting, seen = ["torch", "numpy", "safetensors"], set()
    while waiting:
        name = _normal(waiting.pop())
        if name in seen or name not in names_of:
            continue
        seen.add(name)
        requirements = [Requirement(line) for line in distribution(name).requires or []]
        waiting += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    site = Path(torch.__file__).parents[1]
    for name in {*(module for owner in seen for module in names_of[owner]), "numpy.libs"}:
        for path in (site / name, *site.glob(f"{name}.*so"), site / f"{name}.py"):
            if path.exists():
                (modules / path.name).symlink_to(path)
    (modules / "sitecustomize.py").write_text(
        f"import sys\nsys.path[:] = [p for p in sys.path if not p.endswith('site-packages')]\nsys.path.append({str(modules)!r})\n"
    )
    return {**os.environ, "PYTHONPATH": str(modules)}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


@pytest.mark.slow
def test_networks_run_on_a_bare_python(bare_environment: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = [*COMMAND, "--minutes", "6", "--out", str(out)]
    seen = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print([n for n in ('pydantic', 'roma', 'av') if u.find_spec(n)])"],
        env=bare_environment, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert seen.stdout.strip() == "[]"
    done = subprocess.run(
        [*command, "--only", "decoding,lifter,tokenizer,llm,tracking"], env=bare_environment, cwd=PROJECT_ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts = json.loads(out.read_text())["parts"]
    assert parts["tracking"]["status"] == "skipped"
    assert "ultralytics" in parts["tracking"]["reason"]
    figures = {figure["name"]: figure for part in parts.values() for figure in part["figures"]}
    assert figures["tiny, step decoder, fp32"]["without"] == ["jaxtyping", "pydantic"]
    for name in ("encoder alone, tiny", "decoder alone, tiny", "network, 16 windows of 64 frames"):
        assert figures[name]["frames_per_s"] > 0
    assert figures["training, tiny, batch 2 of 96"]["tokens_per_s"] > 0
    assert figures["training, tiny, batch 16"]["skipped"] == "not installed: vector_quantize_pytorch"


def test_the_command_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    runner = CliRunner()
    for arguments, reason in (
        (["--only", "telepathy"], "no such part"),
        (["--minutes", "0"], "is no time"),
        (["--device", "abacus"], "use auto, cpu or cuda"),
    ):
        with pytest.raises(UsageError, match=reason):
            runner.invoke(app, ["bench", "device", *arguments], catch_exceptions=False)
    report = tmp_path / "report.json"
    done = runner.invoke(
        app, ["bench", "device", "--minutes", "0.01", "--device", "cpu", "--out", str(report), "--json"]
    )
    assert done.exit_code == 0
    assert json.loads(done.stdout)["parts"]["parity"]["status"] == "skipped"
