"""The playground on a free loopback port, in a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence

__all__ = ["make_page", "serving"]


def make_page(model: str, name: str) -> bytes:
    """Stand for the export of a model."""
    return f"<!doctype html>{name} of {model}".encode()


@contextlib.contextmanager
def serving(models: Sequence[str]) -> Iterator[int]:
    """Serve until the block ends; yields the port."""
    from mamegpt.playground.engine import Engine
    from mamegpt.playground.server import LOOPBACK, Server

    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        server = Server(Engine(models), LOOPBACK, make_page)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()
