"""The playground's server: the page, the API, and what keeps strangers out.

It listens on the loopback address unless told otherwise. A page of another site in the same browser could send
requests here too; so what names another host (DNS rebinding) or comes from another origin is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import json
import mimetypes
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mamegpt.errors import ConfigError, MamegptError, first_line
from mamegpt.messages import msg
from mamegpt.playground.api import begin_chat, choices, error, read_chat_request, read_request, usage
from mamegpt.playground.catalog import Entry, bits_per_character, listed
from mamegpt.playground.connection import Connection, raise_file_limit
from mamegpt.playground.engine import MAX_WAITING, CompletionRequest, Engine, Failed, Job, NewToken, Queued
from mamegpt.playground.words import words
from mamegpt.system.parse import parse_json

__all__ = ["MakePage", "Server", "build_app", "serve"]

MAX_BODY_BYTES = 1 << 20
MAX_PORT = 65_535
GONE = 499
"""Status, after nginx, of an answer that has no reader left."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PAGE_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
"""Types of the page's files; Windows' registry may have others, and browsers run no script of another type."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


MakePage = Callable[[str, str], bytes]
"""Makes an HTML file that holds a model, of what to load and its name."""


@dataclass(frozen=True)
class Serving:
    """The server listens at http://host:port/ and has loaded a first ``model``."""

    host: str
    port: int
    model: str


def serve(
    models: Sequence[str],
    host: str,
    port: int,
    make_page: MakePage,
    on_event: Callable[[Serving], None] = lambda _: None,
) -> None:
    """Serve the models of `catalog.entries` at http://host:port/ until Ctrl-C; port 0 takes a free one.

    ``make_page`` makes the file that the page offers of each model; the errors that it raises are told there.
    ``on_event`` is called with `Serving` once it listens.

    Raises `ConfigError` if the address cannot be had, and what `catalog.entries` and `load` raise: the
    models that are named, and the one the page opens with, are loaded first.
    """
    if not 0 <= port <= MAX_PORT:
        raise ConfigError("--port must be between 0 and {most} (got {port})", most=MAX_PORT, port=port)
    where = _address(host, port)
    engine = Engine(models)
    first = engine.open()
    server = Server(engine, [*LOOPBACK, _in_url(host), _in_url(where[0])], make_page)
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    with _listening(host, port):
        listener = socket.create_server(where, family=family, backlog=server.config.backlog)
    with listener:
        on_event(Serving(_in_url(host), listener.getsockname()[1], first.name))
        server.run(sockets=[listener])


def _address(host: str, port: int) -> tuple[Any, ...]:
    """Look a host up. Raises `ConfigError` if there is none of that name, or if it is every address."""
    with _listening(host, port):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        name, _, *scope = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)[0][4]
    address = ipaddress.ip_address(str(name))
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified:
        raise ConfigError("--host {host} is every address; give the one that others will type", host=host or repr(""))
    return (name, port, *scope)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as problem:
        why = msg(first_line(problem).partition(" (while")[0])  # Python says once more where
        raise ConfigError(
            "cannot listen at --host {host} --port {port}: {why}; --port 0 takes a free one",
            host=host,
            port=port,
            why=why,
        ) from None


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Server(uvicorn.Server):
    """The server of an engine's models; requests must name one of ``hosts``, with any port."""

    def __init__(self, engine: Engine, hosts: Sequence[str], make_page: MakePage) -> None:
        n_files = raise_file_limit()
        connection = functools.partial(Connection, most=n_files // 4, waiting={})
        super().__init__(
            uvicorn.Config(
                build_app(engine, hosts, make_page),
                http=cast(type[Connection], connection),
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                backlog=n_files // 8,
            )
        )
        self._engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all answers, then the connections."""
        self._engine.stop()
        await super().shutdown(sockets)


def build_app(engine: Engine, hosts: Sequence[str], make_page: MakePage) -> ASGIApp:
    """Make the application; requests must name one of ``hosts``, with any port."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.close()

    for suffix, media_type in PAGE_TYPES.items():
        mimetypes.add_type(media_type, suffix)
    api = [
        Route("/models", _models),
        Route("/models/{name:path}", _model),
        Route("/pages/{name:path}", _page, methods=["POST"]),
        Route("/status", _status),
        Route("/completions", functools.partial(_completions, read=read_request), methods=["POST"]),
        Route("/chat/completions", functools.partial(_completions, read=read_chat_request), methods=["POST"]),
    ]
    page = StaticFiles(packages=[("mamegpt.playground", "static"), ("mamegpt.pages", "static")], html=True)
    app = Starlette(
        routes=[Mount("/v1", routes=api), Route("/words.json", _words), Mount("/", page)], lifespan=lifespan
    )
    app.state.engine, app.state.make_page, app.state.making_page = engine, make_page, asyncio.Lock()
    return Guard(TrustedHostMiddleware(app, hosts, www_redirect=False))


class Guard:
    """Refuse what pages of other sites send, and put the headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        problem = self._problem(Headers(scope=scope))
        app = self.app if problem is None else JSONResponse(error(problem, "forbidden"), 403)
        await app(scope, receive, send_with_headers)

    def _problem(self, headers: Headers) -> str | None:
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{headers.get('host', '')}".lower():
            return f"requests of pages from {origin!r} are refused"
        own = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        if not own and headers.get("sec-fetch-mode") != "navigate":  # a link to here may stand anywhere
            return "requests of other sites' pages are refused"
        return None


def _words(_: Request) -> Response:
    return JSONResponse(words())


def _models(request: Request) -> Response:
    try:
        found = listed(request.app.state.engine.models)
    except MamegptError as problem:  # they were there when the server began
        return JSONResponse(error(str(problem)), 404)
    return JSONResponse({"object": "list", "data": _facts(request.app.state.engine, found)})


def _model(request: Request) -> Response:
    try:
        found = request.app.state.engine.find(request.path_params["name"])
    except MamegptError as problem:
        return JSONResponse(error(str(problem)), 404)
    return JSONResponse(_facts(request.app.state.engine, [found])[0])


async def _page(request: Request) -> Response:
    """Make a model's HTML file, one at a time; a POST, which pages of other sites cannot send here."""
    state = request.app.state
    try:
        entry = state.engine.find(request.path_params["name"])
        async with state.making_page:
            content = await asyncio.to_thread(state.make_page, entry.path, entry.name)
    except MamegptError as problem:
        return JSONResponse(error(str(problem)), 400)
    return Response(content, media_type="text/html")


def _facts(engine: Engine, found: Sequence[Entry]) -> list[dict[str, Any]]:
    bits = bits_per_character(found)
    return [
        {
            "id": entry.name,
            "object": "model",
            "created": entry.created,
            "owned_by": "mamegpt",
            "step": entry.step,
            "bits_per_character": bits.get(entry.name),
            "answers": engine.answers(entry),
        }
        for entry in found
    ]


def _status(request: Request) -> Response:
    return JSONResponse(request.app.state.engine.status())


async def _completions(request: Request, read: Callable[[object], CompletionRequest]) -> Response:
    engine: Engine = request.app.state.engine
    try:
        wanted = read(await _read_json(request))
        entry = engine.find(wanted.model)
    except MamegptError as problem:
        return JSONResponse(error(str(problem)), 400)
    except ClientDisconnect:
        return Response(status_code=GONE)
    job = engine.submit(wanted, entry)
    if job is None:
        message = f"{MAX_WAITING:,} requests wait already; try again later"
        return JSONResponse(error(message, "server_busy"), 429, {"retry-after": "10"})
    prefix, kind = ("cmpl", "text_completion") if wanted.messages is None else ("chatcmpl", "chat.completion")
    head = {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": f"{kind}.chunk" if wanted.stream and wanted.messages is not None else kind,
        "created": int(time.time()),
        "model": entry.name,
        "system_fingerprint": f"seed-{wanted.sampling.seed}",
    }
    if wanted.stream:
        first = await job.first()
        if isinstance(first, Failed):
            return _refused(first)
        return StreamingResponse(_events(engine, job, head), media_type="text/event-stream")
    return await _whole(request, engine, job, head)


async def _read_json(request: Request) -> Any:
    """Return the body.

    Raises `ConfigError` if it is too long, or not JSON that says so (forms of other sites cannot).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ConfigError("the body must be JSON, with content-type: application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise ConfigError("the body must not be longer than {most:,} bytes", most=MAX_BODY_BYTES)
    try:
        return parse_json(bytes(body))
    except ValueError as problem:
        raise ConfigError("the body is not JSON: {problem}", problem=problem) from None


async def _events(engine: Engine, job: Job, head: dict[str, Any]) -> AsyncIterator[str]:
    """Return the answer as server-sent events. Places in the queue are comments, which clients pass over."""
    steps: list[NewToken] = []
    has_begun = job.request.messages is None
    try:
        async for batch in job.batches():
            new = [event for event in batch if isinstance(event, NewToken)]
            steps += new if job.request.with_usage else []
            last = batch[-1] if batch else None
            if isinstance(last, Queued):
                yield f": queue {last.position}\n\n"
            if new and not has_begun:
                has_begun = True
                yield _event({**head, "choices": begin_chat(job.request)})
            if new:
                yield _event({**head, "choices": choices(job.request, new)})
            if isinstance(last, Failed):
                yield _event(_failure(last))
                return
        if job.request.with_usage:
            yield _event({**head, "choices": [], "usage": usage(job.request, steps)})
        yield "data: [DONE]\n\n"
    finally:
        engine.cancel(job)


async def _whole(request: Request, engine: Engine, job: Job, head: dict[str, Any]) -> Response:
    """Return the answer in one piece, given up if the client goes away."""
    steps: list[NewToken] = []

    async def collect() -> Failed | None:
        async for batch in job.batches():
            steps.extend(event for event in batch if isinstance(event, NewToken))
            if batch and isinstance(batch[-1], Failed):
                return batch[-1]
        return None

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    collecting, going = asyncio.create_task(collect()), asyncio.create_task(gone())
    try:
        await asyncio.wait((collecting, going), return_when=asyncio.FIRST_COMPLETED)
    finally:
        engine.cancel(job)
        going.cancel()
        if not collecting.done():
            collecting.cancel()
    if not collecting.done():
        return Response(status_code=GONE)
    failed = collecting.result()
    if failed is not None:
        return _refused(failed)
    whole = sorted(choices(job.request, steps), key=lambda one: one["index"])
    return JSONResponse({**head, "choices": whole, "usage": usage(job.request, steps)})


def _failure(failed: Failed) -> dict[str, Any]:
    if failed.error is None:
        return error("something went wrong inside; the server's terminal shows what", "server_error")
    return error(str(failed.error))


def _refused(failed: Failed) -> Response:
    return JSONResponse(_failure(failed), 500 if failed.error is None else 400)


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
