"""Open an exported HTML file in a headless Chromium, in a process of its own, with the standard library only.

    python verify_html.py FILE CASES.json FOUND

`check_html` runs it on each exported file, before the file gets its name, and reads ``FOUND.json``. It must not import
mamegpt. It speaks the Chrome DevTools Protocol over a pipe, opens the file as a person does, and calls the functions
of its script.

``CASES.json`` contains the path of the ``browser``; ``row``, token ids, with the logits after the first n of them
wanted for each n in ``lengths``; ``prompts``, rows of token ids; ``n_new``, the number of tokens to continue each by;
``texts`` to tokenize; ``decode``, ids to decode; ``chats``, conversations to tokenize; and ``asked``, those to answer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = ("Google Chrome", "Chromium")  # of macOS

LOGITS = """({ row, lengths }) => {
  const sequence = new Sequence(model);
  return row.map((id) => Array.from(sequence.add(id))).filter((_, i) => lengths.includes(i + 1));
}"""
GREEDY = """({ prompts, n_new }) => prompts.map((ids) => {
  let [sequence, logits] = Array.from(read(ids)).at(-1);
  return Array.from({ length: n_new }, (_, i) => {
    const id = mostLikely(logits);
    if (i + 1 < n_new) logits = sequence.add(id);
    return id;
  });
})"""
TOKENIZE = "({ texts }) => texts.map((text) => tokenizer.encode(normalize(text)))"
CHAT_IDS = "({ chats }) => chats.map(chatIds)"
ANSWERS = """async ({ asked, n_new }) => {
  const greedy = { n: 1, max_tokens: n_new, temperature: 0, repetition_penalty: 1, seed: 0, logprobs: 0 };
  const answers = [];
  for (const messages of asked) {
    const choices = [];
    await complete({ ...greedy, messages }, new AbortController().signal, (data) => choices.push(...data.choices));
    answers.push(choices.map(({ id }) => id).filter((id) => id !== null));
  }
  return answers;
}"""
DECODE = "({ decode }) => decode.map((ids) => tokenizer.decode(ids))"


def main(file: str, cases_file: str, found_name: str) -> None:
    """Open the file, ask for all outputs of the cases, and write them."""
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # what is left of the browser may still write
    with profile as folder, Browser(cases["browser"], folder) as browser:
        page = browser.open(Path(file).as_uri())
        page.call("load")
        found = {
            "version": browser.version,
            "logits": page.call(LOGITS, {name: cases[name] for name in ("row", "lengths")}),
            "greedy": page.call(GREEDY, {name: cases[name] for name in ("prompts", "n_new")}),
            "text_ids": page.call(TOKENIZE, {"texts": cases["texts"]}),
            "decoded": page.call(DECODE, {"decode": cases["decode"]}),
            "chat_ids": page.call(CHAT_IDS, {"chats": cases["chats"]}),
            "answers": page.call(ANSWERS, {name: cases[name] for name in ("asked", "n_new")}),
            "complaints": page.complaints,
        }
    Path(f"{found_name}.json").write_text(json.dumps(found), encoding="utf-8")


def find_browser() -> str:
    """Return the path of a Chromium or Chrome, "" without one or without the pipes of POSIX."""
    if os.name != "posix":
        return ""
    places = (f"/Applications/{name}.app/Contents/MacOS/{name}" for name in APPLICATIONS)
    found = (shutil.which(name) for name in (*NAMES, *places))
    return next(filter(None, found), "")


class Browser:
    """A headless Chromium, controlled by messages over a pipe."""

    def __init__(self, command: str, profile: str) -> None:
        import fcntl  # POSIX has it

        commands_out, self._commands = os.pipe()
        self._answers, answers_in = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (commands_out, answers_in)]

        def place() -> None:
            os.dup2(ends[0], 3)  # where Chromium reads commands
            os.dup2(ends[1], 4)  # where it writes answers

        flags = ["--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium refuses to run as root with it
        self._process = subprocess.Popen(
            [command, *flags, f"--user-data-dir={profile}"],
            pass_fds=(3, 4),
            preexec_fn=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (*ends, commands_out, answers_in):
            os.close(end)
        self._buffer = bytearray()
        self._n = 0
        self.on_event: Callable[[dict[str, Any]], None] = lambda _: None
        self.version = str(self.send("Browser.getVersion")["product"])

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.send("Browser.close")
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def open(self, address: str) -> Page:
        """Open a page and return it when it has loaded."""
        return Page(self, address)

    def send(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are handed on."""
        self._n += 1
        command = {"id": self._n, "method": method, "params": params} | ({"sessionId": session} if session else {})
        data = memoryview(json.dumps(command).encode() + b"\0")
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            message = self.receive()
            if message.get("id") != self._n:
                self.on_event(message)
            elif "error" in message:
                raise RuntimeError(f"{method}: {message['error']['message']}")
            else:
                result: dict[str, Any] = message["result"]
                return result

    def receive(self) -> dict[str, Any]:
        """Return the next message."""
        while b"\0" not in self._buffer:
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise RuntimeError("the browser ended")
            self._buffer += data
        end = self._buffer.index(b"\0")
        message: dict[str, Any] = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        return message


class Page:
    """A page in a browser. ``complaints`` are its errors, and the requests that it made beside its own."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser, self._address, self._session, self._is_loaded = browser, address, "", False
        self.complaints: list[str] = []
        browser.on_event = self._note
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = str(browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        if problem := self.send("Page.navigate", url=address).get("errorText"):
            raise RuntimeError(f"{address}: {problem}")
        while not self._is_loaded:
            self._note(browser.receive())

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to this page."""
        return self._browser.send(method, self._session, **params)

    def call(self, function: str, value: object = None) -> Any:
        """Return the result of a JavaScript function of one value, after its promise if it returns one."""
        expression = f"({function})({json.dumps(value)})"
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if details := result.get("exceptionDetails"):
            raise RuntimeError(_first_line(details))
        return result["result"].get("value")

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("sessionId", "") != self._session:
            return  # of another page
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._is_loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(_first_line(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if url != self._address and not url.startswith("data:"):
                self.complaints.append(f"a request to {url}")


def _first_line(details: dict[str, Any]) -> str:
    """Return what an exception in a page says, without the places in the script."""
    return str(details.get("exception", {}).get("description", details["text"])).splitlines()[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
