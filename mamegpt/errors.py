"""The exceptions for user errors, as one small tree.

    MamegptError
    ├── ConfigError      a setting is wrong or contradicts another          (also a ValueError)
    ├── DataError        text, corpus or token shards cannot be used        (also a ValueError)
    │   └── HubError     the Hugging Face Hub cannot be reached or has no such thing
    ├── TokenizerError   a tokenizer cannot be trained, read or matched     (also a ValueError)
    ├── CheckpointError  a run or checkpoint is missing, damaged or of other data
    ├── ModelError       weights or a model folder cannot be used           (also a ValueError)
    ├── TrainingError    a run cannot continue: the loss is NaN or spikes
    ├── OutputError      an output exists, or its place is full or read-only
    └── ExportError      an export does not equal the original model

Each message is one line: what happened, where, and what to do. The command line prints it after ``error:`` and exits
with code 2. Any other exception is a bug and keeps its traceback.

Messages name settings as options of the command line, ``--batch-size``. Outside the command line (`naming_options`),
`str` of an error has the names of parameters and fields instead, ``batch_size``.
"""

import contextlib
import errno
import re
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mamegpt.messages import Message, join, msg

_OUT_OF_MEMORY = re.compile(
    "out of memory|(can't|cannot) allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE
)
_ASKED = re.compile(r"allocate (?:(\d+) bytes|([\d.]+ [KMGT]iB))")


def first_line(error: BaseException) -> Message:
    """Return the first line of an error, since our messages are one line.

    The number and the file name in a system error are left out, and what a codec says but for its place.
    """
    if error.args and isinstance(error.args[0], Message):
        return error.args[0]
    if isinstance(error, UnicodeDecodeError):
        return msg("not {encoding} text at byte {place:,}", encoding=error.encoding.upper(), place=error.start)
    said = getattr(error, "strerror", None) or str(error).strip()
    return Message(re.sub(r"\[Errno -?\d+\] ", "", next(iter(said.splitlines()), type(error).__name__)))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means out of memory: Python's, NumPy's, the system's, or PyTorch's on any device.

    PyTorch raises `RuntimeError` on a CPU, which only its text identifies.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )


def memory_asked(error: BaseException) -> str:
    """Return the size of a failed memory request, such as "17.2 GB"; "" if the error does not say it."""
    found = _ASKED.search(str(error))
    if found is None:
        return ""
    return f"{int(found[1]) / 1e9:.1f} GB" if found[1] else found[2]


_COMMAND_OR_OPTION = re.compile(r"\bmamegpt(?: '[^']*'| [^\s',;)]+)+|(?:(?<=[\s(])|^)--[a-z][a-z-]*")
_names_options = False


@contextlib.contextmanager
def naming_options() -> Iterator[None]:
    """Let errors and warnings name settings as options in this block: ``--batch-size``, not ``batch_size``.

    It applies to all threads. An error of another process is formatted where it is raised again.
    """
    global _names_options
    before, _names_options = _names_options, True
    try:
        yield
    finally:
        _names_options = before


def naming_fields(message: str) -> str:
    """Return a message that names settings as Python and JSON do: ``batch_size``, not ``--batch-size``.

    Command lines that it suggests (from ``mamegpt`` to the next comma, semicolon or parenthesis) stay as they are.
    Quoted text is not recognized: it loses two dashes after a space and before a lower-case letter, too.
    """

    def name(found: re.Match[str]) -> str:
        return found[0].removeprefix("--").replace("-", "_") if found[0].startswith("--") else found[0]

    return _COMMAND_OR_OPTION.sub(name, message)


def _named(message: str) -> str:
    """Return a message that names settings as options within `naming_options`, else as Python does."""
    return message if _names_options else naming_fields(message)


class MamegptError(Exception):
    """The root of all errors of this package that a user may want to catch. Its text is always one line."""

    message: Message
    """The message, with its template and fields."""

    def __init__(self, message: str = "", /, **fields: Any) -> None:
        """Take a message, or a template and its fields: ``ConfigError("{path} is empty", path=path)``."""
        self.message = message if isinstance(message, Message) and not fields else Message(message, **fields)
        super().__init__(self.message)

    def __str__(self) -> str:
        return _named(" ".join(self.message.splitlines()))


class MamegptWarning(UserWarning):
    """Information for a user, in one line, although nothing failed; the command line prints it after ``note:``."""

    def __str__(self) -> str:
        return _named(super().__str__())


class ConfigError(MamegptError, ValueError):
    """A setting is wrong or contradicts another; the message names the setting and a value that works."""


def check_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Raise `ConfigError` unless the value of an option is one of its choices."""
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(
            "{option} must be one of {names} (got {value!r})", option=option, value=value, names=", ".join(choices)
        )


INDEX_NAME = ""
"""The name by which pip finds mamegpt, as soon as it is published; until then a clone or a wheel is installed."""


def how_to_install(extra: str) -> Message:
    """Return the command that installs the packages of an extra, for an installation of a clone or of a wheel."""
    if (Path(__file__).parents[1] / "pyproject.toml").is_file():
        return msg('in the folder of mamegpt: pip install -e ".[{extra}]"', extra=extra)
    if INDEX_NAME:
        return msg('pip install "{name}[{extra}]"', name=INDEX_NAME, extra=extra)
    needs = (need.partition(";") for need in metadata.requires("mamegpt") or [])
    names = [f'"{name.strip()}"' for name, _, marker in needs if marker.strip() == f'extra == "{extra}"']
    return msg("pip install {packages}", packages=" ".join(names))


def require_packages(user: str, packages: Iterable[str], extra: str) -> None:
    """Raise `ConfigError` unless all packages that ``user`` needs, all in one extra of mamegpt, are installed."""
    missing = join(" and ", (name for name in packages if find_spec(name) is None))
    if missing:
        raise ConfigError(
            "{user} needs {missing}, not installed; {install}",
            user=user,
            missing=missing,
            install=how_to_install(extra),
        )


class DataError(MamegptError, ValueError):
    """Text, a corpus or token shards are missing, empty, damaged or in another format."""


class HubError(DataError):
    """The Hugging Face Hub cannot be reached, or has no such repository, file or revision."""


class TokenizerError(MamegptError, ValueError):
    """A tokenizer cannot be trained on this text, cannot be read, or is not the one expected."""


class CheckpointError(MamegptError):
    """A run or checkpoint is missing, damaged, or belongs to other data, tokenizer or settings."""


class ModelError(MamegptError, ValueError):
    """Weights or a model folder are missing, truncated, unsafe to load, or contradict the sizes given."""


class TrainingError(MamegptError):
    """A run cannot continue; saved checkpoints stay as they are."""


class OutputError(MamegptError, OSError):
    """An output exists already, or its place is full or not writable."""


class ExportError(MamegptError):
    """An export, loaded again, does not behave like the original model."""
