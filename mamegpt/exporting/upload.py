"""Upload an exported folder to a repository on the Hub, or describe what would be uploaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mamegpt.errors import ConfigError
from mamegpt.system.files import sha256_file
from mamegpt.system.hub import is_hub_name, upload
from mamegpt.system.outputs import CARD

__all__ = ["COMMIT_MESSAGE", "Push", "Upload", "UploadedFile", "upload_folder"]

COMMIT_MESSAGE = "Upload model (mamegpt export)"


@dataclass(frozen=True)
class Push:
    """The destination of an upload: a ``repository`` (``owner/name``; empty: none), its branch ``revision`` (empty:
    main).

    ``create_pr`` opens a pull request against main instead. ``private`` applies to a repository that does not exist yet
    (None: private). With ``dry_run`` nothing is sent.

    Raises `ConfigError` for an invalid name of a repository, for settings without a repository, and for a pull request
    against another branch, which the Hub's client does not support.
    """

    repository: str = ""
    private: bool | None = None
    revision: str = ""
    create_pr: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.repository and not is_hub_name(self.repository):
            raise ConfigError(
                "--push must be a name on the Hub, owner/name (got {repository})", repository=self.repository
            )
        if self.dry_run and not self.repository:
            raise ConfigError("--dry-run shows what --push would upload; add --push owner/name")
        idle = [
            option
            for option, is_given in (
                ("--private", self.private is not None),
                ("--revision", bool(self.revision)),
                ("--create-pr", self.create_pr),
            )
            if is_given and not self.repository
        ]
        if idle:
            raise ConfigError("leave out {names}, which would do nothing without --push", names=", ".join(idle))
        if self.create_pr and self.revision:
            raise ConfigError(
                "--create-pr is a pull request against main; leave --revision {revision} out", revision=self.revision
            )


@dataclass(frozen=True)
class UploadedFile:
    """A file and its name in the folder."""

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Upload:
    """Result of an upload, or of a dry run: the files, and the text of the model card.

    ``url`` is that of the commit or the pull request; empty if nothing was sent. ``private`` is whether the repository
    is private (in a dry run: whether a new one would be), ``is_new`` whether it was created.
    """

    repository: str
    files: list[UploadedFile]
    card: str
    private: bool
    revision: str = ""
    create_pr: bool = False
    url: str = ""
    is_new: bool = False


def upload_folder(out: Path, push: Push) -> Upload:
    """Upload an exported folder as one commit, or only find out what would be uploaded.

    Raises `HubError` if it cannot be uploaded.
    """
    files = [
        UploadedFile(path.relative_to(out).as_posix(), path.stat().st_size, sha256_file(path))
        for path in sorted(out.rglob("*"))
        if path.is_file()
    ]
    card = (out / CARD).read_text(encoding="utf-8")
    planned = Upload(push.repository, files, card, push.private is not False, push.revision, push.create_pr)
    if push.dry_run:
        return planned
    done = upload(
        out, push.repository, COMMIT_MESSAGE, private=push.private, revision=push.revision, create_pr=push.create_pr
    )
    return replace(planned, private=done.private, url=done.url, is_new=done.is_new)
