"""A local page to write with the models there are, and the same over an API that OpenAI's clients speak."""

from __future__ import annotations

from collections.abc import Sequence

from mamegpt.errors import ConfigError

__all__ = ["play"]


def play(models: Sequence[str], host: str, port: int) -> None:
    """Serve until Ctrl-C; see `mamegpt.playground.server.serve`, which says what is raised besides.

    Raises `ConfigError` if the libraries of the extra "play" are missing.
    """
    try:
        from mamegpt.playground.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(f"{error.name} is not installed; install it with: pip install 'mamegpt[play]'") from None
    serve(models, host, port)
