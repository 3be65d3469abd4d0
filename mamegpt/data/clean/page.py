"""A data report as a page for people: HTML in one file, in Japanese and English, light and dark; or Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from mamegpt.data.clean.counts import CleanReport, CorpusCounts, DataReport, Excerpt
from mamegpt.text.characters import CLASSES

__all__ = ["count_rows", "html_page", "markdown_page"]

N_TOP = 12
_JAPANESE = {
    "data": "データ",
    "steps": "手順",
    "read": "読んだ文書",
    "kept": "残した文書",
    "characters": "文字",
    "bytes": "バイト",
    "test items": "評価用の項目",
    "normalisation": "Unicode 正規化",
    "aozora": "青空文庫の注記",
    "markup": "マークアップ",
    "empty-brackets": "空の括弧",
    "boilerplate": "決まり文句の行",
    "personal-data": "個人情報(伏せ字)",
    "white-space": "空白",
    "repeated-lines": "くり返しの行",
    "empty": "空",
    "short": "短すぎる",
    "no-sentence-end": "文末がない",
    "not-japanese": "日本語でない",
    "repetitive": "くり返しが多い",
    "duplicates": "重複",
    "contamination": "評価データの混入",
    "near-duplicates": "ほぼ同じ文書",
    "hiragana": "ひらがな",
    "katakana": "カタカナ",
    "kanji": "漢字",
    "Latin": "ラテン文字",
    "other letters": "その他の文字",
    "digits": "数字",
    "punctuation": "句読点・記号",
    "white space": "空白",
    "other": "その他",
}
_UNITS = {" documents": " 文書", " places": " か所", " looked for": " 件を照合", " too short": " 件は短すぎて照合せず"}
_STYLE = """
:root{color-scheme:light dark;--ink:#1d1d1f;--soft:#6b6b70;--line:#d9d9de;--page:#fff;--box:#f5f5f7;
--before:#b9bcc6;--after:#2f6fb3}
@media(prefers-color-scheme:dark){:root{--ink:#ececf0;--soft:#9d9da6;--line:#3a3a40;--page:#17171a;--box:#222226;
--before:#565a66;--after:#6ea8e6}}
body{font:15px/1.6 system-ui,"Hiragino Sans","Noto Sans CJK JP","Yu Gothic UI",sans-serif;color:var(--ink);
background:var(--page);max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line)}
body:has(#ja:checked) :lang(en),body:has(#en:checked) :lang(ja):not(.text){display:none}
.soft{color:var(--soft);overflow-wrap:anywhere}.switch{float:right}
table{border-collapse:collapse;width:100%}td,th{padding:.2rem .6rem .2rem 0;text-align:left;vertical-align:top}
td+td,th+th{text-align:right;font-variant-numeric:tabular-nums}.wide td+td{text-align:left}
tr{border-bottom:1px solid var(--line)}svg{width:100%;height:auto;display:block}
svg text{fill:var(--ink);font-size:12px}svg .number{fill:var(--soft)}
.before{fill:var(--before)}.after{fill:var(--after)}
.key:before{content:"";display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .8em;background:var(--before)}
.key.new:before{background:var(--after)}
details{margin:.4rem 0}blockquote{margin:.5rem 0;padding:.5rem .8rem;background:var(--box);border-radius:.4rem;
white-space:pre-wrap;overflow-wrap:anywhere}
"""


def count_rows(cleaned: CleanReport) -> list[tuple[str, str]]:
    """Return the counts as a table of two columns."""
    report, before, after = cleaned.data, cleaned.data.before, cleaned.data.after
    rows = [("read", f"{before.n_documents:,}"), ("kept", f"{after.n_documents:,}")]
    rows += [(f"dropped, {reason}", f"{n:,}") for reason, n in report.dropped.items()]
    rows += [
        (f"edited, {name}", f"{n:,} documents, {report.edited_places[name]:,} places")
        for name, n in report.edited_documents.items()
    ]
    rows.append(("characters", f"{before.n_characters:,} -> {after.n_characters:,}"))
    rows.append(("bytes", f"{before.n_bytes:,} -> {after.n_bytes:,}"))
    if cleaned.n_items or cleaned.n_items_too_short:
        rows.append(("test items", f"{cleaned.n_items:,} looked for, {cleaned.n_items_too_short:,} too short"))
    return rows


def html_page(cleaned: CleanReport) -> str:
    """Return the whole page; all text of documents is escaped."""
    report = cleaned.data
    legend = (
        f'<p><span class="key">{_both("前", "before")}</span><span class="key new">{_both("後", "after")}</span></p>'
    )
    parts = [
        '<!doctype html><html lang="mul"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>mamegpt data report</title><style>{_STYLE}</style></head><body>",
        '<div class="switch"><label><input type="radio" name="lang" id="ja" checked> 日本語</label> ',
        '<label><input type="radio" name="lang" id="en"> English</label></div>',
        f"<h1>{_both('データの報告', 'Data report')}</h1>",
        *(f'<p class="soft">{_label(name)}: {escape(value)}</p>' for name, value in cleaned.settings.items()),
        _heading("数", "Counts"),
        "<table>",
        *(f"<tr><td>{_label(name)}</td><td>{_value(value)}</td></tr>" for name, value in count_rows(cleaned)),
        "</table>",
        _heading("文書の長さ(文字数)", "Length of documents (characters)"),
        legend,
        _bars(_length_rows(report), per_cent=False),
        _heading("文字の種類", "Classes of characters"),
        legend,
        _bars(_class_rows(report), per_cent=True),
    ]
    if report.repeated:
        parts += [
            _heading("多かった重複(除いた数)", "Most frequent duplicates (copies removed)"),
            '<table class="wide">',
        ]
        parts += [
            f'<tr><td>{n:,}</td><td class="text" lang="ja">{escape(text)}</td></tr>'
            for text, n in report.repeated.most_common(N_TOP)
        ]
        parts.append("</table>")
    parts.append(_heading("残した文書の例", "Samples of what was kept"))
    parts += map(_sample, report.samples[""])
    parts.append(_heading("落とした文書の例", "Samples of what was dropped"))
    for reason, n in report.dropped.items():
        if n:
            parts.append(f"<details open><summary>{_label(reason)} ({n:,})</summary>")
            parts += [*map(_sample, report.samples[reason]), "</details>"]
    return "\n".join([*parts, "</body></html>", ""])


def markdown_page(cleaned: CleanReport) -> str:
    """Return the same as Markdown, in English; text of documents stands in quotations."""
    report, settings = cleaned.data, cleaned.settings
    parts = ["# Data report", *(f"{name}: {value}  " for name, value in settings.items()), "", "## Counts", ""]
    parts += _markdown_table(("what", "count"), count_rows(cleaned))
    parts += ["", "## Length of documents (characters)", ""]
    parts += _markdown_table(
        ("characters", "before", "after"), [(name, f"{a:,.0f}", f"{b:,.0f}") for name, a, b in _length_rows(report)]
    )
    parts += ["", "## Classes of characters", ""]
    parts += _markdown_table(
        ("class", "before", "after"), [(name, f"{a:.2%}", f"{b:.2%}") for name, a, b in _class_rows(report)]
    )
    if report.repeated:
        parts += ["", "## Most frequent duplicates (copies removed)", ""]
        top = report.repeated.most_common(N_TOP)
        parts += _markdown_table(("copies", "text"), [(f"{n:,}", _one_line(text)) for text, n in top])
    samples = {"kept": report.samples[""]}
    samples |= {f"dropped, {reason}": report.samples[reason] for reason, n in report.dropped.items() if n}
    for name, shown in samples.items():
        parts += ["", f"## Samples: {name}", ""]
        for sample in shown:
            why = f" ({_one_line(sample.detail)})" if sample.detail else ""
            parts += [f"> **{_one_line(sample.title)}**{why} {_one_line(sample.text)}", ""]
    return "\n".join([*parts, ""])


def _length_rows(report: DataReport) -> list[tuple[str, float, float]]:
    """(range of lengths, documents before, documents after), from the shortest to the longest there are."""
    before, after = report.before.lengths, report.after.lengths
    powers = range(min(before, default=0), max([*before, *after], default=0) + 1)
    return [(f"{2**k if k else 0:,}-{2 ** (k + 1) - 1:,}", before[k], after[k]) for k in powers]


def _class_rows(report: DataReport) -> list[tuple[str, float, float]]:
    """(class, share of characters before, share after)."""

    def share(corpus: CorpusCounts, name: str) -> float:
        return corpus.classes[name] / max(1, corpus.n_characters)

    return [(name, share(report.before, name), share(report.after, name)) for name in CLASSES]


def _bars(rows: Sequence[tuple[str, float, float]], *, per_cent: bool) -> str:
    """Two bars a row, before and after, as SVG."""
    top = max((max(a, b) for _, a, b in rows), default=0) or 1
    height, left, width = 30, 150, 560
    parts = [f'<svg viewBox="0 0 860 {height * len(rows)}" role="img">']
    for i, (name, a, b) in enumerate(rows):
        y = i * height
        numbers = f"{a:.2%} → {b:.2%}" if per_cent else f"{a:,.0f} → {b:,.0f}"
        parts += [
            f'<text x="0" y="{y + 18}">{_svg_label(name)}</text>',
            f'<rect class="before" x="{left}" y="{y + 4}" width="{width * a / top:.1f}" height="10" rx="2"/>',
            f'<rect class="after" x="{left}" y="{y + 15}" width="{width * b / top:.1f}" height="10" rx="2"/>',
            f'<text class="number" x="{left + width * max(a, b) / top + 8:.1f}" y="{y + 18}">{numbers}</text>',
        ]
    return "".join([*parts, "</svg>"])


def _svg_label(name: str) -> str:
    """Both languages, of which the style shows one."""
    if name not in _JAPANESE:
        return escape(name)
    return f'<tspan lang="ja">{_JAPANESE[name]}</tspan><tspan lang="en">{escape(name)}</tspan>'


def _sample(sample: Excerpt) -> str:
    """One document, escaped, with what there is to say about it."""
    why = f' <span class="soft">{escape(sample.detail)}</span>' if sample.detail else ""
    return f'<blockquote class="text" lang="ja"><b>{escape(sample.title)}</b>{why}\n{escape(sample.text)}</blockquote>'


def _both(japanese: str, english: str) -> str:
    return f'<span lang="ja">{japanese}</span><span lang="en">{english}</span>'


def _heading(japanese: str, english: str) -> str:
    return f"<h2>{_both(japanese, english)}</h2>"


def _label(row: str) -> str:
    """Return the name of a count in both languages: "kept", "dropped, short", "edited, markup"."""
    what, _, name = row.rpartition(", ")
    doing = {"dropped": "除いた: ", "edited": "直した: ", "": ""}[what]
    return _both(doing + _JAPANESE.get(name, name), escape(row))


def _value(value: str) -> str:
    """Return a count with its unit in both languages."""
    japanese = value
    for english, unit in _UNITS.items():
        japanese = japanese.replace(english, unit)
    return escape(value) if japanese == value else _both(escape(japanese), escape(value))


def _markdown_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [names, ["---"] * len(names), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _one_line(text: str) -> str:
    """On one line, and nothing in it that Markdown would take for HTML."""
    return escape(" ".join(text.split()), quote=False)
