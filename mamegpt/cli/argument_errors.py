"""What is wrong with a command line that could not be read, told from the parameters of the command it is for."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from mamegpt.cli.given import is_option, option_name

__all__ = ["what_is_wrong"]


def what_is_wrong(command: Callable[..., Any] | Mapping[str, Any], prog: str, words: Sequence[str]) -> str:
    """One line on why ``prog`` followed by ``words`` is no call of ``command``, or of one of several by name."""
    if isinstance(command, Mapping):
        return _no_command([*command], prog, words[0])
    options, positional = _options(command)
    problems = _misread(options, positional, prog, words)
    if not problems:
        given = {option_name(word) for word in words}
        problems += [f"{name} is needed" for name, option in options.items() if option.required and name not in given]
        if positional and positional.required and not (words and not is_option(words[0])):
            problems.append(f"{positional.name} is needed")
        problems.append(f"see {prog} --help" if problems else f"these words are not understood; see {prog} --help")
    return "; ".join(problems)


@dataclasses.dataclass(frozen=True)
class _Option:
    """An option or a positional argument: its name, the type of a value, whether it takes many, whether it must be."""

    name: str
    kind: Any
    many: bool = False
    required: bool = False

    def problems(self, value: str) -> list[str]:
        """Return what is wrong with one value, if anything is."""
        problems: list[str] = []
        kinds = get_args(self.kind) if get_origin(self.kind) in (Union, types.UnionType) else (self.kind,)
        for kind in kinds:
            if get_origin(kind) is Literal and value not in get_args(kind):
                problems.append(f"{self.name} must be one of {', '.join(get_args(kind))}, not '{value}'")
            elif kind is int and not _reads(int, value):
                problems.append(f"{self.name} takes a whole number, not '{value}'")
            elif kind is float and not _reads(float, value):
                problems.append(f"{self.name} takes a number, not '{value}'")
            elif kind is bool and value.lower() not in ("true", "false"):
                problems.append(f"{self.name} takes True or False, not '{value}'")
            elif kind is not types.NoneType or value == "None":
                return []
        return problems[:1]


UNKNOWN = _Option("", str, many=True)
"""What takes the words after an option that is none, so that only the option is complained of."""


def _misread(options: Mapping[str, _Option], positional: _Option | None, prog: str, words: Sequence[str]) -> list[str]:
    """Return what is wrong with the options and values that are there."""
    problems: list[str] = []
    taking, has_room = positional, True  # what takes the next word, and whether it takes another
    for word, following in itertools.zip_longest(words, words[1:]):
        name, equals, value = option_name(word), "=" in word, word.partition("=")[2]
        if not is_option(word):
            if taking and has_room:
                problems += taking.problems(word)
                has_room = taking.many
            else:
                problems.append(f"'{word}' belongs to no option; quote a value with spaces (see {prog} --help)")
        elif name not in options:
            problems.append(_no_option(name, [*options], prog))
            taking, has_room = UNKNOWN, True
        else:
            taking, has_room = options[name], not equals
            if equals:
                problems += taking.problems(value)
            elif not (taking.many or taking.kind is bool) and (following is None or is_option(following)):
                problems.append(f"{name} needs a value")
    return [*dict.fromkeys(problems)]


def _no_command(commands: Sequence[str], prog: str, word: str) -> str:
    """Return what to say of a first word that is no command."""
    options = ["--help", "--version"]
    if word in options:
        found = f"{word} stands alone"
    elif is_option(word):
        found = _no_option(word, options, prog)
    elif near := difflib.get_close_matches(word, commands, 1):
        found = f"no command {word}; did you mean {near[0]}? (see {prog} --help)"
    else:
        found = f"no command {word} (see {prog} --help)"
    return found


def _no_option(word: str, options: Sequence[str], prog: str) -> str:
    """Return what to say of an option that is none."""
    if near := difflib.get_close_matches(word, options, 1):
        found = f"{word} is not an option of {prog}; did you mean {near[0]}? (see {prog} --help)"
    else:
        found = f"{word} is not an option of {prog} (see {prog} --help)"
    return found


def _reads(kind: Callable[[str], object], value: str) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True


def _options(command: Callable[..., Any]) -> tuple[dict[str, _Option], _Option | None]:
    """Return the options of a command by name, those of its dataclasses among them, and its positional argument."""
    function = command.func if isinstance(command, functools.partial) else command
    hints = get_type_hints(function, include_extras=True)
    options, positional = {}, None
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *markers = get_args(hints[name]) if get_origin(hints[name]) is Annotated else [hints[name]]
        if tyro.conf.Fixed in markers:
            continue
        if dataclasses.is_dataclass(kind):
            found = {field: (type_, False) for field, type_ in get_type_hints(kind).items()}
        else:
            found = {name: (kind, parameter.default is parameter.empty)}
        for one, (type_, required) in found.items():
            is_list = get_origin(type_) in (tuple, list)
            flag = one.upper().removesuffix("S") if tyro.conf.Positional in markers else f"--{one.replace('_', '-')}"
            option = _Option(
                flag, get_args(type_)[0] if is_list else type_,
                many=is_list and tyro.conf.UseAppendAction not in markers, required=required,
            )  # fmt: skip
            if flag.startswith("--"):
                options[flag] = option
            else:
                positional = option
    return options, positional
