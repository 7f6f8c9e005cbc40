"""Row 23: nothing is unpickled, evaluated, extracted or handed to a shell; planted payloads never run."""

from __future__ import annotations

import ast
import os
import pickle
import warnings
from pathlib import Path

import pytest

from graphc_runtime import Artifact, ArtifactError, KernelCache
from graphc_runtime.cache_entry import encode_fields, key_of, pack

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for folder in ("graphc", "runtime") for p in (ROOT / folder).rglob("*.py"))

MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "code",
    "codeop",
    "runpy",
}  # `compile` is absent: graphc.compile is a name of ours, and without eval and exec it runs nothing.
NAMES = {"eval", "exec", "__import__", "extractall", "system", "popen", "Unpickler"}


def offences(source: str) -> list[str]:
    """What a file does that none may do, as `line: what`."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"{node.lineno}: {a.name}" for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES and not node.level:
                found.append(f"{node.lineno}: {node.module}")
            found += [f"{node.lineno}: {a.name}" for a in node.names if a.name in NAMES]
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            harmless = name == "system" and ast.unparse(node.func) == "platform.system"
            if name in NAMES and not harmless:
                # `module.eval()` and `self.eval()` of neural networks are methods without arguments.
                method = isinstance(node.func, ast.Attribute)
                if not (name == "eval" and method and not node.args and not node.keywords):
                    found.append(f"{node.lineno}: {name}")
            for word in node.keywords:
                value = getattr(word.value, "value", None)
                if word.arg == "shell" and value is not False:
                    found.append(f"{node.lineno}: shell=")
                if word.arg == "allow_pickle" and value is not False:
                    found.append(f"{node.lineno}: allow_pickle=")
    return found


def test_no_file_can_run_what_it_reads() -> None:
    found = {str(p.relative_to(ROOT)): offences(p.read_text(encoding="utf-8")) for p in SOURCES}
    assert {name: lines for name, lines in found.items() if lines} == {}
    assert len(found) > 20


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import os, marshal as m",
        "from shelve import open",
        "from pickle import loads",
        "eval('1')",
        "builtins.exec(text)",
        "from builtins import eval",
        "archive.extractall(path)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
        "np.load(f, allow_pickle=True)",
        "x = [__import__(n) for n in names]",
    ],
)
def test_the_scan_finds(code: str) -> None:
    assert offences(code)


@pytest.mark.parametrize(
    "code",
    ["model.eval()", "platform.system()", "def eval(self): ...", "subprocess.run(['ls'], shell=False)", "s = 'exec'"],
)
def test_the_scan_lets_pass(code: str) -> None:
    assert offences(code) == []


class Planted:
    """Runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


def payloads(mark: Path) -> list[bytes]:
    """Bytes that do harm in the hands of a careless reader."""
    code = f"__import__('os').mkdir({str(mark)!r})"
    return [
        *(pickle.dumps(Planted(mark), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        code.encode(),
        f'{{"requires": ["{code}"], "created": 0}}'.encode(),
    ]


def test_payloads_are_live(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickle.loads(payloads(mark)[0])  # noqa: S301  # shows that the payload would work
    assert mark.exists()


def test_payloads_in_cache_files_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    fields = {"kind": "program"}
    encoded = encode_fields(fields)
    name = f"{key_of(encoded)}.entry"
    for payload in payloads(mark):
        for data in (payload, pack(payload, payload, {"avx2"}), pack(encoded, payload, {payload.hex()})):
            cache = KernelCache(tmp_path / "c")
            cache.put(fields, b"code", frozenset())
            (tmp_path / "c" / "v1" / name).write_bytes(data)
            cache.forget()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert cache.get(fields, frozenset()) is None
                cache.list()
                cache.verify()
                cache.info()
    assert not mark.exists()


def test_payloads_in_artifacts_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    whole = Artifact("x", (), (), (), 0, (), "main").to_bytes()
    for payload in payloads(mark):
        for data in (payload, whole[:24] + payload, whole + payload):
            with pytest.raises(ArtifactError):
                Artifact.from_bytes(data)
    assert not mark.exists()
