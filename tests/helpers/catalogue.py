"""The catalogue of translations, made from the source: ``make messages`` runs this file.

What is translated: the templates of messages (`msg`, errors, warnings), the words of pages (``_("...")`` in their
templates), and the sentences of the help. New ones are added to ``mamegpt/locale/ja/LC_MESSAGES/mamegpt.po`` without a
translation, those that are gone are removed, and the compiled catalogue beside it is made anew.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from jinja2.ext import babel_extract

__all__ = ["MO", "PO", "compiled", "extracted", "updated"]

ROOT = Path(__file__).resolve().parents[2]
PO = ROOT / "mamegpt" / "locale" / "ja" / "LC_MESSAGES" / "mamegpt.po"
MO = PO.with_suffix(".mo")
# fmt: off
KEYWORDS = dict.fromkeys(
    [
        "msg", "show", "MamegptError", "ConfigError", "DataError", "HubError", "TokenizerError", "CheckpointError",
        "ModelError", "TrainingError", "OutputError", "ExportError",
    ]
)
# fmt: on
"""The functions and classes whose first argument is a template."""


def extracted() -> dict[str, list[str]]:
    """Return every template and every sentence of the help, with the files where it is."""
    found: dict[str, list[str]] = {}
    for text, place in [*_templates(), *_sentences()]:
        places = found.setdefault(text, [])
        if place not in places:
            places.append(place)
    return found


def _templates() -> Iterator[tuple[str, str]]:
    for path in [*sorted((ROOT / "mamegpt").rglob("*.py")), *sorted(ROOT.glob("*.py"))]:
        place = path.relative_to(ROOT).as_posix()
        for _, text, _, _ in extract("python", io.BytesIO(path.read_bytes()), KEYWORDS):
            if isinstance(text, str) and text:
                yield text, place
    for path in sorted((ROOT / "mamegpt").rglob("templates/*.html")):
        for _, text, _, _ in extract(babel_extract, io.BytesIO(path.read_bytes()), {"_": None}):
            yield str(text), path.relative_to(ROOT).as_posix()


def _sentences() -> Iterator[tuple[str, str]]:
    from help_texts import help_texts

    import mamegpt
    from mamegpt.cli.commands.registry import COMMANDS
    from mamegpt.cli.main import WAY

    yield from ((str(text), "mamegpt/cli/main.py") for text in (mamegpt.__doc__, WAY))
    for path in sorted(ROOT.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield from ((text, path.name) for text in sorted(help_texts(module.main)))
    for command in COMMANDS.values():
        yield from ((text, "mamegpt/cli/commands") for text in sorted(help_texts(command)))


def updated(catalog: Catalog) -> Catalog:
    """Return the catalogue with just the messages of the source: those that it has keep their translations."""
    new = Catalog(locale="ja", project="mamegpt", charset="utf-8", fuzzy=False)
    new.mime_headers = catalog.mime_headers
    new.header_comment = catalog.header_comment
    for text, places in sorted(extracted().items()):
        known = catalog.get(text)
        new.add(text, known.string if known else "", locations=[(place, None) for place in places])
    return new


def as_po(catalog: Catalog) -> bytes:
    """Return the text of a catalogue."""
    file = io.BytesIO()
    write_po(file, catalog, width=120, include_lineno=False, ignore_obsolete=True)
    return file.getvalue()


def compiled(catalog: Catalog) -> bytes:
    """Return what gettext reads at run time."""
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()


def main() -> None:
    """Bring the catalogue up to date, and say what is left to translate."""
    catalog = updated(read_po(PO.open("rb"), locale="ja"))
    PO.write_bytes(as_po(catalog))
    MO.write_bytes(compiled(catalog))
    missing = [message.id for message in catalog if message.id and not message.string]
    print("\n".join(["to be translated:", *map(str, missing)] if missing else ["all messages are translated"]))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    main()
