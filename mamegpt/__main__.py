"""The entry point of ``mamegpt`` and ``python -m mamegpt``. Ctrl-C ends it quietly from the start."""

import os
import sys

# python -m puts the current folder first. In a downloaded model's folder a torch.py would be imported, so the entry
# stays only if it is the folder that contains this package.
_is_ours = os.path.realpath(sys.path[0]) == os.path.realpath(f"{__file__}/../..")
if __name__ == "__main__" and not sys.flags.safe_path and not _is_ours:
    del sys.path[0]

import signal  # noqa: E402

INTERRUPTED = 130


def main() -> None:
    """Run the command line ``mamegpt ...`` and exit."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # imports may turn KeyboardInterrupt into another exception
        signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(INTERRUPTED))
    from mamegpt.cli import main as command_line

    try:
        signal.signal(signal.SIGINT, before)
        command_line.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
