"""Weights and folders from outside: the original format, wrapped state dicts, damaged and hostile files."""

from __future__ import annotations

import dataclasses
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import NATIVE, reference, supported
from bomb import Bomb
from little import N_SENTENCES, Little, run_script, sizes_for
from safetensors.torch import load_file, save_file
from torch import Tensor

from mamegpt.errors import CheckpointError, HubError, MamegptError, ModelError, TokenizerError
from mamegpt.exporting.publish import export, export_weights
from mamegpt.generation.stream import generate
from mamegpt.models.custom_gpt.hf import sizes_of
from mamegpt.models.registry import hf_formats
from mamegpt.models.weights import read_weights
from mamegpt.pretrained import load
from mamegpt.tokenizer.tokenizer import Tokenizer

BOMB = 'raise SystemExit("ran remote code")\n'
PROMPT = "昔々、"


@pytest.fixture(scope="module")
def weights(little: Little) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(little.weights, weights_only=True)
    return found


@pytest.fixture(scope="module")
def original(little: Little, weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the original export script wrote it; its code must not run."""
    folder = tmp_path_factory.mktemp("hub") / "hf_jp_gpt_wiki"
    folder.mkdir()
    torch.save({f"backbone.{name}": tensor for name, tensor in weights.items()}, folder / "pytorch_model.bin")
    config = {
        "_class_name": "CustomGPTConfig",
        "architectures": ["CustomGPTForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_custom_gpt.CustomGPTConfig",
            "AutoModelForCausalLM": "modeling_custom_gpt.CustomGPTForCausalLM",
        },
        "vocab_size": 1000,
        "context_length": 32,
        "emb_dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "drop_rate": 0.1,
        "qkv_bias": False,
        "fast": True,
        "model_type": "custom-gpt",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": None}), encoding="utf-8")
    (folder / "modeling_custom_gpt.py").write_text(BOMB, encoding="utf-8")
    for name in ("jp_tok_wiki.model", "jp_tok_wiki.vocab"):
        shutil.copy(little.spm.parent / name, folder / name)
    return folder


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def expected_text(little: Little) -> str:
    run = load(little.run)
    return generate(run.model, run.tokenizer, PROMPT, 8)


# ---------------------------------------------------------------- folders


def test_run_export_and_original_folder_hold_the_same_model(
    little: Little, original: Path, weights: dict[str, Tensor]
) -> None:
    for where in (little.run, little.exported, original):
        loaded = load(where)
        assert same(dict(loaded.model.state_dict()), weights)
        assert not loaded.model.training
        assert loaded.use_cache
        assert loaded.tokenizer.fingerprint == little.tokenizer.fingerprint
        assert loaded.sizes is not None and loaded.sizes.n_heads == 4


def test_generate_py_writes_from_the_original_folder_without_running_its_code(
    little: Little, original: Path, tmp_path: Path
) -> None:
    arguments = ("--prompt", PROMPT, "--max-new-tokens", 8, "--repo-id", original, "--device", "cpu")
    done = run_script("generate.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Using device: cpu\n\n=== Generation ===\n{PROMPT}{expected_text(little)}\n"
    assert "ran remote code" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("warm_exports")
def test_the_original_folder_can_be_exported_anew(original: Path, tmp_path: Path, weights: dict[str, Tensor]) -> None:
    export(str(original), tmp_path / "new", n_sentences=N_SENTENCES)
    assert same(read_weights(tmp_path / "new" / "model.safetensors"), weights)
    assert BOMB not in (tmp_path / "new" / "modeling_custom_gpt.py").read_text(encoding="utf-8")


def test_the_sentencepiece_model_is_the_only_one_or_the_one_that_is_named(original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    shutil.copytree(original, folder)
    shutil.copy(folder / "jp_tok_wiki.model", folder / "a.model")
    with pytest.raises(ModelError, match=r"several SentencePiece models.*spm_file from: a.model, jp_tok_wiki.model"):
        load(folder)
    assert load(str(folder), spm_file="a.model").tokenizer.path.name == "a.model"
    with pytest.raises(ModelError, match=r"has no b.model; choose with spm_file from: a.model"):
        load(str(folder), spm_file="b.model")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: (f / "config.json").unlink(), ModelError, "neither a run nor a model folder"),
        (lambda f: (f / "config.json").write_text("{", encoding="utf-8"), ModelError, "is no configuration of a model"),
        (lambda f: (f / "config.json").write_text("[]", encoding="utf-8"), ModelError, "JSON object"),
        (lambda f: (f / "pytorch_model.bin").unlink(), ModelError, "no weights file"),
        (lambda f: (f / "jp_tok_wiki.model").unlink(), ModelError, "none there"),
        (lambda f: (f / "jp_tok_wiki.model").write_bytes(b"x"), MamegptError, "not a complete SentencePiece model"),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "mistral"}'),
            ModelError,
            "'mistral' model, not ours",
        ),
        (lambda f: _edit(f, n_layers=3), ModelError, r"n_layers 3 contradicts .*pytorch_model.bin.* n_layers 2"),
        (lambda f: _edit(f, n_heads=5), MamegptError, "emb_dim 32 is not divisible by n_heads 5"),
    ],
)
def test_folders_that_cannot_be_used(
    original: Path, tmp_path: Path, change: Callable[[Path], Any], error: type[Exception], message: str
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(original, folder)
    change(folder)
    with pytest.raises(error, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def _edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def _as_transformers_saves(
    folder: Path, little: Little, model_type: str = "qwen3", tied: bool = False, n_more: int = 0, **save: Any
) -> Path:
    """A tiny model of transformers with our tokenizer, and ``n_more`` rows of the vocabulary than it has pieces."""
    hf_format = hf_formats()[model_type]
    few = {"context_length": 32, "n_heads": 2} | supported(hf_format.architecture, {"n_kv_heads": 1, "head_dim": 16})
    torch.manual_seed(3)
    sizes = dataclasses.replace(sizes_for(little.tokenizer, **few), vocab_size=1000 + n_more)
    reference(hf_format, sizes, tie_word_embeddings=tied).save_pretrained(folder, **save)
    shutil.copy(little.spm, folder / "tokenizer.model")
    return folder


@NATIVE
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", ["whole", "parts", "bin", "bin parts"])
def test_weights_are_read_whole_and_in_parts(
    little: Little, tmp_path: Path, model_type: str, tied: bool, form: str
) -> None:
    import transformers

    save = {"max_shard_size": "60KB"} if form == "parts" else {}
    folder = _as_transformers_saves(tmp_path / "m", little, model_type, tied, **save)
    if form.startswith("bin"):
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = [*weights]
        halves = [names] if form == "bin" else [names[:5], names[5:]]
        for i, half in enumerate(halves, 1):
            part = "pytorch_model.bin" if form == "bin" else f"pytorch_model-{i:05}-of-00002.bin"
            torch.save({name: weights[name] for name in half}, folder / part)
        index = {
            "metadata": {"total_size": 1},
            "weight_map": {
                name: f"pytorch_model-{i:05}-of-00002.bin" for i, half in enumerate(halves, 1) for name in half
            },
        }
        if form == "bin parts":
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "model-0-of-x.safetensors").touch()  # no part, whatever it is
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + (folder / "config.json").read_bytes())  # a BOM
    model = load(folder, device="cpu").model
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes()[3:])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 6, 7, 400, 999]])
    with torch.no_grad():
        assert torch.allclose(model(ids), theirs(input_ids=ids).logits, atol=1e-5)
    if form.endswith("parts"):
        gone = sorted(path for path in folder.iterdir() if "-of-" in path.name)[-1]
        gone.unlink()
        with pytest.raises(ModelError, match=f"has no {gone.name}, a part of its weights"):
            load(folder)


@NATIVE
@pytest.mark.parametrize("tied", [False, True])
def test_rows_beyond_the_pieces_are_never_produced(little: Little, tmp_path: Path, model_type: str, tied: bool) -> None:
    import transformers

    folder = _as_transformers_saves(tmp_path / "m", little, model_type, tied, n_more=24)
    loaded = load(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 6, 7, 400, 999]])
    with torch.no_grad():
        got, expected = loaded.model(ids), theirs(input_ids=ids).logits
    assert loaded.sizes is not None and got.shape[-1] == loaded.sizes.vocab_size == little.tokenizer.vocab_size
    assert torch.allclose(got, expected[..., :1000], atol=1e-5)
    wrong = _as_transformers_saves(tmp_path / "wrong", little, model_type, tied, n_more=-1)
    for folder in (wrong, _as_transformers_saves(tmp_path / "far", little, model_type, tied, n_more=1000)):
        with pytest.raises(ModelError, match="not the tokenizer the model was trained with"):
            load(folder)


def test_what_a_folder_or_file_is_instead_of_a_model(little: Little, tmp_path: Path) -> None:
    """Each is said in one line, with what to do."""

    def said(where: Path) -> str:
        with pytest.raises(MamegptError) as caught:
            load(where)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for name in ("adapter", "trainer/checkpoint-5", "gguf"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}', encoding="utf-8")
    (tmp_path / "gguf" / "m.gguf").write_bytes(b"GGUF")
    assert "a PEFT adapter for x/y, not a model; merge them" in said(tmp_path / "adapter")
    assert f"give one of them, such as {tmp_path / 'trainer' / 'checkpoint-5'}" in said(tmp_path / "trainer")
    for where in (tmp_path / "gguf", tmp_path / "gguf" / "m.gguf", Path("mame/none.gguf")):
        assert "m.gguf is a GGUF file" in said(where) or "none.gguf is a GGUF file" in said(where)
    assert "is a file; give its folder" in said(little.weights)

    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 123\n"
    for name in ("model.safetensors", "tokenizer.model"):
        folder = _as_transformers_saves(tmp_path / name, little)
        (folder / name).write_text(pointer, encoding="utf-8")
        assert f"{name} is a Git LFS pointer, not the file; fetch it in its folder with: git lfs pull" in said(folder)
    merged = Path(shutil.copytree(little.exported, tmp_path / "merged"))
    for file in merged.glob("*.model"):
        file.unlink()
    assert "copy the SentencePiece model (tokenizer.model)" in said(merged)
    with pytest.raises(TokenizerError, match=r"a folder; give a .model file in it: .*jp_tok_wiki.model"):
        Tokenizer.load(little.spm.parent)
    with pytest.raises(TokenizerError, match=r"a folder; give a .model file in it: none there"):
        Tokenizer.load(tmp_path / "adapter")


@pytest.mark.parametrize("asked", [{"max_position_embeddings": 1 << 20, "head_dim": 4096}, {"head_dim": 4096}])
def test_sizes_out_of_proportion_to_the_weights_take_no_memory(
    little: Little, tmp_path: Path, asked: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _as_transformers_saves(tmp_path / "m", little)
    _edit(folder, **asked)
    if "max_position_embeddings" in asked:  # heads that wide are in the file
        weights = load_file(folder / "model.safetensors")
        for name, weight in weights.items():
            if "self_attn" in name:
                widths = {16: 4096, 32: 2 * 4096}
                is_o = name.endswith("o_proj.weight")
                shape = (32, 8192) if is_o else (widths[len(weight)], *weight.shape[1:])
                weights[name] = torch.zeros(shape)
        save_file(weights, folder / "model.safetensors")
    built = []
    monkeypatch.setattr("mamegpt.pretrained.load_weights", lambda *_: built.append(1))
    with pytest.raises(ModelError, match=r"would take 17\.\d GB of memory|does not fit the model"):
        load(folder)
    assert not built


def test_a_file_that_unfolds_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    views = {name: torch.zeros(1).expand(1 << 20, 1 << 12) for name in weights}  # 16 GB each
    torch.save(views, tmp_path / "views.bin")
    assert (tmp_path / "views.bin").stat().st_size < 100_000
    with pytest.raises(ModelError, match=r"views\.bin would take .* GB of memory for 0\.0 MB of weights"):
        read_weights(tmp_path / "views.bin")
    tied = torch.zeros(1000, 32)
    torch.save({"a": tied, "b": tied}, tmp_path / "tied.bin")
    assert read_weights(tmp_path / "tied.bin").keys() == {"a", "b"}


def test_a_run_without_checkpoint_and_names_of_nothing(
    little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(little.run, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        shutil.rmtree(path)
    with pytest.raises(CheckpointError, match=r"has no checkpoint yet; resume with: mamegpt train --resume"):
        load(str(tmp_path / "run"))
    (tmp_path / "run" / "checkpoints").rmdir()  # before the first one is saved
    with pytest.raises(CheckpointError, match=r"has no checkpoint yet; resume with: mamegpt train --resume"):
        load(str(tmp_path / "run"))
    with pytest.raises(ModelError, match="neither a folder nor a Hub name"):
        load(str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="mame/none is not a local file or folder"):
        load("mame/none")


# ---------------------------------------------------------------- weights files


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_with_nan_or_infinity_are_refused_by_every_loader(
    little: Little, tmp_path: Path, weights: dict[str, Tensor], value: float
) -> None:
    name = next(iter(weights))
    bad = {**weights, name: weights[name].clone()}
    bad[name].view(-1)[7] = value
    said = f"has 1 weights with NaN or infinity, {name} first; use another copy or an earlier checkpoint"
    torch.save(bad, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match=said):
        export_weights(tmp_path / "bad.pth", little.spm, tmp_path / "out")
    folder = shutil.copytree(little.exported, tmp_path / "folder")
    save_file({f"backbone.{key}": tensor for key, tensor in bad.items()}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=said):
        load(folder)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, weights: dict[str, Tensor], prefix: str) -> None:
    wrapped = {prefix + name: tensor for name, tensor in weights.items()}
    torch.save(wrapped, tmp_path / "a.pth")
    torch.save({"state_dict": wrapped, "step": 3}, tmp_path / "b.pt")
    torch.save(wrapped, tmp_path / "c.bin", _use_new_zipfile_serialization=False)
    save_file(wrapped, tmp_path / "d.safetensors")
    for path in tmp_path.iterdir():
        assert same(read_weights(path), weights), path.name


def test_sizes_are_read_from_the_weights(little: Little, weights: dict[str, Tensor]) -> None:
    found = sizes_of(weights, "w")
    assert (found.vocab_size, found.context_length, found.emb_dim, found.n_layers) == (1000, 32, 32, 2)
    assert found.n_heads == 4 and not found.qkv_bias
    assert sizes_of(weights, "w", n_heads=8, emb_dim=32, drop_rate=0.2).n_heads == 8
    biased = weights | {"trf_blocks.0.att.qkv.bias": torch.zeros(96)}
    assert sizes_of(biased, "w").qkv_bias


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_a_file_that_holds_code_is_refused_and_does_not_run(
    tmp_path: Path, weights: dict[str, Tensor], form: str
) -> None:
    path, marker = tmp_path / "bomb.pth", tmp_path / "marker"
    hostile = {**weights, "surprise": Bomb(marker)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(hostile["surprise"]))
    else:
        torch.save(hostile, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ModelError, match=r"bomb.pth was refused.*plain state dict"):
        read_weights(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if form != "plain pickle" else pickle.loads(path.read_bytes())
    assert marker.exists()  # the bomb was real


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {"model": {"tok_emb.weight": 3}}, torch.zeros(3)])
def test_files_that_are_no_state_dict(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w.pth does not hold a state dict"):
        read_weights(tmp_path / "w.pth")
    with pytest.raises(ModelError, match="no weights file"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize("suffix", [".pth", ".legacy", ".safetensors"])
def test_whatever_is_damaged_ends_in_one_line(tmp_path: Path, weights: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=suffix == ".pth")
    whole, draw = path.read_bytes(), random.Random(suffix)
    n_refused = 0
    for i in range(120):
        damaged = bytearray(whole)
        if i % 2:
            del damaged[draw.choice([draw.randrange(3000), draw.randrange(len(whole) - 1)]) :]
        else:
            start = draw.choice([0, len(whole) - 8000])
            for _ in range(6):
                damaged[start + draw.randrange(8000)] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            sizes_of(read_weights(path), str(path))
        except MamegptError as error:
            n_refused += 1
            assert "\n" not in str(error)
            assert path.name in str(error)
    assert n_refused >= 60  # at least all that were cut off
