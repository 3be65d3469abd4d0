"""The command line: which command was meant, how its words become a call, and how a call ends."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import inspect
import io
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from mamegpt import __version__
from mamegpt.cli.commands.registry import COMMANDS, PARSING
from mamegpt.cli.commands.training import train_command
from mamegpt.cli.console import INTERRUPTED, output_may_fail, output_must_succeed, say
from mamegpt.cli.given import is_option, typed
from mamegpt.cli.help import add_rule, in_japanese, in_user_language
from mamegpt.cli.messages import is_japanese, put, translated
from mamegpt.config import TrainConfig, read_settings
from mamegpt.errors import (
    ConfigError,
    ExportError,
    MamegptError,
    MamegptWarning,
    first_line,
    is_out_of_memory,
    memory_asked,
    naming_options,
)
from mamegpt.presets import RECIPES, SIZES, preset
from mamegpt.system.limits import default_threads

__all__ = ["main", "run_command_line"]

SPIN_COUNT = "3000"
"""Turns a thread of GNU OpenMP waits for its siblings before it sleeps. By default it waits so long that another busy
program on the machine can make training twenty times slower; with this many it is as fast as ever when alone, and two
to three times slower at worst (docs/log.md)."""

NARROWEST = 60
"""Columns that help is drawn in at least: in fewer it grows to thousands of lines, and in a few tyro never ends."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line ``mamegpt ...`` and exit."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--version"], ["-V"]):
        say(f"mamegpt {__version__}")
        return
    run_command_line(
        {**COMMANDS, "train": functools.partial(train_command, settings=_defaults(typed(arguments)))},
        arguments or ["--help"],
    )


def _defaults(given: Mapping[str, str]) -> TrainConfig:
    """Return the settings that fill in what a command line of ``train`` does not say.

    A value that is no such value is left to the parser, and a file that holds no settings to the command: they
    complain of it.
    """
    size, recipe = given.get("size", "5m"), given.get("recipe", "mame")
    if size not in SIZES or recipe not in RECIPES:
        return preset()
    settings: dict[str, Any] = {}
    if "config" in given:
        with contextlib.suppress(ConfigError):
            settings = read_settings(Path(given["config"]))
    for name, other in (("minutes", "max_steps"), ("max_steps", "minutes")):
        if name in given:
            settings.pop(other, None)  # of the two, the one that was typed says when to stop
    width = given.get("emb_dim", "")
    if width.isdecimal() and 0 < int(width) < 1 << 30:
        settings["emb_dim"] = int(width)
    if optimizer := given.get("optimizer"):
        settings["optimizer"] = optimizer
    return preset(size, recipe, **settings)


def run_command_line(
    command: Callable[..., Any] | dict[str, Callable[..., Any]], arguments: Sequence[str] | None = None
) -> None:
    """Parse a command line into a call, make it, and exit: 0, what it returns, or 2 with one line of why not.

    ``command`` is one function, or several by name. Options may be spelt with dashes or underscores; a switch may
    stand alone or be followed by True or False in any case. Mistakes of the user end in one line on standard
    error; anything else is a bug of ours and keeps its traceback.
    """
    for stream_ in (sys.stdout, sys.stderr):
        if isinstance(stream_, io.TextIOWrapper):
            stream_.reconfigure(encoding="utf-8", errors="backslashreplace")  # Windows would take the local code page
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # before the first command imports torch
    if (n_threads := default_threads()) is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))
    with naming_options(), output_may_fail(), warnings.catch_warnings():
        warnings.showwarning = functools.partial(_show, warnings.showwarning)
        warnings.simplefilter("default", MamegptWarning)  # a note, whatever python -W says of warnings
        sys.exit(_code(command, sys.argv[1:] if arguments is None else arguments))


def _code(command: Callable[..., Any] | dict[str, Callable[..., Any]], arguments: Sequence[str]) -> int:
    """Make the call that a command line asks for; returns its exit code, after the line that says why if it failed."""
    call: Callable[..., Any] = _code
    try:
        with _SWITCHES:
            call = _call(command, arguments)
            code = call()
    except MamegptError as error:
        message = str(error)
        for found in error.found if isinstance(error, ExportError) else ():
            message = message.replace(found, translated(found, part=True))
        return _failed(message)
    except Exception as error:
        if is_out_of_memory(error):
            asked = f"out of memory, {said} more were needed" if (said := memory_asked(error)) else "out of memory"
            return _failed(f"{asked}; {_less_memory(call, arguments)}")
        if not isinstance(error, OSError):
            raise
        if error.errno == errno.EPIPE:  # the reader of what `deliver` prints has seen enough
            return 0
        place = error.filename or "what was to be written here"
        return _failed(f"{place}: {first_line(error)}; check the space and permissions there, or choose another place")
    except KeyboardInterrupt:
        say("", "stopped; nothing that was complete is lost")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


NEED_MEMORY = ("micro_batch_size", "batch_size", "context_length", "emb_dim", "n_layers", "max_characters")
"""Options of any command that decide how much memory it needs."""


def _less_memory(call: Callable[..., Any], words: Sequence[str]) -> str:
    """Return what to do about a command that needs too much memory: lower those of its options that decide it."""
    call = call.func if isinstance(call, functools.partial) else call
    names = set()
    for name, parameter in inspect.signature(call).parameters.items():
        is_group = dataclasses.is_dataclass(parameter.default)
        names |= {field.name for field in dataclasses.fields(parameter.default)} if is_group else {name}
    # A run that is resumed brings these settings.
    found = [f"--{name.replace('_', '-')}" for name in NEED_MEMORY if name in names and "resume" not in typed(words)]
    if found:
        return f"lower {', '.join(found)}, or close other programs"
    return "close other programs, or use a smaller model"


def _call(command: Callable[..., Any] | dict[str, Callable[..., Any]], words: Sequence[str]) -> Callable[[], Any]:
    """Return the call that a command line asks for; exits if that is help.

    Raises ConfigError with what is wrong with it.
    """
    name = Path(sys.argv[0]).name
    prog = "mamegpt" if isinstance(command, dict) else f"python {name}" if name.endswith(".py") else name
    if isinstance(command, dict) and words and words[0] in command:
        # To choose among all, tyro imports typeguard, which takes longer than to parse one.
        prog, command, words = f"mamegpt {words[0]}", command[words[0]], words[1:]
    elif isinstance(command, dict) and words and not is_option(words[0]):
        raise ConfigError(_what_is_wrong(command, prog, words))  # where tyro would show the help of all
    told = command if isinstance(command, dict) else in_user_language(command)
    asks_help = not {"-h", "--help"}.isdisjoint(words)
    if asks_help and shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    is_told = is_japanese() and (isinstance(command, dict) or told is not command)
    try:
        with (
            output_must_succeed(),
            in_japanese() if asks_help and is_told else contextlib.nullcontext(),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            if isinstance(told, dict):
                commands = {name: _held(in_user_language(one)) for name, one in told.items()}
                call = tyro.extras.subcommand_cli_from_dict(
                    commands, prog=prog, description=_description(), args=words, config=PARSING
                )
            else:
                call = tyro.cli(_held(told), prog=prog, args=words, config=PARSING)
    except SystemExit as end:
        if not end.code:
            raise
        raise ConfigError(_what_is_wrong(command, prog, words)) from None
    assert isinstance(call, functools.partial), "what _held made"
    if "given" in inspect.signature(call.func).parameters:
        return functools.partial(call, given=frozenset(typed(words)))
    return call


def _what_is_wrong(command: Callable[..., Any] | dict[str, Callable[..., Any]], prog: str, words: Sequence[str]) -> str:
    from mamegpt.cli.argument_errors import what_is_wrong  # which imports difflib

    return what_is_wrong(command, prog, words)


def _held(command: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """Return a command that returns its call instead of making it, so that reading the command line ends before."""
    if isinstance(command, functools.partial):
        return functools.partial(_held(command.func), *command.args, **command.keywords)
    return functools.wraps(command)(lambda *args, **kwargs: functools.partial(command, *args, **kwargs))


WAY = (
    "The way: download, extract, clean -> tokenizer -> plan -> train -> generate, play, eval, report -> export; each "
    "command says the next one. All of it at once, without a network: mamegpt demo"
)

_SWITCHES = ConstructorRegistry()
add_rule(_SWITCHES)


@_SWITCHES.primitive_rule
def _switch(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[bool] | None:
    """Read ``--flag``, ``--flag True`` and ``--flag false`` alike."""
    if info.type is not bool:
        return None

    def read(words: list[str]) -> bool:
        if [word.lower() for word in words] not in ([], ["true"], ["false"]):
            raise ValueError(f"{' '.join(words)} is neither True nor False")
        return not words or words[0].lower() == "true"

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[True|False]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def _description() -> str:
    """Return what stands above the list of commands: what this is, and the way through them."""
    from mamegpt import __doc__ as summary

    return f"{translated((summary or '').strip())}\n\n{translated(WAY)}"


def _show(others: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Print a warning of ours as a line in the user's language; ``others`` shows those of other packages."""
    if issubclass(category, MamegptWarning):
        put(f"{'注意:' if is_japanese() else 'note:'} {translated(str(message))}", file=sys.stderr)
    else:
        others(message, category, *place)


def _failed(message: str) -> int:
    put(f"{'エラー:' if is_japanese() else 'error:'} {translated(' '.join(message.splitlines()))}", file=sys.stderr)
    return 2
