"""Program that the multi-process tests run: a training of two ranks; not a test itself.

    torchrun --nproc-per-node 2 distributed_training.py DATASET OUTPUT [raise or kill]
    python distributed_training.py DATASET OUTPUT ray [raise or kill]

With the last word rank 1 fails in its third step, by an error or by the signal KILL, and notes when.
"""

import os
import signal
import sys
import time
from pathlib import Path

from model.training.config import TokenizerTraining
from model.training.loop import Result
from model.training.ray_launcher import train_with_ray
from model.training.tokenizer import _TokenizerTask, train_tokenizer
from schemas.config import parse_config
from schemas.errors import HumoError, exit_status


def config_of(dataset: str, output: str) -> TokenizerTraining:
    architecture = {"preset": "tiny", "codebook_size": 16, "code_width": 8, "width": 16}
    optimisation = {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 2, "bf16": False}
    mapping = {"dataset": dataset, "output": output, "architecture": architecture, "workers": 0, "device": "cpu",
               "window": 32, "log_every": 2, "save_every": 2, "optimisation": optimisation}  # fmt: skip
    return parse_config(mapping, TokenizerTraining, "test")


def failing(how: str, config: TokenizerTraining) -> Result:
    """A training in which rank 1 fails."""
    losses = _TokenizerTask.losses

    def fail(task: _TokenizerTask, module: object, samples: list, step: int) -> dict:
        if step == 2 and os.environ["RANK"] == "1":
            Path(config.output, "failed").write_text(str(time.time()))
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise HumoError("sample 17: its frames are gone")
        return losses(task, module, samples, step)

    _TokenizerTask.losses = fail  # type: ignore[method-assign]
    return train_tokenizer(config)


def raising(config: TokenizerTraining) -> Result:
    return failing("raise", config)


def dying(config: TokenizerTraining) -> Result:
    return failing("kill", config)


if __name__ == "__main__":
    dataset, output, *words = sys.argv[1:]
    train = dying if "kill" in words else raising if "raise" in words else train_tokenizer
    try:
        if "ray" in words:
            print(train_with_ray(train, config_of(dataset, output), 2))
        else:
            train(config_of(dataset, output))
    except HumoError as error:
        sys.exit(exit_status(error, "humo"))
