"""Run the real commands that wrote the files of ``tests/golden``: ``python tests/golden/make.py OUT``.

The files in this folder were written by version 0.1.0 (commit d0560bc), before its modules moved into packages, on
Linux with one thread. They stand for everything that users made with that version: a later one must load, resume,
evaluate, export and report it. **When a test fails, the code is wrong: do not write these files again.** The only
exception is ``help``, after the words of a help text were changed on purpose: ``python tests/golden/make.py OUT help``.

All paths are relative, so that no file names a folder of the machine. No command wrote ``stories.txt``, the input
(豆物語, and at its end an advertisement, a short text and a duplicate), and ``logits.safetensors``, reference logits.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAMEGPT = ["-m", "mamegpt"]
# fmt: off
COMMANDS = (
    "demo", "download", "extract", "clean", "dialogues", "reviews", "tokenizer", "tokenizer-report", "plan", "train",
    "tune", "eval", "generate", "chat", "classify", "play", "report", "export", "doctor", "completion",
)
# fmt: on
SCRIPTS = ("download_dataset.py", "make_dataset.py", "training.py", "generate.py", "export_to_hf.py")
CORPUS = (
    "extract --dataset stories.txt --keyword 犬 --out topic.txt",
    "clean --data topic.txt --out clean.jsonl --write-dropped dropped.jsonl",
)
TOKENIZER = "tokenizer --data clean.jsonl --out jp_tok --vocab-size 480 --character-coverage 0.98"
TRAIN = "train --data clean.jsonl --tokenizer jp_tok.model"
TINY = (
    "--emb-dim 8 --n-layers 2 --n-heads 2 --context-length 32 --batch-size 4 --max-steps 40 --log-every-steps 1 "
    "--eval-every-steps 5 --save-every-steps 100 --val-fraction 0.1 --val-tokens 300 --device cpu --precision fp32 "
    "--compile false"
)
RUNS = {"mame": "--n-kv-heads 1", "seed": "--recipe seed", "tied": "--size 1m"}
"""Both recipes (qwen3 and custom-gpt), and the preset whose output head is the token embedding."""
INTERRUPTED_AT = 12
"""The step after whose line SIGINT is sent; it takes effect some steps later."""
EXPORTS = {"mame": "--to all --gguf-type f16", "seed": "--to all"}
IDS = [[2, 300, 310, 320, 330, 340], [3, 100, 2, 350, 360, 479]]
GENERATED = {
    "greedy": "--prompt 犬は",
    "penalty": "--prompt 犬は --repetition-penalty 1.3",
    "top-p": "--prompt 【 --temperature 1.2 --top-p 0.8 --seed 3 --samples 3",
    "top-k": "--prompt 【 --temperature 1.2 --top-k 20 --seed 3",
    "min-p": "--prompt 【 --temperature 1.2 --min-p 0.05 --seed 3",
    "middle": "--prompt 犬は --at-start false",
}
ORIGINAL = (
    "--train-txt topic.txt --spm-model jp_tok.model --out-weights original.pth --context-length 32 --emb-dim 8 "
    "--n-layers 2 --n-heads 2 --batch-size 4 --max-steps 5 --precision fp32"
)


def main() -> None:
    """Write everything, or the part that is named, into the new folder that is named."""
    out, *parts = sys.argv[1:]
    Path(out).mkdir(parents=True)
    os.chdir(out)
    if "help" not in parts:
        texts()
        runs()
        evaluated()
        exports()
        original()
    helps()


def texts() -> None:
    """Cut a topic out of a text, clean that, and make its tokenizer."""
    shutil.copy(Path(__file__).with_name("stories.txt"), ".")
    for words in (*CORPUS, TOKENIZER):
        run([*MAMEGPT, *words.split()])


def runs() -> None:
    """Train each run twice: until SIGINT, and to its end, of which the metrics and the weights are kept."""
    for name, recipe in RUNS.items():
        words = [*MAMEGPT, *TRAIN.split(), *recipe.split(), *TINY.split(), "--json"]
        run([*words, "--out", name], interrupted=True)
        run([*words, "--out", "whole"])
        shutil.copytree(name, "resumed")
        run([*MAMEGPT, "train", "--resume", "resumed"])
        final = Path("checkpoints", "step-00000040", "model.safetensors")
        assert Path("resumed", final).read_bytes() == Path("whole", final).read_bytes()
        end = Path(f"{name}-end")
        end.mkdir()
        shutil.move(Path("whole", "metrics.jsonl"), end)
        shutil.move(Path("whole", final), end)
        shutil.rmtree("whole")
        shutil.rmtree("resumed")


def evaluated() -> None:
    """Measure the runs as they were left, write text with one of them, and write a report."""
    for name in RUNS:
        run([*MAMEGPT, "eval", "--model", name])
    generated = {name: run([*MAMEGPT, "generate", "--model", "mame", *how.split()]) for name, how in GENERATED.items()}
    Path("generated.json").write_text(json.dumps(generated, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    run([*MAMEGPT, "report", *RUNS, "--out", "report.html"])


def exports() -> None:
    """Export in every form, and write down the logits of what was exported."""
    import torch
    from safetensors.torch import save_file

    from mamegpt.pretrained import load

    found = {"ids": torch.tensor(IDS)}
    for name in RUNS:
        model = load(name).model.eval()
        with torch.inference_mode():
            found[name] = model.out_head(model.hidden(found["ids"]))
    save_file(found, "logits.safetensors")
    for name, options in EXPORTS.items():
        run([*MAMEGPT, "export", "--model", name, "--out", f"{name}-exported", *options.split()])


def original() -> None:
    """Train with the original script, whose weights file is what ``export_to_hf.py`` reads."""
    run([str(ROOT / "training.py"), *ORIGINAL.split()])
    (made,) = Path("runs").iterdir()
    Path("original-run.txt").write_text(made.name + "\n", encoding="utf-8")
    shutil.rmtree("runs")


def helps() -> None:
    """Write the help of every command and script in both languages, 100 columns wide."""
    for language in ("en", "ja"):
        folder = Path("help", language)
        folder.mkdir(parents=True)
        called = {name: [*MAMEGPT, name] for name in COMMANDS} | {name: [str(ROOT / name)] for name in SCRIPTS}
        for name, words in (called | {"mamegpt": MAMEGPT}).items():
            text = run([*words, "--help"], {"MAMEGPT_LANG": language})
            (folder / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")


def run(words: Sequence[str], environment: dict[str, str] | None = None, interrupted: bool = False) -> str:
    """Run Python with these words, stop it with SIGINT if it is to be, and return what it printed."""
    variables = {
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        "MAMEGPT_LANG": "en",
        "HF_HUB_OFFLINE": "1",
        **(environment or {}),
    }
    print(*words, file=sys.stderr)
    with subprocess.Popen(
        [sys.executable, *words], env={**os.environ, **variables}, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout
        printed = []
        for line in process.stdout:
            printed.append(line)
            if interrupted:
                with contextlib.suppress(ValueError):
                    if json.loads(line).get("step") == INTERRUPTED_AT:
                        process.send_signal(signal.SIGINT)
        code = process.wait()
    assert code == (130 if interrupted else 0), code
    return "".join(printed)


if __name__ == "__main__":
    main()
