"""A small convolutional network that OpenVINO has read, as a torch module with the same weights: for CUDA, which OpenVINO does not
run on.

The graph's operators run in its own order; those whose inputs are all constant run once, when the module is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.errors import HumoError


@dataclass(frozen=True)
class _Step:
    """One operator: its inputs by name, those that set shapes and axes as numbers."""

    kind: str
    attributes: dict[str, Any]
    sources: tuple[str | list[int], ...]
    result: str


class TorchGraph(nn.Module):
    """Float images (N, H, W, 3), 0 to 1, to the outputs of the graph, for any N."""

    def __init__(self, model: Any) -> None:
        """`model`: an `openvino.Model`. Raises HumoError where it has an operator that is missing here."""
        super().__init__()
        self._steps: list[_Step] = []
        self._outputs = [_source(result.input(0)) for result in model.get_results()]
        constants: dict[str, Tensor] = {}
        used: dict[str, str] = {}
        for op in model.get_ordered_ops():
            kind, name = op.get_type_name(), op.get_friendly_name()
            sources = [_source(value) for value in op.inputs()]
            if kind == "Parameter":
                self._input = name
            elif kind == "Constant":
                constants[name] = torch.from_numpy(np.array(op.get_data()))
            elif kind == "Result":
                continue
            elif kind not in _OPERATORS:
                raise HumoError(
                    f"{kind}: an operator that the torch port of the landmark network lacks; use device cpu"
                )
            else:
                numbers = _NUMBERS.get(kind, ())
                arguments = tuple(
                    constants[source].reshape(-1).tolist() if place in numbers else source
                    for place, source in enumerate(sources)
                )
                step = _Step(kind, op.get_attributes(), arguments, name)
                tensors = [source for source in arguments if isinstance(source, str)]
                if all(source in constants for source in tensors):
                    constants[name] = _run(step, constants)
                    continue
                used |= {
                    source: f"constant_{len(used)}" for source in tensors if source in constants and source not in used
                }
                self._steps.append(step)
        for source, buffer in used.items():
            self.register_buffer(buffer, constants[source].float().contiguous(), persistent=False)
        self._buffers_by_source = used

    def forward(self, pixels: Tensor) -> list[Tensor]:
        values = {source: self.get_buffer(buffer) for source, buffer in self._buffers_by_source.items()}
        values[self._input] = pixels
        for step in self._steps:
            values[step.result] = _run(step, values)
        return [values[name] for name in self._outputs]


def _source(value: Any) -> str:
    return str(value.get_source_output().get_node().get_friendly_name())


def _run(step: _Step, values: dict[str, Tensor]) -> Tensor:
    arguments = [values[source] if isinstance(source, str) else source for source in step.sources]
    return _OPERATORS[step.kind](step.attributes, *arguments)


def _convolution(attributes: dict[str, Any], x: Tensor, weight: Tensor) -> Tensor:
    groups = 1
    if weight.dim() == 5:  # a group convolution's weights have the groups as their first axis
        groups, weight = weight.shape[0], weight.flatten(0, 1)
    top, left = attributes["pads_begin"]
    bottom, right = attributes["pads_end"]
    if (top, left) == (bottom, right):
        padding = (top, left)
    else:
        x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
    return functional.conv2d(
        x, weight, stride=attributes["strides"], padding=padding, dilation=attributes["dilations"], groups=groups
    )


def _interpolate(attributes: dict[str, Any], x: Tensor, sizes: Sequence[int], axes: Sequence[int]) -> Tensor:
    mode = attributes["mode"], attributes["coordinate_transformation_mode"], attributes["shape_calculation_mode"]
    if mode != ("linear_onnx", "half_pixel", "sizes") or list(axes) != [1, 2]:
        raise HumoError(
            f"interpolation {mode} over axes {axes}: the torch port of the landmark network lacks it; use device cpu"
        )
    resized = functional.interpolate(x.permute(0, 3, 1, 2), list(sizes), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def _pad(attributes: dict[str, Any], x: Tensor, begin: Sequence[int], end: Sequence[int], *value: Tensor) -> Tensor:
    pairs = [side for pair in zip(reversed(begin), reversed(end), strict=True) for side in pair]
    return functional.pad(x, pairs, value=float(value[0]) if value else 0.0)


def _reshape(attributes: dict[str, Any], x: Tensor, shape: Sequence[int]) -> Tensor:
    keep = bool(attributes["special_zero"])  # a 0 then stands for the input's own size
    return x.reshape([x.shape[axis] if keep and size == 0 else size for axis, size in enumerate(shape)])


def _unsqueeze(attributes: dict[str, Any], x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


_NUMBERS = {"Transpose": (1,), "Reshape": (1,), "Unsqueeze": (1,), "Pad": (1, 2), "Interpolate": (1, 2)}
"""Operator -> its inputs that are numbers, not tensors."""
_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda attributes, a, b: a + b,
    "Clamp": lambda attributes, x: x.clamp(attributes["min"], attributes["max"]),
    "Convert": lambda attributes, x: x.float(),
    "Convolution": _convolution,
    "GroupConvolution": _convolution,
    "Interpolate": _interpolate,
    "MaxPool": lambda attributes, x: functional.max_pool2d(x, attributes["kernel"], attributes["strides"]),
    "Pad": _pad,
    "Reshape": _reshape,
    "Sigmoid": lambda attributes, x: x.sigmoid(),
    "Transpose": lambda attributes, x, order: x.permute(order),
    "Unsqueeze": _unsqueeze,
}
