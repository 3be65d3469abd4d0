"""Runtimes in a headless Chromium: pages that a server on this machine gives, and the exported HTML file."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mamegpt.exporting.verify_html import GREEDY, TOKENIZE, Browser, find_browser

__all__ = ["ask_html", "ask_page"]


def ask_page(programs: Path, program: str, modules: Path, cases: dict[str, Any]) -> dict[str, Any]:
    """Return the answers of a program in a page, which finds packages in /modules and exports in /models."""
    models = Path(cases["models"]["hf"]).parent
    urls = {name: f"/models/{Path(path).relative_to(models)}" for name, path in cases["models"].items()}
    with served({"": programs, "modules": modules, "models": models}) as address, opened() as browser:
        page = browser.open(f"{address}/blank.html")
        answers: dict[str, Any] = page.call(
            f"async (cases) => (await import('/{program}')).answer(cases)", cases | {"urls": urls}
        )
        return answers


def ask_html(file: Path, cases: dict[str, Any]) -> dict[str, Any]:
    """Return the answers of an exported HTML file."""
    asked = {name: cases[name] for name in ("prompts", "n_new")}
    with opened() as browser:
        page = browser.open(file.as_uri())
        page.call("load")
        greedy = page.call(GREEDY, asked)
        begin = time.perf_counter()
        page.call(GREEDY, asked)
        seconds = time.perf_counter() - begin
        text_ids = page.call(TOKENIZE, {"texts": cases["texts"]})
        return {"greedy": greedy, "seconds": seconds, "text_ids": text_ids, "version": browser.version}


@contextmanager
def opened() -> Iterator[Browser]:
    """Start a Chromium with a profile of its own."""
    command = find_browser()
    if not command:
        raise RuntimeError("no Chromium or Chrome was found")
    profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with profile as folder, Browser(command, folder) as browser:
        yield browser


@contextmanager
def served(folders: dict[str, Path]) -> Iterator[str]:
    """Serve folders on 127.0.0.1 under their names, "" for the root; yields the address."""

    class Handler(SimpleHTTPRequestHandler):
        extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

        def translate_path(self, path: str) -> str:
            name, _, rest = path.partition("?")[0].lstrip("/").partition("/")
            folder, inside = (folders[name], rest) if name in folders else (folders[""], f"{name}/{rest}".rstrip("/"))
            target = (folder / inside).resolve()
            return str(target if target.is_relative_to(folder.resolve()) else folder / "missing")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
