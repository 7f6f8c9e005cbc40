"""`graphc cache` and `graphc doctor`, each in a process of its own with its own folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from graphc.cli.common import size_text
from graphc.codegen.llvm.host import host_target
from graphc_runtime.machine import affinity
from tests.cli.running import run_fresh


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds at least one compiled program."""
    path = tmp_path_factory.mktemp("filled") / "cache"
    done = run_fresh("doctor", "--json", GRAPHC_THREADS="1", GRAPHC_CACHE_DIR=str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    """A copy of `filled` that the test may spoil."""
    return Path(shutil.copytree(filled, tmp_path / "cache"))


def data_of(folder: Path, *arguments: str) -> dict[str, object]:
    done = run_fresh("cache", *arguments, "--json", GRAPHC_CACHE_DIR=str(folder))
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["version"] == 1
    return data


def test_path_info_list_verify_clear(folder: Path) -> None:
    path = Path(str(data_of(folder, "path")["path"]))
    assert path.is_dir() and path.is_relative_to(folder)
    info = data_of(folder, "info")
    assert info["usable"] is True and int(str(info["entries"])) >= 1
    entries = data_of(folder, "list")["entries"]
    assert isinstance(entries, list) and len(entries) == info["entries"]
    assert all(len(e["key"]) == 64 and e["bytes"] > 0 for e in entries)
    assert data_of(folder, "verify") == {"version": 1, "good": info["entries"], "bad": []}
    assert int(str(data_of(folder, "clear")["removed"])) >= len(entries)
    assert data_of(folder, "info")["entries"] == 0


def test_texts_for_people(folder: Path) -> None:
    environment = {"GRAPHC_CACHE_DIR": str(folder)}
    assert run_fresh("cache", "path", **environment).stdout.strip().startswith(str(folder))
    assert "in use" in run_fresh("cache", "info", **environment).stdout
    assert len(run_fresh("cache", "list", **environment).stdout.splitlines()) >= 1
    assert "0 bad" in run_fresh("cache", "verify", **environment).stdout
    assert "files removed" in run_fresh("cache", "clear", **environment).stdout
    assert "empty" in run_fresh("cache", "list", **environment).stderr


def test_verify_finds_a_damaged_entry(folder: Path) -> None:
    entry = next(folder.rglob("*.entry"))
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)
    done = run_fresh("cache", "verify", GRAPHC_CACHE_DIR=str(folder))
    assert done.returncode == 1
    assert f"bad: {entry.name}" in done.stdout


def test_unsafe_folder_is_named_once_and_does_not_stop(folder: Path) -> None:
    os.chmod(folder, 0o777)
    done = run_fresh("cache", "info", GRAPHC_CACHE_DIR=str(folder))
    assert done.returncode == 0
    assert "not used" in done.stdout and "can be written by others" in done.stdout
    assert done.stderr.count("warning:") <= 1 and "Traceback" not in done.stderr
    doctor = run_fresh("doctor", "--json", GRAPHC_CACHE_DIR=str(folder))
    assert doctor.returncode == 1
    checks = {c["name"]: c for c in json.loads(doctor.stdout)["checks"]}
    assert checks["cache"]["status"] == "problem" and "chmod 700" in checks["cache"]["fix"]


def test_a_folder_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("")
    link.symlink_to(tmp_path / "folder")
    (tmp_path / "folder").mkdir()
    cases = (
        (Path("/proc/graphc"), "/proc/graphc cannot be written: nothing can be made in /proc", "name another folder"),
        (file, f"{file} is not a folder", "remove it, or name another folder"),
        (file / "below", f"{file} is not a folder", "remove it, or name another folder"),
        (link, f"{link} is a symbolic link", f"GRAPHC_CACHE_DIR={tmp_path / 'folder'}"),
    )
    for folder, wrong, fix in cases:
        info = data_of(folder, "info")
        assert info["usable"] is False and wrong in str(info["reason"]) and fix in str(info["fix"])
        text = run_fresh("cache", "info", GRAPHC_CACHE_DIR=str(folder)).stdout
        assert f"not used: {wrong}" in text and "in use" not in text and f"-> {info['fix']}" in text
        doctor = run_fresh("doctor", "--json", GRAPHC_CACHE_DIR=str(folder))
        (check,) = (c for c in json.loads(doctor.stdout)["checks"] if c["name"] == "cache")
        assert (check["status"], check["value"], check["fix"]) == ("problem", info["reason"], info["fix"])


def test_cache_switched_off() -> None:
    done = run_fresh("cache", "info", "--json", GRAPHC_CACHE="0")
    assert done.returncode == 0
    assert json.loads(done.stdout)["usable"] is False
    assert "off" in run_fresh("cache", "path", GRAPHC_CACHE="0").stderr


def test_unknown_subcommand_lists_them() -> None:
    done = run_fresh("cache", "infos")
    assert done.returncode == 2
    assert "Did you mean info" in done.stderr and "verify" in done.stderr


def test_doctor(tmp_path: Path) -> None:
    done = run_fresh("doctor", "--json", GRAPHC_THREADS="1", GRAPHC_CACHE_DIR=str(tmp_path / "c"))
    assert done.returncode == 0, done.stdout
    data = json.loads(done.stdout)
    assert data["version"] == 1 and data["ok"] is True
    checks = {c["name"]: c for c in data["checks"]}
    shown = ("python", "numpy", "llvmlite", "cpu", "vectors", "caches", "costs", "native code", "affinity")
    for name in (*shown, "control group", "memory", "threads", "cache"):
        assert checks[name]["status"] == "ok", checks[name]
    target = host_target()
    assert f"L2 {size_text(target.l2_bytes)}" in checks["caches"]["value"]
    assert f"{4 * target.lanes(4)} f32 operations a core" in checks["costs"]["value"]
    assert str(affinity()[0]) in checks["affinity"]["value"]
    assert "LLVM" in checks["llvmlite"]["value"]
    assert all(c["fix"] for c in data["checks"] if c["status"] != "ok")
    text = run_fresh("doctor", GRAPHC_THREADS="1", GRAPHC_CACHE_DIR=str(tmp_path / "c")).stdout
    assert all(name in text for name in checks)


def test_doctor_names_a_bad_setting(tmp_path: Path) -> None:
    done = run_fresh("doctor", "--json", GRAPHC_THREADS="many", GRAPHC_CACHE_DIR=str(tmp_path))
    assert done.returncode == 1
    checks = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
    assert checks["option threads"]["fix"] == "unset GRAPHC_THREADS"


def test_doctor_names_a_target_that_this_machine_has_not(tmp_path: Path) -> None:
    unknown = run_fresh("doctor", "--json", GRAPHC_TARGET="x86-64-v9", GRAPHC_CACHE_DIR=str(tmp_path))
    assert unknown.returncode == 1
    checks = {c["name"]: c for c in json.loads(unknown.stdout)["checks"]}
    assert "GRAPHC_TARGET: 'x86-64-v9' is not one of" in checks["option target"]["value"]
    done = run_fresh("doctor", "--json", GRAPHC_TARGET="x86-64-v4", GRAPHC_CACHE_DIR=str(tmp_path))
    checks = {c["name"]: c for c in json.loads(done.stdout)["checks"]}
    assert checks["option target"]["value"] == "x86-64-v4 (default '')"
    if checks["cpu"]["status"] == "problem":
        assert "more than this machine" in checks["cpu"]["value"] and checks["cpu"]["fix"] == "unset GRAPHC_TARGET"
    else:
        assert checks["cpu"]["value"].startswith("x86-64-v4 (x86_64")
