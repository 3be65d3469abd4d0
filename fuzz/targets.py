"""Every parser of data from outside as a function of bytes; a `MamegptError` is its only way to say no.

Shared by ``tests/test_fuzz.py`` (hypothesis) and ``fuzz/run.py`` (atheris). Each target is called with the bytes of one
file or request, in a folder where all else is in order, and uses what it read as far as the program would.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from mamegpt.errors import MamegptError, MamegptWarning

__all__ = ["Target", "feed", "targets"]

VOCAB_SIZE, CONTEXT_LENGTH = 720, 16
PAGE = "<page><title>豆</title><ns>0</ns><text>'''豆'''は[[植物|草]]。{{x}}\n== 節 ==\n本文</text></page>"


class Target:
    """``read`` takes the bytes; ``seeds`` are some that it accepts, to begin from.

    It is no dataclass, since hypothesis prints all fields of one when a test fails, and seeds can be megabytes.
    """

    def __init__(self, read: Callable[[bytes], object], seeds: list[bytes]) -> None:
        self.read, self.seeds = read, seeds

    def __repr__(self) -> str:
        return f"Target({len(self.seeds)} seeds)"


def feed(target: Target, data: bytes) -> bool:
    """Return whether the bytes were accepted, with or without a `MamegptWarning`.

    Any other exception than a `MamegptError` is a bug, and raised.
    """
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", MamegptWarning)
        try:
            target.read(data)
            refusal = None
        except MamegptError as error:
            refusal = error
    for said in [*(note.message for note in notes), *([refusal] if refusal else [])]:
        assert len(str(said).splitlines()) == 1, f"not one line: {said}"
    return refusal is None


def targets(folder: Path) -> dict[str, Target]:
    """Return all targets by name; ``folder`` is an empty one to work in."""
    import torch

    from mamegpt.config import TrainConfig
    from mamegpt.data.provenance import Provenance, read_provenance, write_provenance
    from mamegpt.data.shards import open_shards, write_shards
    from mamegpt.data.stories import stories
    from mamegpt.exporting.model_card import Facts
    from mamegpt.models.base import cpu_state_dict
    from mamegpt.models.registry import build_model, hf_formats
    from mamegpt.run import checkpoint
    from mamegpt.text.articles import format_article
    from mamegpt.tokenizer.tokenizer import Tokenizer, train_tokenizer
    from mamegpt.training.optim import build_optimizer

    texts = [format_article(*story) for story in stories(seed=1, n=40)]
    spm = train_tokenizer(texts, folder / "little", vocab_size=VOCAB_SIZE).path
    tokenizer = Tokenizer.load(spm)
    settings = TrainConfig(
        data="stories.txt",
        tokenizer=str(spm),
        out=str(folder / "run"),
        context_length=CONTEXT_LENGTH,
        emb_dim=8,
        n_layers=1,
        n_heads=2,
        max_steps=2,
        device="cpu",
        precision="fp32",
        compile="false",
    )
    sizes = settings.model(tokenizer.vocab_size)
    torch.manual_seed(0)
    model = build_model("qwen3", sizes)
    optimizer = build_optimizer(model, settings)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()  # so that it has a state

    run = folder / "run"
    write_shards(run / "tokens", {"train": texts[4:], "val": texts[:4]}, tokenizer)
    saved = checkpoint.save(run / "checkpoints", model, optimizer, checkpoint.State(2, 1.0, "s", "t", "k"), keep=1)
    shutil.copy(spm, run / "tokenizer.model")
    metrics = [
        {"step": 1, "loss": 6.5, "lr": 0.1, "tokens": 64, "elapsed_s": 0.5},
        {"step": 2, "loss": 6.4, "lr": 0.1, "tokens": 128, "elapsed_s": 1.0},
        {
            "step": 2,
            "quality": {
                "loss": 6.4,
                "bits_per_byte": 1.5,
                "bits_per_character": 4.5,
                "n_tokens": 9,
                "n_characters": 9,
                "n_bytes": 27,
            },
        },
    ]
    run_config = _json(settings.to_dict())
    (run / "config.json").write_bytes(run_config)
    (run / "metrics.jsonl").write_bytes(lines := b"".join(_json(record) + b"\n" for record in metrics))

    def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        """Return a target that reads one file, which is put back afterwards."""
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else None

        def read_bytes(data: bytes) -> object:
            path.write_bytes(data)
            try:
                return read(path)
            finally:
                path.unlink() if before is None else path.write_bytes(before)

        return read_bytes

    def in_checkpoint(name: str) -> Callable[[bytes], object]:
        """Return a target that reads a file of a checkpoint whose hash is as it should be."""

        def read(_: Path) -> object:
            state = json.loads((saved / "state.json").read_bytes())
            before = (saved / "state.json").read_bytes()
            state["files"][name] = hashlib.sha256((saved / name).read_bytes()).hexdigest()
            (saved / "state.json").write_bytes(_json(state))
            try:
                return checkpoint.load(saved, model, optimizer)
            finally:
                (saved / "state.json").write_bytes(before)

        return in_file(f"run/checkpoints/{saved.name}/{name}", read)

    found: dict[str, Target] = {}
    found["text"] = Target(
        _strings, [f"_START_ARTICLE_\n豆\n_START_PARAGRAPH_\nﾏﾒ。_NEWLINE_次\n【豆】\n{texts[0]}".encode()]
    )
    found["address"] = Target(
        _address,
        [
            b"a.txt@0.5,owner/name:2024.ja@v1@2",
            b"hf://datasets/a/b@refs/pr/1/c/*.txt",
            b"https://u:p@h/a?b=1,2@3,s3://c/d",
        ],
    )
    records = b"".join(_json({"title": "豆", "text": text}) + b"\n" for text in texts[:2])
    found["jsonl"] = Target(in_file("data/a.jsonl", _documents), [records, b'{"body": "\\u8c46"}\n\n'])
    found["txt"] = Target(in_file("data/a.txt", _documents), ["".join(texts[:2]).encode(), "豆が一つ。\n".encode() * 9])
    found["csv"] = Target(
        in_file("data/a.csv", _documents),
        ['id,title,text\n1,豆,"豆が、\n""一つ"",ある。"\n2,,京都\n'.encode(), b"body\na\n"],
    )
    found["gz"] = Target(in_file("data/a.txt.gz", _documents), [_packed("gz", "豆\n"), _packed("gz", "\xff")])
    found["bz2"] = Target(in_file("data/a.jsonl.bz2", _documents), [_packed("bz2", '{"text": "豆"}')])
    found["xz"] = Target(in_file("data/a.tsv.xz", _documents), [_packed("xz", "text\n豆\n")])
    found["zst"] = Target(in_file("data/a.jsonl.zst", _documents), [_packed("zst", '{"text": "豆"}')])
    found["parquet"] = Target(in_file("data/a.parquet", _documents), _parquet_seeds(folder))
    xml = f"<mediawiki>{PAGE}</mediawiki>".encode()
    found["dump"] = Target(in_file("data/a.xml", _documents), [xml])
    found["card"] = Target(
        in_file("card/README.md", _splits),
        [
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: '*.txt'\n---\n"
            "豆".encode(),
            b"---\nconfigs:\n- data_files: ['a.txt']\n---\n",
        ],
    )
    (folder / "card" / "a.txt").write_text("豆", encoding="utf-8")
    for name in ("test-items.jsonl", "test-items.parquet"):
        seeds = _parquet_seeds(folder) if name.endswith("parquet") else [records, b'[["a"], {"b": "c"}]\n']
        found[name] = Target(in_file(name, _test_items), seeds)

    (folder / "made.txt").write_text("豆", encoding="utf-8")
    write_provenance(folder / "made.txt", Provenance("extract", "a", {"keywords": "豆"}, 9, 1, {"duplicate": 8}), [])
    origin = (folder / "made.txt.origin.json").read_bytes()
    found["origin"] = Target(
        in_file("made.txt.origin.json", lambda _: Facts(origins=read_provenance([folder / "made.txt"])).rows()),
        [origin],
    )
    shard_meta = (run / "tokens" / "meta.json").read_bytes()
    found["shards"] = Target(
        in_file("run/tokens/meta.json", lambda path: _windows(open_shards(path.parent, tokenizer))), [shard_meta]
    )
    found["state"] = Target(
        in_file(
            f"run/checkpoints/{saved.name}/state.json", lambda path: checkpoint.load(path.parent, model, optimizer)
        ),
        [(saved / "state.json").read_bytes()],
    )
    for name in ("model.safetensors", "optimizer.safetensors"):
        found[f"checkpoint {name}"] = Target(in_checkpoint(name), [(saved / name).read_bytes(), *_tensor_seeds()])
    found["config"] = Target(in_file("run/config.json", lambda path: _use(path.parent)), [run_config])
    found["metrics"] = Target(in_file("run/metrics.jsonl", lambda path: _metrics(path.parent)), [lines])

    for name, hf_format in hf_formats().items():
        here = folder / name
        here.mkdir()
        own = TrainConfig(context_length=CONTEXT_LENGTH, emb_dim=8, n_layers=1, n_heads=2, drop_rate=0.0).model(
            tokenizer.vocab_size
        )
        tensors = hf_format.to_file(cpu_state_dict(build_model(hf_format.architecture, own)))
        shutil.copy(spm, here / "little.model")
        (here / "model.safetensors").write_bytes(weights := _safetensors(tensors))
        config = _json(hf_format.config(own))
        (here / "config.json").write_bytes(config)
        use = lambda path: _use(path.parent)  # noqa: E731
        found[f"{name} config"] = Target(in_file(f"{name}/config.json", use), [config])
        found[f"{name} weights"] = Target(in_file(f"{name}/model.safetensors", use), [weights, *_tensor_seeds()])
    found["pth"] = Target(in_file("model.pth", _weights), _pth_seeds(folder))
    found["sentencepiece"] = Target(lambda data: _tokenizer(data, spm), [spm.read_bytes()])
    found["tokenizer.json"] = Target(in_file("tokenizer.json", _json_tokenizer), [_tokenizer_json(tokenizer)])
    found["http body"] = Target(
        _body(run),
        [
            _json(
                {"prompt": "豆", "max_tokens": 3, "n": 2, "temperature": 0.7, "logprobs": 1, "stop": ["。"], "seed": 1}
            ),
            _json({"prompt": ["豆", ""], "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}),
        ],
    )
    found["http request"] = Target(
        _request(run),
        [
            b"GET\n/v1/models\n127.0.0.1\n\n",
            b"POST\n/v1/completions\nlocalhost:80\napplication/json\n{}",
            b"GET\n/app.js\n[::1]\nhttp://[::1]\n",
        ],
    )
    return found


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _packed(kind: str, text: str) -> bytes:
    import bz2
    import gzip
    import lzma

    import pyarrow

    data = text.encode("latin-1" if text == "\xff" else "utf-8")
    if kind == "zst":
        return pyarrow.compress(data, codec="zstd", asbytes=True)  # type: ignore[no-any-return]
    if kind == "gz":
        return gzip.compress(data, mtime=0)
    return bz2.compress(data) if kind == "bz2" else lzma.compress(data)


def _parquet_seeds(folder: Path) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    not_utf8 = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xe3")]
    )
    tables = [pa.table({"title": ["豆", None], "text": ["豆が一つ。", "京都"]}), pa.table({"text": not_utf8})]
    seeds = []
    for table in tables:
        pq.write_table(table, folder / "seed.parquet", compression="none")
        seeds.append((folder / "seed.parquet").read_bytes())
    return seeds


def _safetensors(tensors: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    return bytes(save(tensors))


def _tensor_seeds() -> list[bytes]:
    """Whole files of the wrong tensors: none, of no dimension, of other types, of names without a parameter."""
    import torch

    wrong = [
        {},
        {"tok_emb.weight": torch.zeros(()), "pos_emb.weight": torch.zeros(())},
        {"tok_emb.weight": torch.zeros(VOCAB_SIZE, 8), "pos_emb.weight": torch.zeros(())},
        {"backbone.tok_emb.weight": torch.zeros(VOCAB_SIZE, 8), "backbone.pos_emb.weight": torch.zeros(16, 8)},
        {
            "lm_head.weight": torch.zeros(VOCAB_SIZE, 8, dtype=torch.int8),
            "transformer.wte.weight": torch.zeros(VOCAB_SIZE, 8),
        },
        {"transformer.h.0.attn.c_attn.bias": torch.zeros(3, dtype=torch.float8_e4m3fn)},
        {"model.embed_tokens.weight": torch.zeros(VOCAB_SIZE, 8, dtype=torch.complex64)},
        {"no parameter": torch.zeros(1), "model.embed_tokens.weight|exp_avg": torch.zeros(1)},
    ]
    return [_safetensors(tensors) for tensors in wrong]


def _pth_seeds(folder: Path) -> list[bytes]:
    import torch

    values = [{"module.a": torch.zeros(2)}, {"state_dict": {"b": torch.ones(1)}}, [torch.zeros(1)], 3]
    seeds = []
    for value in values:
        torch.save(value, folder / "seed.pth")
        seeds.append((folder / "seed.pth").read_bytes())
    return seeds


def _tokenizer_json(tokenizer: Any) -> bytes:
    from mamegpt.tokenizer.hf import fast_tokenizer_json

    return fast_tokenizer_json(tokenizer).encode()


# What each reader does with its bytes


def _strings(data: bytes) -> None:
    from mamegpt.data.clean.edits import EDITS, edit
    from mamegpt.text.articles import format_article, parse_articles, parse_wiki40b
    from mamegpt.text.folding import fold
    from mamegpt.text.normalize import normalize
    from mamegpt.text.spellings import row_expression, spellings

    try:
        raw = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raw = data.decode("utf-8", "replace")
    for form in ("nfc", "nfkc", "none"):
        once = normalize(raw, form)
        assert normalize(once, form) == once
        once.encode()
    title, body = parse_wiki40b(raw)
    assert not any(marker in body for marker in ("_START_ARTICLE_", "_START_PARAGRAPH_"))
    list(parse_articles(format_article(title, body).split("\n")))
    keyword = fold(normalize(raw))[:20]
    spellings(keyword).findall(normalize(raw))
    row_expression(keyword)
    edit(raw, EDITS)


def _address(data: bytes) -> None:
    from mamegpt.data.address import hub_address, public_parts, split_list, split_weight
    from mamegpt.messages import without_secrets

    source = data.decode("utf-8", "replace")
    without_secrets(source)
    public_parts(source)
    for part in split_list(source):
        name, weight = split_weight(part)
        assert part.startswith(name) and weight > 0
        if address := hub_address(name):
            assert address.name in name and hub_address(address.pinned("1" * 40))


def _documents(path: Path) -> None:
    from mamegpt.data.sources import read_documents

    for document in read_documents(path):
        assert isinstance(document.title, str) and document.text


def _splits(path: Path) -> None:
    from mamegpt.data.splits import find_splits

    for files in find_splits(path.parent).values():
        assert files == [path.parent / "a.txt"]  # no card leads out of its folder


def _test_items(path: Path) -> None:
    from mamegpt.data.clean.clean import read_items

    for item in read_items([path]):
        assert isinstance(item, str)


def _windows(opened: tuple[Any, dict[str, Any]]) -> None:
    from mamegpt.data.window_order import WindowOrder

    meta, splits = opened
    meta.fingerprint()
    for split in splits.values():
        order = WindowOrder(len(split.tokens), CONTEXT_LENGTH, 2, seed=0)
        inputs, _ = order.batch(split.tokens, 0)
        assert inputs.max() < meta.vocab_size
        assert split.meta.n_tokens / split.meta.n_characters > 0


def _metrics(run: Path) -> None:
    from mamegpt.playground.catalog import bits_per_character, entries
    from mamegpt.report.page import page
    from mamegpt.report.run import ReportRun
    from mamegpt.training.metrics import Metrics

    Metrics(run, 2, write=False)
    bits_per_character(entries([str(run)]))
    page([ReportRun(run)], [], datetime(2026, 1, 1))


def _weights(path: Path) -> None:
    from mamegpt.models.weights import read_weights

    read_weights(path)


def _use(folder: Path) -> None:
    """Load a model and let it write."""
    from mamegpt.pretrained import load

    load(folder).generate("豆", max_new_tokens=2, at_start=False)


def _tokenizer(data: bytes, path: Path) -> None:
    from mamegpt.tokenizer.hf import fast_tokenizer_json
    from mamegpt.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer(data, path)
    assert len(tokenizer.pieces) == tokenizer.vocab_size
    ids = tokenizer.encode("ﾏﾒ 豆😀\n")
    stream = tokenizer.stream()
    assert "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode(ids)
    fast_tokenizer_json(tokenizer)


def _json_tokenizer(path: Path) -> None:
    from mamegpt.tokenizer.report import JsonTokenizer

    tokenizer = JsonTokenizer(path)
    for ids in tokenizer.encode_batch(["ﾏﾒ 豆😀\n"]):
        tokenizer.decode(ids)
        b"".join(map(tokenizer.token_bytes, ids))


def _body(run: Path) -> Callable[[bytes], object]:
    ask = _server(run)
    return lambda data: ask("POST", "/v1/completions", {"host": "127.0.0.1", "content-type": "application/json"}, data)


def _request(run: Path) -> Callable[[bytes], object]:
    """Lines: method, path, host, content type or origin; the rest is the body."""
    ask = _server(run)

    def read(data: bytes) -> None:
        method, path, host, kind, body = [*data.split(b"\n", 4), b"", b"", b"", b"", b""][:5]
        headers = {"host": host, "origin" if kind.startswith(b"http") else "content-type": kind}
        ask(method.decode("latin-1"), path.decode(errors="replace"), headers, body)

    return read


def _server(run: Path) -> Callable[..., None]:
    """Return the playground, asked without a socket: ``(method, path, headers, body)``; it must never fail itself."""
    from mamegpt.playground.engine import Engine
    from mamegpt.playground.server import LOOPBACK, build_app

    engine = Engine([str(run)])
    app: Any = build_app(engine, LOOPBACK, lambda *_: b"")
    engine.start()

    def ask(method: str, path: str, headers: dict[str, str | bytes], body: bytes) -> None:
        named = [
            (name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers.items()
        ]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": named,
            "server": ("127.0.0.1", 80),
        }
        sent: list[dict[str, Any]] = []
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            for part in parts:
                return part
            await asyncio.sleep(3600)  # the client waits for its answer
            raise AssertionError("an answer takes an hour")

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        assert sent[0]["status"] < 500, sent
        assert not any(b"server_error" in message.get("body", b"") for message in sent), sent

    return ask
