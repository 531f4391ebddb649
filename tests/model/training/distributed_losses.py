"""Program that a multi-process test runs in each process; not a test itself.

    torchrun --nproc-per-node 2 distributed_losses.py OUT [sharded]
    python distributed_losses.py OUT

Twenty steps on the same sequences, of which each rank has its share, with texts and motions unequally spread; OUT gets the losses.
"""

import json
import os
import random
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model.llm.language_model import LanguageModelConfig, MotionLanguageModel
from model.llm.packing import Packer
from model.llm.segments import Example, Motion, MotionAnswer, TextAnswer, Words
from model.llm.vocabulary import TextVocabulary
from model.training.loop import mean_over_ranks
from model.training.sharding import shard

PARTS, LEVELS, CODES, WIDTH = 5, 4, 8, 6
STEPS, SEQUENCES = 20, 6


def examples(seed: int) -> list[Example]:
    """Two texts and four motions of different lengths; the first half is long."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    found = []
    for number in range(SEQUENCES):
        steps = rng.randrange(12, 20) if number < SEQUENCES // 2 else rng.randrange(2, 6)
        codes = torch.randint(CODES, (steps, PARTS, LEVELS), generator=generator)
        latents = torch.randn(steps, PARTS, WIDTH, generator=generator)
        words = (Words(text="go on " * rng.randrange(1, 5)),)
        if number in (0, 1):
            shown = Motion(codes=codes, latents=latents)
            found.append(Example(task="m2t", prompt=(*words, shown), answer=TextAnswer(text="what is this " * 3)))
        else:
            found.append(Example(task="t2m", prompt=words, answer=MotionAnswer(codes=codes, latents=latents)))
    return found


def losses_of(rank: int, ranks: int, sharded: bool) -> list[float]:
    """The loss of every step."""
    torch.manual_seed(0)
    config = LanguageModelConfig(
        width=32, layers=2, heads=2, step_width=16, step_layers=1, step_heads=2, dropout=0.0, noise=0.0, context=64
    )
    sizes = {"parts": PARTS, "levels": LEVELS, "codebook_size": CODES, "code_width": WIDTH}
    model = MotionLanguageModel(config, text_tokens=300, **sizes)
    packer = Packer(TextVocabulary.learn(["go on", "what is this"], 300), PARTS, LEVELS, WIDTH, 64)
    module: nn.Module = model
    if sharded:
        shard(model, torch.device("cpu"))
    elif ranks > 1:
        module = DistributedDataParallel(model, find_unused_parameters=True)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    size, found = SEQUENCES // ranks, []
    for step in range(STEPS):
        own = examples(step)[rank * size : (rank + 1) * size]
        losses = module(packer.collate([packer.sequence(one) for one in own]))
        loss = losses["motion"] + losses["text"] + 0.1 * losses["stop"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(mean_over_ranks({"loss": loss.detach()})["loss"].item())
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    result = losses_of(rank, ranks, "sharded" in sys.argv)
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(result))
    if ranks > 1:
        dist.destroy_process_group()
