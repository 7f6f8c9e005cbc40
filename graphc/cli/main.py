"""The command `graphc`: finds the verb, loads its module, turns errors into exit codes.

Exit codes: 0 all is well; 1 it failed, or a check did; 2 the request itself is wrong; 3 meaningful, but not supported;
130 interrupted (Ctrl-C). This module must stay light: `graphc --help` loads neither NumPy nor llvmlite.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

import click

from graphc.cli.common import FAILED, INTERRUPTED, UNSUPPORTED, USAGE, Choices, note
from graphc.errors import GraphcError, IRSyntaxError, UnsupportedError

# verb -> its line in the help. The verb lives in `graphc.cli.VERB` as the click command `VERB_command`.
VERBS = {
    "train": "Train LeNet on handwritten digits.",
    "trace": "Print what a function compiles to, at any stage.",
    "profile": "Time each kernel of a function, and show its memory.",
    "opt": "Run passes over graphs in text form.",
    "passes": "List the passes of the compiler.",
    "cache": "Show, check or clear the cache of compiled kernels.",
    "doctor": "Check the installation and this machine; say how to fix what is wrong.",
}

# What the system says when stdout cannot be written; click sees to readers that are gone.
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


class Verbs(Choices):
    """A click group that imports a verb's module when the verb is called, not before."""

    kind = "verb"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return getattr(import_module(f"graphc.cli.{cmd_name}"), f"{cmd_name}_command")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> object:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                note("interrupted")
                raise click.exceptions.Exit(INTERRUPTED) from None
            except (GraphcError, RuntimeError, MemoryError) as error:
                reported = _reported(error)
                if reported is None:
                    raise
                text = str(error) or "there is not enough memory"  # Python's own MemoryError says nothing
                raise reported("\n".join([text, *getattr(error, "__notes__", [])])) from error


class _Failed(click.ClickException):
    exit_code = FAILED


class _WrongRequest(click.ClickException):
    exit_code = USAGE


class _Unsupported(click.ClickException):
    exit_code = UNSUPPORTED


def _reported(error: Exception) -> type[click.ClickException] | None:
    """How an error that graphc raises on purpose is reported; None for any other, which shows its traceback."""
    if isinstance(error, IRSyntaxError):
        return _WrongRequest
    if isinstance(error, UnsupportedError):
        return _Unsupported
    if isinstance(error, GraphcError | MemoryError):
        return _Failed
    # The runtime's errors are looked up, not imported: the runtime loads NumPy. If it is not loaded, it raised nothing.
    runtime = sys.modules.get("graphc_runtime.errors")
    if runtime is None or not isinstance(error, runtime.GraphcRuntimeError):
        return None
    return _WrongRequest if isinstance(error, runtime.OptionError) else _Failed


def _show_warning(message: Warning | str, *_where: object) -> None:
    note(f"warning: {message}")


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    metadata = import_module("importlib.metadata")  # takes as long to load as all the rest
    try:
        click.echo(f"graphc {metadata.version('graphc')}")
    except metadata.PackageNotFoundError:
        click.echo("graphc (not installed: running from its source tree)")
    ctx.exit()


@click.group(cls=Verbs, name="graphc", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)
def command() -> None:
    """A graph compiler for tensors: records PyTorch-shaped code and compiles it to native code.

    Data goes to stdout, notes go to stderr. `-` as a file is stdin or stdout. `graphc VERB --help` explains a verb.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point; ends the process with an exit code of 0, 1, 2, 3 or 130."""
    color = False if os.environ.get("NO_COLOR") else None
    try:
        command.main(args=None if arguments is None else list(arguments), prog_name="graphc", color=color)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        note(f"Error: cannot write the output: {error.strerror}")
        with suppress(OSError):
            sys.stdout.close()  # else Python tries once more when it ends, and says so
        sys.exit(FAILED)
