"""Means over targets, of all processes together."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def token_means(
    sums: dict[str, tuple[Float[Tensor, ""], Float[Tensor, ""] | int]], *, across: bool
) -> dict[str, Float[Tensor, ""]]:
    """Name -> sum over targets, divided by their number or weight; 0 where there are none.

    With `across`, in a group of processes, the divisor is the mean number of targets of a process. The average of the gradients
    over processes is then that of the mean over all targets, wherever they are. All processes must call it.
    """
    first = next(iter(sums.values()))[0]
    counts = torch.stack([torch.as_tensor(count, device=first.device).float() for _, count in sums.values()]).detach()
    if across and dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
        counts = counts / dist.get_world_size()
    counts = torch.where(counts > 0, counts, 1.0)
    return {name: total / count for (name, (total, _)), count in zip(sums.items(), counts, strict=True)}
