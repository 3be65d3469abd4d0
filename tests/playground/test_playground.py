"""The playground: what it finds, what it answers OpenAI's own client, whom it refuses, and that nobody is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openai
import pytest
import safetensors.torch
import torch
from little import ROOT, Little
from playground_server import make_page, serving

from mamegpt.cli.commands import models as commands
from mamegpt.cli.main import main
from mamegpt.errors import ConfigError, ModelError, naming_options
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import generate, stream_tokens
from mamegpt.playground import catalog
from mamegpt.playground.api import MAX_CHARACTERS, MAX_SEED, UNSUPPORTED, error, read_request
from mamegpt.playground.catalog import bits_per_character, entries
from mamegpt.playground.engine import MAX_TEXTS
from mamegpt.playground.words import words
from mamegpt.pretrained import load
from mamegpt.run.run import Run

STATIC = ROOT / "mamegpt" / "playground" / "static"
PAGE = ROOT / "mamegpt" / "exporting" / "page"
THEME = ROOT / "mamegpt" / "pages" / "static" / "theme.css"
PROMPT = "昔々、"


@pytest.fixture(scope="module")
def models(little: Little, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two checkpoints, and an exported folder."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(little.run, folder / "run")
    shutil.copytree(folder / "run/checkpoints/step-00000012", folder / "run/checkpoints/step-00000004")
    shutil.copytree(little.exported, folder / "deep" / "exported")
    return folder


@pytest.fixture(scope="module")
def port(models: Path) -> Iterator[int]:
    with serving([str(models)]) as number:
        yield number


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        yield client


def exchange(
    port: int, method: str, path: str, raw: bytes | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request: the answer, and its whole body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, raw, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read()


def post(port: int, body: object, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """POST JSON to /v1/completions."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return exchange(port, "POST", "/v1/completions", raw, **{"content_type": "application/json"} | headers)


def ask(port: int, body: object, **headers: str) -> tuple[int, dict[str, Any]]:
    """The status and the JSON that the answer is."""
    answer, read = post(port, body, **headers)
    return answer.status, json.loads(read)


def get(port: int, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    return exchange(port, "GET", path, **headers)


def until(condition: Callable[[], bool]) -> None:
    """Wait, for a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---------------------------------------------------------------- which models there are


def test_runs_checkpoints_and_exported_folders_are_found(models: Path, little: Little) -> None:
    found = {entry.name: entry for entry in entries([str(models)])}
    run, exported = models / "run", models / "deep/exported"
    assert set(found) == {str(run), str(run / "checkpoints/step-00000004"), str(exported)}
    assert (found[str(run)].step, found[str(exported)].step) == (12, None)
    records = (little.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert bits_per_character(list(found.values())) == {
        str(run): json.loads(records[-1])["quality"]["bits_per_character"]
    }
    (models / "run/checkpoints/step-old").mkdir()  # somebody's own
    assert {entry.name for entry in entries([str(models)])} == set(found)
    damaged = models / "damaged"
    shutil.copytree(run, damaged)
    (damaged / "metrics.jsonl").write_text('{"x": 1}', encoding="utf-8")
    assert list(bits_per_character(entries([str(models)]))) == [str(run)]
    shutil.rmtree(damaged)
    (models / "run/checkpoints/step-old").rmdir()
    for name in found:
        assert entries([name])[0].name == name
        loaded = load(name)
        assert generate(loaded.model, loaded.tokenizer, PROMPT, 5, at_start=True) == expected(little, 5)


def test_by_default_models_are_looked_for_in_runs_and_demo(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="make one with: mamegpt demo"):
        entries([])
    shutil.copytree(models / "run", tmp_path / "demo-2" / "run")
    (tmp_path / "demo-2" / "run").rename(tmp_path / "demo-2" / ".hidden")
    with pytest.raises(ModelError, match="no model in runs"):
        entries([])
    (tmp_path / "demo-2" / ".hidden").rename(tmp_path / "demo-2" / "run")
    assert entries([])[0].name == "demo-2/run"
    with pytest.raises(ModelError, match="no model in elsewhere"):
        entries(["demo-2", "elsewhere"])
    assert entries(["owner/name"])[0].name == "owner/name"  # on the Hub, perhaps


def test_each_model_is_listed_once_and_the_best_first(models: Path, little: Little, tmp_path: Path) -> None:
    shutil.copytree(models / "run", tmp_path / "run")
    shutil.copytree(little.exported, tmp_path / "exported")
    worse = tmp_path / "worse"
    shutil.copytree(little.run, worse)
    record = worse / "metrics.jsonl"
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    lines[-1]["quality"]["bits_per_character"] += 1
    record.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    os.utime(tmp_path / "worse/checkpoints/step-00000012", (4e9, 4e9))  # newer than the others
    assert entries([str(tmp_path)])[0].name == str(worse)
    run, early = str(tmp_path / "run"), str(tmp_path / "run/checkpoints/step-00000004")
    assert [entry.name for entry in catalog.listed([str(tmp_path)])] == [run, early, str(worse)]
    # What is named itself stays, and so does an exported folder of other weights.
    exported = str(tmp_path / "exported")
    assert [entry.name for entry in catalog.listed([str(worse), exported])] == [str(worse), exported]
    weights = safetensors.torch.load_file(tmp_path / "exported/model.safetensors")
    weights[min(weights)] += 1
    safetensors.torch.save_file(weights, tmp_path / "exported/model.safetensors")
    assert [entry.name for entry in catalog.listed([str(tmp_path)])] == [run, early, str(worse), exported]


def expected(little: Little, n: int, sampling: Sampling | None = None) -> str:
    run = load(little.run)
    return generate(run.model, run.tokenizer, PROMPT, n, sampling, at_start=True)


# ---------------------------------------------------------------- what it answers


def test_the_official_client_gets_what_generate_gives(client: openai.OpenAI, models: Path, little: Little) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == [entry.name for entry in catalog.listed([str(models)])]
    sampling = Sampling(temperature=0.8, top_p=0.9, seed=7, top_k=20)
    options: dict[str, Any] = {
        "model": str(models / "run"),
        "prompt": PROMPT,
        "max_tokens": 10,
        "temperature": 0.8,
        "top_p": 0.9,
        "seed": 7,
        "extra_body": {"top_k": 20},
    }
    whole = client.completions.create(**options)
    assert whole.choices[0].text == expected(little, 10, sampling)
    assert whole.choices[0].logprobs is None
    assert (whole.model, whole.usage and whole.usage.completion_tokens) == (str(models / "run"), 10)
    assert whole.usage and whole.usage.prompt_tokens == 1 + len(little.tokenizer.encode(PROMPT))
    assert client.models.retrieve(str(models / "run")) in listed
    assert client.completions.create(**options, suffix="", best_of=1, n=1, logit_bias={}).choices == whole.choices
    with pytest.raises(openai.NotFoundError, match="no model 'nowhere'"):
        client.models.retrieve("nowhere")

    chunks = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage


def test_several_texts_are_those_of_their_seeds(client: openai.OpenAI, little: Little) -> None:
    texts = client.completions.create(
        model="", prompt=[PROMPT, "豆"], n=2, max_tokens=9, temperature=1, seed=5, stop=["無い"]
    ).choices
    run = load(little.run)
    assert [choice.text for choice in texts] == [
        generate(run.model, run.tokenizer, prompt, 9, Sampling(temperature=1, seed=seed), at_start=True)
        for prompt, seed in ((PROMPT, 5), (PROMPT, 6), ("豆", 7), ("豆", 8))
    ]
    same = client.completions.create(model="", prompt=[PROMPT] * 3, n=2, max_tokens=9, temperature=1, seed=5).choices
    assert len({choice.text for choice in same}) == 6


def test_a_prompt_is_counted_once_and_an_empty_one_is_the_token_that_starts_a_text(
    client: openai.OpenAI, little: Little
) -> None:
    def used(**options: Any) -> tuple[int, int, int]:
        usage = client.completions.create(model="", max_tokens=3, stop=["無い"], **options).usage
        assert usage
        return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens

    n, n_other = len(little.tokenizer.encode(PROMPT)), len(little.tokenizer.encode("豆の木"))
    middle = {"temperature": 0, "extra_body": {"at_start": False}}
    assert used(prompt=PROMPT, n=3, **middle) == (n, 9, n + 9)
    assert used(prompt=[PROMPT, "豆の木"], n=2, **middle) == (n + n_other, 12, n + n_other + 12)
    assert used(prompt="", **middle)[0] == 1
    assert used(prompt=[PROMPT, ""], n=2, temperature=0)[0] == n + 1 + 1  # each begins a text, as in training


def test_a_prompt_begins_a_text_unless_it_is_said_not_to(port: int, little: Little) -> None:
    run = load(little.run)
    n = len(little.tokenizer.encode(PROMPT))
    texts = {at_start: generate(run.model, run.tokenizer, PROMPT, 20, at_start=at_start) for at_start in (True, False)}
    for asked, used in ((None, True), (True, True), (False, False)):
        body = {"prompt": PROMPT, "max_tokens": 20, "temperature": 0, "at_start": asked}
        answer = ask(port, body)[1]
        assert answer["choices"][0]["text"] == texts[used]
        assert answer["usage"]["prompt_tokens"] == n + used  # the texts may be equal: the model has learned little


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs_are_those_of_the_tokens(port: int, little: Little, stream: bool) -> None:
    body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 2, "seed": 1, "logprobs": 3}
    if stream:
        lines = post(port, body | {"stream": True})[1].decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        found = [json.loads(line[6:])["choices"][0]["logprobs"] for line in lines if line.startswith("data: {")]
    else:
        found = [ask(port, body)[1]["choices"][0]["logprobs"]]
    run = load(little.run)
    steps = stream_tokens(
        run.model, run.tokenizer, PROMPT, 12, Sampling(temperature=2, seed=1), at_start=True, n_alternatives=3
    )
    tokens = [step for step in steps if step.id is not None]
    assert [offset for part in found for offset in part["text_offset"]] == [token.offset for token in tokens]
    assert [logprob for part in found for logprob in part["token_logprobs"]] == [token.logprob for token in tokens]
    best = [next(iter(top.values())) for part in found for top in part["top_logprobs"]]
    assert best == [token.alternatives[0][1] for token in tokens]
    shown = [text for part in found for text in part["tokens"]]
    assert all(
        re.fullmatch("<0x..>", text) or text in little.tokenizer.decode([token.id])
        for text, token in zip(shown, tokens, strict=True)
        if token.id is not None
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"[" * 100_000, "not JSON"),
        ({"prompt": [1, 2]}, r"prompt\[0\] must be a string \(got 1\); prompt\[1\] must"),
        ({"prompt": {}}, r"prompt must be a list \(got {}\)"),
        ({"prompt": "豆" * (MAX_CHARACTERS + 1)}, "prompt must not be longer"),
        ({"prompt": b"\xed\xa0\x80".decode("utf-8", "surrogatepass")}, "an unpaired surrogate"),
        ({"max_tokens": 10**9}, "max_tokens must be at most 2,048"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": "5"}, "max_tokens must be a whole number"),
        ({"n": MAX_TEXTS + 1}, f"n must be at most {MAX_TEXTS}"),
        ({"prompt": ["a", "b"], "n": MAX_TEXTS}, "prompts times n"),
        ({"prompt": []}, "prompts times n"),
        ({"temperature": -1}, "temperature must be 0 or between"),
        ({"temperature": 1e-300}, "temperature must be 0 or between"),
        (b'{"temperature": NaN}', "temperature must be a finite number"),
        (b'{"temperature": 1e400}', "temperature must be a finite number"),
        ({"temperature": 1e-40}, "temperature must be 0 or between"),
        ({"repetition_penalty": 1e-45}, "repetition_penalty must be between"),
        ({"top_p": 0}, "top_p must be above 0"),
        ({"stop": ["豆" * 1001]}, "stop must not be longer"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": True}, "temperature must be a number"),
        ({"seed": 1 << 60}, "seed must be at most"),
        ({"stop": [""]}, "stop must not be empty"),
        ({"logprobs": 99}, "logprobs must be at most 10"),
        ({"at_start": "yes"}, "at_start must be true/false"),
        ({"echo": True}, "echo is not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty is not supported"),
        ({"promt": "x"}, "promt is unknown"),
        ({"model": "../../etc"}, "no model '../../etc'; choose from"),
    ],
)
def test_what_cannot_be_answered_is_said(port: int, body: object, message: str) -> None:
    status, answer = ask(port, body)
    assert status == 400
    assert re.search(message, answer["error"]["message"])
    assert answer["error"]["type"] == "invalid_request_error"


def test_a_command_that_serves_names_the_fields_of_a_request() -> None:
    with naming_options(), pytest.raises(ConfigError) as caught:
        read_request({"top_p": 0})
    with naming_options():
        assert str(caught.value).startswith("--top-p must be above 0")
        assert error(str(caught.value))["error"]["message"].startswith("top_p must be above 0")


def test_settings_at_their_bounds_give_a_text(port: int) -> None:
    for extreme in (
        {"top_p": 1e-300},
        {"temperature": 1e-3},
        {"temperature": 1e6, "min_p": 1},
        {"seed": MAX_SEED},
        {"repetition_penalty": 1e-3},
        {"repetition_penalty": 1e6, "top_k": 1},
    ):
        body = {"prompt": PROMPT, "max_tokens": 4, "temperature": 1, "logprobs": 10, "n": 3} | extreme
        code, answer = ask(port, body)
        assert code == 200, answer
        assert len(answer["choices"]) == 3


def test_the_page_offers_the_seeds_that_the_api_takes() -> None:
    assert f'id="seed" type="number" min="0" max="{MAX_SEED}"' in (STATIC / "index.html").read_text(encoding="utf-8")
    assert MAX_SEED + MAX_TEXTS - 1 == (1 << 53) - 1  # the last seed is a whole number in JavaScript, too


def test_fields_that_ask_for_nothing_are_no_mistake() -> None:
    assert read_request({**UNSUPPORTED, "user": "me", "stream": False, "logit_bias": {}}).n_texts == 1
    with pytest.raises(ConfigError, match="best_of"):
        read_request({"best_of": 2})


def test_a_body_must_be_short_and_say_that_it_is_json(port: int) -> None:
    assert ask(port, b" " * ((1 << 20) + 1))[0] == 400
    status, answer = ask(port, {"prompt": "豆"}, content_type="text/plain")
    assert (status, answer["error"]["message"]) == (400, "the body must be JSON, with content-type: application/json")


def test_a_bug_ends_one_request_and_shows_in_the_terminal(
    port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("mamegpt.pretrained.stream_tokens", broken)
        status, answer = ask(port, {"prompt": "豆"})
    assert (status, answer["error"]["type"]) == (500, "server_error")
    assert "RuntimeError: a bug" in capfd.readouterr().err
    assert ask(port, {"prompt": "豆"})[0] == 200


def test_a_run_that_went_on_is_loaded_anew(little: Little, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(little.run, run)
    with serving([str(run)]) as port:
        before = ask(port, {"prompt": PROMPT, "temperature": 0})[1]["choices"][0]["text"]
        ((_, newest),) = Run(run).checkpoints()
        newest.rename(newest.with_name("step-00000013"))
        (run / "checkpoints/step-00000013/model.safetensors").write_bytes(b"damaged")
        status, answer = ask(port, {"prompt": PROMPT, "temperature": 0})
        assert (status, "is damaged" in answer["error"]["message"]) == (400, True)
        (run / "checkpoints/step-00000013").rename(newest)
        assert ask(port, {"prompt": PROMPT, "temperature": 0})[1]["choices"][0]["text"] == before  # from memory


def test_a_checkpoint_that_is_replaced_while_one_waits_is_the_newest_one_then(little: Little, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(little.run, first)
    shutil.copytree(little.run, second)
    ((_, newest),) = Run(second).checkpoints()
    with serving([str(first), str(second)]) as port, ThreadPoolExecutor(2) as pool:
        line = begin(port, stream=True, model=str(first))
        until(lambda: status(port)["running"] == 1)
        of_run, of_step = (
            pool.submit(ask, port, {"prompt": PROMPT, "model": str(name)}) for name in (second, newest.with_name("x"))
        )
        assert of_step.result()[0] == 400
        until(lambda: status(port)["waiting"] == 1)
        newest.rename(newest.with_name("step-00000013"))
        line.close()
        assert of_run.result()[0] == 200


@pytest.mark.parametrize("factor", [1e30, torch.nan])
@pytest.mark.parametrize("options", [{"temperature": 1}, {"temperature": 0}, {"temperature": 0, "logprobs": 5}])
def test_weights_that_give_no_numbers_are_an_error_of_the_request(
    factor: float, options: dict[str, int], little: Little, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(little.exported, folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file(
        {name: factor * tensor for name, tensor in weights.items()}, folder / "model.safetensors"
    )
    with serving([str(folder)]) as port:
        code, answer = ask(port, {"prompt": PROMPT, **options})
        assert (code, answer["error"]["type"]) == (400, "invalid_request_error")
        assert re.search("NaN", answer["error"]["message"])


def test_a_folder_whose_name_is_not_utf8_is_in_the_list_and_no_answer_fails(little: Little, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\x93\xfa\x96\x7b")
    try:
        shutil.copytree(little.exported, odd)
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    with serving([str(tmp_path)]) as port:
        (found,) = json.loads(get(port, "/v1/models")[1])["data"]
        assert get(port, f"/v1/models/{quote(found['id'])}")[0].status == 200
        assert ask(port, {"prompt": PROMPT, "model": found["id"], "max_tokens": 1})[0] in (200, 400)


# ---------------------------------------------------------------- whom it refuses


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:80", "[::1]:8765"])
def test_the_page_and_its_headers(port: int, host: str) -> None:
    answer, page = get(port, "/", host=host)
    assert (answer.status, answer.getheader("content-type")) == (200, "text/html; charset=utf-8")
    assert page == (STATIC / "index.html").read_bytes()
    refused, _ = get(port, "/", host="evil.example")
    for one in (answer, refused, get(port, "/nothing", host=host)[0], get(port, "/v1/status", host=host)[0]):
        policy = one.getheader("content-security-policy") or ""
        assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert one.getheader("x-content-type-options") == "nosniff"
        assert one.getheader("cache-control") == "no-store"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("app.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("theme.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_each_file_of_the_page_has_its_type(port: int, name: str, media_type: str) -> None:
    answer, body = get(port, f"/{name}")
    assert (answer.status, answer.getheader("content-type")) == (200, media_type)
    assert body == (THEME if name == THEME.name else STATIC / name).read_bytes()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "https://127.0.0.1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_other_origins_are_refused(port: int, headers: dict[str, str]) -> None:
    for path in ("/", "/v1/models"):
        assert get(port, path, **headers)[0].status == 403
    status, answer = ask(port, {"prompt": "豆"}, **headers)
    assert (status, answer["error"]["type"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example:8765",
        "www.localhost",
        "localhost.evil.example",
        "[::2]",
        "[::1",
        "*",
        "",
    ],
)
def test_other_hosts_are_refused(port: int, host: str) -> None:
    """As if by DNS rebinding, where pages of that name, their origin, are of the same site as the requests."""
    for path in ("/", "/app.js", "/v1/models"):
        assert get(port, path, host=host, sec_fetch_site="same-origin")[0].status == 400
    answer, said = post(port, {"prompt": "豆"}, host=host, origin=f"http://{host}")
    assert (answer.status, said) == (400, b"Invalid host header")


def test_a_link_on_another_site_may_lead_here_but_not_its_form(port: int) -> None:
    clicked = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert get(port, "/", **clicked)[0].status == 200
    assert ask(port, {"prompt": "豆"}, origin="http://evil.example", **clicked)[0] == 403
    assert ask(port, {"prompt": "豆"}, content_type="application/x-www-form-urlencoded", **clicked)[0] == 400


def test_the_pages_own_requests_are_not_refused(port: int) -> None:
    own = {"host": f"localhost:{port}", "origin": f"http://localhost:{port}", "sec_fetch_site": "same-origin"}
    assert ask(port, {"prompt": "豆", "max_tokens": 1}, **own)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/server.py",
        "/..%2fserver.py",
        "/../server.py",
        "/%2e%2e/server.py",
        "/..%5cserver.py",
        "/%2fetc%2fhostname",
        "/%00",
        "/static/app.js",
        "/nothing",
        "/v1/",
        "/v1/nothing",
    ],
)
def test_only_the_files_of_the_page_are_served(port: int, path: str) -> None:
    assert get(port, path)[0].status == 404


def test_all_that_the_page_asks_for_is_served_and_its_style_knows_every_property(port: int) -> None:
    page = get(port, "/")[1].decode()
    sheets = {}
    for name in re.findall(r'(?:src|href)="([^"]+)"', page):
        answer, body = get(port, f"/{name}")
        assert answer.status == 200, name
        if name.endswith(".css"):
            assert answer.getheader("content-type") == "text/css; charset=utf-8"
            sheets[name] = body.decode()
    assert list(sheets) == ["theme.css", "style.css"]
    style = "".join(sheets.values())
    assert set(re.findall(r"var\((--[\w-]+)", style)) <= {"--heat", *re.findall(r"(--[\w-]+):", style)}


# ---------------------------------------------------------------- many at once


def status(port: int) -> dict[str, int]:
    found: dict[str, int] = json.loads(get(port, "/v1/status")[1])
    return found


def begin(port: int, stream: bool, model: str = "") -> socket.socket:
    """Ask for as much as one can; the answer is not read."""
    asked = {"prompt": "豆", "max_tokens": 2048, "n": MAX_TEXTS, "temperature": 1, "stream": stream, "model": model}
    body = json.dumps(asked)
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    line = socket.create_connection(("127.0.0.1", port), timeout=60)
    line.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    return line


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_frees_the_place_at_once(port: int, stream: bool) -> None:
    lines = [begin(port, stream) for _ in range(4)]
    until(lambda: status(port) == {"running": 1, "waiting": 3})
    lines[2].close()  # one that waits, perhaps
    until(lambda: sum(status(port).values()) == 3)
    for line in lines:
        line.close()
    until(lambda: status(port) == {"running": 0, "waiting": 0})


def test_who_waits_is_told_the_place_and_when_it_changes(port: int) -> None:
    def places(line: socket.socket, wanted: str) -> str:
        heard = ""
        while wanted not in heard:
            heard += line.recv(4096).decode(errors="replace")
        return heard

    first = begin(port, stream=True)
    places(first, "data: {")
    second = begin(port, stream=True)
    assert "data" not in places(second, ": queue 1\n")
    third = begin(port, stream=True)
    assert "data" not in places(third, ": queue 2\n")
    second.close()
    assert "data" not in places(third, ": queue 1\n")
    first.close()
    places(third, "data: {")
    third.close()
    until(lambda: status(port) == {"running": 0, "waiting": 0})


def test_who_comes_when_too_many_wait_is_told_so(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mamegpt.playground.engine.MAX_WAITING", 0)
    answered, answer = ask(port, {"prompt": "豆"})
    assert (answered, answer["error"]["type"]) == (429, "server_busy")


def test_of_many_at_once_none_is_lost_and_short_ones_do_not_wait_for_long_ones(client: openai.OpenAI) -> None:
    def write(i: int) -> tuple[str, float]:
        n = 400 if i == 0 else 5
        text = client.completions.create(model="", prompt=PROMPT, max_tokens=n, temperature=1, seed=i).choices[0].text
        return text, time.monotonic()

    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(write, range(24)))
    assert [
        client.completions.create(model="", prompt=PROMPT, max_tokens=5, temperature=1, seed=i).choices[0].text
        for i in range(1, 24)
    ] == [text for text, _ in found[1:]]
    assert found[0][1] == max(end for _, end in found)


# ---------------------------------------------------------------- the command and its page


def test_what_is_wrong_on_the_command_line_is_one_line(
    models: Path, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(models / "deep/exported", broken)
    (broken / "model.safetensors").write_bytes(b"damaged")
    for arguments, message in (
        ([models, "--port", port], rf"error: cannot listen at --host 127\.0\.0\.1 --port {port}: .*; --port 0"),
        ([models, "--port", 99999], r"error: --port must be between 0 and 65535 \(got 99999\)"),
        *(
            ([models, "--host", host], f"error: --host {re.escape(host)} is every address")
            for host in ("0.0.0.0", "0", "000.0.0.0", "0x0", "::", "::0", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0")
        ),
        ([models, "--host", "nowhere.invalid"], "error: cannot listen at --host nowhere.invalid"),
        ([models, "--host", "豆" * 100], "error: cannot listen at --host 豆"),
        (["nowhere"], "error: no model in nowhere"),
        ([broken], r"error: .*broken.model\.safetensors is truncated"),
        ([models, broken], r"error: .*broken.model\.safetensors is truncated"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["play", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert (end.value.code, out, err.count("\n")) == (2, "", 1)
        assert re.match(message, err)


def test_a_model_is_sent_as_one_file(port: int, models: Path) -> None:
    name = next(entry.name for entry in entries([str(models)]) if entry.name.endswith("exported"))

    def post(name: str, **headers: str) -> tuple[int, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("POST", f"/v1/pages/{quote(name, safe='')}", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    assert post(name) == (200, make_page(name, name))
    status, body = post("absent")
    assert status == 400 and "absent" in json.loads(body)["error"]["message"]
    assert post(name, origin="http://evil.example")[0] == 403
    assert get(port, f"/v1/pages/{quote(name, safe='')}")[0].status == 405  # a link elsewhere sets nothing going


@pytest.mark.slow
def test_the_file_of_play_is_that_of_export(little: Little) -> None:
    page = commands._page_of(str(little.run), "/home/me/豆 <1>").decode("utf-8")
    assert (
        page.startswith("<!doctype html>") and "<title>豆 &lt;1&gt; · 豆GPT</title>" in page and "/home/me" not in page
    )


def test_each_word_of_the_page_is_sent_in_both_languages_and_is_used(port: int) -> None:
    answer, body = get(port, "/words.json")
    assert (answer.status, answer.getheader("content-type")) == (200, "application/json")
    found = json.loads(body)
    assert found == words() and found["ja"]["write"] == "生成" and found["en"]["write"] == "Generate"
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    scripts = [path.read_text(encoding="utf-8") for folder in (STATIC, PAGE) for path in folder.glob("*.js")]
    fields: dict[str, set[str]] = {name: set() for name in re.findall(r'data-(?:word|label|hint)="([\w-]+)"', html)}
    # word("it"), say(where, "it", { field: 1 }), finish(unless ? "" : "it")
    called = r'(?:(?:word|problem|button|finish)\(|say\(.*, |finish\(.* "" : )"([\w-]+)"(?:, \{ (.*?) \}\))?'
    for name, given in re.findall(called, "".join(scripts)):
        fields[name] = set(re.findall(r"(?:^|, )(\w+)(?=:|$)", given))
    for texts in found.values():
        assert set(texts) == set(fields)
        assert {name: set(re.findall(r"\{(\w+)\}", text)) for name, text in texts.items()} == fields


def test_the_page_names_nothing_outside_and_makes_no_markup_of_text() -> None:
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "") or "http://${location.host}" in text, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|https:", text), path.name
        assert not re.search(r"\son\w+=|style=|<script>|<style", text) or path.suffix != ".html", path.name
