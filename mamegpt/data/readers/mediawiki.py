"""The articles of a MediaWiki dump (``jawiki-…-pages-articles.xml``), without their markup.

The standard library's expat parses the XML, one element at a time; mwparserfromhell parses the markup. mwxml, which
uses the same XML parser, would add nothing for dumps with one revision per page.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterator
from typing import IO, Any, cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from mamegpt.data.clean.edits import BLOCK_TAGS
from mamegpt.data.readers.lines import decoder_of
from mamegpt.errors import require_packages
from mamegpt.messages import msg

__all__ = ["pages"]

UNSEEN_TAGS = frozenset({"gallery", "imagemap", "math", "ref", "references", "score", "style", "table", "timeline"})
MAX_PAGE_BYTES = 1 << 24
"""Most bytes of XML for one page with one revision; MediaWiki allows texts of up to 2 MiB ($wgMaxArticleSize)."""
BLOCK_BYTES = 1 << 16
DECLARED = re.compile(rb"""\s*<\?xml[^>]*\sencoding\s*=\s*["']([\w.-]+)""", re.ASCII)
OF_EXPAT = ("utf-8", "utf-16")  # encodings that expat reads, with or without a byte order mark
MAX_LEVEL = 7  # headings have 1 to 6
UNSEEN_LINKS = frozenset({"file", "image", "category", "ファイル", "画像", "カテゴリ"})
LANGUAGE = re.compile("[a-z]{2,3}(?:-[a-z]{2,8}){0,2}|simple")  # before the colon of a link to another Wikipedia
SWITCH = re.compile(  # https://www.mediawiki.org/wiki/Help:Magic_words, behavior switches
    "__(?:NO|FORCE|NEW|NONEW|EXPECTUNUSED|HIDDEN|ARCHIVED|STATIC)?(?:TOC|EDITSECTION|SECTIONLINK|GALLERY|CAT|CATEGORY|"
    "TEMPLATE|INDEX|REDIRECT|GLOBAL|DISAMBIG|TALK|(?:CONTENT|TITLE)CONVERT|CC|TC)__|__(?:目次|節編集|新しい節リンク|"
    "ギャラリー|カテゴリ|インデックス|曖昧さ回避|隠しカテゴリ)(?:非表示|強制|拒否)?__"
)
HOLE = "\1"
"""Marks the place of an unknown template until these are counted; XML cannot contain it."""
RANGE = frozenset({"-", "–", "to", "and", "by", "x", "×", "or", "～", "から"})
IN_SENTENCE = re.compile(f"(?<=[^\\s{HOLE}]){HOLE}|{HOLE}(?=[ぁ-ん、。，])")
ENDS = re.compile(r"(?<=[。！？])|\n")


def _same(shown: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), shown)


SHOWN = {
    **_same("{label,1}", "仮リンク 日本語版にない記事リンク ill ill2 link-interwiki"),
    **_same(
        "{1}",
        "abbr big blockquote bold cp932フォント huge ipa jis2004フォント jis90フォント large larger math mvar nobold "
        "nobr nowrap quotation quote script small smaller squote sub sup tooltip unicode val vanc 疑問点範囲 "
        "補助漢字フォント 拡張漢字 独自研究範囲 要校閲範囲 要検証範囲 要出典範囲",
    ),
    **_same("{2}", "audio color fontcolor fontsize lang resize"),
    **_same("{3,2}", "transl transliteration"),
    **_same("{1}（{2}）", "ruby ふりがな ルビ 振り仮名 読み仮名"),
    **_same(
        "",
        "- anchor anchors citation clear coord efn efn2 flagicon main note notetag r ref refn refnest rp see sfn sfnp "
        "いつ ウィキ座標 リンク切れ 疑問点 出典の明記 出典無効 誰 誰2 注釈 独自研究 独自研究? 要ページ番号 要検証 "
        "要更新 要校閲 要出典 要説明 要追記 要追加記述 信頼性要検証 信頼性の低い出典",
    ),
}
"""The arguments of known inline templates that stay in the text: the first that is given of those in braces."""


def pages(file: IO[bytes], encoding: str = "utf-8") -> Iterator[tuple[str, str, str, int]]:
    """Yield ``(reason, title, text, n_holes)`` for each page of a dump; a page with a reason to skip it has no text.

    The reasons are ``redirect`` and ``other namespace`` (than that of articles). In the text, each paragraph and
    heading is a line; tables, references, pictures and categories are removed, and so are sections that become empty.
    The arguments of templates in `SHOWN` stay; ``n_holes`` counts the sentences that contained an unknown template.
    ``encoding`` is needed only if the file is not UTF-8 and does not declare its encoding. Raises `ConfigError` without
    mwparserfromhell, `xml.etree.ElementTree.ParseError` for damaged XML, `LookupError` or `UnicodeError` for an unknown
    or wrong encoding, and `OverflowError` for a page of more than MAX_PAGE_BYTES.
    """
    require_packages(msg("a dump of a wiki"), ["mwparserfromhell"], "wiki")
    from mwparserfromhell import parse

    events = _events(file, encoding)
    _, root = next(events)
    for event, element in events:
        if event == "start" or _name(element) != "page":
            continue
        found = {_name(child): child for child in element.iter()}
        if "ns" in found and found["ns"].text != "0":
            yield "other namespace", "", "", 0
        elif "redirect" in found:
            yield "redirect", "", "", 0
        elif missing := {"ns", "title", "text"} - found.keys():
            raise ParseError(f"a page without {min(missing)}")
        else:
            text = _lines(_plain(parse(found["text"].text or "")))
            yield "", found["title"].text or "", text.replace(HOLE, ""), _n_holes(text)
        root.clear()


def _events(file: IO[bytes], encoding: str) -> Iterator[tuple[str, Element]]:
    """Yield ("start" or "end", element) for each element, with memory for one page."""
    parser: XMLPullParser[Element] = XMLPullParser(("start", "end"))
    block, n_bytes = file.read(BLOCK_BYTES), 0
    declared = DECLARED.match(block)
    if encoding == "utf-8" and block.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"  # whatever the file declares
    elif encoding == "utf-8" and declared:
        encoding = declared[1].decode()
    # expat knows no other multi-byte encodings, so other files are decoded first.
    decoder = None if codecs.lookup(encoding).name in OF_EXPAT else decoder_of(encoding)
    while block:
        n_bytes += len(block)
        parser.feed(decoder.decode(block) if decoder else block)
        for event, element in cast(Iterator[tuple[str, Element]], parser.read_events()):
            if event == "end" and _name(element) == "page":
                n_bytes = 0
            yield event, element
        if n_bytes > MAX_PAGE_BYTES:
            raise OverflowError
        block = file.read(BLOCK_BYTES)
    if decoder:
        decoder.decode(b"", final=True)
    parser.close()


def _name(element: Element) -> str:
    """Return the name of an element without its XML namespace, which changes with the version of the dump."""
    return element.tag.rpartition("}")[2]


def _plain(code: Any) -> str:
    """Return the visible text of parsed wikitext.

    A heading ends with one NUL per level; XML cannot contain NUL.
    """
    from mwparserfromhell import nodes

    seen = list[str]()
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            seen.append(SWITCH.sub("", node.value))
        elif isinstance(node, nodes.Heading):
            seen.append("\n" + _plain(node.title).strip() + "\0" * node.level + "\n")
        elif isinstance(node, nodes.HTMLEntity):
            seen.append(node.normalize())
        elif isinstance(node, nodes.ExternalLink):
            seen.append(_plain(node.title) if node.title else "")
        elif isinstance(node, nodes.Wikilink):
            seen.append(_link(node))
        elif isinstance(node, nodes.Template):
            seen.append(_template(node))
        elif isinstance(node, nodes.Tag) and (tag := str(node.tag).strip().lower()) not in UNSEEN_TAGS:
            inside = _plain(node.contents) if node.contents else ""
            if tag in BLOCK_TAGS:
                inside = f"\n{inside}\n"
            elif tag == "rt":
                inside = f"（{inside}）"
            seen.append(inside if tag != "rp" else "")
    return "".join(seen)


def _link(node: Any) -> str:
    """Return the visible text of a link.

    A link to a picture, a category or another language is visible only if it begins with a colon.
    """
    target = str(node.title).strip()
    space, colon, name = target.removeprefix(":").partition(":")
    is_elsewhere = colon and (space.strip().lower() in UNSEEN_LINKS or LANGUAGE.fullmatch(space.strip()))
    if is_elsewhere and not target.startswith(":"):
        return ""
    return _plain(node.text) if node.text else name.strip() if is_elsewhere else _plain(node.title).removeprefix(":")


def _template(node: Any) -> str:
    """Return the visible text of a template, which may be empty, or a `HOLE` for an unknown one within a line."""
    name = " ".join(str(node.name).replace("_", " ").split()).lower()
    given = {str(one.name).strip(): _plain(one.value).strip() for one in node.params}
    if name in ("convert", "cvt"):
        amounts = list(itertools.takewhile(lambda one: one in RANGE or one[:1] in "+-−0123456789.", given.values()))
        return " ".join([*amounts, given.get(str(len(amounts) + 1), "")])
    if name in SHOWN or name.startswith(("lang-", "link-", "ipa-")):
        shown = SHOWN.get(name, "{1}")
        return re.sub("{(.*?)}", lambda names: next(filter(None, map(given.get, names[1].split(","))), ""), shown)
    return "" if name.startswith("defaultsort:") or "\n" in str(node) else HOLE


def _n_holes(text: str) -> int:
    """Count the sentences with a `HOLE` after text, or before something that cannot begin a sentence."""
    return sum(IN_SENTENCE.search(sentence) is not None for sentence in ENDS.split(text))


def _lines(plain: str) -> str:
    """Return the lines with text, without the headings of empty sections."""
    kept, below = list[str](), 0  # the level of the following line; text is below all headings
    for line in reversed(plain.split("\n")):
        level, line = line.count("\0"), line.strip("\0 \t")
        if line.strip(f"\u3000{HOLE}") and (not level or level < below):
            kept.append(line)
            below = level or MAX_LEVEL
    return "\n".join(reversed(kept))
