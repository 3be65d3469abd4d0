"""ONNX graphs: ONNX Runtime and transformers.js compute and tokenize as we do, or the export fails."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from architectures import EVERY, supported
from little import N_SENTENCES, Little, export_here, random_model, sizes_for

from mamegpt import errors
from mamegpt.config import ModelConfig
from mamegpt.errors import ConfigError, ExportError
from mamegpt.exporting import onnx
from mamegpt.exporting.checks import CHATS
from mamegpt.exporting.export import export_model
from mamegpt.models.base import LanguageModel
from mamegpt.pretrained import Pretrained
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.chat import chat_ids

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("transformers.exporters")

# fmt: off
FILES = [
    "README.md", "config.json", "genai_config.json", "generation_config.json", "jp_tok_wiki.model", "jp_tok_wiki.vocab",
    "onnx/model.onnx", "tokenizer.json", "tokenizer_config.json",
]
# fmt: on
CHECKS = ["logits", "greedy", "no cache", "padding", "tokenizer", "round trip"]


def model_of(little: Little, architecture: str) -> tuple[LanguageModel, ModelConfig]:
    other = {"n_kv_heads": 2, "head_dim": 16, "rope_theta": 500.0, "tie_embeddings": True, "qkv_bias": True}
    sizes = sizes_for(little.tokenizer, context_length=80, **supported(architecture, other))
    return random_model(sizes, architecture=architecture), sizes


@pytest.mark.slow
@EVERY
def test_onnx_runtime_computes_the_same(little: Little, tmp_path: Path, architecture: str) -> None:
    model, sizes = model_of(little, architecture)
    report = export_here(tmp_path / "豆", model, sizes, little.tokenizer, architecture, targets=["onnx"])
    assert report.files == FILES
    assert [check.name for check in report.checks["onnx"]] == CHECKS
    session = onnxruntime.InferenceSession(tmp_path / "豆" / "onnx" / "model.onnx")
    shapes = {it.name: it.shape for it in (*session.get_inputs(), *session.get_outputs())}
    assert shapes["input_ids"] == ["batch_size", "sequence_length"]
    n_heads, width = shapes["past_key_values.1.value"][1::2]
    assert shapes["present.0.key"] == ["batch_size", n_heads, "total_sequence_length", width]
    described = json.loads((tmp_path / "豆" / "genai_config.json").read_text(encoding="utf-8"))["model"]
    decoder = described["decoder"]
    named = {name.replace("%d", "1") for part in ("inputs", "outputs") for name in decoder[part].values()}
    assert named <= set(shapes)
    assert (decoder["num_key_value_heads"], decoder["head_size"]) == (n_heads, width)
    assert described["eos_token_id"] == little.tokenizer.eos_id
    assert "library_name: transformers.js" in (tmp_path / "豆" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_transformers_js_writes_the_same(little: Little, tmp_path: Path) -> None:
    node = shutil.which("node")
    modules = node and subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=True).stdout.strip()
    if not modules or not Path(modules, "@huggingface", "transformers").is_dir():
        pytest.skip("needs node and npm install -g @huggingface/transformers")
    model, sizes = model_of(little, "qwen3")
    loaded = Pretrained(model, little.tokenizer, sizes, "qwen3", "a model in memory", answers=True)
    export_model(tmp_path / "bean", loaded, ["onnx"], n_sentences=N_SENTENCES)
    chats = [[{"role": role, "content": normalize(content)} for role, content in messages] for messages in CHATS]
    (tmp_path / "chats.json").write_text(json.dumps(chats), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "ask.mjs").write_text(
        """
import { AutoModelForCausalLM, AutoTokenizer, env } from "@huggingface/transformers";
import { readFileSync } from "node:fs";
env.localModelPath = "./";
const options = { dtype: "fp32", local_files_only: true };
const [model, tokenizer] = await Promise.all(
  [AutoModelForCausalLM, AutoTokenizer].map((it) => it.from_pretrained("bean", options)));
const inputs = tokenizer("</s>昔々、ﾏﾒが𠮷野家に", { add_special_tokens: false });
const ids = await model.generate({ ...inputs, max_new_tokens: 24, do_sample: false, eos_token_id: -1 });
const asked = { add_generation_prompt: true, return_tensor: false, return_dict: false };
const chats = JSON.parse(readFileSync("chats.json")).map((it) => tokenizer.apply_chat_template(it, asked));
const numbers = (them) => Array.from(them, Number);
console.log(JSON.stringify([inputs.input_ids.tolist()[0], ids.tolist()[0], ...chats].map(numbers)));
""",
        encoding="utf-8",
    )
    done = subprocess.run([str(node), "ask.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    prompt, whole, *found_chats = json.loads(done.stdout)
    tokenizer = little.tokenizer
    assert found_chats == [chat_ids(tokenizer, messages) for messages in CHATS]
    assert prompt == [tokenizer.start_id, *tokenizer.encode("昔々、ﾏﾒが𠮷野家に")]
    with torch.inference_mode():
        most_likely = model(torch.tensor([whole[:-1]]))[0].argmax(-1).tolist()
    assert whole[len(prompt) :] == most_likely[len(prompt) - 1 :]


def test_a_graph_that_computes_otherwise_never_gets_its_name(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "convert.py"
    wrong.write_text("raise SystemExit('豆 is no graph')", encoding="utf-8")
    monkeypatch.setattr(onnx, "CONVERTER", wrong)
    with pytest.raises(ExportError, match="does not load in a separate process: 豆 is no graph"):
        export_here(tmp_path / "out", *model_of(little, "qwen3"), little.tokenizer, "qwen3", targets=["onnx"])
    assert list(tmp_path.iterdir()) == [wrong]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"to onnx uses the exporter of transformers 5 \(installed: "):
        onnx.refuse_without_packages()
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ConfigError, match=r'to onnx needs onnxscript, .*"\.\[onnx\]"'):
        onnx.refuse_without_packages()
