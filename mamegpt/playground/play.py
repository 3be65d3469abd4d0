"""A local page to write with the models there are, and the same over an API that OpenAI's clients speak."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mamegpt.errors import ConfigError

if TYPE_CHECKING:  # its libraries may be missing
    from mamegpt.playground.server import Serving

__all__ = ["play"]


def play(models: Sequence[str], host: str, port: int, on_event: Callable[[Serving], None] = lambda _: None) -> None:
    """Serve until Ctrl-C; see `mamegpt.playground.server.serve`, which says what is raised besides.

    Raises `ConfigError` if the libraries of the extra "play" are missing.
    """
    try:
        from mamegpt.playground.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(f"{error.name} is not installed; install it with: pip install 'mamegpt[play]'") from None
    serve(models, host, port, on_event)
