"""Which programs load our exports, and do they write what we write?

    python -m benchmarks.runtimes MODEL [--runtimes NAME ...] [--work build/runtimes]

MODEL, a trained run, is exported once to every format. Each runtime then loads its format in an environment of its own,
made by uv or npm in the folder ``--work``, and continues 20 prompts greedily by 48 tokens. They are compared with ours
in float32 PyTorch, or in PyTorch with the same 8-bit weights for the HTML file; where two logits are a tie, as
`mamegpt.exporting.checks` defines it, the rest of a continuation is not compared. Token ids are compared on the tricky
strings of the exports' checks and 1,000 sentences of 豆物語. Speed is that of the same 20 prompts once more, one stream
on one thread: reading the prompts is in it, starting is not.

Results are added to results.json in the folder ``--work``; with ``--out benchmarks/results/runtimes.json``, to the file
from which `benchmarks.tables` makes the table in docs/serving.md. A runtime that fails is reported and keeps its last
result. ``--remove`` deletes each environment after its turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.runtimes.chromium import ask_html, ask_page
from mamegpt import load
from mamegpt.exporting.checks import example_texts, last_logits, until_end
from mamegpt.exporting.export import Target, export_model
from mamegpt.exporting.html import rounded_model
from mamegpt.exporting.prompts import PROMPTS
from mamegpt.generation.stream import prompt_ids, stream_ids
from mamegpt.models.base import LanguageModel, unique_state_dict
from mamegpt.pretrained import Pretrained
from mamegpt.system.hardware import hardware
from mamegpt.text.normalize import normalize

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
RESULTS = HERE.parent / "results" / "runtimes.json"
FORMATS: tuple[Target, ...] = ("hf", "gguf", "onnx", "html")
N_PROMPTS, N_NEW, N_SENTENCES = 20, 48, 1000
TIE = 2e-3
"""Logits that are closer than this share of the largest are a tie: llama.cpp's tolerance in our check, twice."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A program in PROGRAMS: ``run_*.py``, ``run_*.mjs`` in node, or ``page_*.mjs`` in Chromium.

    ``packages`` are what uv or npm installs, the first is the runtime; without any, it runs in this environment.
    ``needs_torch`` lets its environment use the packages of this one where it has none of its own.
    """

    name: str
    program: str
    model_format: str
    packages: tuple[str, ...] = ()
    needs_torch: bool = False


TOKENIZERS = "tokenizers==0.23.3"  # reads tokenizer.json
NODE_LLAMA_CPP = ("node-llama-cpp@3.21.1", "@node-llama-cpp/linux-x64@3.21.1", "--omit=optional")  # no code for GPUs
# fmt: off
RUNTIMES = (
    Runtime("mamegpt", "run_mamegpt.py", "hf"),
    Runtime("transformers 5", "run_transformers.py", "hf"),
    Runtime("transformers 4", "run_transformers.py", "hf", ("transformers==4.57.6",), needs_torch=True),
    Runtime("mlx-lm (Linux, CPU)", "run_mlx_lm.py", "hf", ("mlx-lm==0.32.2", "mlx[cpu]==0.32.4")),
    Runtime("CTranslate2", "run_ctranslate2.py", "hf", ("ctranslate2==4.8.5", "sentencepiece"), needs_torch=True),
    Runtime("ExecuTorch", "run_executorch.py", "hf", ("executorch==1.5.1", TOKENIZERS), needs_torch=True),
    Runtime("LiteRT", "run_litert.py", "hf", ("litert-torch==0.10.0", TOKENIZERS), needs_torch=True),
    Runtime("PEFT", "run_peft.py", "hf", ("peft==0.21.2",), needs_torch=True),
    Runtime("mistral.rs", "run_mistralrs.py", "hf", ("mistralrs==0.9.5",)),
    Runtime("llama-cpp-python", "run_llama_cpp_python.py", "gguf", ("llama-cpp-python==0.3.36",)),
    Runtime("xllamacpp", "run_xllamacpp.py", "gguf", ("xllamacpp==2026.10.11549",)),
    Runtime("node-llama-cpp", "run_node_llama_cpp.mjs", "gguf", NODE_LLAMA_CPP),
    Runtime("wllama (Chromium)", "page_wllama.mjs", "gguf", ("@wllama/wllama@3.13.0",)),
    Runtime("ONNX Runtime", "run_onnxruntime.py", "onnx", ("onnxruntime==1.32.0", TOKENIZERS)),
    Runtime("onnxruntime-genai", "run_onnxruntime_genai.py", "onnx", ("onnxruntime-genai==0.18.0", TOKENIZERS)),
    Runtime("OpenVINO", "run_openvino.py", "onnx", ("openvino==2026.4.1", TOKENIZERS)),
    Runtime("transformers.js (node)", "run_transformers_js.mjs", "onnx", ("@huggingface/transformers@4.3.1",)),
    Runtime("transformers.js (Chromium)", "page_transformers_js.mjs", "onnx", ("@huggingface/transformers@4.3.1",)),
    Runtime("HTML (Chromium)", "", "html"),
)
# fmt: on


def main() -> None:
    """Export, ask each runtime, compare, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="a trained run")
    parser.add_argument(
        "--runtimes",
        nargs="+",
        choices=[it.name for it in RUNTIMES],
        metavar="NAME",
        help="default: all; " + ", ".join(it.name for it in RUNTIMES),
    )
    parser.add_argument("--work", type=Path, default=Path("build/runtimes"), help="folder for exports and environments")
    parser.add_argument("--out", type=Path, help="JSON file for results (default: results.json in --work)")
    parser.add_argument("--remove", action="store_true", help="delete each environment after its turn")
    args = parser.parse_args()
    loaded = load(args.model)
    work = args.work.resolve()
    args.out = args.out or work / "results.json"
    models = exported(loaded, work / f"models-{fingerprint(loaded.model)}")
    cases = make_cases(loaded, models)
    own = {kind: continuations(model, cases["prompts"]) for kind, model in references(loaded.model).items()}
    for runtime in RUNTIMES:
        if args.runtimes and runtime.name not in args.runtimes:
            continue
        folder = work / re.sub(r"[^\w.]+", "-", "".join(runtime.packages[:1])).strip("-")
        try:
            answers = ask(runtime, folder, cases)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as problem:
            print(f"{runtime.name}: {(getattr(problem, 'stderr', '') or str(problem)).strip()[-1000:]}", flush=True)
            continue
        kind = "q8_0" if runtime.model_format == "html" else "f32"
        found = compared(loaded, kind, own[kind], answers, cases)
        found |= {
            "version": answers.get("version") or version_of(runtime),
            "export": runtime.model_format,
            "installed_bytes": size_of(folder) if runtime.packages else None,
            "tokens_per_s": round(found["generated_tokens"] / answers["seconds"]),
            "date": datetime.date.today().isoformat(),
            "processor": dict(hardware())["processor"],
        }
        print(runtime.name, json.dumps(found, ensure_ascii=False), flush=True)
        keep(args.out, runtime.name, found)
        if args.remove and runtime.packages:
            shutil.rmtree(folder, ignore_errors=True)


def fingerprint(model: LanguageModel) -> str:
    """Return a short name of a model's weights."""
    found = hashlib.sha256()
    for tensor in unique_state_dict(model).values():
        found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def exported(loaded: Pretrained, folder: Path) -> dict[str, Path]:
    """Return the folder or file of each format, made at the first call."""
    for model_format in FORMATS:
        if not (folder / model_format).is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            target: Target = "hf-native" if model_format == "hf" else model_format  # most programs run no code of ours
            export_model(folder / model_format, loaded, [target], name="豆", n_sentences=N_SENTENCES)
    (gguf,), (html,) = (folder / "gguf").glob("*.gguf"), (folder / "html").glob("*.html")
    return {"hf": folder / "hf", "gguf": gguf, "onnx": folder / "onnx", "html": html}


def make_cases(loaded: Pretrained, models: dict[str, Path]) -> dict[str, Any]:
    """Return what every runtime is asked, as programs/measure.py describes it, with the ids of the texts."""
    texts, _, text_ids = example_texts(loaded.tokenizer, None, "", N_SENTENCES)
    prompts = PROMPTS[:N_PROMPTS]
    return {
        "models": {name: str(path) for name, path in models.items()},
        "prompts": [prompt_ids(loaded.tokenizer, prompt) for prompt in prompts],
        "prompt_texts": list(prompts),
        "n_new": N_NEW,
        "texts": texts,
        "normalized": [normalize(text) for text in texts],
        "text_ids": text_ids,
    }


def references(model: LanguageModel) -> dict[str, LanguageModel]:
    """Return the model with the weights of each number format."""
    return {"f32": model, "q8_0": rounded_model(model, "q8_0")}


def continuations(model: LanguageModel, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Return the greedy continuation of each prompt in float32 PyTorch."""
    return [list(stream_ids(model, ids, N_NEW)) for ids in prompts]


# ---------------------------------------------------------------- asking


def ask(runtime: Runtime, folder: Path, cases: dict[str, Any]) -> dict[str, Any]:
    """Return the answers of a runtime, in an environment of its own in ``folder``, made if it is not there."""
    if runtime.model_format == "html":
        return ask_html(Path(cases["models"]["html"]), cases)
    is_python = runtime.program.endswith(".py")
    if runtime.packages and not folder.is_dir():
        try:
            (make_environment if is_python else make_modules)(folder, runtime)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # else the next call would take a part of it for the whole
            raise
    if runtime.program.startswith("page_"):
        return ask_page(PROGRAMS, runtime.program, folder / "node_modules", cases)
    with tempfile.TemporaryDirectory() as scratch:
        asked, found = Path(scratch, "asked.json"), Path(scratch, "found.json")
        asked.write_text(json.dumps(cases), encoding="utf-8")
        if is_python:
            python = folder / "bin" / "python" if runtime.packages else Path(sys.executable)
            command = [str(python), str(PROGRAMS / runtime.program)]
        else:  # node looks for packages from where the program is
            shutil.copytree(PROGRAMS, folder / "programs", dirs_exist_ok=True)
            command = ["node", str(folder / "programs" / runtime.program)]
        called([*command, str(asked), str(found)])
        answers: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return answers


def make_environment(folder: Path, runtime: Runtime) -> None:
    """Make a Python environment with the runtime's packages, and with this one's where they are not enough."""
    uv = [sys.executable, "-m", "uv"]
    called([*uv, "venv", "--python", sys.executable, str(folder)])
    excluded = folder / "excluded.txt"
    excluded.write_text("torch\n" if runtime.needs_torch else "", encoding="utf-8")
    called([*uv, "pip", "install", "--python", str(folder), "--excludes", str(excluded), *runtime.packages])
    if runtime.needs_torch:
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "after.pth").write_text(f"{Path(torch.__file__).parents[1]}\n", encoding="utf-8")


def make_modules(folder: Path, runtime: Runtime) -> None:
    """Install the runtime's npm packages, without running code of theirs."""
    folder.mkdir(parents=True)
    called(["npm", "install", "--prefix", str(folder), "--ignore-scripts", *runtime.packages])


def called(command: Sequence[str]) -> None:
    """Run a command without the network for models; raises `subprocess.CalledProcessError` with what it printed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env=environment)


# ---------------------------------------------------------------- comparing


def compared(
    loaded: Pretrained, kind: str, own: list[list[int]], answers: dict[str, Any], cases: dict[str, Any]
) -> dict[str, Any]:
    """Return how many continuations and ids of texts are equal to ours, and how many differ from a tie on."""
    model = references(loaded.model)[kind]
    tokenizer, outcomes, n_tokens = loaded.tokenizer, [], 0
    for prompt, whole, theirs in zip(cases["prompts"], own, answers["greedy"], strict=True):
        ours = until_end(whole, {tokenizer.eos_id})
        if isinstance(theirs, str):  # without the end of a text, and a character may lack its last bytes
            text = tokenizer.decode([token for token in ours if token != tokenizer.eos_id])
            outcomes.append("equal" if text.rstrip("\ufffd") == theirs.rstrip("\ufffd") else "")
            n_tokens += len(ours)
        else:
            outcomes.append(outcome(model, prompt, ours, until_end(theirs, {tokenizer.eos_id})))
            n_tokens += len(theirs)
    found = {
        "equal": outcomes.count("equal"),
        "ties": outcomes.count("tie"),
        "prompts": N_PROMPTS,
        "new_tokens": N_NEW,
        "generated_tokens": n_tokens,
    }
    if answers["text_ids"] is None:
        return found
    different = [
        text for text, a, b in zip(cases["texts"], cases["text_ids"], answers["text_ids"], strict=True) if a != b
    ]
    n = len(cases["texts"])
    return found | {"texts_equal": n - len(different), "texts": n, "texts_different": different[:5]}


def outcome(model: LanguageModel, prompt: list[int], ours: list[int], theirs: list[int]) -> str:
    """Return "equal", "tie" if the first difference is between two equal logits, or ""."""
    if ours == theirs:
        return "equal"
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if at is None:
        return ""
    logits = last_logits(model, prompt + ours[:at])
    gap = (logits[ours[at]] - logits[theirs[at]]).abs() / logits.abs().max()
    return "tie" if gap <= TIE else ""


def version_of(runtime: Runtime) -> str:
    """Return the version that is pinned, or that of this environment."""
    if runtime.packages:
        return runtime.packages[0].rpartition("=" if "==" in runtime.packages[0] else "@")[2]
    return version(runtime.name.split()[0])


def size_of(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def keep(path: Path, name: str, found: dict[str, Any]) -> None:
    """Add the result of a runtime to a file, in the order of RUNTIMES."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    results[name] = found
    order = [it.name for it in RUNTIMES]
    results = dict(sorted(results.items(), key=lambda pair: order.index(pair[0])))
    path.write_text(json.dumps(results, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
