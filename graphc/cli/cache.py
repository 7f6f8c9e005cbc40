"""`graphc cache`: the folder of compiled kernels."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import click

from graphc.cli.common import FAILED, Choices, json_option, note, size_text, to_json
from graphc_runtime import default_cache
from graphc_runtime.cache import CacheInfo
from graphc_runtime.options import CACHE_DIR


@click.group("cache", cls=Choices)
def cache_command() -> None:
    """Show, check or clear the cache of compiled kernels.

    GRAPHC_CACHE_DIR names another folder, GRAPHC_CACHE=0 turns the cache on disk off.
    """


@cache_command.command("path")
@json_option
def path_command(as_json: bool) -> None:
    """Print the folder of the cache."""
    path = default_cache().info().path
    if as_json:
        click.echo(to_json({"path": path}))
    elif path:
        click.echo(path)
    else:
        note("the cache on disk is off (GRAPHC_CACHE=0)")


@cache_command.command("info")
@json_option
def info_command(as_json: bool) -> None:
    """Say whether the cache can be used, how much it holds, and its limit."""
    info = default_cache().info()
    wrong, fix = trouble(info)
    if as_json:
        click.echo(to_json({**asdict(info), "usable": not wrong, "reason": wrong, "fix": fix}))
        return
    click.echo(f"folder   {info.path or '-'}")
    click.echo(f"state    {f'not used: {wrong}' if wrong else 'in use'}")
    if fix:
        click.echo(f"         -> {fix}")
    click.echo(f"entries  {info.entries}")
    click.echo(f"size     {size_text(info.bytes)} of at most {size_text(info.limit_bytes)}")


def trouble(info: CacheInfo) -> tuple[str, str]:
    """What keeps the cache from being used, and what to do; both empty when nothing does.

    Whether the folder takes files is tried: permissions do not tell it for root, nor for folders such as /proc.
    """
    if not info.path:
        return info.reason, ""
    versions = Path(info.path)
    ways = (versions, *versions.parents)
    another = f"name another folder: {CACHE_DIR.environment}=..."
    there = next(place for place in ways if os.path.lexists(place))
    if not there.is_dir():
        return f"{there} is not a folder", f"remove it, or {another}"
    link = next((place for place in ways[:2] if place.is_symlink()), None)
    if link is not None:
        return f"{link} is a symbolic link", f"name the folder itself: {CACHE_DIR.environment}={link.resolve()}"
    if not info.usable:
        return info.reason, f"make the folder yours alone (chmod 700), or {another}"
    try:
        with tempfile.TemporaryDirectory(prefix=".graphc-", dir=there):
            return "", ""
    except OSError as error:
        return f"{versions.parent} cannot be written: nothing can be made in {there} ({error.strerror})", another


@cache_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the entries, the most recently used first: key, size, last use, what was compiled."""
    items = default_cache().list()
    if as_json:
        entries = [
            {
                "key": item.key,
                "bytes": item.bytes,
                "created": item.created,
                "used": item.used,
                "requires": sorted(item.requires),
                "fields": {name: _short(value) for name, value in item.fields.items()},
            }
            for item in items
        ]
        click.echo(to_json({"entries": entries}))
        return
    for item in items:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.used))
        click.echo(f"{item.key[:16]}  {size_text(item.bytes):>9}  {used}  {_title(item.fields)}")
    if not items:
        note("the cache is empty")


def _title(fields: dict[str, str | bytes]) -> str:
    """What an entry is: the head of its graph, or its kind."""
    what = str(fields.get("graph") or fields.get("kind") or "")
    head = what.partition("\n")[0]
    return head if len(head) <= 80 else f"{head[:77]}..."


def _short(value: str | bytes) -> str:
    """A key field as text, long ones cut: some hold whole kernels."""
    text = value if isinstance(value, str) else value.hex()
    return text if len(text) <= 200 else f"{text[:200]}... ({len(value)} long)"


@cache_command.command("verify")
@json_option
def verify_command(as_json: bool) -> None:
    """Read and check every entry. Exit code 1 when one is bad.

    Bad entries are never loaded; they are built again when they are needed.
    """
    result = default_cache().verify()
    if as_json:
        bad = [{"file": name, "fault": fault} for name, fault in result.bad]
        click.echo(to_json({"good": result.good, "bad": bad}))
    else:
        for name, fault in result.bad:
            click.echo(f"bad: {name}: {fault}")
        click.echo(f"{result.good} good, {len(result.bad)} bad")
    if result.bad:
        raise click.exceptions.Exit(FAILED)


@cache_command.command("clear")
@json_option
def clear_command(as_json: bool) -> None:
    """Remove every entry."""
    removed = default_cache().clear()
    click.echo(to_json({"removed": removed}) if as_json else f"{removed} files removed")
