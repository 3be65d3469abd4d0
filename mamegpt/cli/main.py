"""The command line: find the command, parse its arguments, call it, and exit."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import inspect
import io
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mamegpt import __doc__ as summary
from mamegpt import __version__
from mamegpt.cli.commands.registry import COMMANDS
from mamegpt.cli.commands.training import chosen_settings, train_command
from mamegpt.cli.console import INTERRUPTED, output_may_fail, say
from mamegpt.cli.language import put, translated
from mamegpt.cli.parsing import is_option, program, read, unknown
from mamegpt.errors import (
    ConfigError,
    MamegptError,
    MamegptWarning,
    first_line,
    is_out_of_memory,
    memory_asked,
    naming_options,
)
from mamegpt.messages import Message, join, msg
from mamegpt.system.limits import configure_libraries

__all__ = ["main", "run_command_line"]

HELP = {"-h", "--help"}
WAY = (
    "Workflow: download, extract, clean -> tokenizer -> plan -> train -> generate, play, eval, report -> export; each "
    "command prints the next one. The whole pipeline at once, without a network: mamegpt demo"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``mamegpt ...`` and exit."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--version"], ["-V"]):
        say(msg("mamegpt {version}", version=__version__))
        return
    run_command_line(COMMANDS, arguments or ["--help"])


def run_command_line(
    command: Callable[..., Any] | dict[str, Callable[..., Any]], arguments: Sequence[str] | None = None
) -> None:
    """Parse a command line, call the command, and exit: with 0, its return value, or 2 after a one-line error.

    ``command`` is one function, or several by name. Options may be written with dashes or underscores; a switch may be
    followed by True or False in any case. Mistakes of the user end in one line on standard error; any other exception
    is a bug and keeps its traceback.
    """
    for stream_ in (sys.stdout, sys.stderr):
        if isinstance(stream_, io.TextIOWrapper):
            stream_.reconfigure(encoding="utf-8", errors="backslashreplace")  # Windows would use the local code page
    if isinstance(sys.stdin, io.TextIOWrapper):
        with contextlib.suppress(io.UnsupportedOperation):  # something was read already
            sys.stdin.reconfigure(encoding="utf-8")
    configure_libraries()  # before the first command imports PyTorch
    with naming_options(), output_may_fail(), warnings.catch_warnings():
        warnings.showwarning = functools.partial(_show, warnings.showwarning)
        warnings.simplefilter("default", MamegptWarning)  # print notes, whatever python -W is
        sys.exit(_code(command, sys.argv[1:] if arguments is None else arguments))


def _code(command: Callable[..., Any] | dict[str, Callable[..., Any]], arguments: Sequence[str]) -> int:
    """Run a command line; return its exit code, after printing the error if it failed."""
    call: tuple[Callable[..., Any], inspect.BoundArguments] | None = None
    try:
        call = _call(command, arguments)
        code = call and call[0](*call[1].args, **call[1].kwargs)
    except MamegptError as error:
        return _failed(error.message)
    except Exception as error:
        if is_out_of_memory(error):
            size = memory_asked(error)
            what = msg("out of memory, {size} more were needed", size=size) if size else msg("out of memory")
            return _failed(join("; ", [what, _less_memory(call[1])]) if call else what)
        if not isinstance(error, OSError):
            raise
        if error.errno == errno.EPIPE:  # the reader of `deliver`'s output has closed the pipe
            return 0
        return _failed(
            msg(
                "{place}: {reason}; check the space and permissions there, or choose another place",
                place=error.filename or msg("the output"),
                reason=first_line(error),
            )
        )
    except KeyboardInterrupt:
        say("", msg("interrupted; saved files are not lost"))
        return INTERRUPTED
    return code if isinstance(code, int) else 0


NEED_MEMORY = ("micro_batch_size", "batch_size", "context_length", "emb_dim", "n_layers", "max_characters")
"""Options, of any command, that determine how much memory it needs."""


def _less_memory(bound: inspect.BoundArguments) -> Message:
    """Return the advice for a command that needs too much memory: which of its options to lower."""
    names = set()
    for name, parameter in bound.signature.parameters.items():
        is_group = dataclasses.is_dataclass(parameter.default)
        names |= {field.name for field in dataclasses.fields(parameter.default)} if is_group else {name}
    # A resumed run has its own settings.
    found = [f"--{name.replace('_', '-')}" for name in NEED_MEMORY if name in names and "resume" not in bound.arguments]
    if found:
        return msg("lower {names}, or close other programs", names=", ".join(found))
    return msg("close other programs, or use a smaller model")


def _call(
    command: Callable[..., Any] | Mapping[str, Callable[..., Any]], words: Sequence[str]
) -> tuple[Callable[..., Any], inspect.BoundArguments] | None:
    """Return the function and the arguments of a command line; None after help, which it prints.

    Raises `ConfigError` with the problems of the command line.
    """
    name = Path(sys.argv[0]).name
    prog = "mamegpt" if not callable(command) else f"python {name}" if name.endswith(".py") else name
    if not callable(command) and words and words[0] in command:
        prog, command, words = f"mamegpt {words[0]}", command[words[0]], words[1:]
    if not callable(command) and words[0] not in HELP:
        raise ConfigError(_no_command([*command], prog, words[0]))
    if HELP.isdisjoint(words):
        assert callable(command)
        return read(command, prog, words)
    from mamegpt.cli.help import show_help  # which imports rich

    app = program(prog, command, "" if callable(command) else f"{summary}\n\n{WAY}")
    if command is train_command:
        with contextlib.suppress(MamegptError):
            _, bound = read(command, prog, [word for word in words if word not in HELP])
            bound.apply_defaults()
            app.defaults, _ = chosen_settings(**bound.arguments)
    show_help(app)
    return None


def _no_command(commands: Sequence[str], prog: str, word: str) -> str:
    """Return the message for a first word that is not a command."""
    import difflib

    options = ["--help", "--version"]
    if word in options:
        found: str = msg("{word} must be given alone", word=word)
    elif is_option(word):
        found = unknown(word, options, prog)
    elif near := difflib.get_close_matches(word, commands, 1):
        found = msg(
            "no command {word}; did you mean {suggestion}? (see {prog} --help)",
            word=word,
            suggestion=near[0],
            prog=prog,
        )
    else:
        found = msg("no command {word} (see {prog} --help)", word=word, prog=prog)
    return found


def _show(others: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Print a `MamegptWarning` as a line in the user's language; ``others`` shows other warnings."""
    if issubclass(category, MamegptWarning):
        put(translated(msg("note: {message}", message=getattr(message, "args", [message])[0])), file=sys.stderr)
    else:
        others(message, category, *place)


def _failed(message: Message) -> int:
    put(" ".join(translated(msg("error: {message}", message=message)).splitlines()), file=sys.stderr)
    return 2
