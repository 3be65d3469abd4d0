"""The command line, called in the process of the tests."""

from collections.abc import Callable

import pytest

from mamegpt.cli.commands.training import chosen_settings, train_command
from mamegpt.cli.main import main
from mamegpt.cli.parsing import read
from mamegpt.config import TrainConfig

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


def chosen(*words: object) -> TrainConfig:
    """The settings that ``mamegpt train`` with these words trains with."""
    _, bound = read(train_command, "mamegpt train", [str(word) for word in words])
    bound.apply_defaults()
    return chosen_settings(**bound.arguments)[0]
