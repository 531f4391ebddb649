"""Program that a multi-process test runs; not a test itself.

    torchrun --nproc-per-node 2 sharded_training.py DATASET OUTPUT

Trains a language model in two processes three times: with a copy each, in OUTPUT/copies; split, in OUTPUT/split; and from
that one's second checkpoint, in OUTPUT/resumed.
"""

import json
import shutil
import sys
from pathlib import Path

import torch.distributed as dist

from model.training.config import LanguageModelTraining, TokenizerTraining
from model.training.llm import train_llm
from model.training.loop import Processes
from model.training.tokenizer import train_tokenizer
from schemas.config import parse_config


def main(dataset: str, output: Path) -> None:
    optimisation = {"steps": 4, "batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 1, "bf16": False, "ema": 0.5}
    common = {"dataset": dataset, "workers": 0, "device": "cpu", "log_every": 2, "save_every": 2, "keep": 3}
    codes = {"preset": "tiny", "codebook_size": 16, "code_width": 8, "width": 16}
    tokenizer = {**common, "output": str(output / "tokenizer"), "architecture": codes, "window": 32,
                 "optimisation": {**optimisation, "steps": 1}}  # fmt: skip
    train_tokenizer(parse_config(tokenizer, TokenizerTraining, "test"))
    sizes = {"width": 32, "layers": 2, "heads": 2, "step_width": 16, "step_layers": 1, "step_heads": 2, "dropout": 0.0}
    language = {**common, "tokenizer": str(output / "tokenizer"), "architecture": {"preset": "tiny", **sizes},
                "text_vocabulary": 400, "validate_every": 2, "optimisation": optimisation}  # fmt: skip

    def train(name: str, sharded: bool) -> None:
        mapping = {**language, "output": str(output / name), "sharded": sharded}
        train_llm(parse_config(mapping, LanguageModelTraining, "test"))

    train("copies", False)
    train("split", True)
    if Processes.join("cpu").is_main:
        shutil.copytree(output / "split", output / "resumed")
        shutil.rmtree(output / "resumed" / "step-00000004")
        (output / "resumed" / "latest.json").write_text(json.dumps({"checkpoint": "step-00000002"}))
    dist.barrier()
    train("resumed", True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    dist.destroy_process_group()
