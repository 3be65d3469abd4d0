"""Many people at the playground at once: is anyone lost, is it fair, does memory grow?

    python -m benchmarks.own.bench_playground MODEL [--clients 200] [--rounds 5] [--tokens 40]

Starts ``mamegpt play MODEL`` and prints how long its first character took. In each round as many clients as asked for
connect at the same moment, and every fourth goes away in the middle. Of the others each answer must be whole. Printed
by round: seconds to the first and to the last character of a client (median, worst), by how many places anyone was
overtaken (first characters against the order of connecting), the server's processor time and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import psutil

HEAD = (
    "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
)


@dataclass
class Client:
    """One request: how long after its start the first and the last character came, and if it is whole."""

    first_s: float = 0.0
    last_s: float = 0.0
    whole: bool = False


async def ask(port: int, n_tokens: int, leave: bool) -> Client:
    client = Client()
    body = json.dumps({"prompt": "月見町は、", "max_tokens": n_tokens, "temperature": 1, "stream": True}).encode()
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.format(len(body)).encode() + body)
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            client.last_s = time.perf_counter() - begin
            client.first_s = client.first_s or client.last_s
            if leave:
                break
        if line.startswith(b"data: [DONE]"):
            client.whole = True
            break
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return client


async def play_round(port: int, n_clients: int, n_tokens: int) -> list[Client]:
    return await asyncio.gather(*(ask(port, n_tokens, leave=i % 4 == 3) for i in range(n_clients)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40)
    given = parser.parse_args()

    begin = time.perf_counter()
    command = [sys.executable, "-m", "mamegpt", "play", given.model, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().split("/")[2].rpartition(":")[2])
        asyncio.run(ask(port, 1, leave=False))
        process = psutil.Process(server.pid)
        taken, spent = time.perf_counter() - begin, process.cpu_times().user
        print(f"first character {taken:.1f} s after the command, {spent:.1f} s of processor", flush=True)
        for number in range(given.rounds):
            before = process.cpu_times().user
            clients = asyncio.run(play_round(port, given.clients, given.tokens))
            spent, memory = process.cpu_times().user - before, process.memory_info().rss / 1e6
            print(f"round {number + 1}: {told(clients)}, {spent:.1f} s of processor, {memory:,.0f} MB", flush=True)
    finally:
        server.terminate()
        server.wait()


def told(clients: list[Client]) -> str:
    """What came of a round."""
    staying = [client for i, client in enumerate(clients) if i % 4 != 3]
    served = sorted(range(len(clients)), key=lambda i: clients[i].first_s)
    overtaken = max(place - i for place, i in enumerate(served))
    firsts, lasts = ([getattr(client, name) for client in staying] for name in ("first_s", "last_s"))
    return (
        f"{sum(client.whole for client in staying)} of {len(staying)} whole, "
        f"first {statistics.median(firsts):.2f} / {max(firsts):.2f} s, "
        f"last {statistics.median(lasts):.2f} / {max(lasts):.2f} s, overtaken by {overtaken}"
    )


if __name__ == "__main__":
    main()
