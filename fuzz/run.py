"""Feed the targets with what atheris finds: ``python -m fuzz.run SECONDS [TARGET ...]``, each in a process of its own.

atheris notes which branches of our Python a file reaches, and goes on from those that reach new ones. C libraries are
not followed; a crash of theirs is seen, since it ends the process.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

MOST_BYTES = 1 << 16
ONE = "--one"
"""Before the name of a target: fuzz it in this very process."""


def main() -> None:
    """Run the targets, by default all; the exit code is the number of those that broke."""
    if sys.argv[1] == ONE:
        fuzz(sys.argv[2], int(sys.argv[3]))
    from fuzz.targets import targets

    with tempfile.TemporaryDirectory() as folder:
        names = sys.argv[2:] or list(targets(Path(folder)))
    n_broken = 0
    for name in names:
        command = [sys.executable, "-m", "fuzz.run", ONE, name, sys.argv[1]]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        lines = done.stderr.splitlines()
        end = next((line for line in reversed(lines) if "DONE" in line), "")
        print(f"{name:<32}{'broken' if done.returncode else 'ok'}  {' '.join(end.split())}", flush=True)
        if done.returncode:
            n_broken += 1
            print(*lines[-40:], sep="\n", flush=True)
    sys.exit(n_broken)


def fuzz(name: str, seconds: int) -> None:
    """One target until the time is over; does not return."""
    import atheris

    folder = Path(tempfile.mkdtemp(prefix="mamegpt-fuzz-"))
    place, corpus = folder / "place", folder / "corpus"
    place.mkdir()
    corpus.mkdir()
    with atheris.instrument_imports(include=["mamegpt", "json", "fuzz.targets"]):
        from fuzz.targets import feed, targets

        target = targets(place)[name]
        for i, seed in enumerate(target.seeds):
            (corpus / str(i)).write_bytes(seed)
            feed(target, seed)  # imports what is imported where it is used
    limits = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", "-timeout=60", "-rss_limit_mb=8000"]

    def once(data: bytes) -> None:
        feed(target, data)

    atheris.Setup([sys.argv[0], str(corpus), *limits, f"-artifact_prefix={folder}/"], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
