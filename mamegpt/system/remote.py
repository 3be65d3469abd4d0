"""Files at URLs: fetched into a cache by fsspec, once per version; failures are explained in one line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from mamegpt.errors import DataError, MamegptError, how_to_install
from mamegpt.messages import msg
from mamegpt.system.files import atomic_directory
from mamegpt.system.hub import reason

__all__ = ["fetch", "is_url"]

TIMEOUT_S = 60
"""Seconds to wait for a connection, or for the next bytes; the whole download has no limit."""
_URL = re.compile(r"[A-Za-z][\w+.-]+(::|://)")
_NO_VERSION = {"name", "url", "partial", "mimetype", "size", "type"}
"""Properties of a file that may stay the same when it changes, or change when it does not."""


def is_url(name: str) -> bool:
    """Return whether a name has the form of a URL (``https://…``), or of a chain of file systems (``zip::…``)."""
    return _URL.match(name) is not None


def fetch(url: str, is_wanted: Callable[[str], bool], cache_dir: str | Path | None = None) -> tuple[Path, str]:
    """Fetch the wanted files at a URL into the cache; return the path there, and the pattern below it ("" without one).

    ``url`` is a file, a folder or a pattern, in any file system that fsspec opens; in an HTTP URL ``?`` begins the
    query. Hidden files are left out. Cached files are fetched again only if the server reports a change, or does not
    report versions. ``cache_dir`` is by default huggingface_hub's folder for other files (``HF_ASSETS_CACHE``).

    Raises `DataError`, which says what failed and what to do.
    """
    from huggingface_hub import cached_assets_path

    with _fetching(url):
        system, found, is_file, pattern = _listing(url)
    files = {name: about for name, about in sorted(found.items()) if is_wanted(name)}
    if not files:
        raise DataError("{url} holds no file in a known format; check the address", url=url)
    versions = [sorted((k, repr(v)) for k, v in about.items() if k not in _NO_VERSION) for about in files.values()]
    sizes = [(name, about.get("size")) for name, about in files.items()]
    folder = cached_assets_path("mamegpt", "remote", _digest(url), assets_dir=cache_dir) / _digest((sizes, versions))
    if not folder.is_dir() or not all(versions):
        with atomic_directory(folder, overwrite=True) as new:
            for name, about in files.items():
                path = new / name
                if not path.resolve().is_relative_to(new.resolve()):
                    raise DataError(
                        "{url} lists {name!r}, which leads out of its folder; name the files to read",
                        url=url,
                        name=name,
                    )
                path.parent.mkdir(parents=True, exist_ok=True)
                with _fetching(url):
                    _download(system, about, path)
    return (folder / next(iter(files)) if is_file else folder), pattern


def _listing(url: str) -> tuple[Any, dict[str, dict[str, Any]], bool, str]:
    """Return a URL's file system, the properties of its files by name, whether it is a single file, and the pattern."""
    import fsspec

    is_http = url.lower().startswith(("http://", "https://"))
    options: dict[str, Any] = {}
    if is_http:
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
        options = {"client_kwargs": {"trust_env": True, "timeout": limits}}  # use proxies from the environment
    system, path = fsspec.core.url_to_fs(url, **options)
    system.invalidate_cache()  # the listings of an earlier call

    def parts(place: str) -> tuple[str, ...]:
        """Return the names in a path, for HTTP without host and query."""
        return PurePosixPath(unquote(urlsplit(place).path) if is_http else place).parts

    magic = set("*[" if is_http else "*?[")
    asked = parts(path)
    n_fixed = next((i for i, part in enumerate(asked) if magic & set(part)), len(asked))
    pattern = "/".join(asked[n_fixed:])
    if pattern:
        found = system.glob(path, detail=True)
    else:
        about = system.info(path)
        if about["type"] == "directory":
            found = system.find(path, detail=True)
        else:
            return system, {asked[-1] if asked else "": about}, True, ""
    names = {"/".join(parts(place)[n_fixed:]): about for place, about in found.items() if about["type"] == "file"}
    hidden = {name for name in names if any(part.startswith(".") and part != ".." for part in name.split("/"))}
    return system, {name: about for name, about in names.items() if name not in hidden}, False, pattern


def _download(system: Any, about: dict[str, Any], path: Path) -> None:
    """Download one file, with a progress bar on a terminal. Raises `OSError` if it is shorter than announced."""
    from fsspec.callbacks import TqdmCallback
    from huggingface_hub.utils.tqdm import tqdm

    bar = {"desc": path.name, "unit": "B", "unit_scale": True, "disable": None}
    with TqdmCallback(bar, tqdm_cls=tqdm) as callback:
        system.get_file(about["name"], str(path), callback=callback)
    size, here = about.get("size"), path.stat().st_size
    if size is not None and size != here:
        raise OSError(msg("{here:,} of {size:,} bytes came", here=here, size=size))


@contextmanager
def _fetching(url: str) -> Iterator[None]:
    """Turn errors of fetching into a `DataError` with the reason."""
    try:
        yield
    except MamegptError:
        raise
    except ImportError as error:
        raise DataError(
            "{url} needs a package that is not installed ({reason}); install it; for https://, {install}",
            url=url,
            reason=reason(error),
            install=how_to_install("remote"),
        ) from error
    except Exception as error:  # each file system has its own errors
        is_absent = isinstance(error, FileNotFoundError) and error.__cause__ is None
        said = msg("there is no such file or folder") if is_absent else reason(error)
        raise DataError(
            "{url} cannot be fetched ({reason}); check the address, your access and the network", url=url, reason=said
        ) from error


def _digest(value: object) -> str:
    """Return a name for a value that does not reveal it."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:24]
