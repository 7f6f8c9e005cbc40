"""Equal modules in both libraries: weights copied over, and everything that comes out compared."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphc
import graphc.nn
from tests.differential.compare import floats, kind_of, message, to, torch


def outcome(function: Callable[[Any], Any], library: Any) -> Any:
    """What `function(library)` gives, or the type and text of its error, and its warnings; with the library's own paths
    taken out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            made: Any = function(library)
        except Exception as error:
            made = (kind_of(error), message(error).strip("'\""))
    own = [str(w.message) for w in caught if w.category in (UserWarning, FutureWarning)]
    text = repr((made, own))
    return re.sub(r"(torch\.nn\.modules|graphc\.nn)\.(containers?|module|linear|activation)\.", "nn.", text)


def same(function: Callable[[Any], Any]) -> str:
    """Asserts that both libraries do the same; gives the text of what they did."""
    wanted, found = outcome(function, torch), outcome(function, graphc)
    assert found == wanted
    return found


def pair(make: Callable[[Any], Any], seed: int = 0) -> tuple[Any, Any]:
    """`make(nn)` in both libraries with the same weights and the same text."""
    torch.manual_seed(seed)
    theirs, ours = make(torch.nn), make(graphc.nn)
    assert repr(ours) == repr(theirs)
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    for name, value in ours.state_dict().items():
        assert tuple(value.shape) == tuple(state[name].shape), name
        assert str(value.dtype) == str(state[name].dtype), name
    ours.load_state_dict({name: graphc.tensor(value.numpy()) for name, value in state.items()})
    return theirs, ours


def flat(result: Any) -> list[Any]:
    """The tensors in nested tuples and lists; None stays."""
    if isinstance(result, tuple | list):
        return [leaf for part in result for leaf in flat(part)]
    return [result]


def compare(
    theirs: Any,
    ours: Any,
    arrays: Sequence[np.ndarray],
    call: Callable[..., Any] = lambda t, module, *inputs: module(*inputs),
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Asserts equal results of `call(library, module, *tensors)`, and equal gradients of all inputs and parameters."""
    found: list[list[Any]] = []
    for library, module in ((torch, theirs), (graphc, ours)):
        module.zero_grad()
        inputs = [to(library, a, a.dtype.kind == "f") for a in arrays]
        results = flat(call(library, module, *inputs))
        loss: Any = 0
        for place, result in enumerate(results):
            if result is not None and result.requires_grad:
                loss = loss + (result * to(library, floats(*result.shape, seed=place))).sum()
        if not isinstance(loss, int):
            loss.backward()
        gradients = [x.grad for x in inputs if x.requires_grad] + [p.grad for p in module.parameters()]
        found.append([*(None if r is None else r.detach() for r in results), *gradients])
    wanted, got = found
    assert len(got) == len(wanted)
    for place, (want, have) in enumerate(zip(wanted, got, strict=True)):
        assert (have is None) == (want is None), place
        if want is not None:
            assert tuple(have.shape) == tuple(want.shape) and str(have.dtype) == str(want.dtype), place
            np.testing.assert_allclose(have.numpy(), want.numpy(), rtol=rtol, atol=atol, err_msg=str(place))
