"""Clients that send nothing, half of something, or go away are let go; others are answered, and the log is quiet."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from little import ROOT, Little, folder_of
from playground_server import serving

from mamegpt.generation.stream import Token

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
HALF = {
    "nothing": b"",
    "half a line": b"POST /v1/comp",
    "half a header": HEAD,
    "half a body": HEAD + b'content-length: 100\r\n\r\n{"prompt": ',
    "a body that is refused": HEAD.replace(b"json", b"text") + b"content-length: 100\r\n\r\n{",
    "half a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\nffff\r\n{",
}


def connect(port: int, data: bytes) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=60)
    line.sendall(data)
    return line


def request(**body: object) -> bytes:
    raw = json.dumps({"prompt": "豆", "max_tokens": 3} | body).encode()
    return HEAD + b"content-length: %d\r\n\r\n" % len(raw) + raw


def read(line: socket.socket, wanted: bytes) -> bytes:
    """Read until something has come, or to the end."""
    heard = b""
    while wanted not in heard and (new := line.recv(1 << 16)):
        heard += new
    return heard


def answer(port: int, data: bytes, wanted: bytes = b"usage") -> bytes:
    """What comes on a connection of its own, up to something."""
    with connect(port, data) as line:
        return read(line, wanted)


def is_open(line: socket.socket) -> bool:
    """Whether the server has not closed a connection."""
    line.setblocking(False)
    try:
        return len(line.recv(1 << 16)) > 0 and is_open(line)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.fixture
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The server logs nothing."""
    yield
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("half", HALF.values(), ids=list(HALF))
def test_who_does_not_send_a_whole_request_in_time_is_let_go(
    half: bytes, little: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mamegpt.playground.connection.WAIT_S", 0.2)
    with serving([str(little.run)]) as port:
        answer(port, half, b"nothing holds this")  # returns as the server closes
        # What follows a whole answer has no other rights.
        with connect(port, request()) as again:
            assert b'"usage"' in read(again, b"usage")
            again.sendall(half)
            read(again, b"nothing holds this")


@pytest.mark.usefixtures("quiet")
def test_who_waits_for_an_answer_or_reads_a_long_one_is_not_let_go(
    little: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving([str(little.run)]) as port:
        answer(port, request())  # the model is in memory
        monkeypatch.setattr("mamegpt.playground.connection.WAIT_S", 0.1)
        slow = connect(port, request(n=8, max_tokens=400, stream=True))
        with slow, connect(port, request(n=8)) as waiting:
            assert b"data: [DONE]" in read(slow, b"[DONE]")
            assert b"usage" in read(waiting, b"usage")


@pytest.mark.usefixtures("quiet")
def test_who_does_not_read_the_answer_frees_the_place(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object, **__: object) -> Iterator[Token]:
        while True:
            yield Token("豆" * 100_000, 0, 5)

    monkeypatch.setattr("mamegpt.playground.connection.WAIT_S", 0.2)
    with serving([str(little.run)]) as port:
        with monkeypatch.context() as patch:
            patch.setattr("mamegpt.pretrained.stream_tokens", endless)
            deaf = connect(port, request(n=8, stream=True))
            read(deaf, b"data: ")
        assert b"usage" in answer(port, request())  # it had to wait for the place
        deaf.close()


@pytest.mark.usefixtures("quiet")
def test_however_many_half_open_sockets_there_are_others_are_answered(
    little: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mamegpt.playground.server.raise_file_limit", lambda: 80)
    with serving([str(little.run)]) as port:
        served = connect(port, request(n=8, max_tokens=2048, stream=True))
        read(served, b"data: ")
        halves = list(HALF.values())
        lines = []
        for i in range(100):
            lines.append(connect(port, halves[i % len(halves)]))
            if i % 8 == 7:  # else the system's queue of ten is full, and a client tries again a second later
                assert b"400" in answer(port, b"GET /v1/status HTTP/1.1\r\nhost: elsewhere\r\n\r\n", b"\r\n")
        served.sendall(b"")  # who is being answered keeps the place
        assert read(served, b"data: ")
        served.close()
        assert b"usage" in answer(port, request())
        assert sum(map(is_open, lines)) <= 20
        for line in lines:
            line.close()


@pytest.mark.usefixtures("quiet")
def test_who_leaves_in_the_middle_of_the_body_leaves_no_trace(little: Little) -> None:
    with serving([str(little.run)]) as port:
        for half in HALF.values():
            connect(port, half).close()
        assert b"usage" in answer(port, request())


def test_the_command_serves_when_it_says_so_and_ends_at_ctrl_c_whatever_is_open(little: Little, tmp_path: Path) -> None:
    model = folder_of(little, tmp_path / "model", "qwen3")  # without the seconds in which transformers is imported
    command = [sys.executable, "-m", "mamegpt", "play", str(model), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            found = re.match(r"http://127\.0\.0\.1:(\d+)/  \(.*; Ctrl-C ends it\)", process.stdout.readline())
            assert found
            port = int(found[1])
            assert b"200 OK" in answer(port, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", b"\r\n")
            halves = [connect(port, half) for half in HALF.values()]
            whole, stream, waiting = (
                connect(port, request(n=8, max_tokens=2048, stream=kind)) for kind in (False, True, True)
            )
            read(waiting, b": queue 2")
            process.send_signal(signal.SIGINT)
            assert b"the server was stopped" in read(stream, b"stopped")
            assert b"the server was stopped" in read(whole, b"stopped") + read(waiting, b"stopped")
            assert process.wait(timeout=60) in (0, 130)
            assert process.stderr.read() == ""
            for line in (*halves, whole, stream, waiting):
                line.close()
        finally:
            process.kill()
