"""`graphc passes`: what passes there are, with their options."""

from __future__ import annotations

import click

from graphc.cli.common import json_option, to_json, unknown
from graphc.ir.record import members
from graphc.passes.registry import PASSES, pass_class


def describe(name: str) -> dict[str, object]:
    """Everything about one pass, as the JSON shows it."""
    kind = pass_class(name)
    return {
        "name": name,
        "doc": kind.doc,
        "options": {f.name: f.default for f in members(kind)},
        "requires": [fact.name for fact in kind.requires],
        "ensures": [fact.name for fact in kind.ensures],
    }


@click.command("passes")
@click.argument("name", required=False)
@json_option
def passes_command(name: str | None, as_json: bool) -> None:
    """List the passes, or show the pass NAME with its options."""
    if name is not None and name not in PASSES:
        raise unknown("pass", name, sorted(PASSES))
    shown = [describe(n) for n in ([name] if name else sorted(PASSES))]
    if as_json:
        click.echo(to_json({"passes": shown}))
        return
    if name is None:
        width = max(map(len, PASSES))
        click.echo("\n".join(f"{p['name']:<{width}}  {p['doc']}" for p in shown))
        return
    chosen = shown[0]
    click.echo(f"{chosen['name']}: {chosen['doc']}")
    kind = pass_class(name)
    options = members(kind)
    for f in options:
        click.echo(f"  option   {f.name}={_spelt(f.default)}")
    for verb, facts in (("requires", kind.requires), ("ensures", kind.ensures)):
        for fact in facts:
            click.echo(f"  {verb:<8} {fact.name}")
    click.echo(f"  use      graphc opt FILE.gir -p {name}")
    if options:
        first = options[0]
        value = not first.default if isinstance(first.default, bool) else first.default
        click.echo(f'  or       graphc opt FILE.gir -p "{name}{{{first.name}={_spelt(value)}}}"')


def _spelt(value: object) -> str:
    """The value of an option as `graphc opt -p` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
