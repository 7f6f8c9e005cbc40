"""What one call is seen to do for operands of several forms.

One line may call a function for operands of several forms, of which only some extents change from call to call, as
`linear` is called inside all layers of a network. Each is a case of its own, made of two graphs of that form. Which
graphs make a pair is a guess: extents that stay are not told apart from those that change. Two graphs whose operands
differ in one pair of extents are taken for two of one form. Others are not, before there are several: a call in which
two sizes change always gives such graphs, one with several forms soon gives pairs of the first kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.any_size import Joined, Sized, shown
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType
from graphc.repeats import Service
from graphc.room_programs import Form
from graphc.rooms import sizes_of

MOST_CASES = 8  # of a call; the least recently used are forgotten
MOST_ALONE = 4  # examples, each of another form as it seems, after which the next is taken for one of such a form


@dataclass(slots=True, eq=False)
class Case:
    """`whole` does what a call does for operands of one form, as in `example`, if its other arguments are `rest`.
    `service`, with which native code does that, was made after so many `changes` of `whole`.
    """

    rest: list[object]
    example: Graph
    whole: Joined | Sized
    service: Service | None = None
    changes: int = -1

    def differences(self, types: Sequence[TensorType]) -> int | None:
        """0 for operands of this form; while that is not known, in how many pairs of extents they differ from those of
        the example. None for operands of another form.
        """
        whole = self.whole
        if isinstance(whole, Joined):
            return 0 if _are_joined(whole, types) else None
        if not _have_ranks(whole.types, types):
            return None
        if whole.form is None:
            return len(sizes_of(whole.types, types))
        return 0 if _have_form(whole.form, whole.types, types) else None

    def learn(self, graph: Graph, cost: float) -> bool:
        """Look at another graph of this form, which took some microseconds; whether there is something new."""
        whole, types = self.whole, [node.type for node in graph.inputs]
        if isinstance(whole, Joined):
            return False
        if whole.form is not None and len(sizes_of(whole.types, types)) != len(whole.least):
            return False  # some sizes are those of the example: the two do not tell that these change
        before = whole.changes
        whole.learn(graph, cost)
        if whole.form is None:
            self.example = graph if whole.types == types else self.example
        return whole.changes != before


def learn(cases: list[Case], rest: list[object], graph: Graph, cost: float) -> tuple[bool, bool]:
    """Look at what a call did with such arguments, which took some microseconds. Whether that began a case, and whether
    something new is compiled.
    """
    types = [node.type for node in graph.inputs]
    mine = [case for case in cases if case.rest == rest and _gives_alike(case.example, graph)]
    near = [(found, case) for case in mine if (found := case.differences(types)) is not None]
    found, case = min(near, key=lambda each: each[0], default=(None, None))
    if case is None or (found is not None and found > 1):
        again = next((each for each in mine if _is_near(each, types)), None)
        if again is not None:  # two of its extents change, though not at once
            case = Case(rest, again.example, shown(again.example))
            _begin(cases, case)
            return True, case.learn(graph, cost)
        if case is None or (len(near) < MOST_ALONE and len(cases) < MOST_CASES):
            _begin(cases, Case(rest, graph, shown(graph)))
            return True, False
    used(cases, case)
    return False, case.learn(graph, cost)


def is_given_up(cases: Sequence[Case], rest: list[object], types: Sequence[TensorType]) -> bool:
    """Whether it is known that nothing is to be learnt of a call with such arguments."""
    given_up = [case for case in cases if case.whole.is_given_up and case.rest == rest]
    return any(case.differences(types) == 0 for case in given_up)


def used(cases: list[Case], case: Case) -> None:
    """A case was of use."""
    if case in cases[1:]:
        cases.remove(case)
        cases.insert(0, case)


def chained(cases: Sequence[Case]) -> Service | None:
    """The first of the services of all cases, which leads to the others; None if there is none."""
    services = [case.service for case in cases if case.service is not None]
    if not services:
        return None
    for service, following in zip(services, [*services[1:], None], strict=True):
        service.lead_to(following)
    services[0].taken()  # it counts from now on
    return services[0]


def _begin(cases: list[Case], case: Case) -> None:
    cases.insert(0, case)
    del cases[MOST_CASES:]


def _is_near(case: Case, types: Sequence[TensorType]) -> bool:
    """Whether operands, which are not of its form, differ from those of a case's example in one pair of extents."""
    whole = case.whole
    if isinstance(whole, Joined) or whole.form is None or not _have_ranks(whole.types, types):
        return False
    return whole.types == [node.type for node in case.example.inputs] and len(sizes_of(whole.types, types)) == 1


def _have_ranks(wanted: Sequence[TensorType], types: Sequence[TensorType]) -> bool:
    pairs = zip(wanted, types, strict=False)
    return len(wanted) == len(types) and all(a.dtype is b.dtype and a.rank == b.rank for a, b in pairs)


def _gives_alike(example: Graph, graph: Graph) -> bool:
    return _have_ranks([node.type for node in example.outputs], [node.type for node in graph.outputs])


def _have_form(form: Form, wanted: Sequence[TensorType], types: Sequence[TensorType]) -> bool:
    """Whether extents that stay are as wanted, and each of those that change is the same wherever it is."""
    sizes: dict[int, int] = {}
    return all(
        n == (m if number < 0 else sizes.setdefault(number, n))
        for type, example, dims in zip(types, wanted, form, strict=True)
        for n, m, number in zip(type.shape, example.shape, dims, strict=True)
    )


def _are_joined(whole: Joined, types: Sequence[TensorType]) -> bool:
    axis, example = whole.axis, whole.example
    return all(
        type.dtype is example.dtype
        and type.rank == example.rank
        and type.shape[:axis] == example.shape[:axis]
        and type.shape[axis + 1 :] == example.shape[axis + 1 :]
        for type in types
    )
