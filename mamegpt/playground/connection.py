"""HTTP connections that do not wait for a client forever, and never take more than a share of the open files.

uvicorn has a time limit between two requests only. A socket that sends nothing, half a header or half a body would stay
open, and where the process runs out of file descriptors, nobody is answered.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["WAIT_S", "Connection", "raise_file_limit"]

WAIT_S = 20.0
"""Seconds a client has to send a whole request, and to make room for more of an answer."""
MAX_OPEN_FILES = 8192
"""Open files to ask the system for: four times the connections, as new ones are accepted before old ones close."""


def raise_file_limit() -> int:
    """Raise the process's limit of open files to `MAX_OPEN_FILES`, as far as it may, and return the limit."""
    if sys.platform == "win32":
        return MAX_OPEN_FILES
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


class Connection(H11Protocol):
    """One client's connection, closed when it waits for the client longer than `WAIT_S`.

    Where there are more than ``most``, the one that has waited longest for its client makes room.
    """

    def __init__(self, *arguments: Any, most: int, waiting: dict[Connection, asyncio.TimerHandle], **more: Any) -> None:
        """Take ``waiting``, the connections of one server that wait, the longest wait first."""
        super().__init__(*arguments, **more)
        self.most, self.waiting = most, waiting

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self.most:
            oldest = next(iter(self.waiting))
            oldest._stop_waiting()  # at once, so that the next of many new connections finds another
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._stop_waiting()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        self._watch()

    def shutdown(self) -> None:
        """End with the server: at once if it is the client's turn, else after the answer."""
        if self in self.waiting:
            self.transport.abort()
        else:
            super().shutdown()

    def _watch(self) -> None:
        """Start the clock if it is the client's turn, or stop it."""
        is_incomplete = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if self.transport.is_closing() or not (is_incomplete or self.flow.write_paused):
            self._stop_waiting()
        elif self not in self.waiting:
            self.waiting[self] = self.loop.call_later(WAIT_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self in self.waiting:
            self.waiting.pop(self).cancel()
