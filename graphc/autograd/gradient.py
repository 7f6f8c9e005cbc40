"""`autograd.grad` with all of PyTorch's arguments."""

from __future__ import annotations

import warnings
from typing import Any

from graphc import Tensor, vmap
from graphc.errors import UsageError
from graphc.gradients import grad as plain_grad


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, Tensor) or value is None else list(value)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of `outputs` with respect to `inputs`, as new tensors; `.grad` is not touched.

    With `is_grads_batched` the first dimension of each of `grad_outputs` numbers vectors, for each of which there is a
    gradient. `only_inputs` has no effect, as in PyTorch. RuntimeError: an input that was not used, unless
    `allow_unused`; shapes that do not fit.
    """
    if not only_inputs:
        warnings.warn(
            "only_inputs argument is deprecated and is ignored now (defaults to True). To accumulate gradient for "
            "other parts of the graph, please use graphc.autograd.backward.",
            FutureWarning,
            stacklevel=2,
        )
    if not is_grads_batched:
        return plain_grad(outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused, materialize_grads)
    out, seeds = _listed(outputs), _listed(grad_outputs)
    if len(seeds) != len(out) or any(s is None for s in seeds):
        raise UsageError("grad can be implicitly created only for scalar outputs")
    for place, (output, seed) in enumerate(zip(out, seeds, strict=True)):
        if seed.ndim == 0 or tuple(seed.shape[1:]) != tuple(output.shape):
            raise UsageError(
                "If `is_grads_batched=True`, we interpret the first dimension of each grad_output as the batch "
                "dimension. The sizes of the remaining dimensions are expected to match the shape of corresponding "
                f"output, but a mismatch was detected: grad_output[{place}] has a shape of torch.Size("
                f"{list(seed.shape[1:])}) and output[{place}] has a shape of torch.Size({list(output.shape)}). If you "
                "only want some tensors in `grad_output` to be considered batched, consider using vmap."
            )
    used: list[bool] = []

    def one(*examples: Any) -> Any:
        found = plain_grad(out, inputs, examples, retain_graph, create_graph, allow_unused, materialize_grads)
        used.extend(g is not None for g in found)
        return tuple(g for g in found if g is not None)

    made = iter(vmap(one)(*seeds))
    return tuple(next(made) if u else None for u in used)
