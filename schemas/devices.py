"""Where torch computes, and on how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from schemas.errors import UsageError


def choose_device(name: str, *, index: int = 0) -> torch.device:
    """A device by name; `auto` is CUDA device `index` where there is one, else the CPU.

    Raises UsageError for a device that is not to be had.
    """
    if name == "auto":
        return torch.device(f"cuda:{index}" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device: {name}: not to be had here ({reason}); use auto or cpu") from None
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices by itself; elsewhere that is slower than single precision."""
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads for torch's operators in the block, as many as before after it.

    Stages use one: results then do not depend on the machine, and the waiting threads of small operators take no core
    from whoever else computes (beside another network they cost milliseconds an operator).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
