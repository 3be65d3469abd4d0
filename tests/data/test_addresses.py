"""What a source may be called: lists and weights, names and paths on the Hub, URLs; and what is noted of it."""

from __future__ import annotations

import functools
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer
from little import ROOT

from mamegpt.config import TrainConfig
from mamegpt.data.address import HubAddress, hub_address, public_parts, split_list, split_weight
from mamegpt.data.sources import download, find_files, noted_source, read_documents
from mamegpt.errors import DataError, MamegptError, MamegptWarning
from mamegpt.messages import msg, without_secrets

COMMIT = "1" * 40


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b", HubAddress("a/b")),
        ("a/b@main", HubAddress("a/b", "", "main")),
        ("a/b@refs/pr/1", HubAddress("a/b", "", "refs/pr/1")),
        ("a/b:20231101.ja@v1.0", HubAddress("a/b", "20231101.ja", "v1.0")),
        ("hf://datasets/a/b", HubAddress("a/b")),
        ("hf://datasets/a/b@v1/data/*.parquet", HubAddress("a/b", "", "v1", "data/*.parquet")),
        ("hf://datasets/a/b@refs/pr/1/x.txt", HubAddress("a/b", "", "refs/pr/1", "x.txt")),
        ("hf://datasets/a/b@refs%2Fpr%2F1/x.txt", HubAddress("a/b", "", "refs/pr/1", "x.txt")),
        ("a/b.parquet", None),
        ("a/b.parquet@main", None),
        ("a/b/c", None),
        ("a", None),
        ("C:/a", None),
        ("hf://models/a/b", None),
        ("https://a/b", None),
        ("a/b:c/d", None),
        ("a/b@x y", None),
    ],
)
def test_what_means_a_data_set_on_the_hub(name: str, expected: HubAddress | None) -> None:
    assert hub_address(name) == expected
    if expected:
        pinned = expected.pinned(COMMIT)
        assert hub_address(pinned) == HubAddress(expected.name, expected.config, COMMIT, expected.path)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("a.txt", ("a.txt", 1.0)),
        ("a.txt@0.5", ("a.txt", 0.5)),
        ("a/b@v1", ("a/b@v1", 1.0)),
        ("a/b@v1@2", ("a/b@v1", 2.0)),
        ("a/b:c@v1", ("a/b:c@v1", 1.0)),
        ("a/b@1.5@1", ("a/b@1.5", 1.0)),
        ("https://u:p@h/a.txt", ("https://u:p@h/a.txt", 1.0)),
        ("https://u:p@h/a.txt@3", ("https://u:p@h/a.txt", 3.0)),
    ],
)
def test_what_is_a_weight_and_what_is_a_revision(part: str, expected: tuple[str, float]) -> None:
    assert split_weight(part) == expected


@pytest.mark.parametrize("part", ["a.txt@half", "a/b@0", "a/b@2024", "a/b.txt@v1", "a@nan", "s3://a/b@-1"])
def test_what_is_neither_is_an_error(part: str) -> None:
    with pytest.raises(DataError, match="is not a weight; give a number above 0 and at most 100 after the @"):
        split_weight(part)


def test_a_comma_in_the_query_of_a_url_separates_only_before_a_url() -> None:
    assert split_list("a.txt@2, https://h/b?k=1,2@3,s3://b/c,d/e") == [
        "a.txt@2",
        "https://h/b?k=1,2@3",
        "s3://b/c",
        "d/e",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'https://me:word@h:8/a.txt?sig=a,b&c=(d)'; check it", "'https://h:8/a.txt?…)'; check it"),
        ("https://h/a?x=1@0.5,https://u:p@b/c#f (train)", "https://h/a?…@0.5,https://b/c?… (train)"),
        ("https://me:wo/rd@h/a and https://u:p?w@h/b", "https://h/a and https://h/b"),
        ("url='http://h/a?sig=x')", "url='http://h/a?…')"),
        ("hf://datasets/a/b@main/c, http://h:80/x@v1, s3://b/a@v1 and https://h/x.", None),
    ],
)
def test_messages_and_notes_hold_no_secrets_of_urls(text: str, expected: str | None) -> None:
    assert without_secrets(text) == without_secrets(without_secrets(text)) == (expected or text)
    assert (
        str(MamegptError(text))
        == str(MamegptError("{it}", it=text))
        == str(MamegptWarning(msg("{it}", it=text)))
        == (expected or text)
    )
    saved = TrainConfig(data=text, val_data=text).to_dict()
    assert saved["data"] == saved["val_data"] == (expected or text)


def test_a_model_card_names_what_is_public() -> None:
    source = "/home/me/wiki.parquet@0.5,a/b:c@v1,hf://datasets/a/b/c.txt,https://me:x@h/d/e.csv?k=v,s3://b/f.txt"
    assert public_parts(source) == ["wiki.parquet", "a/b:c@v1", "hf://datasets/a/b/c.txt", "e.csv", "f.txt"]


# URLs


class Quiet(http.server.SimpleHTTPRequestHandler):
    def do_HEAD(self) -> None:
        if self.path != "/short.txt":
            super().do_HEAD()
            return
        self.send_response(200)
        self.send_header("Content-Length", "99")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Count what is fetched, and say nothing."""
        self.server.asked.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path, list[str]]]:
    """An HTTP server: its address, its folder, and the requests it got."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "site"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        asked: list[str] = []
        server.asked = asked  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder, asked
        server.shutdown()


def texts(source: str, split: str = "train") -> list[str]:
    return [document.text for document in read_documents(source, split)]


def test_a_file_at_a_url_is_fetched_once_a_version(site: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    base, folder, asked = site
    (folder / "豆 1.csv").write_text("title,text\n豆,一\n", encoding="utf-8")
    url = f"{base}/豆%201.csv?token=secret,word"
    assert texts(url) == texts(url) == ["一"]
    assert [line.partition(" ")[0] for line in asked] == ["HEAD", "GET", "HEAD"]
    (found,) = find_files(url)
    assert (found.name, noted_source([found])) == ("豆 1.csv", f"{base}/豆%201.csv?…")
    assert not any(
        b"secret" in path.read_bytes() or "secret" in str(path) for path in tmp_path.rglob("*") if path.is_file()
    )
    (folder / "豆 1.csv").write_text("title,text\n豆,二つ\n", encoding="utf-8")
    assert texts(url) == ["二つ"]
    assert download(url, tmp_path / "other").splits["train"].files[0].is_relative_to(tmp_path / "other")


def test_what_cannot_be_fetched_is_one_line_without_secrets(site: tuple[str, Path, list[str]]) -> None:
    base, folder, _ = site
    (folder / "a.pdf").write_bytes(b"x")
    for url, said in [
        (f"{base}/none.csv?token=secret", "404"),
        (f"{base.replace('//', '//me:secret@')}/none.txt", "404"),
        ("http://127.0.0.1:9/a.txt?token=secret", "cannot be fetched"),
        ("http://me:secret?@127.0.0.1:9/a.txt", "cannot be fetched"),
        (f"{base}/a.pdf", "holds no file in a known format"),
        ("nosuch://a/b.txt", "Protocol not known"),
    ]:
        with pytest.raises(DataError, match=said) as raised:
            find_files(url)
        assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_comes_short_is_not_kept(site: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    base, folder, _ = site
    (folder / "short.txt").write_text("豆が一つ。", encoding="utf-8")
    with pytest.raises(DataError, match=r"short\.txt cannot be fetched \(15 of 99 bytes came\)"):
        find_files(f"{base}/short.txt")
    assert not list((tmp_path / "cache").rglob("*.txt"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store as S3 is one: files by keys."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    for key, text in {
        "train.txt": "一",
        "test.txt": "二",
        "more/train.jsonl": '{"text": "三"}',
        ".x.txt": "隠",
    }.items():
        memory.pipe(f"/corpus/{key}", text.encode())
    memory.pipe("/corpus/picture.png", b"x")
    yield memory
    memory.rm("/corpus", recursive=True)


@pytest.mark.parametrize(
    ("url", "split", "expected"),
    [
        ("memory://corpus/train.txt", "train", ["一"]),
        ("memory://corpus/*.txt", "train", ["二", "一"]),
        ("memory://corpus/*.txt", "test", ["二"]),
        ("memory://corpus/**/*.jsonl", "train", ["三"]),
        ("memory://corpus/more", "train", ["三"]),
        ("memory://corpus/more/train.jsonl@2,memory://corpus/test.txt", "train", ["三", "三", "二"]),
    ],
)
def test_files_folders_and_patterns_of_a_store(store: Any, url: str, split: str, expected: list[str]) -> None:
    assert texts(url, split) == expected
    assert noted_source(find_files(url, split)) == url


def test_no_name_in_a_store_leads_out_of_the_cache(store: Any, tmp_path: Path) -> None:
    store.store["/corpus/../../../../../../out.txt"] = store.store["/corpus/train.txt"]
    try:
        with pytest.raises(DataError, match="which leads out of its folder"):
            find_files("memory://corpus")
    finally:
        del store.store["/corpus/../../../../../../out.txt"]
    assert not list(tmp_path.rglob("out.txt"))


# The Hub

CLIENT = """
import json, sys
from mamegpt.errors import MamegptError
from mamegpt.data.sources import find_files, noted_source, read_documents

def attempt(source, split):
    try:
        return [[d.text for d in read_documents(source, split)], noted_source(find_files(source, split))]
    except MamegptError as error:
        return f"{type(error).__name__}: {error}"

print(json.dumps([attempt(*asked) for asked in json.loads(sys.argv[1])]))
"""


def ask(env: dict[str, str], *asked: tuple[str, str]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(asked)],
        env=env,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_configurations_revisions_and_paths_of_a_data_set(hub: HubServer, tmp_path: Path) -> None:
    folder = hub.root / "datasets" / "owner" / "corpus"
    for name in ("ja/train-0", "ja/test-0", "en/train-0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": [name]}), folder / f"{name}.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: 2024.ja\n  data_files:\n  - {split: train, path: ja/train-*}\n"
        "  - {split: test, path: ja/test-*}\n- {config_name: en, data_dir: en}\n---\n",
        encoding="utf-8",
    )
    env = hub.env(tmp_path)
    first = ask(env, ("owner/corpus:2024.ja", "test"))
    ((read, noted),) = first
    (commit,) = re.fullmatch(r"owner/corpus:2024\.ja@([0-9a-f]{40})", noted).groups()  # type: ignore[union-attr]
    assert read == ["ja/test-0"]
    assert not any("GET" in line and "en/train" in line for line in hub.requests)  # only what is read is fetched
    asked = [
        ("owner/corpus:en", "train"),
        (f"owner/corpus:en@{commit}", "train"),
        ("hf://datasets/owner/corpus/ja", "test"),
        (f"hf://datasets/owner/corpus@{commit}/en/train-0.parquet", "train"),
        ("hf://datasets/owner/corpus/*/train-0.parquet", "train"),
        ("owner/corpus", "train"),
        ("owner/corpus:fr", "train"),
        ("owner/corpus@v9", "train"),
        ("hf://datasets/owner/corpus/none.txt", "train"),
    ]
    en, pinned, below, path, pattern, several, absent, no_revision, no_path = ask(env, *asked)
    assert en == pinned == [["en/train-0"], f"owner/corpus:en@{commit}"]
    assert below == [["ja/test-0"], f"hf://datasets/owner/corpus@{commit}/ja"]
    assert path == [["en/train-0"], f"hf://datasets/owner/corpus@{commit}/en/train-0.parquet"]
    assert pattern == [["en/train-0", "ja/train-0"], f"hf://datasets/owner/corpus@{commit}/*/train-0.parquet"]
    assert "names several configurations (2024.ja, en) and no default" in several
    assert absent == "DataError: owner/corpus has no configuration 'fr'; it has 2024.ja, en"
    assert re.match("HubError: owner/corpus at .* has no revision v9", no_revision)
    assert "there is no such file or folder, or the cache does not hold it" in no_path
    hub.stop()
    assert ask(env, ("owner/corpus:2024.ja", "test"), asked[2]) == [*first, below]


@pytest.mark.slow
def test_a_data_set_in_another_format_is_read_by_datasets(hub: HubServer, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = hub.root / "datasets" / "owner" / "whole"
    folder.mkdir(parents=True)
    rows = [{"title": "豆", "text": f"豆が{i}つ。", "n": i} for i in range(150)]
    (folder / "train.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    env = hub.env(tmp_path) | {"HF_DATASETS_CACHE": str(tmp_path / "datasets")}
    ((read, noted),) = ask(env, ("owner/whole", "train"))
    assert read == [row["text"] for row in rows]
    assert re.fullmatch(r"owner/whole@[0-9a-f]{40}", noted)
    without = "import sys; sys.modules['datasets'] = None\n" + CLIENT
    done = subprocess.run(
        [sys.executable, "-c", without, json.dumps([("owner/whole:default", "train")])],
        env=env | {"HF_HOME": str(tmp_path / "new"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        cwd=tmp_path,
    )
    (said,) = json.loads(done.stdout.splitlines()[-1])
    assert 'pip install -e ".[hub-data]"' in said and "its parquet conversion is not available" in said


def test_other_addresses_of_the_hub_are_read_through_fsspec(hub: HubServer, tmp_path: Path) -> None:
    model = hub.root / "models" / "owner" / "model"
    model.mkdir(parents=True)
    (model / "sample.txt").write_text("豆が一つ。", encoding="utf-8")
    assert ask(hub.env(tmp_path), ("hf://owner/model/sample.txt", "train")) == [
        [["豆が一つ。"], "hf://owner/model/sample.txt"]
    ]
