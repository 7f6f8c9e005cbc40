"""The command `graphc`: finds the verb, loads its module, turns errors into exit codes.

Exit codes: 0 all is well; 1 a check failed; 2 the request itself is wrong; 3 meaningful, but not supported.
This module must stay light: `graphc --help` loads neither NumPy nor llvmlite.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import click

from graphc.cli.common import FAILED, UNSUPPORTED, USAGE, unknown
from graphc.errors import GraphcError, IRSyntaxError, UnsupportedError

# verb -> its line in the help. The verb lives in `graphc.cli.VERB` as the click command `VERB_command`.
VERBS = {
    "train": "Train LeNet on handwritten digits.",
    "trace": "Print what a function compiles to, at any stage.",
    "opt": "Run passes over graphs in text form.",
    "passes": "List the passes of the compiler.",
    "cache": "Show, check or clear the cache of compiled kernels.",
    "doctor": "Check the installation and this machine; say how to fix what is wrong.",
}


class Verbs(click.Group):
    """A click group that imports a verb's module when the verb is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return getattr(import_module(f"graphc.cli.{cmd_name}"), f"{cmd_name}_command")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise unknown("verb", args[0], VERBS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except GraphcError as error:
            raise _reported(error) from error


def _reported(error: GraphcError) -> click.ClickException:
    """The error as click prints it, with the exit code that fits."""
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    reported = click.ClickException(text)
    if isinstance(error, IRSyntaxError):
        reported.exit_code = USAGE
    elif isinstance(error, UnsupportedError):
        reported.exit_code = UNSUPPORTED
    else:
        reported.exit_code = FAILED
    return reported


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    try:
        click.echo(f"graphc {version('graphc')}")
    except PackageNotFoundError:
        click.echo("graphc (not installed: running from its source tree)")
    ctx.exit()


@click.group(cls=Verbs, name="graphc", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version.")
def command() -> None:
    """A graph compiler for tensors: records PyTorch-shaped code and compiles it to native code.

    Data goes to stdout, notes go to stderr. `-` as a file is stdin or stdout. `graphc VERB --help` explains a verb.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point; ends the process with an exit code of 0, 1, 2 or 3."""
    command.main(args=None if arguments is None else list(arguments), prog_name="graphc")
