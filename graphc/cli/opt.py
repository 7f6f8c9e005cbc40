"""`graphc opt`: graphs in text form in, passes, graphs in text form out."""

from __future__ import annotations

import click

from graphc.cli.common import json_option, note, output_option, to_json, unknown, write_text
from graphc.cli.target import read_graphs
from graphc.errors import GraphcError
from graphc.ir import Graph
from graphc.ir.record import members
from graphc.passes.base import Pass, run_passes
from graphc.passes.registry import parse_pipeline


@click.command("opt")
@click.argument("file")
@click.option(
    "-p", "--passes", "pipeline", default="", metavar="LIST", help='For example "decompose,simplify{no_nans=true}".'
)
@click.option("--print-after", metavar="all|changed|NAME", help="Print the graph to stderr after these passes.")
@click.option("--verify-each", is_flag=True, help="Verify the graph, and what each pass promises, after each pass.")
@click.option("--time", "timed", is_flag=True, help="Say on stderr how long each pass took.")
@output_option
@json_option
def opt_command(
    file: str, pipeline: str, print_after: str | None, verify_each: bool, timed: bool, output: str, as_json: bool
) -> None:
    """Run passes over every graph in FILE (`-`: stdin) and print the result. With no pass: parse, verify, print.

    Options of a pass stand in braces after its name; `graphc passes NAME` lists them.

    Exit code 2 when FILE is no valid graph or there is no such pass; 1 when a graph lacks what a pass requires, and,
    with --verify-each, when a pass breaks a rule of the IR or its promise.
    """
    passes = _parse(pipeline)
    names = [step.name for step in passes]
    if print_after not in (None, "all", "changed", *names):
        raise unknown("pass in --print-after", print_after or "", ["all", "changed", *names])
    graphs = read_graphs(file)
    ran: list[dict[str, object]] = []

    def observe(step: Pass, before: Graph, after: Graph, seconds: float) -> None:
        changed = after is not before
        counted = {"changed": changed, "seconds": seconds, "nodes": len(after.nodes)}
        ran.append({"graph": after.name, "pass": str(step), **counted})
        if timed:
            note(f"{seconds * 1e3:9.3f} ms  {step}{'' if changed else '  (unchanged)'}  @{after.name}")
        if print_after in ("all", step.name) or (print_after == "changed" and changed):
            note(f"// after {step}{'' if changed else ' (unchanged)'}\n{after}")

    results = [run_passes(graph, passes, verify_each, observe) for graph in graphs]
    if as_json:
        write_text(output, to_json({"graphs": [str(graph) for graph in results], "passes": ran}))
    else:
        write_text(output, "\n\n".join(str(graph) for graph in results))


def _parse(pipeline: str) -> list[Pass]:
    try:
        passes = parse_pipeline(pipeline)
    except GraphcError as error:
        raise click.UsageError(str(error)) from error
    for step in passes:
        for f in members(type(step)):  # whole numbers among options are sizes
            value = getattr(step, f.name)
            if type(value) is int and value < 1:
                raise click.UsageError(f"option {f.name} of pass {step.name} must be at least 1, not {value}")
    return passes
