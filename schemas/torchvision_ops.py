"""Makes torchvision's CUDA build importable with a CPU build of torch.

The registry's torchvision is built for CUDA; with a CPU torch its compiled operators do not load and `import torchvision`
fails on the missing `torchvision::nms`. Declaring that operator's schema, with a CPU kernel, is enough for the parts that
humo uses: detection with non-maximum suppression, and image transforms.
"""

import torch

_library: torch.library.Library | None = None


def ensure_operators() -> None:
    """Register the operators; call it before importing torchvision, ultralytics or open_clip.

    Does nothing if torch has CUDA (the builds match then) or the operator exists already.
    """
    global _library
    if _library is not None or torch.version.cuda is not None or _has_nms():
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _nms, "CPU")
    _library = library
    import torchvision.extension

    torchvision.extension._has_ops = lambda: True  # its check looks for the library that did not load


def _has_nms() -> bool:
    return torch._C._dispatch_has_kernel("torchvision::nms")


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes (N, 4; x0, y0, x1, y1) that greedy suppression keeps, best first."""
    order = scores.argsort(descending=True, stable=True)
    x0, y0, x1, y1 = boxes[order].unbind(1)
    area = (x1 - x0) * (y1 - y0)
    width = (torch.minimum(x1[:, None], x1) - torch.maximum(x0[:, None], x0)).clamp(min=0)
    height = (torch.minimum(y1[:, None], y1) - torch.maximum(y0[:, None], y0)).clamp(min=0)
    overlap = width * height
    suppresses = (overlap > iou_threshold * (area[:, None] + area - overlap)).triu(1)
    keep = torch.ones(len(order), dtype=torch.bool)
    for index in range(len(order)):
        if keep[index]:
            keep &= ~suppresses[index]
    return order[keep]
