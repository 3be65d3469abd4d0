"""Errors name settings as Python does, and as options where the command line runs; neither is ever translated."""

from __future__ import annotations

import pickle
import re
import threading
from pathlib import Path

import pytest
from command import Mame

import mamegpt
from mamegpt.errors import ConfigError, ExportError, MamegptError, MamegptWarning, OutputError, naming_options

# fmt: off
NAMED = {
    "--lr must be above 0 (got -1); --data is needed": "lr must be above 0 (got -1); data is needed",
    "needs 9 (--context-length + 1)": "needs 9 (context_length + 1)",
    "a b exists; choose another --out, or resume with: mamegpt train --resume 'a b, --c' --log x":
        "a b exists; choose another out, or resume with: mamegpt train --resume 'a b, --c' --log x",
    "train one, as mamegpt tokenizer does, or export with --to hf":
        "train one, as mamegpt tokenizer does, or export with to hf",
    "delete it, or run: .venv/bin/mamegpt eval --model run": "delete it, or run: .venv/bin/mamegpt eval --model run",
    "a--b, x-y and --5 are no options; '--no' neither": "a--b, x-y and --5 are no options; '--no' neither",
}
# fmt: on


@pytest.mark.parametrize(("message", "in_python"), NAMED.items())
@pytest.mark.parametrize("kind", [ConfigError, OutputError, ExportError, MamegptWarning])
def test_settings_are_named_as_they_are_given(kind: type[Exception], message: str, in_python: str) -> None:
    error = kind(message)
    assert str(error) == in_python
    with naming_options():
        assert str(error) == message
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(str(pickle.loads(pickle.dumps(error)))))
        thread.start()
        thread.join()
        assert found == [message]
    assert str(pickle.loads(pickle.dumps(error))) == in_python


def test_the_command_line_names_options_and_python_its_own(mame: Mame) -> None:
    assert mame("plan", "--minutes", "0") == (2, "", "error: --minutes must be above 0 (got 0)\n")
    with pytest.raises(ConfigError, match=r"^minutes must be above 0 \(got 0\)$"):
        mamegpt.plan(0)


def test_no_error_of_the_library_is_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMEGPT_LANG", "ja")
    (tmp_path / "text.txt").write_text("a b c", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("3\n", encoding="utf-8")
    text, out = tmp_path / "text.txt", tmp_path / "out.jsonl"
    for fails in (
        lambda: mamegpt.extract(text, "d", out),
        lambda: mamegpt.clean(text, out),
        lambda: mamegpt.extract(tmp_path / "rows.jsonl", "d", out),
        lambda: mamegpt.clean(text, out, only=["x"]),
        lambda: mamegpt.train_tokenizer(["a b c"], out, vocab_size=9999),
        lambda: mamegpt.load(tmp_path / "none"),
        lambda: mamegpt.plan(0),
        lambda: mamegpt.evaluate([]),
        lambda: mamegpt.export(tmp_path, out),
        lambda: mamegpt.write_report([tmp_path], out),
        lambda: mamegpt.Sampling(temperature=-1).validate(),
        lambda: mamegpt.train(mamegpt.preset(data=str(text), tokenizer=str(text), out=str(out), lr=-1.0)),
    ):
        with pytest.raises(MamegptError) as error:
            fails()
        assert not re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", str(error.value)), error.value
