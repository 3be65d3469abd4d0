"""Texts and models for tests of tokenizers."""

import io
import random
from collections.abc import Sequence

import sentencepiece

__all__ = ["EDGE_CASES", "story_lines", "train_directly"]

NAMES = ["太郎", "花子", "健太", "美咲", "おじいさん", "となりの猫", "リサ", "ジョン"]
PLACES = ["川", "森", "駅前の広場", "古い神社", "学校", "海辺", "図書館", "山の上"]
THINGS = ["赤い傘", "豆", "古い地図", "カメラ", "手紙", "小さな鍵", "パン", "切符"]
VERBS = ["見つけた", "拾った", "忘れてきた", "友だちに渡した", "大事にしまった"]
EDGE_CASES = [
    "",
    "大嘗宮",
    "ﾌｧﾐｺﾝとﾊﾟﾝ",
    "か\u3099き\u3099は\u309a",
    "👨‍👩‍👧‍👦と🇯🇵",
    "一行目\n二行目\n\n四行目\n",
    "\tタブ\t",
    "  空白   が  続く ",
    "\u3000全角\u3000\u3000空白",
    "<s>太郎</s><unk><pad>",
    "<0xE3><0x0A>",
    "𠮷野家で葛\U000e0100を",
    "\r\n\x85\u2028\u2585",
    "1234567890 abc ÄÖÜ",
    "\x00",
]


def story_lines(n: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [
        f"{draw.choice(NAMES)}は{draw.randint(1, 99)}年前、{draw.choice(PLACES)}で"
        f"{draw.choice(THINGS)}を{draw.choice(VERBS)}。「{draw.choice(THINGS)}だ！」と  笑った。"
        for _ in range(n)
    ]


def train_directly(lines: Sequence[str] = (), **settings: object) -> bytes:
    """A model as others make them: SentencePiece's own trainer, its defaults except ``settings``."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines or story_lines(400)),
        model_writer=written,
        minloglevel=2,
        **{"vocab_size": 400, "model_type": "bpe", "byte_fallback": True, "num_threads": 1, **settings},
    )
    return written.getvalue()
