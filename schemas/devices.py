"""Device and thread count of torch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from schemas.errors import UsageError


def choose_device(name: str, *, index: int = 0) -> torch.device:
    """A device by name; `auto` is CUDA device `index` if available, else the CPU.

    Raises UsageError for an unavailable device.
    """
    if name == "auto":
        return torch.device(f"cuda:{index}" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device: {name}: not available ({reason}); use auto or cpu") from None
    return device


def supports_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices natively; elsewhere that is slower than single precision."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of threads of torch's operators within the block, and restore it afterwards.

    Stages use one: results then do not depend on the machine, and idle threads of small operators do not occupy cores that
    other networks need (which costs milliseconds per operator).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
