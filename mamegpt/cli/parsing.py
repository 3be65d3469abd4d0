"""Parse the words of a command line into a call of a command, or into one line with all problems."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from cyclopts import (
    App,
    Argument,
    ArgumentCollection,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    Token,
    UnknownOptionError,
    convert,
)

from mamegpt.errors import ConfigError
from mamegpt.messages import join, msg

__all__ = ["Program", "is_option", "program", "read", "unknown"]

ANY = Parameter(
    negative=(), consume_multiple=True, allow_repeating=True, json_dict=False, json_list=False, show_default=True
)
"""Settings of every parameter: no --no-FLAG, tuples take several values, the last of repeated options counts."""


def program(
    name: str, command: Callable[..., Any] | Mapping[str, Callable[..., Any]], summary: str = "", sort_key: int = 0
) -> Program:
    """Return a cyclopts app for one command, or for several by name with a common ``summary``."""
    options = Group("options", sort_key=0)
    commands, function = (command, None) if isinstance(command, Mapping) else ({}, command)
    app = Program(
        name,
        summary or None,
        default_command=function,
        default_parameter=ANY,
        group_parameters=options,
        group_commands=options if function else Group("commands"),
        help_format="plaintext",
        version_flags=(),
        sort_key=sort_key,
    )
    for i, (one, each) in enumerate(commands.items()):
        app.command(program(one, each, sort_key=i))
    return app


class Program(App):
    """A cyclopts app whose parameters are options unless they are positional only."""

    defaults: object = None
    """Settings whose values the help shows as defaults, instead of those of the dataclass."""

    def assemble_argument_collection(self, **how: Any) -> ArgumentCollection:
        """Return the arguments of the command, with properties that annotations cannot express."""
        found = super().assemble_argument_collection(**how)
        for argument in found:
            if argument.field_info.kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL):
                argument.index = None
            kinds = _kinds(argument)
            if int in kinds or {Path, NoneType} <= kinds:
                _change(argument, converter=functools.partial(_value, argument.hint))
            if argument.children:
                hidden = getattr(argument.hint, "HIDDEN", ())
                argument.children[:] = (one for one in argument.children if one.field_info.name not in hidden)
                self._group(argument)
        shown = [one for argument in found for one in argument.children]
        found[:] = [one for one in found if len(one.keys) == 0 or one in shown]
        return found

    def _group(self, settings: Argument) -> None:
        """Put the options of a dataclass into its sections, or all into one."""
        kind, names = settings.hint, [one.field_info.name for one in settings.children]
        starts = getattr(kind, "SECTIONS", {names[0]: kind.__name__.lower()})
        about = "" if len(starts) > 1 else inspect.getdoc(kind) or ""
        for i, (name, one) in enumerate(zip(names, settings.children, strict=True), start=1):
            if name in starts:
                group = Group(f"{starts[name]} options", about, sort_key=i)
            _change(one, group=group)
            if isinstance(self.defaults, kind):
                _change(one, show_default=str(getattr(self.defaults, name)))


def _change(argument: Argument, **how: Any) -> None:
    argument.parameter = Parameter.combine(argument.parameter, Parameter(**how))


def _kinds(argument: Argument) -> set[Any]:
    """Return the types of an argument's values."""
    alternatives = get_args(argument.hint)
    return {argument.hint, *(alternatives if NoneType in alternatives else ())}


def _value(hint: Any, _kind: Any, tokens: Sequence[Token]) -> Any:
    """Parse a value; cyclopts alone would round 1.5 to 2, and read a file name None as None."""
    if tokens[0].value == "None" and NoneType in get_args(hint):
        return None
    if "." in tokens[0].value and int in (hint, *get_args(hint)):
        raise ValueError
    return convert(hint, tokens)


def read(
    command: Callable[..., Any], prog: str, words: Sequence[str]
) -> tuple[Callable[..., Any], inspect.BoundArguments]:
    """Return the call that these words after ``prog`` mean: a function and its arguments.

    Raises `ConfigError` with the problems of the words.
    """
    app, problem = program(prog, command), None
    seen: list[Argument] = []
    app.config = lambda _app, _names, arguments: seen.extend(arguments)  # called when each word has its argument
    try:
        function, bound, unused, hidden = app.parse_known_args(_joined(words))
    except CycloptsError as error:
        unused, problem = error.unused_tokens or [], error
    if problem or unused:
        raise ConfigError(join("; ", _problems(app, prog, seen, unused, problem)))
    if "given" in hidden:
        bound.arguments["given"] = frozenset(one.field_info.name for one in seen if one.tokens)
    return function, bound


OPTION = re.compile("--|-[A-Za-z]$")


def is_option(word: str) -> bool:
    """Return whether a word is the name of an option; -1 is a number, and a single dash may be text."""
    return OPTION.match(word) is not None


def _joined(words: Sequence[str]) -> list[str]:
    """Return the words with each option and its first value joined, ``--max-steps=5``: the value may begin with a
    dash.
    """
    found: list[str] = []
    for i, word in enumerate(words):
        if word == "--":
            return [*found, *words[i:]]
        if is_option(word):
            name, *value = word.split("=", 1)
            found.append("=".join([name.replace("_", "-"), *value]))
        elif found and i and is_option(words[i - 1]) and "=" not in words[i - 1]:
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _problems(
    app: Program, prog: str, seen: Iterable[Argument], unused: Sequence[str], error: CycloptsError | None
) -> list[str]:
    """Return the problems of a command line for which cyclopts raised ``error``."""
    problems: list[str] = []
    match error:
        case CoercionError(argument=Argument() as argument, token=Token(value=value)) if not seen:
            return [_misread(argument, value)]
        case MissingArgumentError(keyword=str(name)):
            problems.append(msg("{name} needs a value", name=name))
            return problems
        case UnknownOptionError():
            unused = [error.token.value]
    for argument in seen:
        try:
            if argument.tokens:
                argument.convert()
        except CoercionError as wrong:
            problems.append(_misread(argument, (wrong.token or argument.tokens[0]).value))
    names = [name for argument in app.assemble_argument_collection() for name in argument.names if argument.parse]
    options = [word.partition("=")[0] for word in unused if re.match("--|-[A-Za-z]", word)]
    problems += [unknown(name, names, prog) for name in options]
    if not options:
        problems += [
            msg("'{word}' belongs to no option; quote a value with spaces (see {prog} --help)", word=word, prog=prog)
            for word in unused
        ]
    if not problems:
        problems = [msg("{name} is needed", name=one.name) for one in seen if one.required and not one.tokens]
        problems.append(msg("see {prog} --help", prog=prog))
    return problems


def _misread(argument: Argument, value: str) -> str:
    """Return the message for an invalid value of an argument."""
    name, kinds = argument.name, _kinds(argument)
    if choices := argument.get_choices(force=True):
        found = msg("{name} must be one of {names} (got '{value}')", name=name, names=", ".join(choices), value=value)
    elif bool in kinds:
        found = msg("{name} must be True or False (got '{value}')", name=name, value=value)
    elif int in kinds:
        found = msg("{name} must be a whole number (got '{value}')", name=name, value=value)
    else:
        found = msg("{name} must be a number (got '{value}')", name=name, value=value)
    return found


def unknown(word: str, options: Sequence[str], prog: str) -> str:
    """Return the message for an unknown option."""
    import difflib

    if near := difflib.get_close_matches(word, options, 1):
        found = msg(
            "{word} is not an option of {prog}; did you mean {suggestion}? (see {prog} --help)",
            word=word,
            prog=prog,
            suggestion=near[0],
        )
    else:
        found = msg("{word} is not an option of {prog} (see {prog} --help)", word=word, prog=prog)
    return found
