"""What the verbs share: exit codes, input and output, messages about unknown names."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

OK, FAILED, USAGE, UNSUPPORTED, INTERRUPTED = 0, 1, 2, 3, 130

JSON_VERSION = 1  # of every `--json` output; grows when a field is removed or changes its meaning

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
output_option = click.option(
    "-o", "--output", default="-", metavar="FILE", show_default=True, help="Where to write; - is stdout."
)


class Choices(click.Group):
    """A click group that answers an unknown name with the names there are."""

    kind = "command"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise unknown(self.kind, args[0], known)
        return super().resolve_command(ctx, args)


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> click.UsageError:
    """The error for a name that does not exist: says what does, nearest first."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    exist = f" There is: {', '.join(names)}." if names else " There is none."
    return click.UsageError(f"unknown {kind} {name!r}.{meant}{exist}{' ' + hint if hint else ''}")


def missing_file(path: Path, suffix: str) -> click.UsageError:
    """The error for a file that is not there: says which files of that suffix stand beside it, or in the folder that
    has its name.
    """
    is_folder = path.is_dir()
    folder = path if is_folder else path.parent
    if not folder.is_dir():
        return click.UsageError(f"no such file: {path} (there is no folder {folder})")
    beside = sorted(p.name for p in folder.glob(f"*{suffix}"))[:20]
    close = difflib.get_close_matches(path.name, beside, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    exist = f" In {folder} there is: {', '.join(beside)}." if beside else f" In {folder} there is no {suffix} file."
    wrong = f"{path} is a folder" if is_folder else f"no such file: {path}"
    return click.UsageError(f"{wrong}.{meant}{exist}")


def read_text(name: str, suffix: str) -> str:
    """The text of a file, or of stdin for `-`; a usage error when it cannot be read."""
    path = Path(name)
    if name != "-" and not path.is_file():
        raise missing_file(path, suffix)
    try:
        return sys.stdin.read() if name == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {name}: {error}") from error


def write_text(name: str, text: str) -> None:
    """Write `text`, with a newline at its end, to a file or to stdout for `-`."""
    text = text if text.endswith("\n") else text + "\n"
    if name == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {name}: {error.strerror}") from error


def to_json(fields: dict[str, object]) -> str:
    """One JSON object with its `version` first."""
    return json.dumps({"version": JSON_VERSION, **fields}, indent=2)


def note(text: str) -> None:
    """A remark for the reader, on stderr."""
    click.echo(text, err=True)


def counted(count: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def size_text(count: float) -> str:
    """Bytes for people: `1.5 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
