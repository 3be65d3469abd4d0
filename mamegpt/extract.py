"""Cut a topic out of a corpus: the documents that mention a keyword, cleaned, once each, in one text file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mamegpt.errors import ConfigError, DataError, OutputError
from mamegpt.files import atomic_write, refuse_existing
from mamegpt.sources import Document, read_documents
from mamegpt.text import dedup_key, fold, format_article, matches, normalise

__all__ = ["ExtractReport", "extract"]

PROGRESS_EVERY_DOCUMENTS = 1000


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What `extract` did: documents read, kept and dropped (by reason), and the size of what it wrote."""

    read: int
    kept: int
    dropped: dict[str, int]
    n_characters: int
    n_bytes: int
    out: Path
    elapsed_s: float

    def table(self) -> str:
        """Return the report as aligned lines of plain text."""
        counts = {"read": self.read, "kept": self.kept}
        counts |= {f"dropped, {reason}": count for reason, count in self.dropped.items()}
        counts |= {"characters": self.n_characters, "bytes": self.n_bytes}
        label, number = max(map(len, counts)), max(len(f"{count:,}") for count in counts.values())
        lines = [f"{name:<{label}}  {count:>{number},}" for name, count in counts.items()]
        return "\n".join([*lines, f"wrote {self.out} in {self.elapsed_s:.1f} s"])


def extract(
    dataset: str,
    split: str,
    keyword: str,
    out: Path,
    overwrite: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> ExtractReport:
    """Write the documents of ``dataset`` that mention ``keyword`` to ``out``, in `format_article`'s format.

    ``dataset`` and ``split`` are as in `read_documents`. Titles and texts are brought to NFC (`normalise`);
    texts lose the line feeds at both ends. The keyword is looked for in both without regard to width and case
    (`fold`), so ﾌｧﾐｺﾝ finds ファミコン. Each document that is left out has one reason, counted in the report:
    ``empty`` (only white space), ``no keyword``, or ``duplicate`` (the same text was written already, but for
    width, case and white space).

    ``out`` appears whole or not at all. A file that is there is replaced, so that the same command can be run
    again, but only when the new one is complete: a run that fails or is interrupted leaves the old one. With
    ``overwrite=False`` an existing ``out`` is refused. ``on_progress(read, kept)`` is called every 1,000
    documents and at the end.

    Raises `ConfigError` for an empty keyword, `OutputError` if ``out`` cannot be written, and `DataError` if
    the corpus cannot be read or nothing in it matches.
    """
    out = Path(out)
    start_s = time.perf_counter()
    folded_keyword = fold(keyword)
    if not folded_keyword.strip():
        raise ConfigError("--keyword is empty, which every text contains; give a word to look for")
    if out.is_dir():
        raise OutputError(f"{out} is a folder; give the name of a file to write")
    if not overwrite:
        refuse_existing(out)
    documents = read_documents(dataset, split)

    read, kept, n_characters, n_bytes = 0, 0, 0, 0
    dropped = {"empty": 0, "no keyword": 0, "duplicate": 0}
    seen: set[bytes] = set()
    try:
        with atomic_write(out) as file:
            for document in documents:
                read += 1
                article, reason = _article(document, folded_keyword, seen)
                if reason:
                    dropped[reason] += 1
                else:
                    kept += 1
                    file.write(article)
                    n_characters += len(article)
                    n_bytes += len(article.encode("utf-8"))
                if on_progress and read % PROGRESS_EVERY_DOCUMENTS == 0:
                    on_progress(read, kept)
            if not kept:
                raise DataError(
                    f"none of the {read:,} documents of {dataset} ({split}) has the keyword {keyword!r}; "
                    f"try a shorter one ({out} was not touched)"
                )
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror or error}); choose another place") from error
    if on_progress:
        on_progress(read, kept)
    return ExtractReport(read, kept, dropped, n_characters, n_bytes, out, time.perf_counter() - start_s)


def _article(document: Document, folded_keyword: str, seen: set[bytes]) -> tuple[str, str]:
    """Return (what to write, "") or ("", why not), and remember in ``seen`` what was written."""
    title, text = normalise(document.title), normalise(document.text).strip("\n")
    if not text.strip():
        return "", "empty"
    if not (matches(title, folded_keyword) or matches(text, folded_keyword)):
        return "", "no keyword"
    key = dedup_key(text)
    if key in seen:
        return "", "duplicate"
    seen.add(key)
    return format_article(title, text), ""
