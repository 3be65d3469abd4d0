"""Values of JSON are compared with shapes; what is wrong is said in our words, with its place, in one line."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from mamegpt.config import read_settings
from mamegpt.data.shards import open_shards
from mamegpt.errors import MamegptError
from mamegpt.messages import translate
from mamegpt.planning.cluster_cost import plan_cluster
from mamegpt.pretrained import load
from mamegpt.run.metrics import read_metrics
from mamegpt.run.run import Run
from mamegpt.system.validation import Count, FromJSON, Lax, Number, Within, problems, validated


@dataclass(frozen=True)
class Inner(FromJSON):
    n: Count
    share: Number = 0.5


@dataclass(frozen=True)
class Outer(FromJSON):
    kind: Literal["a", "b"]
    texts: Mapping[str, str]
    inner: dict[str, Inner]
    more: list[Inner] = field(default_factory=list)
    row: Annotated[tuple[str, float], Lax()] = ("", 0.0)
    by_number: dict[Annotated[int, Lax()], bool] = field(default_factory=dict)
    seed: Annotated[int, Within(gt=0, le=10)] | None = None


@dataclass(frozen=True)
class Open(FromJSON, extra="ignore", allow_inf_nan=True):
    x: float


# fmt: off
GOOD: dict[str, Any] = {
    "kind": "a", "texts": {"a.b": "豆\udcff"}, "inner": {"train": {"n": 1, "share": 1}}, "more": [{"n": 2}],
    "row": ["a", 1], "by_number": {"3": True}, "seed": None,
}
# fmt: on
# fmt: off
ODD = [
    None, True, -1, 0, 7, 1.5, math.inf, math.nan, 10**400, "", "7", "\ud800", "a\nb", [], {}, [[1]], {"a": None},
    {"\udcff\n": 1}, ["a"] * 99,
]
# fmt: on


def test_a_value_of_its_shape_is_made() -> None:
    made = validated(Outer, GOOD)
    inner = {"train": Inner(1, 1.0)}
    assert made == Outer("a", {"a.b": "豆\udcff"}, inner, [Inner(2)], ("a", 1.0), {3: True})
    assert validated(list[Inner], [{"n": 1}]) == [Inner(1)]
    assert math.isnan(validated(Open, {"x": math.nan, "y": 1}).x)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"kind": "c"}, "kind must be one of a, b (got 'c')"),
        ({"kind": ...}, "kind is missing"),
        ({"kinds": 1}, "kinds is unknown"),
        ({"texts": {"a.b": 1}}, "texts.'a.b' must be a string (got 1)"),
        ({"inner": {"train": {"n": True}}}, "inner.train.n must be a whole number (got True)"),
        ({"inner": {"train": {"n": -1}}}, "inner.train.n must be at least 0 (got -1)"),
        ({"inner": {"train": {"n": 1 << 63}}}, "inner.train.n must be below 9,223,372,036,854,775,808 (got 922337203"),
        ({"inner": 3}, "inner must be a JSON object (got 3)"),
        ({"more": [{"n": 1}, 3]}, "more[1] must be a JSON object (got 3)"),
        ({"more": {}}, "more must be a list (got {})"),
        ({"more": [{"n": 1, "share": "1"}]}, "more[0].share must be a number (got '1')"),
        ({"more": [{"n": 1, "share": math.nan}]}, "more[0].share must be a finite number (got nan)"),
        ({"row": ["a", 1, 2]}, "row must hold at most 2 (got 3)"),
        ({"row": ["a"]}, "row[1] is missing"),
        ({"by_number": {"3": 1}}, "by_number.3 must be true/false (got 1)"),
        ({"by_number": {"x": True}}, "by_number.x must be a whole number (got 'x')"),
        ({"seed": 0}, "seed must be above 0 (got 0)"),
        ({"seed": 11}, "seed must be at most 10 (got 11)"),
        ({"a\n\udcff": 1}, "it must be text that UTF-8 can encode (got 'a\\n\\udcff')"),
        ({"seed": 0, "kind": 3}, "kind must be one of a, b (got 3); seed must be above 0 (got 0)"),
        ({"more": [{}] * 7}, "; more[4].n is missing; 2 more of this kind"),
        ({"seed": 10**5000}, "seed must be at most 10 (got thousands of digits)"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change: dict[str, Any], found: str) -> None:
    value = {name: one for name, one in (GOOD | change).items() if one is not ...}
    with pytest.raises(ValueError, match=re.escape(found)) as caught:
        validated(Outer, value)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value) == "; ".join(problems(Outer, value))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def test_nothing_is_said_in_the_words_of_a_library_and_all_of_it_in_japanese() -> None:
    n_places, said = len(list(places([GOOD]))), 0
    for i, odd in itertools.product(range(n_places), ODD):
        value = [json.loads(json.dumps(GOOD))]
        holder, key = list(places(value))[i]
        holder[key] = odd
        for problem in problems(Outer, value[0], lambda _: "x"):
            said += 1
            assert problem.startswith(("x is ", "x must ", "it must ")) or problem.endswith(" more of this kind"), (
                problem
            )
            assert "cannot be used" not in problem and "\n" not in problem
            japanese = translate(problem, "ja")
            assert not any(word in japanese for word in (" must ", " is ", "more")), japanese
    assert said > 200


def test_a_whole_line_is_japanese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("config.json").write_text("{}", encoding="utf-8")
    files = {
        "machine.json": '{"threads": "x"}',
        "meta.json": "{}",
        "metrics.jsonl": '{"step": -1}\n',
        "a.toml": "seed = true\nx = 1",
        "c.toml": "price = 0",
        "model/config.json": '{"model_type": 7}',
        "evaluation.json": "[]",
    }
    for name, text in files.items():
        Path(name).write_text(text, encoding="utf-8")
    said = {
        lambda: Run(".").machine: (
            "machine.json が壊れています(threads は整数で指定してください(指定値: 'x'))。"
            "削除すると、このファイルなしで続行します"
        ),
        lambda: open_shards(Path()): (
            "meta.json は壊れています(format がありません。dtype がありません。vocab_size がありません。"
            "eos_id がありません。tokenizer_sha256 がありません。同様の問題がほかに 2 件あります)。"
            "テキストをトークン化し直してください"
        ),
        lambda: read_metrics(Path()): (
            "metrics.jsonl の 1 行目は run のメトリクスではありません(step は 0 以上で指定してください(指定値: -1))。"
            "その行を削除してください"
        ),
        lambda: read_settings(Path("a.toml")): (
            "a.toml の設定を読めません: seed は整数で指定してください(指定値: True)。x という項目はありません"
        ),
        lambda: Run(".").evaluation: "全体 は JSON のオブジェクトで指定してください(指定値: [])",
        lambda: plan_cluster("c.toml"): "クラスタの記述になっていません(peak_flops がありません。",
        lambda: load("model"): "model_type は文字列で指定してください(指定値: 7)",
    }
    for read, japanese in said.items():
        with pytest.raises(MamegptError) as caught:
            read()
        assert japanese in translate(caught.value.message, "ja")
