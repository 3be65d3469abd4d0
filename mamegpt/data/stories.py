"""豆物語: an endless, seeded supply of short original Japanese stories and encyclopedia-like entries.

    world (the tables)  ->  _Tale (dice; who holds what, what is where)  ->  a scenario writes it down

The world is fixed: a town has one specialty, one festival and its own people in every story. A scenario chooses people
of one town, moves things in the `_Tale` and writes the events. In its text, ``[a|b|c]`` is replaced by one of the
alternatives, a blank line ends a paragraph, and other line breaks are ignored. All text is written in the polite
です・ます style; `_to_plain` converts a story to the plain style, except direct speech, so each sentence pattern exists
only once.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar

from mamegpt.arguments import AtLeast, checked
from mamegpt.data.writers import refuse_failed_write
from mamegpt.errors import ConfigError
from mamegpt.system.files import atomic_write, refuse_existing
from mamegpt.text.articles import format_article

__all__ = ["stories", "write_stories"]

T = TypeVar("T")

# ------------------------------------------------------------------------------------------------ the world


@dataclass(frozen=True, slots=True)
class _Named:
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class _Town(_Named):
    where: str
    landmark: str
    dish: str  # its only specialty
    season: str  # when the festival is
    festival: str
    sight: str  # what happens at the festival
    crop: str

    @property
    def kind(self) -> str:
        """The last character of the name: 町, 村, 里 or 谷."""
        return self.name[-1]


@dataclass(frozen=True, slots=True)
class _Child(_Named):
    sex: str
    trait: str
    hobby: str
    town: str

    @property
    def noun(self) -> str:
        return f"{self.sex}の子"

    @property
    def call(self) -> str:
        """The name as friends use it."""
        return self.name + ("ちゃん" if self.sex == "女" else "くん")

    @property
    def me(self) -> str:
        """The word the child uses for itself."""
        return "わたし" if self.sex == "女" else "ぼく"


@dataclass(frozen=True, slots=True)
class _Adult(_Named):
    job: str
    town: str
    workplace: str
    tool: str
    work: str
    product: str
    counter: str
    mistake: str  # what a beginner does wrong, and what helps
    advice: str


@dataclass(frozen=True, slots=True)
class _Place(_Named):
    deed: str
    spots: str  # where a thing may be, separated by ・


@dataclass(frozen=True, slots=True)
class _Animal(_Named):
    counter: str
    pets: str  # names people give it, separated by ・; なし if it is not kept at home
    looks: str
    home: str
    food: str
    habit: str
    voice: str  # なし if it has none
    trace: str


@dataclass(frozen=True, slots=True)
class _Plant(_Named):
    counter: str
    start: str
    sown: str  # season
    ripe: str  # season
    sign: str
    end: str
    dish: str


@dataclass(frozen=True, slots=True)
class _Dish(_Named):
    one: str
    one_counter: str
    two: str
    two_counter: str
    first: str  # the two steps, as verb stems
    then: str
    taste: str
    season: str


@dataclass(frozen=True, slots=True)
class _Tool(_Named):
    use: str
    made_of: str
    keep: str
    warning: str
    user: str


@dataclass(frozen=True, slots=True)
class _Breakable(_Named):
    accident: str
    broken: str
    mended: str


def _table(row: Callable[..., T], width: int, text: str) -> tuple[T, ...]:
    """Return rows of ``width`` words each; line breaks are ignored."""
    words = text.split()
    return tuple(row(*words[i : i + width]) for i in range(0, len(words), width))


TOWNS = _table(
    _Town,
    8,
    """
    豆の木町 丘の上 大きな豆の木 豆のスープ 春 豆まつり 子どもたちが豆をまきます 豆
    波音村 海のそば 白い灯台 焼き魚 夏 船まつり かざりをつけた船が海に出ます わかめ
    月見町 湖の近く 古い時計台 月見だんご 秋 月まつり みんなで丸い月をながめます 米
    雪里村 山のふもと 雪の温泉 きのこなべ 冬 雪まつり 雪の家に明かりをともします きのこ
    竹の里 竹林の中 長い石の階段 竹の子ごはん 春 竹まつり 竹の笛の音がひびきます 竹の子
    りんご谷 山と山の間 赤い門 りんごのパイ 秋 りんごまつり とれたてのりんごを配ります りんご
    風見町 草原のまん中 大きな風車 丸いパン 夏 風まつり 色とりどりのたこを空にあげます 小麦
    星川町 大きな川のそば 長い木の橋 川魚のてんぷら 冬 星まつり 橋の上に小さな明かりを並べます ねぎ
    """,
)

CHILDREN = _table(
    _Child,
    5,
    """
    ハナ 女 やさしい 絵をかくこと 豆の木町      ケンタ 男 元気な 走ること 豆の木町
    ミオ 女 はずかしがり屋の 本を読むこと 豆の木町      ナギサ 女 明るい 歌うこと 波音村
    カイ 男 勇気のある 泳ぐこと 波音村      リク 男 のんびりした 釣りをすること 波音村
    ユイ 女 まじめな 星を見ること 月見町      レン 男 物知りな 本を読むこと 月見町
    サヨ 女 静かな 折り紙を折ること 月見町      ユキオ 男 がまん強い そりで遊ぶこと 雪里村
    フミ 女 親切な 手紙を書くこと 雪里村      コウタ 男 あわてんぼうの 雪だるまを作ること 雪里村
    タケル 男 力持ちの 木に登ること 竹の里      チヨ 女 しっかりした 笛をふくこと 竹の里
    モモ 女 食いしんぼうの 料理をすること 竹の里      アカネ 女 元気な おどること りんご谷
    ダイチ 男 やさしい 花を育てること りんご谷      ソラ 男 知りたがりの 雲をながめること りんご谷
    フウカ 女 おしゃべりな たこをあげること 風見町      シュン 男 負けずぎらいの 走ること 風見町
    ノゾミ 女 がんばり屋の ぬい物をすること 風見町      ホタル 女 やさしい 虫を見ること 星川町
    マサル 男 正直な 木の船を作ること 星川町      スズ 女 明るい 歌うこと 星川町
    """,
)

ADULTS = _table(
    _Adult,
    10,
    """
    森さん 大工 豆の木町 仕事場 かなづち 木で家や家具を作ります 木のいす つ
        くぎがまがってしまいました あせらず、まっすぐ打つといいよ
    田中さん お菓子屋 豆の木町 台所 木べら 豆や粉でお菓子を作ります 豆のクッキー 枚
        生地がかたくなってしまいました 粉は少しずつ入れるといいよ
    浜田さん 漁師 波音村 小屋 長い針 朝早く海に出て、魚をとります 小さなあみ つ
        糸がからまってしまいました 糸は短く持つといいよ
    岸さん 船大工 波音村 船小屋 のこぎり 木で船を作り、古い船も直します 小さな木の船 つ
        板をななめに切ってしまいました 線をよく見て切るといいよ
    石井さん 時計職人 月見町 店 虫めがね 時計を作り、こわれた時計も直します 小さな時計 つ
        針が動きませんでした 部品をていねいに並べるといいよ
    青木さん 紙職人 月見町 工房 大きな木のわく 木の皮から紙を作ります うすい紙 枚
        紙がやぶれてしまいました 水の中でゆっくり動かすといいよ
    白石さん ろうそく職人 雪里村 工房 銅の鍋 冬の夜を照らすろうそくを作ります 白いろうそく 本
        ろうそくがまがってしまいました よく冷えるまで待つといいよ
    林さん 毛糸屋 雪里村 店 編み針 羊の毛から毛糸を作り、服を編みます 毛糸の帽子 つ
        編み目がゆるくなってしまいました 同じ強さで糸を引くといいよ
    竹内さん かご職人 竹の里 仕事場 小刀 細い竹でかごを編みます 竹のかご つ
        竹が折れてしまいました 竹は水でぬらすといいよ
    本田さん 笛職人 竹の里 工房 細いきり 竹から美しい笛を作ります 竹の笛 本
        音が出ませんでした 穴の大きさをそろえるといいよ
    赤井さん 菓子職人 りんご谷 店 めん棒 谷のりんごでお菓子を焼きます りんごのタルト つ
        生地がこげてしまいました 火を弱くするといいよ
    西村さん 染め物職人 りんご谷 工房 大きな鍋 草や木の皮で布を染めます 赤い布 枚
        色がまだらになってしまいました 布を休まず動かすといいよ
    小島さん パン職人 風見町 店 石のかまど 小麦の粉でパンを焼きます くるみのパン つ
        パンがふくらみませんでした 生地をよく休ませるといいよ
    古川さん 仕立て屋 風見町 店 大きなはさみ 布を切って、服やふくろを作ります 布のふくろ つ
        ぬい目がまがってしまいました ひと針ずつ、ゆっくりぬうといいよ
    土屋さん 焼き物職人 星川町 工房 ろくろ 川の土で皿や茶わんを作ります 青い茶わん つ
        形がくずれてしまいました 手をよくぬらすといいよ
    水野さん ガラス職人 星川町 工房 長い鉄の棒 熱いガラスをふくらませて、器を作ります ガラスの花びん つ
        ガラスがわれてしまいました ゆっくり息をふくといいよ
    """,
)

SEASONS = {  # name: facts, and sights
    "春": (
        "野原に花がさきます",
        "[道ばたにたんぽぽがさいて|やわらかい風がふいて|桜の花びらが道に散って]いました。",
    ),
    "夏": (
        "日が長く、せみが鳴きます",
        "[せみの声がひびいて|ひまわりが高く伸びて|空に白い雲がうかんで]いました。",
    ),
    "秋": (
        "山の木の葉が赤や黄色に色づきます",
        "[木の葉が赤く色づいて|すすきが風にゆれて|空は高く、とんぼが飛んで]いました。",
    ),
    "冬": (
        "寒くなり、雪がふる日もあります",
        "[屋根にうっすらと雪が積もって|冷たい風がふいて|はく息が白く、道はこおって]いました。",
    ),
}

PLACES = _table(
    _Place,
    3,
    """
    公園 ブランコに乗りました ベンチの上・すべり台の下・花だんのそば
    図書館 本を読みました 本だなの前・机の上・窓のそば
    広場 なわとびをしました 長いすの上・石像の横・井戸のそば
    川原 きれいな石を集めました 大きな石の上・橋の下・草の中
    神社 かくれんぼをしました 石段の下・鳥居のそば・古い木の根元
    学校 歌の練習をしました 机の中・教室のすみ・くつ箱の上
    市場 店を見て回りました 八百屋の前・荷車の横・入口のそば
    丘 遠くの山をながめました 切りかぶの上・木のかげ・岩のそば
    森 小鳥の声を聞きました 倒れた木の上・太い木の根元・泉のそば
    """,
)

THINGS = {  # thing: suitable adjectives
    "かさ": "赤い・青い・黄色い",
    "帽子": "白い・青い・緑色の",
    "絵本": "大きな・小さな・厚い",
    "笛": "木の・小さな・銀色の",
    "ボール": "赤い・青い・黄色い",
    "かばん": "茶色の・赤い・小さな",
    "ハンカチ": "白い・青い・花がらの",
    "水筒": "銀色の・緑色の・青い",
    "人形": "木の・布の・小さな",
    "腕時計": "金色の・銀色の・茶色の",
    "筆箱": "緑色の・赤い・木の",
    "リボン": "赤い・白い・黄色い",
    "手帳": "茶色の・小さな・青い",
    "鈴": "金色の・銀色の・小さな",
    "こま": "赤い・木の・大きな",
}

ANIMALS = _table(
    _Animal,
    9,
    """
    ねこ 匹 タマ・ミケ・トラ やわらかい毛と長いひげがあります 人の家や庭 魚
        日の当たる所でよく昼寝をします ニャーニャー 落ちていた毛
    犬 匹 シロ・ポチ・コロ 三角の耳とよく動くしっぽがあります 人の家や庭 肉
        人と散歩をするのが好きです ワンワン 落ちていた毛
    うさぎ 羽 ミミ・ユキ・モカ 長い耳と短いしっぽがあります 草原や小屋 にんじん
        後ろの足で高くはねます なし 落ちていた毛
    やぎ 頭 メイ・ヒゲ・マメ 角があり、あごに長い毛があります 草原や山 草
        高い岩にも上手に登ります メーメー 落ちていた毛
    あひる 羽 ガー・ピコ・ナミ 黄色いくちばしと水かきがあります 池や川 水草
        一列に並んで歩きます ガーガー 落ちていた羽
    にわとり 羽 コッコ・ハネ・ピヨ 赤いとさかがあります 庭や小屋 とうもろこし
        朝早く大きな声で鳴きます コケコッコー 落ちていた羽
    かめ 匹 ゴン・ノロ・マル かたいこうらと短い足があります 池や川 小さな魚
        ゆっくり歩き、石の上で日に当たります なし ぬれた足あと
    りす 匹 クリ・チビ・ドン 大きなしっぽとするどい前歯があります 森や公園 木の実
        冬のために木の実を土にうめます なし 木の実のから
    馬 頭 なし 長い顔と強い足があります 広い草原 草
        風のように速く走ります ヒヒーン 大きな足あと
    ふくろう 羽 なし 丸い顔と大きな目があります 暗い森 ねずみ
        昼は眠り、夜になると飛びます ホーホー 落ちていた羽
    """,
)

PLANTS = _table(
    _Plant,
    8,
    """
    トマト つ 種 春 夏 黄色い花がさきました りっぱに実りました サラダ
    かぼちゃ つ 種 春 秋 大きな葉が広がりました りっぱに実りました かぼちゃのスープ
    とうもろこし 本 種 春 夏 せの高さまで伸びました りっぱに実りました 焼きとうもろこし
    さつまいも 本 なえ 春 秋 つるが長く伸びました 土の中で大きくなりました 焼きいも
    いちご つ なえ 秋 春 白い花がさきました 赤く実りました いちごのケーキ
    大根 本 種 秋 冬 緑の葉がしげりました 土の中で太くなりました 大根の煮物
    にんじん 本 種 夏 冬 細い葉がたくさん出ました 土の中で太くなりました にんじんのスープ
    なす 本 なえ 春 夏 むらさきの花がさきました りっぱに実りました なすのみそしる
    """,
)

DISHES = _table(
    _Dish,
    9,
    """
    野菜スープ にんじん 本 玉ねぎ つ 野菜を小さく切り 鍋でゆっくり煮 あたたかくてやさしい味 冬
    カレーライス じゃがいも つ にんじん 本 野菜をいため 水を入れてよく煮 少しからい味 夏
    くりごはん くり つ しめじ 本 くりの皮をむき 米といっしょにたき ほんのりあまい味 秋
    たまご焼き たまご つ ねぎ 本 たまごをよくまぜ うすく広げて焼き ふんわりとした味 春
    おでん 大根 本 たまご つ 大根を厚く切り だしで長い間煮 しみじみとした味 冬
    ホットケーキ たまご つ バナナ 本 粉とたまごをまぜ 弱い火で丸く焼き あまくてやわらかい味 春
    なすの天ぷら なす 本 しいたけ つ 野菜にころもをつけ 熱い油であげ さくさくとした味 夏
    さつまいもの煮物 さつまいも 本 りんご つ いもを丸く切り りんごといっしょに煮 自然なあまい味 秋
    """,
)

TOOLS = _table(
    _Tool,
    6,
    """
    はさみ 紙や布を切る 鉄 引き出し 刃を人に向けてはいけません 仕立て屋
    かなづち くぎを打つ 木と鉄 道具箱 指を打たないように気をつけます 大工
    じょうろ 花に水をやる ブリキ 庭のすみ 水を入れすぎると重くなります 花を育てる人
    ほうき 床や庭をはく 竹と草 戸の横 使ったあとは、つるしておきます そうじをする人
    虫めがね 小さな物を大きく見る ガラスと木 机の上 太陽を見てはいけません 時計職人
    鍋 野菜や肉を煮る 鉄 台所のたな 火からおろした後も、しばらくは熱いままです 料理をする人
    はしご 高い所に登る 木 納屋 まっすぐに立て、下で人がささえます 大工
    かご 野菜や果物を運ぶ 竹 入口のそば ぬれたら、日かげでかわかします 農家の人
    針 布をぬい合わせる 鉄 小さな箱 使ったあとは、数をかぞえます 仕立て屋
    つりざお 魚をつる 竹 小屋のすみ 糸が木にからまないようにします 漁師
    """,
)

BREAKABLES = _table(
    _Breakable,
    4,
    """
    木のいす たおして 足が折れて 新しい足をつけて
    花びん 落として 口がかけて かけた所をつなぎ合わせて
    木の人形 落として うでが取れて うでをつけ直して
    時計 落として 針が止まって 中の部品を取りかえて
    木の船 落として 帆がやぶれて 新しい布をはって
    かばん 強く引いて ひもが切れて じょうぶなひもをぬいつけて
    """,
)

GOODS = ("りんご つ", "みかん つ", "パン つ", "にんじん 本", "たまご つ", "なし つ", "バナナ 本")
SNACKS = ("だんご 本", "クッキー 枚", "まんじゅう つ", "いちご つ", "せんべい 枚", "ドーナツ つ")

# ------------------------------------------------------------------------------------------------ the teller

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass(slots=True)
class _Tale:
    """A story during its generation: its random numbers, its paragraphs and the state of its world."""

    dice: random.Random
    paragraphs: list[str] = field(default_factory=list)
    holder: dict[str, str] = field(default_factory=dict)  # thing -> who has it now
    place: dict[str, str] = field(default_factory=dict)  # person, animal or thing -> where it is now

    def one(self, options: Sequence[T]) -> T:
        """Return one of the options. Only `random()` is guaranteed to be the same in all Python versions."""
        return options[int(self.dice.random() * len(options))]

    def row(self, table: str) -> list[str]:
        """Return the words of one line of the table."""
        return self.one(table.strip().split("\n")).split()

    def some(self, options: Sequence[T], k: int) -> list[T]:
        """Return ``k`` different options in random order."""
        left = list(options)
        return [left.pop(int(self.dice.random() * len(left))) for _ in range(k)]

    def number(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``, both included."""
        return low + int(self.dice.random() * (high - low + 1))

    def choose(self, text: str) -> str:
        """Return the text on one line, with one alternative in place of each ``[a|b|c]``, the inner ones first."""
        text = "".join(line.strip() for line in text.split("\n"))
        while "[" in text:
            text = _CHOICE.sub(lambda match: self.one(match[1].split("|")), text)
        return text

    def add(self, text: str) -> None:
        """Write paragraphs, separated in ``text`` by blank lines."""
        for block in text.split("\n\n"):
            self.paragraphs.append(self.choose(block))

    def children(self, k: int) -> list[_Child]:
        """Return ``k`` different children of one town."""
        return self.some(_people(CHILDREN, self.one(TOWNS).name), k)

    def thing(self) -> str:
        """Return a thing with its adjective, as in 赤いかさ."""
        noun = self.one(tuple(THINGS))
        return self.one(THINGS[noun].split("・")) + noun

    def say(self, who: object, words: str, verb: str = "言いました") -> str:
        """Return a sentence of direct speech."""
        words, verb = self.choose(words), self.choose(verb)
        return self.one(
            (
                f"「{words}」と{who}は{verb}。",
                f"{who}は「{words}」と{verb}。",
                f"「{words}」と、{who}が{verb}。",
            )
        )

    def ask(self, who: object, words: str) -> str:
        """Return a question."""
        return self.say(who, words, "[聞きました|たずねました]")

    def answer(self, who: object, words: str) -> str:
        """Return an answer."""
        return self.say(who, words, "[答えました|言いました]")


def _count(n: int, counter: str) -> str:
    """Return a number of things, 1 to 9: 三本, 二つ."""
    return "〇一二三四五六七八九"[n] + counter


P = TypeVar("P", _Child, _Adult)


@cache
def _people(everyone: tuple[P, ...], town: str) -> tuple[P, ...]:
    return tuple(person for person in everyone if person.town == town)


@cache
def _home(person: _Child) -> _Town:
    return next(town for town in TOWNS if town.name == person.town)


def _strangers(person: _Child) -> list[_Child]:
    """Return the children of all other towns."""
    return [child for child in CHILDREN if child.town != person.town]


def _opening(t: _Tale, hero: _Child, season: str = "", time: str = "[朝|昼すぎ|夕方]") -> str:
    """Return a sentence on when, where and who, in one of several orders; the season is random unless given."""
    season = season or t.one(tuple(SEASONS))
    time = t.choose(time)
    when = f"[ある{season}の{time}の|それは、{season}の{time}の]ことでした。"
    who = f"""[{hero.town}に、{hero}という{hero.trait}{hero.noun}がいました。
        |{hero.town}に住む{hero}は、{hero.trait}{hero.noun}でした。
        |{hero}は、{hero.town}でくらす{hero.trait}{hero.noun}でした。]"""
    sight = SEASONS[season][1]
    return t.choose(t.one((when + sight + who, who + when + sight, when + who, who + when)))


def _thanks(t: _Tale, who: object, whom: str) -> str:
    return t.say(who, f"[ありがとう、{whom}|{whom}、本当にありがとう|{whom}のおかげだよ。ありがとう]")


def _diary(who: object, words: str) -> str:
    return f"""[その夜、{who}は日記に「{words}」と書きました。
        |ねる前に、{who}は日記を開いて、「{words}」と書きました。|夜、{who}は家族に「{words}」と話しました。]"""


def _glad(who: object) -> str:
    return f"{who}は[とてもうれしくなりました|にっこり笑いました|心があたたかくなりました|大喜びでした]。"


def _sad(who: object) -> str:
    return f"{who}は[悲しくなりました|今にも泣きそうでした|がっかりして、下を向きました]。"


# ------------------------------------------------------------------------------------------------ scenarios
# Each returns the title. Movements are recorded in t.holder and t.place, from which the text is written.


def _lost_thing(t: _Tale) -> str:
    (hero, friend), thing = t.children(2), t.thing()
    first, second = t.some(PLACES, 2)
    lost_at = t.one((first, second))
    t.place[thing] = f"{lost_at}の{t.one(lost_at.spots.split('・'))}"
    origin = "[おばあさんにもらった|たんじょう日にもらった|お父さんに買ってもらった|お姉さんからゆずってもらった]"
    t.add(f"""
        {_opening(t, hero, time="朝")}{hero}は、{origin}{thing}を大切にしていました。

        その日、{hero}は{thing}を持って出かけました。[まず{first}で|はじめに{first}へ行き、]{first.deed}。
        [それから{second}へ行って、|そのあと、{second}で]{second.deed}。
        ところが、家に帰ると、{thing}がありませんでした。{_sad(hero)}

        そこへ{friend}が通りかかりました。{t.ask(friend, f"{hero.call}、どうしたの？")}
        {t.answer(hero, f"{thing}をなくしたんだ")}
        {t.say(friend, "[いっしょに探そう|今日行った所へ、もう一度行ってみよう]")}
    """)
    detour = f"しかし、{thing}は見つかりませんでした。次に、二人は{first}へ行きました。" if lost_at is first else ""
    t.add(f"""二人は、まず{second}へもどりました。{detour}
        [すると、{t.place[thing]}に{thing}がありました|{friend}が、{t.place[thing]}で{thing}を見つけました]。""")
    t.place.pop(thing)
    t.holder[thing] = hero.name
    t.add(f"""
        {_thanks(t, hero, friend.call)}{hero}は{thing}を[しっかりと持って|大事にかかえて]、家に帰りました。
        [{_diary(hero, f"{friend.call}が{thing}をいっしょに探してくれた")}|{_glad(hero)}]
    """)
    return f"[なくした{thing}|{hero}の{thing}|{thing}はどこ]"


def _gift(t: _Tale) -> str:
    (giver, taker), thing = t.children(2), t.thing()
    t.holder[thing] = giver.name
    noun = next(noun for noun in THINGS if thing.endswith(noun))
    t.add(f"""
        {_opening(t, giver)}{giver}は、もうすぐたんじょう日の{taker}に、何をおくろうかと考えていました。

        {t.ask(giver, f"{taker.call}は、今何がほしいの？")}
        {t.answer(taker, f"そうだね、いい{noun}がほしいな")}
        {giver}は、それを聞いて[いいことを思いつきました|心を決めました]。

        {giver}は[少しずつためたお金で|お母さんと店をいくつも回って]、{thing}を買いました。
        [きれいな紙で包み、小さな手紙もそえました|だれにも見つからないように、たなの奥にしまいました]。
    """)
    t.holder[thing] = taker.name
    t.add(f"""
        たんじょう日の朝、{giver}は{taker}に{thing}をわたしました。
        {t.say(giver, f"[たんじょう日、おめでとう|{taker.call}、おめでとう]")}
        {t.say(taker, f"[わあ、ありがとう。大切にするね|うれしい。{giver.call}、ありがとう]")}

        {_glad(taker)}{giver}も、[友だちの笑顔を見て|その顔を見て]うれしくなりました。
        その日から、{thing}は{t.holder[thing]}の宝物になりました。
    """)
    return f"[{taker}のたんじょう日|{giver}のおくり物|{thing}のおくり物]"


def _cooking(t: _Tale) -> str:
    (hero, friend), dish = t.children(2), t.one(DISHES)
    have, bring = _count(t.number(2, 5), dish.one_counter), _count(t.number(1, 4), dish.two_counter)
    t.add(f"""
        {_opening(t, hero, dish.season)}{hero}は、友だちの{friend}といっしょに{dish}を作ることにしました。

        台所には、{dish.one}が{have}ありました。しかし、{dish.two}がありませんでした。
        {t.say(friend, f"[{dish.two}なら、うちにあるよ|うちから{dish.two}を持ってくるね]")}
        {friend}は急いで家に帰り、{dish.two}を{bring}持ってきました。

        二人は[手をあらい|エプロンをつけて]、料理を始めました。
        {hero}が{dish.first}、{friend}が{dish.then}ました。
        [やがて、いいにおいがしてきました|台所は、いいにおいでいっぱいになりました]。

        [{dish}ができあがりました|とうとう、{dish}ができました]。[一口食べると|食べてみると]、{dish.taste}がしました。
        {t.say(hero, "[おいしいね|二人で作ると、もっとおいしいね|また作ろうね]")}
        {t.say(friend, "[大成功だね|おかわりしてもいい？|今度は家族にも作ってあげたいな]")}

        {_diary(hero, f"{friend.call}と{dish}を作った")}
    """)
    return f"[二人の{dish}|{hero}と{dish}|{dish}を作ろう]"


def _race(t: _Tale) -> str:
    one, two, three = t.children(3)
    goal, start = _home(one).landmark, t.one(PLACES)
    t.place.update({runner.name: goal for runner in (one, two, three)})
    fall = f"""
        はじめは、{three}が先頭でした。ところが、{three}は石につまずいて転んでしまいました。
        すぐ後ろの{two}は足を止め、{three}に手をかしました。{t.ask(two, "だいじょうぶ？")}
        {t.answer(three, f"うん。{two.call}、ありがとう")}その間に、{one}は前へ進みました。"""
    duel = f"""
        はじめは、{two}が先頭でした。{one}は二番目、{three}は三番目でした。
        [坂道に入ると、みんなの息が苦しくなりました|長い道を走るうちに、みんなの足は重くなりました]。
        それでも{one}はあきらめず、とうとう{two}を追いこしました。"""
    middle, end = t.one(
        (
            (fall, f"けれども、みんなは、{three}を助けた{two}にも大きな拍手をおくりました。"),
            (duel, f"{two}は「次は負けないよ」と言って、{one}とあくしゅをしました。"),
        )
    )
    t.add(f"""
        {_opening(t, one)}この日、{one}と{two}と{three}の三人は、かけっこをすることになりました。

        三人は{start}に集まりました。
        {t.say(one, f"[ここから{goal}まで走ろう|先に{goal}に着いた人が一番だよ]")}
        {t.say(two, "[よし、負けないぞ|今日こそ勝つぞ|用意はできているよ]")}
        [「よーい、どん」の声で|旗がふられると]、三人はいっせいに走り出しました。

        {middle}

        一番に{t.place[one.name]}に着いたのは{one}で、二番は{two}、三番は{three}でした。{end}{_glad(one)}

        [走ったあとの水は、とてもおいしく感じました|三人は並んですわり、空を見上げました]。
        {t.say(three, "[また三人で走ろうね|楽しかったね]")}
    """)
    return f"[三人のかけっこ|{goal}までのかけっこ|一番になった{one}]"


def _promise(t: _Tale) -> str:
    (hero, friend), place = t.children(2), t.one(PLACES)
    hour = _count(t.number(1, 4), "時")
    person, trouble, aid = t.row("""
        おばあさん 重い荷物を持って困っていました 荷物を家まで運びました
        小さな男の子 道に迷って泣いていました 男の子を家まで送りました
        おじいさん めがねを落として困っていました 草の中を探し、めがねを見つけました
        小さな女の子 転んでひざをけがしていました 水できずをあらい、布をまきました
    """)
    t.place[hero.name] = t.place[friend.name] = place.name
    t.add(f"""
        {_opening(t, hero)}友だちの{friend}が遊びに来ていました。

        {t.say(friend, f"明日の{hour}に、{place}で会おう")}
        {t.answer(hero, f"[うん、約束だよ|わかった。必ず行くよ|{hour}だね。約束する]")}
        [二人は指切りをしました|二人は笑って別れました]。

        次の日、{hero}は早めに家を出ました。
        ところが、{_home(hero).landmark}の近くで、{person}が{trouble}。
        約束の時間が近づいていましたが、{hero}は{person}を放っておけませんでした。{hero}は{aid}。

        {hero}が走って{t.place[hero.name]}に着いたとき、{hour}はとっくにすぎていました。
        それでも、{friend}は待っていました。{t.say(hero, f"おくれてごめんね。{person}を助けていたんだ")}
        {t.say(friend, f"[いいよ。きっと来ると思っていたよ|そうだったんだ。えらいね|さすが{hero.call}だね]")}

        それから二人は、{place}で{place.deed}。{_glad(hero)}
    """)
    return f"[{hour}の約束|{hero}の約束|{hero}と{friend}の約束]"


def _borrow(t: _Tale) -> str:
    (owner, user), thing = t.children(2), t.thing()
    days = _count(t.number(2, 6), "日")
    t.holder[thing] = owner.name
    t.add(f"""
        {_opening(t, user)}
        {user}は、友だちの{owner}の{thing}を見て、[いいなと思いました|うらやましくなりました]。

        {t.ask(user, f"{owner.call}、その{thing}を少しかしてくれる？")}
        {t.answer(owner, f"[いいよ。{days}たったら返してね|うん。でも、{days}後には返してね]")}
    """)
    t.holder[thing] = user.name
    t.add(f"""
        {owner}は{user}に{thing}をかしました。
        {t.holder[thing]}は毎日、{thing}を[ていねいに使いました|大事にあつかいました]。
        [よごれたところは、やわらかい布でふきました|夜は、まくらもとに置いて寝ました]。
    """)
    t.holder[thing] = owner.name
    t.add(f"""
        {days}がたちました。{user}は約束のとおり、{owner}に{thing}を返しました。
        {t.say(user, "[かしてくれてありがとう|とても楽しかったよ。ありがとう]")}
        {t.say(owner, "[きれいに使ってくれたんだね|約束を守ってくれてうれしいよ]")}
        {thing}は、また{t.holder[thing]}の手にもどりました。

        [二人は、前よりもっと仲よくなりました|{owner}は、{user}にかしてよかったと思いました]。
    """)
    return f"[{owner}の{thing}|かりた{thing}|{thing}をかりた{user}]"


def _traveller(t: _Tale) -> str:
    (hero,) = t.children(1)
    home = _home(hero)
    away = t.one([town for town in TOWNS if town is not home])
    guest = t.choose("[若い旅人|旅のおじいさん|旅の絵かき|旅の音楽家]")
    news = f"""[{away.where}にある{away}から来たよ。{away.dish}がおいしい所だよ
        |{away}だよ。{away.season}の{away.festival}が有名なんだ
        |{away}という所だよ。{away.landmark}があって、いい所だよ]"""
    t.place[hero.name] = t.place[guest] = home.landmark
    t.add(f"""
        {_opening(t, hero)}

        {hero}が{t.one(PLACES)}の近くを歩いていると、大きな荷物を持った人に会いました。それは、{guest}でした。
        {t.ask(guest, f"[{home.landmark}へ行く道を教えてくれないか？|{home.landmark}はどこにあるのかな？]")}
        {t.answer(hero, "[はい、案内します|いっしょに行きましょう]")}

        二人は[話をしながら|並んで]歩きました。{t.ask(hero, "どこから来たのですか？")}
        {t.answer(guest, news)}
        {hero}は、いつか{away}へ行ってみたいと思いました。

        やがて、二人は{t.place[guest]}に着きました。
        {t.say(guest, "[これはりっぱだ。来てよかった|ああ、ここが見たかったんだ]")}
        {hero}は、{home}の{home.dish}のことも{guest}に話しました。その人は、それを食べに行くことにしました。

        {t.say(guest, "[親切にしてくれてありがとう|案内してくれて、ありがとう]")}
        その人は、何度も手をふりました。{_glad(hero)}
    """)
    return f"[{hero}と{guest}|{away}から来た人|{home.landmark}への道]"


def _craft(t: _Tale) -> str:
    (hero,) = t.children(1)
    master = t.one(_people(ADULTS, hero.town))
    work, family = master.product, t.choose("[おばあさん|おじいさん|お母さん|お父さん]")
    t.holder[work] = family
    t.add(f"""
        {_opening(t, hero)}
        {hero}は、{master.job}の{master}の{master.workplace}によく[行って|遊びに行って]いました。
        {hero}は、自分でも{work}を作ってみたいと思っていました。

        {t.say(hero, f"{master}、{work}の作り方を教えてください")}
        {t.answer(master, "[いいとも。やってごらん|では、まずは見ていなさい|よし、いっしょに作ろう]")}
        {hero}は{master.tool}を[かりて|使わせてもらって]、やってみました。しかし、{master.mistake}。{_sad(hero)}

        {t.say(master, f"だれでもはじめは失敗するよ。{master.advice}")}
        {hero}はうなずき、それから{_count(t.number(3, 9), "日")}の間、毎日練習しました。
        そして、とうとう{work}が{_count(1, master.counter)}できました。
        {t.say(master, "[よくがんばったね|りっぱにできたね|これはいい出来だ]")}

        {hero}は家に帰って、{t.holder[work]}に{work}をわたしました。
        {t.say(family, f"[{hero}が作ったの？すごいね|ありがとう。とてもうれしいよ]")}
        {_diary(hero, f"{master}に{work}の作り方を教わった")}
    """)
    return f"[{hero}と{master.job}の{master}|{hero}の{work}|{master}の{master.workplace}]"


def _weather(t: _Tale) -> str:
    hero, friend = t.children(2)
    plan, season, change, clear = t.row("""
        丘でお弁当を食べる 春 急に強い雨がふり出しました 雨がやみ、空に大きなにじが出ました
        川で水遊びをする 夏 かみなりが鳴り始めました 雲が去り、夏の日ざしがもどりました
        森で木の実を拾う 秋 強い風がふき、雨もふり出しました 風も雨もやみ、日がさしました
        広場で雪だるまを作る 冬 雪がはげしくなりました 雪がやみ、まわりは真っ白に光っていました
        草原でたこをあげる 冬 冷たい雨がふり出しました 雨がやみ、いい風がふき始めました
        公園でかくれんぼをする 夏 大つぶの雨がふり出しました 雨がやみ、木の葉が光りました
    """)
    house = f"{t.one((hero, friend))}の家"
    t.place[hero.name] = t.place[friend.name] = house
    t.add(f"""
        {_opening(t, hero, season, "朝")}{hero}は、{friend}と{plan}約束をしていました。

        ところが、[二人が家を出て少し歩くと|二人が出かけようとすると]、{change}。
        {t.say(hero, "[せっかく楽しみにしていたのに|これでは行けないね]")}{_sad(hero)}
        {t.say(friend, "[それなら、家の中で遊ぼうよ|家の中でも楽しく遊べるよ]")}

        二人は{t.place[hero.name]}に行き、
        [カルタをしました|折り紙を折りました|絵本を読みました|歌を歌いました|紙で人形を作りました]。
        [あたたかいお茶も飲みました|おかしも食べました]。
        [とても楽しくて、時間がたつのも忘れました|二人は何度も声をあげて笑いました]。

        しばらくすると、{clear}。{t.say(hero, "[見て、外に出られるよ|よかった。今なら行けるね]")}
        こうして二人は、{plan}こともできました。
        {t.say(friend, "[今日は二回も楽しかったね|待っていてよかったね]")}
    """)
    return f"[天気が変わった日|{hero}と{friend}の一日|{season}の空]"


def _sharing(t: _Tale) -> str:
    one, two, three = t.children(3)
    snack, counter = t.one(SNACKS).split()
    each = t.number(1, 3)
    total = _count(each * 3, counter)
    t.holder[snack] = one.name
    t.add(f"""
        {_opening(t, one)}{one}は、おばあさんから{snack}を{total}もらいました。

        [{one}は{two}と{three}を家によびました|そこへ、{two}と{three}が遊びに来ました]。
        {t.say(two, f"わあ、おいしそうな{snack}だね")}
        {t.say(t.holder[snack], "[三人で分けよう|みんなで食べよう]")}
        {total}の{snack}を三人で分けると、一人{_count(each, counter)}ずつになりました。

        ところが、{three}は[自分の分を落としてしまいました|うっかり自分の分を犬に食べられてしまいました]。{_sad(three)}
        {t.say(two, f"{two.me}のを半分あげるよ")}{t.say(one, f"{one.me}のもどうぞ")}

        {two}と{one}は、{three}に{snack}を分けてあげました。
        {t.say(three, f"[二人とも、ありがとう|ありがとう。今度は{three.me}が分けるね]")}
        {three}に笑顔がもどりました。
        [分けて食べると、いつもよりおいしく感じました|三人は、仲よく{snack}を食べました]。
    """)
    return f"[みんなの{snack}|三人と{snack}|{total}の{snack}]"


def _misunderstanding(t: _Tale) -> str:
    hero, friend = t.children(2)
    signal, sign, reason, reply = t.row("""
        声をかけても 返事をしませんでした のどがいたくて、声が出なかったんだ 早くなおるといいね
        手をふっても こちらを見ませんでした めがねを忘れて、よく見えなかったんだ そうだったんだ
        遊びにさそっても すぐに帰ってしまいました 妹が熱を出して、心配だったんだ 早くよくなるといいね
        話しかけても だまっていました おくり物をひみつにしていたんだ。はい、これ わあ、うれしい
        何を聞いても 上の空でした 明日の発表のことを考えていたんだ 練習を手伝うよ
    """)
    t.add(f"""
        {_opening(t, hero)}{hero}は、{t.one(PLACES)}で友だちの{friend}に会いました。

        ところが、{hero}が{signal}、{friend}は{sign}。
        {hero}は、{friend}に[おこられている|きらわれた]のだと思いました。{_sad(hero)}

        家に帰った{hero}に、[お母さん|お姉さん|おじいさん]が「本人に聞いてごらん」と言いました。
        次の日、{hero}は勇気を出して{friend}に話しかけました。
        {t.ask(hero, f"[昨日は、おこっていたの？|{hero.me}のこと、きらいになったの？]")}
        {t.answer(friend, f"ちがうよ。{reason}")}

        {t.say(hero, reply)}{t.say(friend, "[心配させてごめんね|昨日はごめんね]")}
        [{hero}の悲しい気持ちは、すっかり消えました|{hero}は安心して、にっこり笑いました]。
        [話してみれば、わかるものです|二人は手をつないで歩き出しました|二人はまた、いつものように遊びました]。
    """)
    return f"[{hero}の思いちがい|{friend}の返事|話せばわかる]"


def _stray(t: _Tale) -> str:
    hero, friend = t.children(2)
    animal = t.one([animal for animal in ANIMALS if animal.pets != "なし"])
    pet = t.one(animal.pets.split("・"))
    wrong, right = t.some([place for place in PLACES if place.name not in ("図書館", "学校")], 2)
    t.place[pet] = f"{right}の{t.one([spot for spot in right.spots.split('・') if not spot.endswith('上')])}"
    sound = "小さな音" if animal.voice == "なし" else f"「{animal.voice}」という声"
    t.add(f"""
        {_opening(t, hero)}{hero}の家には、{pet}という名前の{animal}が一{animal.counter}いました。

        その日、{hero}が家に帰ると、{pet}がいませんでした。{_sad(hero)}
        {t.say(hero, f"{pet}がいなくなったんだ。いっしょに探して")}
        {t.answer(friend, "[もちろん、手伝うよ|すぐに行こう]")}

        二人はまず{wrong}を探しましたが、{pet}はいませんでした。しばらくして、{friend}が{animal.trace}を見つけました。
        それは{right}へ行く道にありました。
        [{hero}は{animal.food}を手に持って、「{pet}」とよびました|二人は、「{pet}、どこにいるの」とよびました]。

        すると、{sound}がしました。{pet}は、{t.place[pet]}にいました。
        {pet}は[ちょうを追いかけて|大きな音におどろいて|おいしそうなにおいにさそわれて]、ここまで来てしまったのでした。
    """)
    t.place[pet] = f"{hero}の家"
    t.add(f"""
        {hero}は{pet}をやさしくなでました。{_thanks(t, hero, friend.call)}
        こうして、{pet}は{t.place[pet]}にもどりました。[|その夜、{pet}は{animal.food}をたくさん食べました。]
    """)
    return f"[{pet}はどこ|まいごの{animal}|{hero}と{animal}の{pet}]"


def _festival(t: _Tale) -> str:
    one, two, three = t.children(3)
    town, lanterns = _home(one), _count(t.number(2, 8), "つ")
    jobs = ("かざりを作る", "旗を立てる", "花を並べる", "いすを運ぶ", "道をそうじする", "太鼓をみがく")
    first, second, third = t.some(jobs, 3)
    t.add(f"""
        {_opening(t, one, town.season)}{town}では、もうすぐ{town.festival}が始まろうとしていました。

        {one}は{first}係、{two}は{second}係、{three}は{third}係になりました。
        {t.say(one, "[いい祭りにしようね|みんなで力を合わせよう]")}三人は[毎日よく|あせをかいて]働きました。

        ところが、祭りの前の日、ちょうちんが{lanterns}足りないことがわかりました。{t.ask(two, "どうしよう？")}
        {t.answer(three, f"[自分たちで作ろうよ|紙と竹があれば、{lanterns}くらい作れるよ]")}
        三人は紙をはり、夜までにちょうちんを{lanterns}作りました。

        いよいよ、{town.festival}の日になりました。{town.festival}では、{town.sight}。
        {town.landmark}の前には人が集まり、[みんなで|笑いながら]{town.dish}を食べました。
        三人の作ったちょうちんも、明るく光っていました。

        {t.say(one, "[がんばってよかったね|来年もいっしょにやろうね]")}{_glad(two)}
    """)
    return f"[{town}の{town.festival}|{town.festival}の前の日|足りないちょうちん]"


def _letter(t: _Tale) -> str:
    (hero,) = t.children(1)
    writer = t.one(_strangers(hero))
    away, home = _home(writer), _home(hero)
    t.add(f"""
        {_opening(t, hero)}[そこへ、ゆうびん屋さんが来ました|家の前に、ゆうびん屋さんの自転車が止まりました]。

        {t.say("ゆうびん屋さん", f"{hero.call}に手紙だよ")}それは、{away}に住む{writer}からの手紙でした。
        {hero}は[急いでふうとうを開けました|いすにすわって手紙を開きました]。

        手紙には、「{hero.call}、元気ですか。
        [{away}では、{away.season}に{away.festival}があります。{away.sight}。
        |{away}には{away.landmark}があります。だれもが知っている所です。
        |昨日、家族と{away.dish}を食べました。{away}で一番の料理です。]
        [いつか遊びに来てください。|今度、いっしょに出かけましょう。]」と書いてありました。{_glad(hero)}

        {hero}はすぐに返事を書きました。「{writer.call}、手紙をありがとう。
        [{hero.me}の住む{home}では、{home.dish}が名物です。
        |{home}の{home.festival}は{home.season}にあります。ぜひ見に来てください。
        |{home}に来たら、{home.landmark}を案内します。][会える日を楽しみにしています。|また手紙を書きます。]」

        {hero}は手紙をポストに入れました。
        [遠くにいる友だちが、近くにいるように感じました|{hero}は、{away}の空を思いうかべました]。
    """)
    return f"[{writer}からの手紙|{hero}への手紙|{away}からの手紙]"


def _planting(t: _Tale) -> str:
    (hero, friend), plant = t.children(2), t.one(PLANTS)
    grown, given = t.number(4, 9), t.number(1, 3)
    trouble, cure = t.row("""
        雨がふらず、土がかわいてしまいました 毎朝、川から水を運びました
        草が生えて、畑をおおいました 草を一本ずつぬきました
        強い風で、葉がたおれそうになりました 竹の棒でささえました
        虫が葉を食べ始めました 葉についた虫を一匹ずつとりました
    """)
    t.holder[plant.name] = hero.name
    t.add(f"""
        {_opening(t, hero, plant.sown)}{hero}は、庭の畑に{plant}の{plant.start}を植えました。

        {hero}は毎日水をやりました。やがて、{plant.sign}。ところが、ある日、{trouble}。
        {t.say(hero, "どうすればいいのかな")}それを見た{friend}が手伝いに来ました。二人は{cure}。

        季節がすぎ、{plant.ripe}になりました。二人が大事に育てた{plant}は、{plant.end}。
        {hero}は{plant}を{_count(grown, plant.counter)}とりました。

        そのうち{_count(given, plant.counter)}を、{t.holder[plant.name]}は{friend}にあげました。
        {t.say(friend, f"[ありがとう。家族で食べるね|わあ、りっぱな{plant}だね]")}
        {hero}の家には、{_count(grown - given, plant.counter)}残りました。
        その夜、{hero}の家族は{plant.dish}を食べました。[|{t.say(hero, "自分で育てると、おいしいね")}]
    """)
    return f"[{hero}の畑|{hero}と{plant}|{plant}の{plant.start}]"


def _errand(t: _Tale) -> str:
    (hero,) = t.children(1)
    goods, counter = t.one(GOODS).split()
    n_bought, n_given = t.number(4, 9), t.number(1, 3)
    bought, given, left = (_count(n, counter) for n in (n_bought, n_given, n_bought - n_given))
    hungry, why = t.row("""
        旅の人 朝から何も食べていないのです
        おじいさん お弁当を家に忘れてしまったのです
        絵かき 絵をかくのに夢中で、昼ごはんを忘れたのです
    """)
    place = t.one([place for place in PLACES if place.name != "市場"])
    t.holder[goods] = hero.name
    t.add(f"""
        {_opening(t, hero, time="昼すぎ")}

        {t.say("お母さん", f"{hero}、市場で{goods}を{bought}買ってきて")}
        {t.answer(hero, "[はい、行ってきます|うん、まかせて]")}
        {hero}は市場へ行き、{goods}を{bought}買いました。

        帰り道、{place}の近くに、{hungry}がすわっていました。
        {t.ask(hero, "どうしたのですか？")}{t.answer(hungry, why)}
        {hero}は少し考えてから、{hungry}に{goods}を{given}あげました。
        {t.say(hungry, "[ありがとう。助かりました|なんて親切なのでしょう]")}

        家に着いたとき、{goods}は{left}になっていました。
        {t.ask("お母さん", f"あら、{given}足りないね。どうしたの？")}
        {hero}は、{hungry}に会ったことを話しました。
        {t.say("お母さん", f"[それはいいことをしたね|{hero}はやさしいね]")}
        {_glad(hero)}
    """)
    return f"[{hero}のおつかい|{bought}の{goods}|市場の帰り道]"


def _sick_friend(t: _Tale) -> str:
    (hero, friend), place = t.children(2), t.one(PLACES)
    illness, wish = t.row("""
        かぜをひいて ゆっくり寝てね
        熱を出して 早く元気になってね
        足をけがして むりをしないでね
    """)
    present = t.choose("[みかん|あたたかいスープ|花たば|りんご|自分でかいた絵]")
    t.holder[present] = friend.name
    t.add(f"""
        {_opening(t, hero, time="朝")}その日、友だちの{friend}は{illness}、学校を休みました。{_sad(hero)}

        学校が終わると、{hero}は{present}を持って{friend}の家へ行きました。{t.ask(hero, "具合はどう？")}
        {t.answer(friend, "[まだ少しつらいよ|一人で寝ているのは、さびしいよ]")}
        {hero}は{t.holder[present]}に{present}をわたしました。{t.say(hero, wish)}

        {hero}は、その日学校であったことを話しました。
        [{friend}は、はじめて笑いました|{friend}の顔が、少し明るくなりました]。
        {hero}は次の日も、また次の日も、{friend}に会いに行きました。

        {_count(t.number(3, 7), "日")}後、{friend}はすっかり元気になりました。
        {t.say(friend, f"毎日来てくれてありがとう。{present}もうれしかったよ")}
        二人は{place}へ行き、{place.deed}。{_glad(hero)}
    """)
    return f"[{friend}のお見まい|{hero}のお見まい|{friend}が休んだ日]"


def _swap(t: _Tale) -> str:
    one, two = t.children(2)
    first, second = (t.one(THINGS[noun].split("・")) + noun for noun in t.some(tuple(THINGS), 2))
    t.holder.update({first: one.name, second: two.name})
    t.add(f"""
        {_opening(t, one)}{one}は{first}を、友だちの{two}は{second}を持っていました。

        {t.say(one, f"{two.call}の{second}、すてきだね")}{t.answer(two, f"{one.call}の{first}もすてきだよ")}
        {t.say(one, "[それなら、取りかえっこをしようか|よかったら、取りかえない？]")}
        {t.answer(two, "[うん、そうしよう|いいね]")}
    """)
    t.holder.update({first: two.name, second: one.name})
    t.add(f"""
        {one}は{two}に{first}をわたし、{two}は{one}に{second}をわたしました。
        こうして、{first}は{t.holder[first]}の物になり、{second}は{t.holder[second]}の物になりました。
        [二人とも、とても満足でした|二人は顔を見合わせて笑いました]。

        家に帰ると、{one}はお母さんに{second}を見せました。{t.ask("お母さん", f"{first}はどうしたの？")}
        {t.answer(one, f"{two.call}の{second}と取りかえたんだ")}
        {t.say("お母さん", "[大切にしなさいね|いい友だちがいてよかったね]")}

        次の日、{two}は{first}を、{one}は{second}を学校に持ってきました。
        [それは二人の友情のしるしになりました|二人は、ますます仲よくなりました]。
    """)
    return f"[取りかえっこ|{first}と{second}|{one}と{two}の取りかえっこ]"


def _mending(t: _Tale) -> str:
    (owner, hero), thing = t.children(2), t.one(BREAKABLES)
    helper = t.choose("[お父さん|おじいさん|お母さん|おばあさん]")
    t.holder[thing.name] = owner.name
    t.add(f"""
        {_opening(t, hero)}{hero}は、友だちの{owner}の家で遊んでいました。

        ところが、[ふざけているうちに|よそ見をしていて]、{hero}は{owner}の{thing}を{thing.accident}しまいました。
        {thing}は、{thing.broken}しまいました。{owner}はとなりの部屋にいて、まだ気づいていませんでした。

        {hero}は、だまっていようかと迷いました。けれども、正直に話すことにしました。
        {t.say(hero, f"{owner.call}、ごめんなさい。{thing}をこわしてしまったんだ")}{_sad(owner)}
        {t.say(owner, "[でも、正直に言ってくれてありがとう|でも、わざとではないから、いいよ]")}
    """)
    t.holder[thing.name] = hero.name
    t.add(f"""
        {hero}は{thing}を家に持って帰り、{helper}に相談しました。
        {t.answer(helper, "[いっしょに直そう|これなら直せるよ]")}
        {hero}は{helper}に教わりながら、{thing.mended}、{thing}を直しました。
    """)
    t.holder[thing.name] = owner.name
    t.add(f"""
        次の日、{hero}は{t.holder[thing.name]}に{thing}を返しました。
        {t.say(owner, "[前よりよくなったね|すごい、元どおりだ]")}
        {owner}に笑顔がもどり、{hero}もほっとしました。
    """)
    return f"[こわれた{thing}|{hero}の正直|{owner}の{thing}]"


# ------------------------------------------------------------------------------------------------ entries


def _entry(t: _Tale, first: str, facts: Sequence[str], scene: str) -> None:
    """Write an entry: the defining sentence and then the facts in random order, and a scene from life."""
    shuffled = t.some(facts, len(facts))
    half = len(facts) // 2
    t.add("".join((first, *shuffled[:half])))
    t.add("".join(shuffled[half:]))
    t.add(scene)


def _town_entry(t: _Tale) -> str:
    town = t.one(TOWNS)
    one, two = t.some(_people(CHILDREN, town.name), 2)
    adult, guest = t.one(_people(ADULTS, town.name)), t.one(_strangers(one))
    facts = (
        f"[名物は{town.dish}です|{town.dish}が名物として知られています|ここの名物は、{town.dish}です]。",
        f"[{town.landmark}が有名です|{town.landmark}があり、遠くからも人が見に来ます]。",
        f"[{town.season}には{town.festival}が開かれ、|毎年、{town.season}に{town.festival}があり、]{town.sight}。",
        f"[この{town.kind}では、{town.crop}がよくとれます|{town.crop}の産地でもあります]。",
        f"{adult.job}の{adult}[は、この{town.kind}に住んでいます|の{adult.workplace}があります]。",
        f"{one}と{two}[も、ここでくらしています|は、この{town.kind}の子どもです]。",
        f"{two}は、{two.hobby}が好きな{two.noun}です。",
    )
    scene = f"""ある{t.one(tuple(SEASONS))}の日、{guest.town}の{guest}が{town}をたずねました。
        [{one}が道を案内しました|{guest}は{one}といっしょに歩きました]。
        二人は[{town.landmark}を見てから|{t.one(PLACES)}に寄ってから]、{town.dish}を食べました。
        {t.say(guest, f"[{town.dish}は、とてもおいしいね|{town}が好きになったよ|また来たいな]")}"""
    _entry(
        t,
        f"{town}は、{town.where}[にある小さな{town.kind}です|にあります|の静かな{town.kind}です]。",
        facts,
        scene,
    )
    return town.name


def _child_entry(t: _Tale) -> str:
    child, friend = t.children(2)
    town, adult = _home(child), t.one(_people(ADULTS, child.town))
    facts = (
        f"[好きなことは、{child.hobby}です|{child.hobby}が何よりも好きです]。",
        f"[友だちの{friend}とよく遊びます|{friend}は{child}の友だちで、{friend.hobby}が好きです]。",
        f"{town}の名物の{town.dish}を[よく食べます|家族といっしょに食べます]。",
        f"[{town.season}の{town.festival}を楽しみにしています|毎年、{town.season}になると{town.festival}に行きます]。",
        f"[家は{town.landmark}の近くにあります|家から{town.landmark}が見えます]。",
        f"友だちからは「{child.call}」とよばれています。",
    )
    dream = f"[{adult}のような{adult.job}になりたいな|{adult.job}になって、{adult.product}を作りたいな]"
    scene = f"""ある日、{friend}は{child}に、大きくなったら何になりたいかと聞きました。
        {t.answer(child, dream)}
        {t.say(friend, f"[{child.call}なら、きっとなれるよ|それはいいね|おうえんするよ]")}"""
    first = (
        f"{child}は、[{town}に住む{child.trait}{child.noun}です|{child.trait}{child.noun}で、{town}に住んでいます]。"
    )
    _entry(t, first, facts, scene)
    return child.name


def _animal_entry(t: _Tale) -> str:
    animal, child = t.one(ANIMALS), t.one(CHILDREN)
    facts = [
        f"[|体を見ると、]{animal.looks}。",
        f"[{animal.home}にいます|ふだんは{animal.home}でくらします]。",
        f"[{animal.food}を食べます|食べ物は、おもに{animal.food}です|好きな食べ物は{animal.food}です]。",
        f"[|{animal}は、]{animal.habit}。",
        f"[|数えるときは、]一{animal.counter}、二{animal.counter}と[数えます|言います]。",
    ]
    if animal.pets != "なし":
        facts.append(f"[「{t.one(animal.pets.split('・'))}」という名前をつける人もいます|家で飼う人もいます]。")
    if animal.voice != "なし":
        facts.append(f"「{animal.voice}」[と鳴きます|という声で鳴きます]。")
    scene = f"""{child.town}の{child}は、ある日、[野原|家の近く|散歩のとちゅう]で{animal}を見つけました。
        {child}が[静かに|そっと]見ていると、{animal}は{animal.food}を食べ始めました。
        {t.say(child, f"[{animal}は、{animal.food}が好きなんだね|{animal.food}をおいしそうに食べるね]")}
        {child}は家に帰って、[絵日記|画用紙]に、{animal}の絵をかきました。"""
    _entry(t, f"{animal}は、[よく知られた|昔から人に親しまれている|人の近くにもいる]動物です。", facts, scene)
    return animal.name


def _tool_entry(t: _Tale) -> str:
    tool, child = t.one(TOOLS), t.one(CHILDREN)
    teacher = t.choose("[お父さん|お母さん|おじいさん|おばあさん]")
    facts = (
        f"[{tool.made_of}でできています|多くは{tool.made_of}で作られます]。",
        f"[使わないときは、{tool.keep}にしまいます|ふだんは{tool.keep}に置いておきます]。",
        f"[使うときには注意がいります。|]{tool.warning}。",
        f"[{tool.user}がよく使います|とくに{tool.user}にとって大切な道具です]。",
        "[よい物は、何年も使うことができます|手入れをすれば、長く使えます]。",
        "[多くの家に、一つはあります|市場で買うことができます]。",
    )
    scene = f"""{child.town}の{child}は、[六|七|八]さいのとき、{teacher}に{tool}の使い方を教わりました。
        {t.say(teacher, "[あわてずに使うんだよ|気をつけて使いなさい|まず、よく見ていなさい]")}
        [はじめはうまくいきませんでしたが、{child}は何度も練習しました|{child}は{teacher}の手を見て、まねをしました]。
        今では、{child}も{tool}を上手に使うことができます。"""
    _entry(t, f"{tool}は、{tool.use}[ための道具です|ときに使う道具です]。", facts, scene)
    return tool.name


def _dish_entry(t: _Tale) -> str:
    dish, child = t.one(DISHES), t.one(CHILDREN)
    family = t.choose("[お母さん|お父さん|おばあさん]")
    n_one, n_two = _count(t.number(1, 3), dish.one_counter), _count(t.number(1, 3), dish.two_counter)
    facts = (
        f"[{dish.first}、{dish.then}ます|作るときは、まず{dish.first}、それから{dish.then}ます]。",
        f"[|食べると、]{dish.taste}がします。",
        f"{dish.season}[によく食べます|の食べ物として親しまれています]。",
        f"[二人分なら、{dish.one}を{n_one}使います|ふつうは{dish.two}を{n_two}入れます]。",
        "[できたてが一番おいしい料理です|子どもにも大人にも人気があります]。",
    )
    scene = f"""{child.town}の{child}は、ある{dish.season}の日、{family}に{dish}の作り方を習いました。
        {t.ask(child, "まず、何をすればいいの？")}
        {t.answer(family, f"まずは、{dish.one}と{dish.two}をあらってね")}
        できあがった{dish}を食べて、{child}は[大喜びでした|にっこり笑いました|おかわりをしました]。"""
    _entry(t, f"{dish}は、{dish.one}[や{dish.two}で作る|と{dish.two}を使った]料理です。", facts, scene)
    return dish.name


def _job_entry(t: _Tale) -> str:
    adult = t.one(ADULTS)
    child = t.one(_people(CHILDREN, adult.town))
    facts = (
        f"[|{adult}は、]{adult.work}。",
        f"[仕事には{adult.tool}を使います|{adult.tool}は、{adult}の大切な道具です]。",
        f"[{adult.product}は、とくに人気があります|よく作る物は{adult.product}です]。",
        f"[{child}もよく{adult.workplace}に遊びに来ます|{adult.workplace}には、{child}が見に来ることもあります]。",
        f"[習いに来た人には「{adult.advice}」と教えます|「{adult.advice}」が口ぐせです]。",
        "[朝から夕方まで、休まず働きます|この仕事をもう何年も続けています]。",
    )
    question = f"[{adult.job}の仕事は、大変ですか？|仕事をしていて、うれしいのはどんなときですか？]"
    scene = f"""{t.ask(child, question)}
        {t.answer(adult, "[みんなが喜んでくれると、つかれも消えるよ|いい物ができると、つかれも忘れるよ]")}
        それを聞いて、{child}は[{adult}のような人になりたいと思いました|ますます{adult}が好きになりました]。"""
    _entry(
        t,
        f"[{adult}は、{adult.town}の{adult.job}です|{adult.town}に、{adult}という{adult.job}がいます]。",
        facts,
        scene,
    )
    return f"{adult.job}の{adult}"


def _season_entry(t: _Tale) -> str:
    names = tuple(SEASONS)
    i = t.number(0, 3)
    season, before, after = names[i], names[i - 1], names[(i + 1) % 4]
    town = t.one([town for town in TOWNS if town.season == season])
    dish = t.one([dish for dish in DISHES if dish.season == season])
    plant = t.one([plant for plant in PLANTS if plant.ripe == season])
    child, place = t.one(CHILDREN), t.one(PLACES)
    feature, sight = SEASONS[season]
    facts = (
        f"{feature}。",
        f"[{season}が終わると、{after}になります|{season}のあとには{after}が来ます]。",
        f"[{town}では、{town.festival}が開かれます|{season}の祭りでは、{town}の{town.festival}が知られています]。",
        f"[この季節には、{dish}をよく食べます|{dish}がおいしい季節です]。",
        f"[|畑では、]{plant.sown}に植えた{plant}がとれます。",
        f"[{season}が一番好きだと言う人も多くいます|{season}の景色を絵にかく人もいます]。",
    )
    scene = f"""{child.town}の{child}は、ある{season}の日、{place}へ行って{place.deed}。{sight}
        {t.say(child, f"[やっぱり、{season}はいいな|{season}が来たんだね|今日のことは忘れないよ]")}
        家に帰ると、{child}の家族は[{dish}|{plant.dish}]を用意して待っていました。"""
    _entry(t, f"{season}は、{before}[の次に来る季節です|と{after}の間の季節です]。", facts, scene)
    return season


SCENARIOS: tuple[Callable[[_Tale], str], ...] = (
    *(_lost_thing, _gift, _cooking, _race, _promise, _borrow, _traveller, _craft, _weather, _sharing),
    *(_misunderstanding, _stray, _festival, _letter, _planting, _errand, _sick_friend, _swap, _mending),
    *(_town_entry, _child_entry, _animal_entry, _tool_entry, _dish_entry, _job_entry, _season_entry),
)

# ------------------------------------------------------------------------------------------------ plain style

# Direct speech is matched first so that it stays as it is; then a polite ending with the character before it.
_POLITE = re.compile(r"「[^」]*」|([^「」。、\n]{1,2})(ませんでした|ました|ません|ます|でした|です)(?=。|が、)")
_I_ROW = "いきぎしちにびみり"
_U_ROW = dict(zip(_I_ROW, "うくぐすつぬぶむる", strict=True))
_A_ROW = dict(zip(_I_ROW, "わかがさたなばまら", strict=True))
_PAST = dict(zip(_I_ROW, ("った", "いた", "いだ", "した", "った", "んだ", "んだ", "んだ", "った"), strict=True))
_EXIST = ("い", *(before + "い" for before in "てでがはもにく匹羽頭"))  # the verb いる, not a verb in -う
_ICHIDAN = (
    "でき",
    "すぎ",
    "感じ",
    "伸び",
    "てみ",
    "てき",
)  # stems of verbs in -iru; てき is 来る in the past
_GODAN_S = ("出し", "話し", "探し", "返し", "直し", "かし", "わし", "たし", "らし", "とし", "もし")  # not する


@cache
def _plain(stem: str, ending: str) -> str:
    """Return the last two characters of a stem and a polite ending, in plain style: 読み + ました -> 読んだ."""
    if ending == "でした":
        return stem + "だった"
    if ending == "です":
        return stem + "だ"
    last = stem[-1]
    ichidan = stem in _EXIST or stem.endswith(_ICHIDAN) or last not in _U_ROW
    suru = last == "し" and not stem.endswith(_GODAN_S)
    if ending == "ました":
        return stem + "た" if ichidan else "行った" if stem == "行き" else stem[:-1] + _PAST[last]
    if ending == "ます":
        return stem + "る" if ichidan else stem[:-1] + ("する" if suru else _U_ROW[last])
    negative = "ない" if ending == "ません" else "なかった"
    if stem == "あり":
        return negative
    return stem + negative if ichidan or suru else stem[:-1] + _A_ROW[last] + negative


def _to_plain(text: str) -> str:
    """Return the narration of a text in the plain past style; direct speech in 「」 is untouched."""
    return _POLITE.sub(lambda match: _plain(match[1], match[2]) if match[1] else match[0], text)


def _tell(seed: int, index: int) -> tuple[str, str, _Tale]:
    """Return title and text of story ``index``, and the tale with the final state of its world."""
    t = _Tale(random.Random(f"{seed}:{index}"))
    title = t.choose(t.one(SCENARIOS)(t))
    text = "\n".join(t.paragraphs)
    return title, t.one((text, _to_plain(text))), t


def stories(seed: int = 0, n: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield ``n`` stories, or an endless sequence if ``n`` is None, as ``(title, text)`` pairs.

    Story ``i`` is a pure function of ``(seed, i)``, the same on every platform and Python version, so a longer sequence
    begins with a shorter one. A text has some 150 to 600 characters: paragraphs separated by one line feed,
    NFC-normalized, with narration either polite (です・ます) or plain throughout. It is consistent: lost things are
    found where they were left, numbers add up, and a town's specialty is the same in every story.

    Raises `ConfigError` if ``n`` is negative.
    """
    if n is not None and n < 0:
        raise ConfigError("n must be at least 0 (got {n}); leave it out for stories without end", n=n)
    return (_tell(seed, index)[:2] for index in (itertools.count() if n is None else range(n)))


@checked
def write_stories(
    out: str | Path, n: Annotated[int, AtLeast(0)] = 20_000, *, seed: int = 0, overwrite: bool = False
) -> int:
    """Write ``n`` stories into a text file, each headed 【title】, and return its number of characters.

    20,000 stories have some 6.7 million characters. Raises `ConfigError` if ``n`` is negative, and `OutputError` if
    ``out`` exists (with ``overwrite`` it is replaced) or cannot be written.
    """
    out, articles = Path(out), (format_article(title, text) for title, text in stories(seed, n))
    if not overwrite:
        refuse_existing(out)
    with refuse_failed_write(out), atomic_write(out) as file:
        return sum(map(file.write, articles))
