"""An exported HTML file in Firefox: it answers as in Python, without a complaint of the browser."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from little import N_SENTENCES

from mamegpt.exporting import html
from mamegpt.exporting.publish import export
from mamegpt.exporting.verify_html import ANSWERS, GREEDY
from mamegpt.generation.stream import prompt_ids, stream_ids
from mamegpt.pretrained import load

FIREFOX = shutil.which("firefox") or shutil.which("firefox-esr")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FIREFOX, reason="there is no Firefox here")]


class Firefox:
    """A page in a headless Firefox, controlled by WebDriver BiDi over a web socket."""

    def __init__(self, connection: Any, address: str) -> None:
        self._socket, self._n = connection, 0
        self.complaints: list[str] = []
        self.send("session.new", capabilities={})
        self.send("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self._context = self.send("browsingContext.create", type="tab")["context"]
        self.send("browsingContext.navigate", context=self._context, url=address, wait="complete")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; errors and requests of the page are noted on the way."""
        self._n += 1
        self._socket.send(json.dumps({"id": self._n, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._n:
                assert message["type"] == "success", message
                return dict(message["result"])
            event, found = message.get("method"), message.get("params", {})
            if event == "log.entryAdded" and found["level"] == "error":
                self.complaints.append(found["text"])
            if event == "network.beforeRequestSent" and found["request"]["url"].startswith("http"):
                self.complaints.append(found["request"]["url"])

    def call(self, function: str, value: object = None) -> Any:
        """Return the result of a JavaScript function of one value."""
        script = f"(async () => JSON.stringify(await ({function})({json.dumps(value)})))()"
        found = self.send("script.evaluate", expression=script, target={"context": self._context}, awaitPromise=True)
        assert found["type"] == "success", found
        text = found["result"].get("value")
        return None if text is None else json.loads(text)


@contextlib.contextmanager
def firefox(profile: Path, address: str) -> Iterator[Firefox]:
    from websocket import create_connection

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(FIREFOX), "--headless", "--no-remote", "--profile", str(profile), f"--remote-debugging-port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                connection = create_connection(f"ws://127.0.0.1:{port}/session", timeout=120, suppress_origin=True)
                break
            time.sleep(0.1)
        yield Firefox(connection, address)
        connection.close()
    finally:
        process.terminate()
        process.wait(60)


def test_a_file_answers_and_continues_in_firefox_as_in_python(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "find_browser", lambda: "")
    report = export(str(tuned), tmp_path / "豆", to="html", html_type="f16", n_sentences=N_SENTENCES)
    model = load(tuned, device="cpu")
    stored = {name: torch.from_numpy(one.values) for name, one in html._stored(model.model, "f16").items()}
    model.model.load_state_dict(stored)
    messages, prompt = [("user", "豆は何色ですか")], prompt_ids(model.tokenizer, "豆の", at_start=True)
    (tmp_path / "profile").mkdir()
    with firefox(tmp_path / "profile", (report.out / "豆.html").as_uri()) as page:
        page.call("load")
        asked = [[{"role": role, "content": content} for role, content in messages]]
        (answer,) = page.call(ANSWERS, {"asked": asked, "n_new": 10})
        own = [token.id for token in model.stream_answer(messages, max_new_tokens=10) if token.id is not None]
        assert answer[: len(own)] == own
        assert page.call(GREEDY, {"prompts": [prompt], "n_new": 10}) == [list(stream_ids(model.model, prompt, 10))]
        page.call("() => { $('temperature').value = 0; $('max_tokens').value = 10; }")
        page.call("() => { $('prompt').value = '豆は何色ですか'; return send(); }")
        shown = page.call("() => Array.from(document.querySelectorAll('#turns .text'), (one) => one.textContent)")
        assert shown == ["豆は何色ですか", model.answer(messages, max_new_tokens=10)]
        assert page.complaints == []
