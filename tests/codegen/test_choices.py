"""Schedules other than the cost model's: every option of every decision computes the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.alone import kernels_alone
from graphc.codegen.canonical import form_of, moved
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.package import make_artifact
from graphc.codegen.schedule import MODEL, Choice, NoOption
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule import Group
from graphc.ir.types import TensorType, f32, i64
from graphc.pipeline import build_program, schedule
from graphc.tuning import OPTIONS
from graphc_runtime.devices import get_device
from graphc_runtime.executor import Executable
from tests.codegen.programs import buffers, results

TARGET = replace(host_target(), l1_bytes=512, l2_bytes=4096, cores=2)
CHECKED = 10  # choices that are built and run for each graph


def _softmax(b: Builder, x: Node) -> Node:
    rows = (x.shape[0], 1)
    e = b.elementwise("exp", b.sub(x, b.broadcast(b.reshape(b.reduce_max(x, (1,)), rows), x.shape)))
    return b.div(e, b.broadcast(b.reshape(b.reduce_sum(e, (1,)), rows), x.shape))


def _softmax_gradient(b: Builder, x: Node, y: Node) -> Node:
    """Rows of which several are kept while they are gone through again."""
    made = _softmax(b, x)
    both = b.mul(made, y)
    sums = b.reshape(b.reduce_sum(both, (1,)), (x.shape[0], 1))
    return b.sub(both, b.mul(made, b.broadcast(sums, x.shape)))


GRAPHS: dict[str, tuple[tuple[tuple[int, ...], ...], Callable[[Builder, list[Node]], Node]]] = {
    "product": (((31, 40), (40, 65)), lambda b, i: b.contract(i[0], i[1], "a b, b c -> a c")),
    "product of a transposed": (((31, 70), (65, 70)), lambda b, i: b.contract(i[0], i[1], "a b, c b -> a c")),
    "batched product": (((3, 50, 33), (3, 33, 49)), lambda b, i: b.contract(i[0], i[1], "n a b, n b c -> n a c")),
    "convolution": (
        ((2, 5, 11, 12), (6, 5, 3, 3)),
        lambda b, i: b.contract(i[0], i[1], "b c h+r w+s, o c r s -> b o h w"),
    ),
    "gradient of a filter": (
        ((2, 5, 11, 12), (2, 6, 9, 10)),
        lambda b, i: b.contract(i[0], i[1], "b c h+r w+s, b o h w -> o c r s"),
    ),
    "softmax": (((37, 29),), lambda b, i: _softmax(b, i[0])),
    "gradient of a softmax": (((37, 60), (37, 60)), lambda b, i: _softmax_gradient(b, i[0], i[1])),
    "sums along the first axis": (((41, 37),), lambda b, i: b.reduce_sum(i[0], (0,))),
    "transposition": (((9, 33, 41),), lambda b, i: b.permute(i[0], (2, 0, 1))),
    "elements": (((7, 9, 33), (9, 1)), lambda b, i: b.mul(i[0], b.broadcast(i[1], (7, 9, 33)))),
    "places of extremes": (((37, 29),), lambda b, i: b.argmax(i[0], (1,), i64)),
}


def _graph(name: str) -> Graph:
    shapes, make = GRAPHS[name]
    b = Builder()
    inputs = [b.input(i, TensorType(f32, shape)) for i, shape in enumerate(shapes)]
    return Graph(tuple(inputs), (make(b, inputs),))


def _group(graph: Graph) -> tuple[tuple[object, ...], Group]:
    """The key and the group of the graph's kernel with most to do."""
    forms = [form_of(group) for group in schedule(graph, TARGET).groups]
    form = max(forms, key=lambda f: kernels_alone(moved(f)[0], MODEL, TARGET).work)
    return form.key, moved(form)[0]


def _choices(group: Group) -> list[Choice]:
    """One of each kernel that some choice makes of `group`: every option alone, then mixed ones."""
    rng = random.Random(0)
    alone = [Choice(**{name: n}) for name, count in OPTIONS.items() for n in range(count)]
    mixed = [Choice(**{name: rng.randrange(count) for name, count in OPTIONS.items()}) for _ in range(60)]
    found: dict[tuple[str, ...], Choice] = {}
    for choice in (MODEL, *alone, *mixed):
        try:
            made = kernels_alone(group, choice, TARGET)
        except NoOption:
            continue
        for part in made.kernels:
            verify_kernel(part.kernel)
        found.setdefault(made.texts, choice)
    return list(found.values())


QUICK = ("product", "convolution", "softmax")  # the others are in the slow tests


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in GRAPHS])
def test_every_choice_computes_the_same(name: str) -> None:
    graph = _graph(name)
    key, group = _group(graph)
    choices = _choices(group)
    assert choices[0] == MODEL
    assert len(choices) > 1 or group.kept  # sites with lanes of their own and kept rows leave no choice
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-3, 4, n.shape).astype(np.float32) for n in graph.inputs]  # sums of these are exact
    (expected,) = evaluate(graph, arrays)
    for choice in random.Random(1).sample(choices, min(CHECKED, len(choices))):
        program = build_program(graph, target=TARGET, choices={key: choice})
        executable = Executable(make_artifact(program, TARGET, {}), get_device("cpu"))
        (got,) = results(graph, executable.run(buffers(arrays)))
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6, err_msg=str(choice))


def test_contractions_have_options_of_each_decision() -> None:
    _, group = _group(_graph("product of a transposed"))
    choices = _choices(group)
    assert all(any(getattr(choice, name) for choice in choices) for name in OPTIONS if name != "sums")
    _, group = _group(_graph("convolution"))
    assert any(choice.sums for choice in _choices(group))


@pytest.mark.parametrize("decision", OPTIONS)
def test_options_come_to_an_end(decision: str) -> None:
    _, group = _group(_graph("product"))
    with pytest.raises(NoOption):
        kernels_alone(group, Choice(**{decision: 10_000}), TARGET)


def test_a_choice_changes_its_own_kernel_only() -> None:
    b = Builder()
    x, y, z = (b.input(i, TensorType(f32, shape)) for i, shape in enumerate(((31, 40), (40, 65), (9, 33, 41))))
    graph = Graph((x, y, z), (b.contract(x, y, "a b, b c -> a c"), b.permute(z, (2, 0, 1))))
    forms = [form_of(group) for group in schedule(graph, TARGET).groups]
    product = next(f for f in forms if any(n.op == "contract" for n in f.group.inside))
    model = build_program(graph, target=TARGET)
    other = build_program(graph, target=TARGET, choices={product.key: Choice(tile=1)})
    changed = [g for g, a, b in zip(model.launched, model.texts, other.texts, strict=True) if a != b]
    assert len(model.texts) == len(other.texts)
    assert all(any(n.op == "contract" for n in g.inside) for g in changed)
    assert changed


def test_the_text_of_a_form_holds_no_addresses() -> None:
    forms = [[form_of(g) for g in schedule(_graph(name), TARGET).groups] for name in ("convolution", "softmax")]
    texts = [form.text for made in forms for form in made]
    assert len(set(texts)) == len(texts)
    assert not any("0x" in text or "object" in text for text in texts)
    assert texts[0] == form_of(schedule(_graph("convolution"), TARGET).groups[0]).text
