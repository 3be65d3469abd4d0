"""The Hugging Face Hub: download files of a repository, upload a folder, and explain failures in one line."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mamegpt.errors import DataError, HubError, first_line
from mamegpt.messages import Message, msg

__all__ = ["Uploaded", "card_metadata", "is_cached", "is_hub_name", "snapshot", "upload"]

ATTEMPTS = 3
"""Attempts when the Hub is busy; the client itself retries only some of its requests."""

MAX_CARD_VALUES = 100_000
"""Most values in the front matter of a card; aliases, which repeat earlier values, can make 10**10 values of a few
lines."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_name(name: str) -> bool:
    """Return whether ``name`` has the form ``owner/name``."""
    return _HUB_NAME.fullmatch(name) is not None


def card_metadata(card: Path) -> dict[str, Any]:
    """Return the front matter of a model or dataset card; empty if it has none.

    Raises `DataError` if it is not YAML, or has more than MAX_CARD_VALUES values.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK, metadata_load
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        front = REGEX_YAML_BLOCK.search(card.read_text(encoding="utf-8-sig"))
        if front and "&" in front[2] and _n_values(front[2]) > MAX_CARD_VALUES:
            raise DataError(
                "{card}: its front matter has more than {most:,} values; shorten it", card=card, most=MAX_CARD_VALUES
            )
        return metadata_load(card) or {}
    except DataError:
        raise
    except (YAMLError, ValueError) as error:
        raise DataError(
            "{card}: its front matter is not YAML ({reason}); correct it", card=card, reason=first_line(error)
        ) from error


def _n_values(text: str) -> int:
    """Count the values of YAML text, including those that aliases repeat, without creating them."""
    import yaml

    open_: list[tuple[str | None, int]] = [(None, 0)]  # anchors of incomplete nodes, and their values
    sizes: dict[str | None, int] = {}
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, 1))
            continue
        if isinstance(event, yaml.AliasEvent):
            n = sizes.get(event.anchor, 0)
        elif isinstance(event, yaml.ScalarEvent):
            n = sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, n = open_.pop()
            sizes[anchor] = n
        else:
            continue
        open_[-1] = (open_[-1][0], open_[-1][1] + n)
    return open_[0][1]


def snapshot(
    name: str,
    patterns: Sequence[str],
    *,
    repo_type: Literal["model", "dataset"],
    revision: str = "main",
    cache_dir: str | Path | None = None,
) -> Path:
    """Return the cached folder of a repository's files that match ``patterns``, brought up to date if the Hub answers.

    Without a network, only the cache is used. ``cache_dir`` is by default huggingface_hub's own. Raises `HubError`,
    which names the files, the server, and a remedy.
    """
    from huggingface_hub import constants, errors, snapshot_download

    hub = constants.ENDPOINT
    kind = msg("dataset") if repo_type == "dataset" else msg("model")
    # Errors of the HTTP client: those of requests are OSErrors, those of httpx have this base class.
    network_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    # This small file is in every repository, so that even one with nothing else leaves a folder in the cache.
    wanted = [*patterns, ".gitattributes"]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return Path(
                snapshot_download(
                    name, repo_type=repo_type, revision=revision, cache_dir=cache_dir, allow_patterns=wanted
                )
            )
        except errors.GatedRepoError as error:
            raise HubError(
                "{name} is gated: accept its terms at {hub}, then run `hf auth login`", name=name, hub=hub
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise HubError(
                "no local file or folder {name}, and no such {kind} at {hub}; check the name, or run `hf "
                "auth login` if it is private",
                name=name,
                kind=kind,
                hub=hub,
            ) from error
        except errors.RevisionNotFoundError as error:
            raise HubError(
                "{name} at {hub} has no revision {revision}", name=name, hub=hub, revision=revision
            ) from error
        except errors.LocalEntryNotFoundError as error:
            raise HubError(
                "{name} is not a local file or folder, {hub} cannot be reached ({reason}), and the cache "
                "is incomplete; connect to the network once, or give a local path",
                name=name,
                hub=hub,
                reason=reason(error),
            ) from error
        except (network_error, errors.HFValidationError, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", 0)
            if status < 500 or attempt == ATTEMPTS:
                raise HubError(
                    "{name} cannot be fetched from {hub} ({reason}); try again",
                    name=name,
                    hub=hub,
                    reason=reason(error),
                ) from error
            time.sleep(attempt)
    raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True)
class Uploaded:
    """The ``url`` of a commit or pull request; whether the repository is ``private``, and whether it was created for
    it.
    """

    url: str
    private: bool
    is_new: bool


def is_cached(name: str, repo_type: Literal["model", "dataset"]) -> bool:
    """Return whether the cache contains part of a repository, which is then one on the Hub."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type=repo_type)).is_dir()


def upload(
    folder: Path, name: str, message: str, *, private: bool | None = None, revision: str = "", create_pr: bool = False
) -> Uploaded:
    """Upload the files of ``folder`` to the model repository ``name`` as one commit.

    Files in the repository that are not in the folder stay. A new repository is private unless ``private`` is False;
    the visibility of an existing one never changes. The commit goes to the branch ``revision`` (empty: main), created
    from main if missing, or with ``create_pr`` to a pull request against main.

    Raises `HubError`, which says what failed and what to do; also, before anything is sent, if ``private`` differs from
    the visibility of an existing repository.
    """
    from huggingface_hub import HfApi, constants, errors

    network_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        api = HfApi()
        is_new = False
        try:
            found = api.model_info(name)
        except errors.RepositoryNotFoundError:
            api.create_repo(name, private=private is not False)
            is_new, found = True, api.model_info(name)
        is_private = bool(found.private)
        if private not in (None, is_private):
            raise HubError(
                "{name} at {endpoint} is {visibility}, and --private changes no repository that exists; "
                "leave --private out, or change the repository's settings on the Hub",
                name=name,
                endpoint=constants.ENDPOINT,
                visibility=msg("private") if is_private else msg("public"),
            )
        if revision:
            api.create_branch(name, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message=message,
            revision=revision or None,
            create_pr=create_pr,
        )
        return Uploaded(commit.pr_url or commit.commit_url, is_private, is_new)
    except HubError:
        raise
    except (network_error, ValueError, OSError) as error:  # ValueError: the client refuses a name or a card
        status = getattr(getattr(error, "response", None), "status_code", 0)
        is_refused = status in (401, 403)
        advice = msg("run `hf auth login` with a token that may write there") if is_refused else msg("try again")
        raise HubError(
            "{folder} cannot be uploaded to {name} at {endpoint} ({reason}); {advice}",
            folder=folder,
            name=name,
            endpoint=constants.ENDPOINT,
            reason=reason(error),
            advice=advice,
        ) from error


def reason(error: BaseException) -> Message:
    """Return the first line of the root cause of an error, without the name of a class."""
    return Message(re.sub(r"^(Got: )?\w+Error: ", "", first_line(error.__cause__ or error)))
