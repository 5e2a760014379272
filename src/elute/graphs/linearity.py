"""Which operations between some tensors and what they were computed from are not linear, read off autograd's graph.

Only what is known to be linear passes; a product, or a quotient, passes where one factor, or the dividend, is alive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_LINEAR = frozenset(
    (
        *("Add", "Sub", "Rsub", "Neg", "Sum", "Mean", "Cumsum", "Clone", "Copy", "ToCopy", "To", "Alias", "Detach"),
        *(
            "View",
            "UnsafeView",
            "ReshapeAlias",
            "T",
            "Transpose",
            "Permute",
            "Expand",
            "Squeeze",
            "Unsqueeze",
            "Repeat",
        ),
        *(
            "Slice",
            "Select",
            "Index",
            "IndexSelect",
            "IndexAdd",
            "Gather",
            "Take",
            "Narrow",
            "Unbind",
            "Split",
            "SplitWithSizes",
        ),
        *("UnsafeSplit", "Cat", "Stack", "Where", "MaskedFill", "IndexPut", "Scatter", "ScatterAdd", "SelectScatter"),
        *("SliceScatter", "AsStrided", "Diagonal", "Flip", "Roll", "ConstantPadNd", "Fill", "Zero", "CopySlices"),
        *("NativeBatchNorm", "CudnnBatchNorm", "AvgPool2D", "AdaptiveAvgPool2D", "UpsampleNearest2D", "Embedding"),
        *("AccumulateGrad", "Trace", "Movedim", "Swapaxes", "Unfold", "PixelShuffle", "RepeatInterleave", "Contiguous"),
    )
)
_PRODUCTS = frozenset(("Mul", "Mm", "Bmm", "Mv", "Dot", "Convolution", "Linear", "Prod2"))
_SUMMED_PRODUCTS = frozenset(("Addmm", "Addbmm", "Baddbmm", "Addmv", "Addcmul"))  # the first input is added
_NAME = re.compile(r"(Backwards?|\d+|<.*>)+$")


def not_linear(tensors: Iterable[Tensor], made: Mapping[Any, str]) -> tuple[str, ...]:
    """Name each operation above `tensors` that is not linear, as `module: operation`, sorted.

    `made` says which module computed a node of the graph; a node that is not in it belongs to what reads it.
    """
    found: set[str] = set()
    seen: set[Any] = set()
    left = [(x.grad_fn, "") for x in tensors if x.grad_fn is not None]
    while left:
        node, reader = left.pop()
        if node in seen:
            continue
        seen.add(node)
        path = made.get(node, reader)
        inputs = [other for other, _ in node.next_functions]
        if (name := _fault(node.name(), [other is not None for other in inputs])) is not None:
            found.add(f"{path or 'the network'}: {name}")
        left += [(other, path) for other in inputs if other is not None]
    return tuple(sorted(found))


def _fault(name: str, alive: list[bool]) -> str | None:
    kind = _NAME.sub("", name.rpartition("::")[2])
    if kind in _LINEAR:
        return None
    if kind in _PRODUCTS and sum(alive) <= 1:
        return None
    if kind in _SUMMED_PRODUCTS and sum(alive[1:]) <= 1:
        return None
    if kind == "Div" and not any(alive[1:]):
        return None
    return kind.lower()
