"""Parameters, gradients and optimiser state split over the processes of a training (FSDP2, torch's `fully_shard`)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(module: nn.Module, device: torch.device) -> None:
    """Split a module's parameters in place. The blocks of its `backbone` are gathered one at a time, all else at once.

    Its forward pass returns losses. Processes must exchange the gradients of the same parameters, but a batch without texts, for
    example, leaves some without any: all of them are added to the first loss, times zero.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    backbone = getattr(module, "backbone", None)
    blocks = (
        [block for part in backbone.modules() if isinstance(part, nn.ModuleList) for block in part] if backbone else []
    )
    for block in blocks:
        fully_shard(block, mesh=mesh)
    in_blocks = {id(parameter) for block in blocks for parameter in block.parameters()}
    own = [name for name, one in module.named_parameters() if one.requires_grad and id(one) not in in_blocks]
    fully_shard(module, mesh=mesh)

    def count_all(module: nn.Module, _: Any, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        if not module.training:
            return losses
        parameters = dict(module.named_parameters())
        nothing = sum(parameters[name].flatten()[0] * 0.0 for name in own)
        first = next(iter(losses))
        return {**losses, first: losses[first] + nothing}

    module.register_forward_hook(count_all)


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from all processes, which must call this in the same order; others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`whole` of every tensor."""
    return {name: whole(value) for name, value in state.items()}


def placed_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor on the device of a parameter, split as it is."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
