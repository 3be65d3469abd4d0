"""The command line, called in the process of the tests."""

from collections.abc import Callable

import pytest

from mamegpt.cli.main import main

Mame = Callable[..., tuple[int | str | None, str, str]]


@pytest.fixture
def mame(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Mame:
    """Call ``mamegpt`` with these words in this process: exit code, standard output and error."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: object) -> tuple[int | str | None, str, str]:
        capsys.readouterr()
        code: int | str | None = 0
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call
