"""Models and data on a Hub, with the real clients: by name, uploaded and loaded back, foreign ones, absent ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hub_server import HubServer
from little import ROOT, Little
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from mamegpt.generation.stream import generate
from mamegpt.generation.whole_characters import WholeCharacters
from mamegpt.pretrained import load
from mamegpt.system.hub import is_hub_name

PROMPT = "昔々、"
CALLS = """
import contextlib, io, json, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests/helpers"]
from scripts import entry
from mamegpt.cli.main import main, run_command_line

answers = []
for words in json.loads(sys.argv[2]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_command_line(entry(words[0]), words[1:]) if words[0].endswith(".py") else main(words)
        except SystemExit as end:
            code = end.code
    answers.append([code, out.getvalue(), err.getvalue()])
Path(sys.argv[3]).write_text(json.dumps(answers), encoding="utf-8")
"""


def calls(hub: HubServer, tmp_path: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Run commands one after the other in a client of this Hub: exit code, standard output and error of each."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS, str(ROOT), json.dumps(commands), str(tmp_path / "answers.json")],
        env=hub.env(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    return [tuple(answer) for answer in answers]


def one_line(err: str, *says: str) -> bool:
    """Whether standard error is one line that says these words; the client's own progress bars do not count."""
    err = err.rpartition("it/s]\n")[2]
    return err.startswith("error: ") and err.count("\n") == 1 and all(words in err for words in says)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fujiki/wiki40b_ja", True),
        ("oga5/hf-jp-gpt-wiki", True),
        ("a/b.c", True),
        ("a", False),
        ("a/b/c", False),
        ("./a/b", False),
        ("/a/b", False),
        ("a/", False),
        ("豆/豆", False),
        ("a b/c", False),
        ("a\\b", False),
    ],
)
def test_what_a_hub_name_looks_like(name: str, expected: bool) -> None:
    assert is_hub_name(name) is expected


UPLOAD = """
import json, sys, torch
from huggingface_hub import create_repo, upload_folder
from transformers import AutoModelForCausalLM, AutoTokenizer
create_repo("mame/book")
upload_folder(repo_id="mame/book", folder_path=sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained("mame/book", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("mame/book", trust_remote_code=True).eval()
ids = tokenizer(sys.argv[2], return_tensors="pt")
with torch.inference_mode():
    found = {"ids": ids["input_ids"], "logits": model(**ids).logits,
             "text": tokenizer.decode(model.generate(**ids, max_new_tokens=8, do_sample=False)[0])}
torch.save(found, sys.argv[3])
"""


@pytest.mark.slow
def test_an_uploaded_folder_comes_back_by_name(hub: HubServer, little: Little, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UPLOAD, str(little.exported), PROMPT, str(tmp_path / "found.pt")],
        env=hub.env(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    stored = hub.root / "models/mame/book"
    assert {p.name: p.read_bytes() for p in stored.iterdir()} == {
        p.name: p.read_bytes() for p in little.exported.iterdir()
    }
    found: dict[str, Any] = torch.load(tmp_path / "found.pt", weights_only=True)
    ours = load(little.exported)
    assert found["ids"].tolist() == [ours.tokenizer.encode(PROMPT)]
    with torch.inference_mode():
        assert torch.allclose(found["logits"], ours.model(found["ids"]), atol=1e-5)
    expected = PROMPT + generate(ours.model, ours.tokenizer, PROMPT, 8)
    assert found["text"].removesuffix("</s>") == expected

    # The same by our own command, which runs no code from the repository, then once more without the Hub.
    (stored / "modeling_custom_gpt.py").write_text('raise SystemExit("ran remote code")\n', encoding="utf-8")
    hub.requests.clear()
    words = ["generate", "--model", "mame/book", "--prompt", PROMPT, "--max-new-tokens", "8"]
    assert calls(hub, tmp_path, words)[0][:2] == (0, expected + "\n")
    assert not any("modeling_custom_gpt.py" in line for line in hub.requests)
    assert hub.requests
    hub.stop()
    hub.requests.clear()
    score = ["eval", "--model", "mame/book", "--data", str(little.text), "--split", "train", "--json"]
    again, quality = calls(hub, tmp_path, words, score)
    assert again[:2] == (0, expected + "\n")
    assert quality[0] == 0 and json.loads(quality[1])["models"][0]["text"]["stories.txt"]["n_tokens"] > 1000
    assert hub.requests == []


def test_models_that_are_foreign_absent_or_broken(hub: HubServer, little: Little, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 1000,
        "max_position_embeddings": 16,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    neox = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)).eval()
    folder = hub.root / "models/mame/neox"
    neox.save_pretrained(folder)
    shutil.copy(little.spm, folder / "jp_tok_wiki.model")
    broken = hub.root / "models/mame/broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").unlink()
    unknown = hub.root / "models/mame/unknown"
    shutil.copytree(folder, unknown)
    (unknown / "config.json").write_text('{"model_type": "no-such-model"}', encoding="utf-8")

    words = ["generate.py", "--prompt", PROMPT, "--max-new-tokens", "20", "--device", "cpu", "--repo-id"]
    trust = "--trust-remote-code"
    refused, written, absent, no_weights, no_class, no_export = calls(
        hub,
        tmp_path,
        [*words, "mame/neox"],
        [*words, "mame/neox", trust],
        [*words, "mame/none"],
        [*words, "mame/broken", trust],
        [*words, "mame/unknown", trust],
        ["export", "--model", "mame/neox", "--out", "new"],
    )
    assert refused[0] == 2
    assert one_line(
        refused[2], "mame/neox is a 'gpt_neox' model, not ours", trust, "run Python code", "trust its author"
    )

    ids = little.tokenizer.encode(PROMPT)
    rule = WholeCharacters(little.tokenizer.byte_ids, little.tokenizer.vocab_size)
    with torch.inference_mode():
        for _ in range(20):  # past its 16 positions
            ids.append(int((neox(torch.tensor([ids[-16:]])).logits[0, -1] + rule.mask(rule.after(ids))).argmax()))
            if ids[-1] == 2:
                break
    text = little.tokenizer.decode(ids).rstrip("\ufffd")
    assert written[:2] == (0, f"Using device: cpu\n\n=== Generation ===\n{text}\n")

    for answer, says in (
        (absent, ("no such model at", "mame/none", "check the name")),
        (no_weights, ("mame/broken",)),
        (no_class, ("mame/unknown",)),
        (no_export, ("mame/neox",)),
    ):
        assert answer[0] == 2
        assert one_line(answer[2], *says), answer
    assert not (tmp_path / "new").exists()


def test_a_data_set_is_fetched_once_and_then_read_without_the_hub(hub: HubServer, tmp_path: Path) -> None:
    data = hub.root / "datasets/mame/豆".replace("豆", "beans")
    data.mkdir(parents=True)
    rows = [f"\n_START_ARTICLE_\n豆{i}\n_START_PARAGRAPH_\nこれは{i}番目の豆。_NEWLINE_丸い。" for i in range(5)]
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), data / "train.parquet")
    download = ["download_dataset.py", "--dataset", "mame/beans", "--cache-dir", str(tmp_path / "cache")]
    make = ["make_dataset.py", "--dataset", "mame/beans", "--keyword", "3番目"]
    absent = ["make_dataset.py", "--dataset", "mame/none", "--keyword", "豆"]
    answers = calls(hub, tmp_path, download, make, absent)
    assert [answer[0] for answer in answers] == [0, 0, 2]
    assert str(tmp_path / "cache") in answers[0][1] and "5 rows" in answers[0][1]
    text = (tmp_path / "output_with_titles.txt").read_text(encoding="utf-8")
    assert text == "【豆3】\nこれは3番目の豆。\n丸い。\n\n"
    assert one_line(answers[2][2], "mame/none", "no such dataset at", "check the name")
    hub.stop()
    offline, unknown = calls(hub, tmp_path, [*make, "--out", "again.txt"], absent)
    assert offline[0] == 0
    assert (tmp_path / "again.txt").read_text(encoding="utf-8") == text
    assert unknown[0] == 2
    assert one_line(
        unknown[2], "mame/none is not a local file or folder", "cannot be reached", "connect to the network"
    )
