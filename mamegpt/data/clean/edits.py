"""Edits that remove unwanted parts of one text. Each is a pure function ``str -> (str, number of places)``.

An edit removes marks but keeps word boundaries: where a tag, a control character or a template separated words, a line
feed or a space remains. Escaped markup is not parsed: ``&lt;br&gt;`` is text about a tag. The edits prefer precision to
recall; everything they removed from 26 million characters of real text was reviewed (docs/log.md).
"""

from __future__ import annotations

import html
import html.entities
import re
from collections import Counter
from collections.abc import Callable, Iterable

from mamegpt.text.normalize import normalize

__all__ = [
    "BLOCK_TAGS",
    "EDITS",
    "drop_aozora",
    "drop_boilerplate",
    "drop_empty_brackets",
    "drop_markup",
    "edit",
    "mask_personal_data",
    "tidy_space",
]

# ---------------------------------------------------------------- markup

# Soft hyphen, zero-width space, direction marks, word joiner, byte order mark, C0 and C1 controls but the breaks. Not
# U+200C and U+200D, with which some scripts and emoji are written.
_INVISIBLE = re.compile("[\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]+")
_BREAKS = re.compile("[\x0b\x0c\x1c-\x1f\x85]+")  # vertical tab, form feed, separators, next line

# Tags to remove. Not every <…> is one: <NHK> and <AA+> are text.
_BLOCKS = (
    "blockquote|br|center|dd|div|dl|dt|gallery|h1|h2|h3|h4|h5|h6|hr|li|ol|p|pre|references|section|table|tbody|tr|ul"
)
BLOCK_TAGS = frozenset(_BLOCKS.split("|"))
"""Tags that begin a line."""
_INLINE = (
    "a|abbr|b|big|cite|code|del|em|font|i|includeonly|ins|kbd|math|noinclude|nowiki|onlyinclude|q|rb|ref|ruby|s|"
    "small|span|strike|strong|sub|sup|tt|u|var"
)
_IN_TAG = r"(?:\s[^<>\n]{0,300})?"


def _tag(names: str) -> str:
    return rf"</?(?:{names}){_IN_TAG}/?>"


def _break(found: re.Match[str]) -> str:
    """Return a line feed, but not after another or at the ends of the text."""
    return "" if _neighbors(found)[0] == "\n" or found.end() == len(found.string) else "\n"


def _gap(found: re.Match[str]) -> str:
    """Return a space, but not at the ends of a line."""
    return "" if "\n" in _neighbors(found) else " "


def _join(found: re.Match[str]) -> str:
    """Return "", or a space between two words of ASCII letters or digits."""
    before, after = _neighbors(found)
    return " " if all(side.isascii() and side.isalnum() for side in (before, after)) else ""


def _neighbors(found: re.Match[str]) -> tuple[str, str]:
    """Return the characters before and after a match, a line feed at the ends of the text."""
    text, start, end = found.string, found.start(), found.end()
    return text[start - 1] if start else "\n", text[end] if end < len(text) else "\n"


_Edit = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_MARKS: list[_Edit] = [
    (re.compile(r"<!--[^\n]{0,2000}?-->"), ""),
    (re.compile(rf"<ref{_IN_TAG}(?<!/)>[^<>\n]{{0,2000}}</ref>", re.I), _join),
    (re.compile(rf"<rp{_IN_TAG}>[^<>\n]{{0,20}}</rp>", re.I), ""),
    (re.compile(rf"<rt{_IN_TAG}>([^<>\n]{{0,200}})</rt>", re.I), r"（\1）"),  # ruby: a reading, as it is printed
    (re.compile(rf"{_tag(_BLOCKS)}(?:[ \t\n]*{_tag(_BLOCKS)})*\n?", re.I), _break),
    (re.compile(rf"{_tag('td|th')}(?:[ \t]*{_tag('td|th')})*", re.I), _gap),
    (re.compile(_tag("img|rp|rt"), re.I), _join),
    (re.compile(_tag(_INLINE), re.I), ""),
    (re.compile(r"\{\{[^{}\n]{0,500}\}\}"), _join),
    (re.compile(r"\[\[(?:ファイル|画像|カテゴリ|File|Image|Category):[^\[\]\n]*\]\]", re.I), _join),
    (re.compile(r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]|\n]*)\]\]"), r"\1"),
    (re.compile(r"'{3,5}"), ""),
    (re.compile(r"^={2,6}[ \t]?([^=\n]{1,200}?)[ \t]?={2,6}$", re.M), r"\1"),
    # Marks of footnotes, after Japanese only: a[1] is code.
    (re.compile(r"(?<=[^\x00-\x7f])\[(?:[1-9]\d{0,2}|注釈? ?[1-9]\d{0,2}|要出典|編集|出典無効|要検証)\]"), ""),
]
_REFERENCE = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|([A-Za-z][A-Za-z0-9]{1,30}));")


def drop_markup(text: str) -> tuple[str, int]:
    """Remove HTML tags, wiki markup, footnote marks and invisible characters; resolve character references.

    Block tags and line-breaking controls become line feeds, table cells are separated by a space, and ruby readings are
    put in （）. In a line whose references would become markup, references to ASCII characters stay as they are.
    """
    text, n = _apply([(_INVISIBLE, ""), (_BREAKS, "\n")], text)
    while True:
        text, count = _apply(_MARKS, text)
        n += count
        if not count:
            break
    if "&" not in text:
        return text, n
    lines = text.split("\n")
    read = [_read_references(line) if "&" in line else (line, 0) for line in lines]
    return "\n".join(line for line, _ in read), n + sum(count for _, count in read)


def _read_references(line: str) -> tuple[str, int]:
    """Resolve the character references in a line: all, or only some kinds if others would create markup."""
    n = _n_references(line)
    for character in (_character, _non_ascii):
        read, count = _replace(_REFERENCE, character, line, 0)
        if _n_references(read) == n - count and not any(mark.search(read) for mark, _ in _MARKS):
            return read, count
    return line, 0


def _n_references(line: str) -> int:
    return sum(_character(found) != found[0] for found in _REFERENCE.finditer(line))


def _character(reference: re.Match[str]) -> str:
    """Return the character that ``&amp;`` or ``&#38;`` stands for; a name that HTML lacks stays as it is."""
    if reference[1] and f"{reference[1]};" not in html.entities.html5:
        return reference[0]
    return _BREAKS.sub("\n", _INVISIBLE.sub("", html.unescape(reference[0]).replace("\r", "\n")))


def _non_ascii(reference: re.Match[str]) -> str:
    """Return the same, except that references to ASCII characters stay as they are."""
    character = _character(reference)
    return reference[0] if character.isascii() else character


# ---------------------------------------------------------------- Aozora Bunko

# Source: the archive's manual of notes, https://www.aozora.gr.jp/annotation/. 《》 alone are no sign of it: they are
# also brackets of titles, so without a note or ｜ all of at least three must be readings in kana after kanji.
_NOTE = r"［＃[^［］\n]*］"
_RUBY = re.compile(r"(?<=\S)《[^《》\n]*》")
_KANA_RUBY = re.compile(r"(?<=[々〆一-鿿𠀀-𳍿])《[ぁ-ゖー]+》")
_LEGEND = re.compile(r"^-{20,}\n【テキスト中に現れる記号について】\n(?:.*\n)*?-{20,}$\n?", re.M)
# Its last line is the same in nearly all works; another work may follow in the file.
_COLOPHON = re.compile(r"^底本：.*\n(?=(?:.*\n)*?入力：)(?:[\s\S]*?^このファイルは、.*青空文庫.*\n?|[\s\S]*\Z)", re.M)
_BASE = re.compile(r"｜([^｜《》「」『』。\n]{1,40})(?=《[^《》\n]+》)")
_GAIJI = re.compile(r"※［＃[^［］\n]*?(?:U\+([0-9A-Fa-f]{4,5})|([12])-(\d{1,2})-(\d{1,2}))(?:、[^［］\n]*)?］")
_NOTES: list[_Edit] = [
    (_LEGEND, ""),
    (_COLOPHON, ""),
    (_GAIJI, lambda found: _gaiji(found)),
    (re.compile(rf"^(?:{_NOTE})+\n", re.M), ""),
    (re.compile(_NOTE), _join),
    (_BASE, r"\1"),
    (_RUBY, _join),
]


def drop_aozora(text: str) -> tuple[str, int]:
    """Remove the notation of Aozora Bunko: ruby, notes, the list of signs and the colophon.

    A note on a character that JIS X 0208 lacks becomes that character if it names its code; else ※ stays. A text
    without this notation stays as it is.
    """
    if not _is_aozora(text):
        return text, 0
    n = 0
    while True:
        text, count = _apply(_NOTES, text)
        n += count
        if not count:
            return text, n


def _is_aozora(text: str) -> bool:
    if "［＃" in text or _LEGEND.search(text) or _COLOPHON.search(text):
        return True
    n_ruby = text.count("《")
    return n_ruby > 0 and (bool(_BASE.search(text)) or 3 <= n_ruby == len(_KANA_RUBY.findall(text)))


def _gaiji(note: re.Match[str]) -> str:
    """Return the character that a note names by code point or by plane, row and cell of JIS X 0213; else ※."""
    if note[1]:
        return chr(int(note[1], 16))
    plane, row, cell = (int(number) for number in note.groups()[1:])
    code = bytes([0x8F] * (plane - 1) + [0xA0 + row % 95, 0xA0 + cell % 95])
    return code.decode("euc_jis_2004", "ignore") or "※"


# ---------------------------------------------------------------- brackets

# Empty ones are removed only after a letter other than の, and not before 内 or a particle: 「」 で囲む, 文中の（）,
# 〔〕内 are about the bracket itself, and 「　」 with a space is an intended blank.
_BRACKETS: list[_Edit] = [
    (re.compile(r"（[ァ-ヶー一-鿿]{1,8}語[ 　]?[:：][ 　]*）"), _join),  # （朝鮮語：）
    (re.compile(r"（[ 　]*[、，,][ 　]*(?=[^ 　、，,）])"), "（"),  # （、1867年） -> （1867年）
    (re.compile(r"(?<=[\w」』）”])(?<!の)（[ 　、，,;；:：・]*）(?!内)"), _join),
    (re.compile(r"(?<=[^\x00-\x7f])(?<!の)\([ 　、，,;；:：・]*\)(?!内)"), _join),
    (re.compile(r"(?<=[^\x00-\x7f])\[\]"), _join),
    (re.compile(r"「」(?![ぁ-ん内])|『』(?![ぁ-ん内])|(?:【】|〔〕|［］)(?!内)"), _join),
]


def drop_empty_brackets(text: str) -> tuple[str, int]:
    """Remove brackets that removed templates left empty, and a comma at the beginning of a bracket."""
    return _apply(_BRACKETS, text)


# ---------------------------------------------------------------- boilerplate

_NAVIGATION = (
    "続きを読む|続きをみる|続きを見る|もっと見る|すべて見る|一覧(?:へ|に)戻る|(?:ページ(?:の)?)?(?:トップ|先頭)(?:へ|に)(?:戻る)?|"
    "ページトップ|トップページ(?:へ(?:戻る)?)?|前の(?:ページ|記事)(?:へ)?|次の(?:ページ|記事)(?:へ)?|ツイート(?:する)?|シェア(?:する)?|"
    "LINEで送る|はてなブックマーク|はてブ|印刷(?:する)?|ログイン|ログアウト|会員登録|新規登録|無料会員登録|サイトマップ|お問い?合わ?せ|"
    "プライバシーポリシー|利用規約|特定商取引法に基づく表[記示]|コメント[ 　]?[(（]\\d+[)）]|"
    "トラックバック(?:[ 　]?[(（]\\d+[)）])?|"
    "この記事のトラックバックURL|スポンサー(?:ド)?リンク|Tweet|Share|Read more|Home|Menu|Login"
)
_BOILERPLATE = re.compile(
    "|".join(
        [
            rf"[»≫>＞→▲△▼▽◀▶◁▷\[\]［］|｜・ 　]*(?:{_NAVIGATION})[»≫>＞→▲△▼▽◀▶◁▷\[\]［］|｜・ 　]*",
            r"(?:この(?:項目|記事)は、?)?.{0,60}書きかけの(?:項目|記事)です。.{0,120}",
            r"ウィキ(?:メディア・?コモンズ|ニュース|クォート|ソース|ブックス|データ|トラベル|バーシティ)に(?:は|、).{1,80}(?:あります|います)。",
            r"(?:Copyright|©|\([cC]\) ?(?:19|20)\d\d).{0,120}|.{0,100}\bAll [Rr]ights [Rr]eserved\.?",
            r"(?:ファイル|画像|File|Image):[^\n]{1,100}\.(?:jpe?g|png|gif|svg|JPE?G|PNG|GIF|SVG)",
        ]
    )
)
_LAST_HEADINGS = {
    "脚注",
    "注釈",
    "注",
    "出典",
    "参考文献",
    "参照",
    "関連項目",
    "関連文献",
    "関連書籍",
    "関連記事",
    "外部リンク",
    "画像",
    "ギャラリー",
}


def drop_boilerplate(text: str) -> tuple[str, int]:
    """Remove whole lines of boilerplate, and headings without text below."""
    lines = text.split("\n")
    kept = [line for line in lines if not _BOILERPLATE.fullmatch(line.strip())]
    while kept and (not kept[-1].strip() or kept[-1].strip() in _LAST_HEADINGS):
        kept.pop()
    n = _count_nonblank(lines) - _count_nonblank(kept)
    return ("\n".join(kept), n) if n else (text, 0)


def _count_nonblank(lines: Iterable[str]) -> int:
    return sum(1 for line in lines if line.strip())


# ---------------------------------------------------------------- personal data

_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}[@＠](?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_MAIL_MASK = "xxx@example.com"  # a name that is kept free for examples (RFC 2606)
_DASH = "[-‐‑‒–—−－ー]"
_PHONE = re.compile(
    rf"(?<![\d.\-－])(?:[(（]?[0０][1-9１-９]\d{{0,3}}(?:{_DASH}|[)）]{_DASH}?|[(（])\d{{1,4}}(?:{_DASH}|[)）])\d{{3,4}}"
    rf"|[+＋]81{_DASH}?\d{{1,4}}{_DASH}\d{{1,4}}{_DASH}\d{{4}}|0[789]0\d{{8}})(?![\d]|{_DASH}\d)"
)
_POSTAL = re.compile(rf"(?:〒|郵便番号)[ 　:：]?\d{{3}}{_DASH}?\d{{4}}(?!\d)")
_DIGIT = re.compile(r"\d")


def mask_personal_data(text: str) -> tuple[str, int]:
    """Replace the digits of Japanese telephone numbers and postal codes by zeros, and mail addresses by one mask.

    A telephone number must have its area code in brackets or dashes, and ten digits, or eleven if it is a mobile or IP
    number (numbering plan of the Ministry of Internal Affairs). A postal code must follow 〒 or 郵便番号.
    """
    n = 0
    if "@" in text or "＠" in text:
        text, n = _replace(_MAIL, lambda _: _MAIL_MASK, text, n)
    text, n = _replace(_POSTAL, lambda found: _zeros(found[0]), text, n)
    return _replace(_PHONE, _masked_phone, text, n)


def _masked_phone(found: re.Match[str]) -> str:
    digits = "".join(str(int(digit)) for digit in _DIGIT.findall(found[0]))
    if found[0][0] in "+＋":
        is_phone = len(digits) in (11, 12)  # 81, and the number without its 0
    else:
        is_phone = len(digits) == (11 if re.match("0[5789]0", digits) else 10)
    return _zeros(found[0]) if is_phone else found[0]


def _zeros(found: str) -> str:
    """Return zeros for digits, in their width."""
    return _DIGIT.sub(lambda digit: "0" if digit[0].isascii() else "０", found)


# ---------------------------------------------------------------- white space, and all together

_BLANK_LINES = re.compile(r"\n{3,}")


def tidy_space(text: str) -> tuple[str, int]:
    """Remove spaces at line ends, all but one of several blank lines, and line feeds at both ends."""
    lines = text.split("\n")
    trimmed = [line.rstrip() for line in lines]
    n = sum(line != bare for line, bare in zip(lines, trimmed, strict=True))
    text, count = _BLANK_LINES.subn("\n\n", "\n".join(trimmed))
    bare = text.strip("\n")
    return bare, n + count + (bare != text)


EDITS: dict[str, Callable[[str], tuple[str, int]]] = {
    "aozora": drop_aozora,
    "markup": drop_markup,
    "empty-brackets": drop_empty_brackets,  # after markup, which empties them
    "boilerplate": drop_boilerplate,
    "personal-data": mask_personal_data,
    "white-space": tidy_space,  # last: the others leave it behind
}


def edit(text: str, names: Iterable[str], form: str = "nfc") -> tuple[str, Counter[str]]:
    """Normalize ``text`` (`normalize`, ``form``) and apply the edits with these names until nothing changes any more.

    A second call therefore changes nothing. Returns the text and the number of places by edit; "normalisation" counts 1
    if it changed anything. Raises `ValueError` for an unknown ``form``.
    """
    names, counts = list(names), Counter[str]()
    while True:
        before = text
        text = normalize(text, form)
        counts["normalisation"] |= text != before
        for name in names:
            text, n = EDITS[name](text)
            counts[name] += n
        if text == before:
            return text, counts


def _apply(edits: Iterable[_Edit], text: str) -> tuple[str, int]:
    """Apply patterns in order; return the text and the number of places they found."""
    n = 0
    for pattern, kept in edits:
        text, count = pattern.subn(kept, text)
        n += count
    return text, n


def _replace(pattern: re.Pattern[str], new: Callable[[re.Match[str]], str], text: str, n: int) -> tuple[str, int]:
    """Replace each match; return the text, and ``n`` plus the number of matches that changed."""
    changed = 0

    def put(found: re.Match[str]) -> str:
        nonlocal changed
        replacement = new(found)
        changed += replacement != found[0]
        return replacement

    text = pattern.sub(put, text)
    return text, n + changed
