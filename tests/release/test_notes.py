"""The notes of a release are its section of the changelog, if the tag and the section are those of this version."""

import pytest
from little import ROOT

import mamegpt
from release.notes import notes

VERSION = mamegpt.__version__
CHANGES = f"# Changes\n\n## {VERSION} (2026-12-24)\n\n- One.\n- Two.\n\n## 0.0.1 (2025-01-01)\n\n- Zero.\n"


def test_they_are_the_section_of_the_version() -> None:
    assert notes(f"v{VERSION}", CHANGES) == "- One.\n- Two.\n"


@pytest.mark.parametrize(
    ("tag", "changes", "reason"),
    [
        ("v0.0.1", CHANGES, "the package's version is"),
        (f"v{VERSION}", CHANGES.replace("2026-12-24", "not released"), "needs a section"),
        (f"v{VERSION}", "# Changes\n", "needs a section"),
    ],
)
def test_another_version_or_one_without_a_date_is_refused(tag: str, changes: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        notes(tag, changes)


def test_the_changelog_has_a_section_of_this_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    text = notes(f"v{VERSION}", changes.replace("(not released)", "(2026-12-24)"))
    assert text.startswith("- The five scripts")
