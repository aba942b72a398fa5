"""What tests of hostile files share: how to say what must be found, and that nothing ran."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from bkformat import Finding, check_bytes, check_file
from bkformat.rules import ERROR
from bkformat.validate import judge, source_of

Refuses: TypeAlias = Callable[..., Finding]

# What a loaded payload could do; none of it may happen while a file is judged.
_FORBIDDEN_EVENTS = frozenset({
    "builtins.input", "os.exec", "os.fork", "os.mkdir",
    "os.posix_spawn", "os.remove", "os.rename", "os.rmdir", "os.spawn", "os.system",
    "pickle.find_class", "shutil.rmtree", "socket.connect", "subprocess.Popen",
})  # fmt: skip
_seen: list[str] = []
_watching = False


def _watch(event: str, _: tuple[object, ...]) -> None:
    if _watching and event in _FORBIDDEN_EVENTS:
        _seen.append(event)


sys.addaudithook(_watch)


@pytest.fixture
def refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refuses]:
    """Asserts that bytes are refused by exactly one rule at exactly one offset, and nothing ran.

    The accelerated reader and the plain one must agree. Payloads would make a folder named "marker"
    in the working directory.
    """
    folder = tmp_path / "judged"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def assert_refused(
        data: bytes,
        code: str,
        offset: int | None,
        *,
        kind: Literal["update", "aggregate"] = "update",
        on_disk: bool = False,
    ) -> Finding:
        global _watching
        _seen.clear()
        path = tmp_path / "hostile.npy"
        if on_disk:
            path.write_bytes(data)
        _watching = True
        try:
            report = check_file(path, kind=kind) if on_disk else check_bytes(data, kind=kind)
        finally:
            _watching = False
        assert not _seen
        errors = [found for found in report.findings if found.severity == ERROR]
        assert [(found.code, found.offset) for found in errors] == [(code, offset)]
        assert not report.valid
        slow = judge(source_of(data), kind=kind, fast=False).report
        assert slow.findings == report.findings
        return errors[0]

    yield assert_refused
    assert list(folder.iterdir()) == []
