"""Hooks of tensors and gradient nodes, in PyTorch and here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.differential.side_by_side import Program, Say, attempt, same


def leaf(torch: Any) -> Any:
    return torch.tensor([1.0, 2.0, 3.0], requires_grad=True)


def looks(torch: Any, say: Say) -> None:
    x = leaf(torch)
    y = x * 2
    z = y * y
    y.register_hook(lambda g: say("late", g))
    (z + y).sum().backward()
    say(x.grad)


def replaces_one_of_two_equal_values(torch: Any, say: Say) -> None:
    x = leaf(torch)
    y, twin = x * 2, x * 2
    y.register_hook(lambda g: g * 10)
    (y * 3 + twin).sum().backward()
    copy = x.clone()
    copy.register_hook(lambda g: g * 10)
    (copy * 3 + x).sum().backward()
    say(x.grad)


def run_from_the_end_and_can_be_removed(torch: Any, say: Say) -> None:
    x = leaf(torch)
    a = x * 1
    a.register_hook(lambda g: say("a", g))
    b = a.exp()
    b.register_hook(lambda g: say("b", g))
    c = b.sin()
    handle = c.register_hook(lambda g: say("c", g))
    (c * a).sum().backward(retain_graph=True)
    handle.remove()
    handle.remove()
    (c * a).sum().backward()
    with (x * 1).register_hook(print):
        say("with")


def of_leaves(torch: Any, say: Say) -> None:
    x = leaf(torch)
    first = x.register_hook(lambda g: g + 1)
    second = x.register_post_accumulate_grad_hook(lambda p: say("post", p.grad, p is x))
    (x * x).sum().backward()
    say(torch.autograd.grad((x * x).sum(), x))
    first.remove()
    second.remove()
    (x * x).sum().backward()
    say(x.grad)


def of_leaves_in_order(torch: Any, say: Say) -> None:
    weights = [torch.ones(3, requires_grad=True) for _ in range(4)]
    for i, w in enumerate(weights):
        w.register_post_accumulate_grad_hook(lambda p, i=i: say("leaf", i))
    value = leaf(torch)
    for w in weights:
        value = (value * w).sin()
    value.sum().backward()


def are_differentiable(torch: Any, say: Say) -> None:
    x = leaf(torch)
    y = x * x
    y.register_hook(lambda g: g * y)
    (g,) = torch.autograd.grad((y * x).sum(), x, create_graph=True)
    g.sum().backward()
    say(g, x.grad)


def and_retained_gradients(torch: Any, say: Say) -> None:
    x = leaf(torch)
    y = x * x
    y.retain_grad()
    y.register_hook(lambda g: g * 2)
    (y * 3).sum().backward()
    say(y.grad, x.grad)


def of_views(torch: Any, say: Say) -> None:
    x = leaf(torch)
    y = x * x
    part = y[1:]
    part.retain_grad()
    (part * 3).sum().backward()
    say(part.grad, x.grad)
    y = x * x
    part = y[1:]
    part.register_hook(lambda g: g * 2)
    (part * 3 + y[:2]).sum().backward()
    say(x.grad)


def of_nodes(torch: Any, say: Say) -> None:
    x = leaf(torch)
    z = (x * x).exp()
    z.grad_fn.register_hook(lambda inputs, outputs: say("node", inputs, outputs))
    z.grad_fn.register_prehook(lambda outputs: (outputs[0] * 2,))
    z.sum().backward()
    say(x.grad)
    y = (x * 2).sin()
    y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] * 3,))
    y.sum().backward()
    say(x.grad)


def of_accumulators(torch: Any, say: Say) -> None:
    x = leaf(torch)
    y = x * x
    node = y.grad_fn.next_functions[0][0]
    say(node.name(), node.variable is x, y.grad_fn is y.grad_fn, y.grad_fn.name(), y.grad_fn.next_functions[0][1])
    node.register_hook(lambda inputs, outputs: say("after", inputs, outputs))
    node.register_prehook(lambda outputs: (outputs[0] * 2,))
    y.sum().backward()
    say(x.grad)


def with_writes_between(torch: Any, say: Say) -> None:
    x = leaf(torch)
    y = x * 2
    y.register_hook(lambda g: say("before", g))
    y.mul_(3)
    y.register_hook(lambda g: say("after", g))
    y.sum().backward()
    say(x.grad)


def only_where_needed(torch: Any, say: Say) -> None:
    x, w = leaf(torch), torch.ones(3, requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: say("not called"))
    (y * w).sum().backward(inputs=[w])
    say(w.grad, x.grad is None)


def that_are_wrong(torch: Any, say: Say) -> None:
    x = leaf(torch)

    def cut(g: Any) -> Any:
        return g[:2]

    for hook in (cut, lambda g: 3, lambda g: g.double()):
        y = x * 2
        y.register_hook(hook)
        attempt(say, lambda y=y: y.sum().backward())
    attempt(say, lambda: torch.ones(3).register_hook(print))
    attempt(say, lambda: (x * 1).register_post_accumulate_grad_hook(print))
    attempt(say, lambda: torch.ones(3).register_post_accumulate_grad_hook(print))


PROGRAMS = [
    looks,
    replaces_one_of_two_equal_values,
    run_from_the_end_and_can_be_removed,
    of_leaves,
    of_leaves_in_order,
    are_differentiable,
    and_retained_gradients,
    of_views,
    of_nodes,
    of_accumulators,
    with_writes_between,
    only_where_needed,
    that_are_wrong,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_hooks(program: Program) -> None:
    same(program)


def _tree(node: Any, depth: int = 0) -> list[str]:
    lines = ["  " * depth + ("None" if node is None else node.name())]
    for parent, number in node.next_functions if node is not None else ():
        assert number >= 0
        lines += _tree(parent, depth + 1)
    return lines


def _trees(t: Any, say: Any) -> None:
    x = t.arange(12.0).reshape(3, 4).requires_grad_()
    y = x * 2
    flat = y.view(-1).unsqueeze(0)
    say(flat.exp().grad_fn.next_functions[0][0] is flat.grad_fn, type(flat.grad_fn).__name__)
    written, row = y.clone(), None
    row = written[0]
    written.mul_(3)
    first, second = y.split(2, 1)
    for made in (
        (x @ x.T).sum(),
        (x.view(2, 6)[0] * 2).sum(),
        flat,
        (flat[:, :3] + flat[:, 1:4]).sum(),
        t.where(x.T > 0, x.T, 0 * x.t()),
        t.cat([x.T, y.t()[:2]]),
        written,
        row * 1,
        first + second,
        x.expand(2, 3, 4).sum(),
        y.squeeze().squeeze(0).permute(1, 0).contiguous(),
        t.gather(x.T, 0, t.zeros(1, 3, dtype=t.int64)),
        t.nn.functional.conv1d(x[None], x[None], x[0, :1]),
        t.relu(x.unflatten(1, (2, 2)).sum(-1)),
    ):
        say(_tree(made.grad_fn))


def test_next_functions_show_views() -> None:
    same(_trees)
