"""豆物語: reproducible, clean, and true to itself."""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from mamegpt.data import stories as world
from mamegpt.data.dialogues import write_dialogues, write_preferences
from mamegpt.data.reviews import write_reviews
from mamegpt.data.stories import stories, write_stories
from mamegpt.errors import ConfigError, OutputError

N = 5000
DIGITS = {digit: value for value, digit in enumerate("〇一二三四五六七八九")}
SPEECH = re.compile(r"「[^」]*」")


@pytest.fixture(scope="module")
def sample() -> list[tuple[str, str]]:
    return list(stories(0, N))


@pytest.fixture(scope="module")
def tales() -> list[tuple[str, str, world._Tale]]:
    return [world._tell(1, index) for index in range(N)]


def found(pattern: str, sample: list[tuple[str, str]], least: int = 20) -> list[tuple[str, ...]]:
    """All matches in the sample; a pattern that has gone out of use must not pass in silence."""
    matches = [match.groups() for _, text in sample for match in re.finditer(pattern, text)]
    assert len(matches) >= least, f"{pattern} matched only {len(matches)} times"
    return matches


def test_same_seed_same_stories(sample: list[tuple[str, str]]) -> None:
    assert list(stories(0, 50)) == sample[:50]
    assert list(stories(0, 5)) == sample[:5]
    assert world._tell(0, 17)[:2] == sample[17]


def test_stories_never_change() -> None:
    digest = hashlib.sha256(repr(list(stories(0, 200))).encode("utf-8")).hexdigest()
    assert digest == "364e65bdac5a1e7a033307d6c8c49993fb30c629118983418810083c3e019c61"


def test_seeds_differ(sample: list[tuple[str, str]]) -> None:
    other = set(stories(1, N))
    assert len(other & set(sample)) < N // 100


def test_n() -> None:
    assert list(stories(0, 0)) == []
    assert len(list(stories(0, 7))) == 7
    assert list(itertools.islice(stories(3), 9)) == list(stories(3, 9))
    with pytest.raises(ConfigError, match=r"n must be at least 0 \(got -1\)"):
        stories(0, -1)


@pytest.mark.parametrize("write", [write_stories, write_dialogues, write_preferences, write_reviews])
def test_a_place_that_takes_no_file_is_named(write: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "out.jsonl"
    with pytest.raises(OutputError, match=f"{re.escape(str(place))} cannot be written"):
        write(place, 3)


def test_few_duplicates(sample: list[tuple[str, str]]) -> None:
    assert len(set(sample)) > 0.99 * N


def test_characters(sample: list[tuple[str, str]]) -> None:
    for title, text in sample:
        whole = f"{title}\n{text}"
        assert unicodedata.is_normalized("NFC", whole)
        assert not re.search(r"[!-~]| |　", whole), whole  # no ASCII, so no [a|b], {name} or None; no spaces
        assert not re.search(r"をを|がが|はは|にに(?!んじん)|とと(?!う|も|り)|でで(?!き)|、、|。。|、。|。、", whole), (
            whole
        )
        assert 150 <= len(text) <= 600, text
    assert len(set("".join(text for _, text in sample))) < 700


def test_sentences_and_quotes(sample: list[tuple[str, str]]) -> None:
    for title, text in sample:
        assert title and "\n" not in title and "。" not in title
        paragraphs = text.split("\n")
        assert len(paragraphs) >= 3
        for paragraph in paragraphs:
            assert re.search(r"[^。、「]。$|。」$", paragraph), paragraph
            assert not re.search(r"[「」]", SPEECH.sub("", paragraph)), paragraph  # balanced, never nested


def test_every_scenario_occurs() -> None:
    dice_faces = len(world.SCENARIOS)
    told = [world._Tale(world.random.Random(f"1:{index}")).one(world.SCENARIOS) for index in range(N)]
    assert dice_faces >= 20
    for scenario in world.SCENARIOS:
        assert told.count(scenario) > N / dice_faces / 2, scenario.__name__


# ------------------------------------------------------------------------------------------------ style


@pytest.mark.parametrize(
    ("polite", "plain"),
    [
        ("本を読みました。", "本を読んだ。"),
        ("川で泳ぎました。", "川で泳いだ。"),
        ("学校へ行きました。", "学校へ行った。"),
        ("絵をかきました。", "絵をかいた。"),
        ("本を持ってきました。", "本を持ってきた。"),
        ("やってみました。", "やってみた。"),
        ("歌を歌いました。", "歌を歌った。"),
        ("犬が一匹いました。", "犬が一匹いた。"),
        ("多くいます。", "多くいる。"),
        ("待っていましたが、帰りました。", "待っていたが、帰った。"),
        ("話しました。", "話した。"),
        ("話します。", "話す。"),
        ("明かりをともします。", "明かりをともす。"),
        ("練習します。", "練習する。"),
        ("食べます。", "食べる。"),
        ("背が伸びました。", "背が伸びた。"),
        ("料理ができました。", "料理ができた。"),
        ("ありませんでした。", "なかった。"),
        ("見つかりませんでした。", "見つからなかった。"),
        ("返事をしませんでした。", "返事をしなかった。"),
        ("向けてはいけません。", "向けてはいけない。"),
        ("女の子でした。", "女の子だった。"),
        ("わかるものです。", "わかるものだ。"),
        ("「行きます」と言いました。", "「行きます」と言った。"),
    ],
)
def test_plain_style(polite: str, plain: str) -> None:
    assert world._to_plain(polite) == plain


def test_one_style_a_story(sample: list[tuple[str, str]]) -> None:
    n_plain = 0
    for _, text in sample:
        endings = re.findall(r"(.{1,4})。", SPEECH.sub("「」", text))
        polite = [re.search(r"(ました|でした|ます|です|ません)$", ending) is not None for ending in endings]
        assert all(polite) or not any(polite), text
        assert not all(polite) or not re.search(r"[いた]が、", SPEECH.sub("", text).replace("したが、", ""))
        n_plain += not any(polite)
    assert 0.4 * N < n_plain < 0.6 * N


# ------------------------------------------------------------------------------------------------ facts


@pytest.mark.parametrize(
    "pattern",
    [
        r"(\w+?)で一番の料理です",
        r"([^\W、。「」]+?[町村里谷])の(\w+?まつり)は",
        r"の住む(\w+?)では、(\w+?)が名物です",
        r"([^\W、。「」]+?[町村里谷])に住む(\w+?)からの手紙",
        r"([^\W、。「」]+?[町村里谷])では、もうすぐ(\w+?まつり)",
    ],
)
def test_the_world_is_fixed(pattern: str, sample: list[tuple[str, str]]) -> None:
    facts = {
        town.name: {town.dish, town.festival} | {c.name for c in world.CHILDREN if c.town == town.name}
        for town in world.TOWNS
    }
    for town, *fact in found(pattern, sample):
        assert town in facts and set(fact) <= facts[town], (town, fact)


def test_a_person_lives_in_one_town(sample: list[tuple[str, str]]) -> None:
    home = {child.name: (child.town, child.trait, child.noun) for child in world.CHILDREN}
    pattern = r"(?:^|[。\n])([^\W。、]+)に、(\w+?)という(\w+?)([男女]の子)がい"
    for town, name, trait, noun in found(pattern, sample):
        assert home[name] == (town, trait, noun)


def test_children_of_one_story_are_of_one_town(tales: list[tuple[str, str, world._Tale]]) -> None:
    home = {child.name: child.town for child in world.CHILDREN}
    for _, text, tale in tales:
        owners = {home[who] for who in tale.holder.values() if who in home}
        assert len(owners) <= 1, text


def test_lost_things_are_found_where_their_owner_was(sample: list[tuple[str, str]]) -> None:
    lost = [text for _, text in sample if "をなくしたんだ" in text]
    assert len(lost) > 50
    for text in lost:
        day, search = text.split("をなくしたんだ")
        places = [place.name for place in world.PLACES if re.search(f"{place}(で|へ行)", day)]
        ((where, spot),) = re.findall(
            r"[、。](\w+?)の([\w]+?)(?:に|で)[^\n。]+?(?:がありました|があった|を見つけ)", search
        )
        assert where in places and len(places) == 2, text
        assert spot in next(place.spots for place in world.PLACES if place.name == where), text


def test_things_end_where_the_text_says(tales: list[tuple[str, str, world._Tale]]) -> None:
    """Whoever the narration last calls the owner of a thing is the one who holds it in the state."""
    endings = (
        r"(?P<thing>[^。、\n]+?)は(?P<who>\w+?)の(?:宝物|物)にな",
        r"(?P<thing>[^。、\n]+?)は、また(?P<who>\w+?)の手にもどり?",
        r"次の日、\w+?は(?P<who>\w+?)に(?P<thing>[^。、\n]+?)を返し",
        r"(?P<who>\w+?)は(?P<thing>[^。、\n]+?)を(?:しっかりと持って|大事にかかえて)、家に帰",
    )
    n_checked = 0
    for _, text, tale in tales:
        for pattern in endings:
            for match in re.finditer(pattern, text):
                assert tale.holder[match["thing"].removeprefix("こうして、")] == match["who"], text
                n_checked += 1
    assert n_checked > 500


def test_a_gift_changes_hands_as_told(sample: list[tuple[str, str]]) -> None:
    gifts = found(r"朝、(\w+?)は(\w+?)に(\w+?)をわたし[\s\S]+?その日から、(\w+?)は(\w+?)の宝物", sample)
    for giver, taker, given, treasure, owner in gifts:
        assert giver != taker and (treasure, owner) == (given, taker)


def test_a_swap_changes_both_hands(sample: list[tuple[str, str]]) -> None:
    pattern = r"\n(\w+?)は(\w+?)に(\w+?)をわたし、(\w+?)は(\w+?)に(\w+?)をわたし[^。]+。"
    pattern += r"こうして、(\w+?)は(\w+?)の物になり、(\w+?)は(\w+?)の物にな"
    for one, two, first, giver, taker, second, *ownership in found(pattern, sample):
        assert (giver, taker) == (two, one) != (one, two)
        assert ownership == [first, two, second, one]


def test_borrowed_things_come_back_in_time(sample: list[tuple[str, str]]) -> None:
    pattern = r"([二三四五六])日(?:たったら|後には)[\s\S]+?\n(\w+?)は(\w+?)に(\w+?)をかし[\s\S]+?"
    pattern += r"\n([二三四五六])日がた[^。]+。(\w+?)は約束のとおり、(\w+?)に(\w+?)を返し"
    for days, owner, user, thing, passed, returner, receiver, returned in found(pattern, sample):
        assert (days, owner, user, thing) == (passed, receiver, returner, returned)


def test_numbers_add_up(sample: list[tuple[str, str]]) -> None:
    number = r"([一二三四五六七八九])"
    bought = rf"を{number}\w買[\s\S]+?を{number}\wあげ[\s\S]+?は{number}\wになってい[\s\S]+?{number}\w足りない"
    for have, given, left, missing in found(bought, sample):
        assert DIGITS[have] - DIGITS[given] == DIGITS[left] and given == missing
    grown = rf"を{number}\wと(?:り|った)[\s\S]+?そのうち{number}\wを[\s\S]+?{number}\w残"
    for have, given, left in found(grown, sample):
        assert DIGITS[have] - DIGITS[given] == DIGITS[left]
    for total, each in found(rf"{number}\wの\w+?を三人で分けると、一人{number}\wずつ", sample):
        assert DIGITS[total] == 3 * DIGITS[each]
    for lacking, made in found(rf"ちょうちんが{number}つ足りない[\s\S]+?ちょうちんを{number}つ作", sample):
        assert lacking == made


def test_the_winner_is_the_one_told(sample: list[tuple[str, str]]) -> None:
    pattern = r"この日、(\w+?)と(\w+?)と(\w+?)の三人は[\s\S]+?着いたのは(\w+?)で、二番は(\w+?)、三番は(\w+?)[でだ]"
    for *runners, first, second, third in found(pattern, sample):
        assert runners == [first, second, third]


def test_strays_come_home(tales: list[tuple[str, str, world._Tale]]) -> None:
    strays = [(text, tale) for _, text, tale in tales if "がいなくなったんだ" in text]
    assert len(strays) > 50
    for text, tale in strays:
        ((pet, owner),) = re.findall(r"こうして、(\w+?)は(\w+?の家)にもど", text)
        assert tale.place[pet] == owner
        assert re.search(rf"{pet}という名前の", text)


def test_who_was_sad_about_a_friend_is_glad_in_the_end(sample: list[tuple[str, str]]) -> None:
    sick = [text for _, text in sample if "具合はどう" in text]
    assert len(sick) > 50
    for text in sick:
        first, *_, last = text.split("\n")
        hero = re.search(r"(?:に、|住む|^|。)(\w+?)(?:という|は、)", first)
        sad = re.search(r"(\w+?)は(?:悲しく|今にも泣き|がっかり)[^。]+。$", first)
        glad = re.search(r"(\w+?)は(?:とてもうれしく|にっこり|心があたたかく|大喜び)[^。]+。$", last)
        assert hero and sad and glad and sad[1] == glad[1], text
