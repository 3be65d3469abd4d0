"""The playground's page in a real browser, as a person uses it: type, read, stop, compare, look closer, come back."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from little import Little, prompt_whose_place_matters
from playground_server import serving

from mamegpt.data.clean.clean import clean
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import Token, generate
from mamegpt.pretrained import load
from mamegpt.report.write import write_report
from mamegpt.tokenizer.tokenizer import Tokenizer

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium with its driver here"),
]


class Page:
    """A window of the browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *values: object) -> Any:
        return self.driver.execute_script(script, *values)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.all(selector)[0]

    def until(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 60, 0.05).until(lambda _: condition())

    def open(self, address: str) -> None:
        self.driver.get(address)
        self.until(lambda: self.all("#model option"))

    def choose(self, selector: str, index: int) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.one(selector)).select_by_index(index)

    def write(self, prompt: str) -> None:
        """Type and press Ctrl+Enter."""
        from selenium.webdriver.common.keys import Keys

        self.one("#prompt").clear()
        self.one("#prompt").send_keys(prompt, Keys.CONTROL, Keys.ENTER)

    def texts(self) -> list[str]:
        return [self.run("return arguments[0].textContent", text) for text in self.all("article .text")]

    def is_done(self) -> bool:
        return len(self.all("article.done")) == len(self.all("article")) > 0 and not self.one("#stop").is_displayed()

    def complaints(self) -> list[Any]:
        """What the browser's console says is wrong."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"intl.accept_languages": "ja"})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield Page(driver)
    driver.quit()


@pytest.fixture
def address(little: Little, page: Page) -> Iterator[str]:
    """The page, opened for the first time."""
    with serving([str(little.run), str(little.exported)]) as port:
        where = f"http://127.0.0.1:{port}/"
        page.open(where)
        page.run("localStorage.clear()")
        page.open(where)
        yield where
        assert page.complaints() == []


def test_type_read_and_look_closer(page: Page, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    page.write("豆の")
    page.until(page.is_done)
    texts = page.texts()
    assert len(texts) == 3 and all(text.startswith("豆の") and text != "豆の" for text in texts)
    assert len(set(texts)) == 3
    assert "文字を" in page.one("#status").text

    assert not page.one("#tip").is_displayed()
    page.one("#heat").click()
    token = next(span for span in page.all(".token") if span.text)
    token.click()
    page.until(page.one("#tip").is_displayed)
    rows = page.all("#tip li")
    assert len(rows) in (5, 6) and len(page.all("#tip .taken")) == 1
    shares = [float(row.text.split()[-2]) for row in rows[:5]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 101
    tip, text = page.one("#tip").rect, page.one("article .text")
    assert tip["x"] >= 0 and tip["x"] + tip["width"] <= page.run("return innerWidth")
    text.send_keys(Keys.ARROW_RIGHT)
    text.send_keys(Keys.ARROW_RIGHT)
    assert page.all(".token.chosen") and page.one("#tip").is_displayed()
    text.send_keys(Keys.ESCAPE)
    assert not page.one("#tip").is_displayed()


BEYOND = "あ😀い𠮷う👨‍👩‍👧え葛󠄀お。"
"""Characters of one and of several UTF-16 units, joined and with a variation selector."""


def written(text: str) -> Callable[..., Iterator[Token]]:
    """A stand-in for `stream_tokens` that writes ``text``; token i has the probability 1 / (i + 2)."""

    def tokens(_model: object, tokenizer: Tokenizer, *_: object, **__: object) -> Iterator[Token]:
        decoder, offset = tokenizer.stream(), 0
        for i, token in enumerate(tokenizer.encode(text)):
            new = decoder.push(token)
            logprob = -math.log(i + 2)
            yield Token(new, offset, token, logprob, [(token, logprob)])
            offset += len(new)
        yield Token("", offset, finish="stop")

    return tokens


def test_every_character_shows_whole_and_with_its_own_probability(
    page: Page, address: str, little: Little, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mamegpt.pretrained.stream_tokens", written(BEYOND))
    page.choose("#n", 0)
    page.one("#heat").click()
    page.write("😀の")
    page.until(page.is_done)
    assert page.texts() == ["😀の" + BEYOND]
    # The spans of tokens, each with the bits of the tokens it stands for: a character's bytes are summed up.
    expected, bits = [], 0.0
    *tokens, _ = written(BEYOND)(None, little.tokenizer)
    for token in tokens:
        bits -= (token.logprob or 0.0) / math.log(2)
        if token.text:
            expected.append((token.text, pytest.approx(bits)))
            bits = 0.0
    found = page.run("""return [...document.querySelectorAll('.token')].filter((span) => span.textContent)
        .map((span) => [span.textContent, span.sheet.bits(span.token)])""")
    assert [tuple(pair) for pair in found] == expected
    assert len(BEYOND) in {int(n) for n in re.findall(r"[0-9]+", page.one("#status").text)}  # characters, not units

    page.one("#open-history").click()
    page.one("#entries button").click()
    assert page.texts() == ["😀の" + BEYOND]
    page.one("footer button").click()  # go on
    page.until(page.is_done)
    assert page.texts() == ["😀の" + 2 * BEYOND]


def test_the_chosen_model_is_saved_as_one_file(page: Page, address: str) -> None:
    """A headless browser saves nothing, so the page's own link is caught."""
    page.open(address)
    page.run("""window.saved = [];
        URL.createObjectURL = (blob) => { blob.text().then((text) => window.saved.push(text)); return "blob:x"; };
        HTMLAnchorElement.prototype.click = function () { window.saved.push(this.download); };""")
    page.one("#share").click()
    page.until(lambda: page.run("return window.saved.length") == 2)
    file, text = sorted(page.run("return window.saved"), key=len)
    name = page.run("return document.getElementById('model').value")
    assert file == f"{name.split('/')[-1]}.html" and text.startswith(f"<!doctype html>{name} of ")
    assert file in page.one("#status").text and page.one("#share").is_enabled()


def test_stop_keeps_what_is_there_and_frees_the_place(page: Page, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    page.run("document.getElementById('max_tokens').value = 1000")
    for _ in range(10):  # the seed is another one each time, and with some all texts end before they can be stopped
        page.write("豆の")
        page.until(lambda: any(map(len, page.texts())))
        page.one("#prompt").send_keys(Keys.ESCAPE)
        page.until(page.is_done)
        if stopped := "停止しました" in [fact.text for fact in page.all(".fact")]:
            break
    assert stopped
    page.until(lambda: page.run("return fetch('v1/status').then((answer) => answer.json())")["running"] == 0)


def test_compare_two_models_and_come_back_to_it(page: Page, address: str) -> None:
    names = page.run("return fetch('v1/models').then((answer) => answer.json())")["data"]
    assert len(names) == 2  # the run and its export, as both were named
    page.choose("#other", 2)
    page.choose("#n", 0)
    page.run("document.getElementById('seed').value = 7")
    page.write("豆の")
    page.until(page.is_done)
    assert len(page.all("section h2")) == 2
    a, b = page.texts()
    assert a == b  # the exported folder is the run's own model, and the seed is the same

    page.open(address)
    assert page.run("return document.getElementById('prompt').value") == "豆の"
    assert page.all("article") == []
    page.one("#open-history").click()
    page.one("#entries button").click()
    assert page.texts() == [a, b]
    assert page.run("return document.getElementById('seed').value") == "7"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (800, 1000), (390, 844)])
def test_texts_of_two_models_stand_next_to_each_other_in_view(
    page: Page, address: str, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mamegpt.pretrained.stream_tokens", written("豆の木の話。" * 20))
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.choose("#other", 2)
    page.choose("#n", 2)
    page.write("豆の")
    page.until(page.is_done)
    names = [heading.text for heading in page.all("article h2")]
    assert len(names) == 6 and names[:2] * 3 == names and names[0] != names[1]
    tops = page.run("return [...document.querySelectorAll('article')].map((one) => one.getBoundingClientRect().top)")
    assert 0 <= tops[0] <= tops[1] < height - 100
    assert (tops[0] == tops[1]) == (width > 500)
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_bars_are_scaled_to_the_likeliest_token_and_in_its_order(
    page: Page, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokens(_model: object, tokenizer: Tokenizer, *_: object, **__: object) -> Iterator[Token]:
        a, b = (tokenizer.encode(text)[0] for text in ("豆", "1"))
        yield Token("豆", 0, a, math.log(0.06), [(a, math.log(0.06)), (b, math.log(0.03))])
        yield Token("", 1, finish="stop")

    monkeypatch.setattr("mamegpt.pretrained.stream_tokens", tokens)
    page.choose("#n", 0)
    page.one("#heat").click()
    page.write("豆")
    page.until(page.is_done)
    page.one(".token").click()
    widths = page.run("return [...document.querySelectorAll('#tip .track i')].map((bar) => bar.style.width)")
    assert [float(width.rstrip("%")) for width in widths] == pytest.approx([100, 50])


def test_a_prompt_that_begins_no_text_is_sent_so(page: Page, address: str, little: Little) -> None:
    page.choose("#n", 0)
    page.one("summary").click()
    page.run("document.getElementById('temperature').value = 0")
    page.run("document.getElementById('max_tokens').value = 20")
    run, prompt = load(little.run), prompt_whose_place_matters(little.run, 20)
    found = []
    for at_start in (True, False):
        page.write(prompt)
        page.until(page.is_done)
        expected = generate(run.model, run.tokenizer, prompt, 20, Sampling(top_p=0.9), at_start=at_start)
        assert page.texts() == [prompt + expected]
        found.append(expected)
        page.one("#at_start").click()
    assert found[0] != found[1]
    page.all("footer button")[2].click()
    page.one("[value=command]").click()
    assert "--at-start False" in page.one("pre").text and "--seed" not in page.one("pre").text  # as it is greedy
    page.one("#code form button").click()
    page.one("#defaults").click()
    assert page.one("#at_start").is_selected()


def test_code_is_what_was_asked(page: Page, address: str) -> None:
    page.choose("#n", 1)
    page.run("document.getElementById('seed').value = 7")
    page.write("豆の'\\\"木")
    page.until(page.is_done)
    page.all("article")[1].find_elements("css selector", "footer button")[2].click()
    for kind, seed in (("python", "seed=8"), ("curl", '"seed":8'), ("command", "--seed 8")):
        page.one(f"[value={kind}]").click()
        assert seed in page.one("pre").text
    page.one("[value=python]").click()
    words: dict[str, Any] = {}
    code = page.one("pre").text.replace("from openai import OpenAI", "").partition("for chunk")[0]

    class Client:
        def __init__(self, **_: str) -> None:
            self.completions = self

        def create(self, **options: object) -> None:
            words.update(options)

    exec(code, {"OpenAI": Client})
    assert (words["prompt"], words["seed"], words["stream"]) == ("豆の'\\\"木", 8, True)
    page.one("#code form button").click()


def test_mistakes_show_and_markup_stays_text(page: Page, address: str) -> None:
    page.write("<img src=x onerror=alert(1)>" + "豆" * 5)
    page.until(page.is_done)
    assert page.all("article img") == [] and page.texts()[0].startswith("<img src=x")
    page.run("document.getElementById('seed').value = -3")
    page.run("document.getElementById('desk').requestSubmit()")
    page.run(
        "document.querySelector('#prompt').dispatchEvent(new KeyboardEvent('keydown', "
        "{key: 'Enter', ctrlKey: true, bubbles: true}))"
    )
    page.until(lambda: page.one("#problem").is_displayed())
    assert "seed must be at least 0" in page.one("#problem").text
    page.driver.get_log("browser")  # the answer 400 is in it


def test_two_languages_two_themes_and_a_phone(page: Page, address: str) -> None:
    assert page.one("#write span").text == "生成"
    page.one("#language").click()
    assert page.one("#write span").text == "Generate"
    assert page.run("return document.documentElement.lang") == "en"

    def paper() -> str:
        return str(page.run("return getComputedStyle(document.body).backgroundColor"))

    before = paper()
    page.one("#theme").click()
    assert paper() != before
    page.open(address)
    assert (page.one("#write span").text, paper() != before) == ("Generate", True)
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    page.write("豆の")
    page.until(page.is_done)
    page.one("summary").click()
    assert page.run("return document.documentElement.scrollWidth") == 360
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def chat_address(little: Little, tuned: Path, page: Page) -> Iterator[str]:
    """The page of a model that continues and of one that answers, opened for the first time."""
    with serving([str(little.run), str(tuned)]) as port:
        where = f"http://127.0.0.1:{port}/"
        page.open(where)
        page.run("localStorage.clear()")
        page.open(where)
        yield where
        assert page.complaints() == []


def turns(page: Page) -> list[str]:
    return [page.run("return arguments[0].textContent", text) for text in page.all("#turns .text")]


def test_a_chat_from_the_first_question_to_coming_back(page: Page, chat_address: str, tuned: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    assert page.run("return document.body.dataset.mode") == "write" and page.one("#modes").is_displayed()
    page.one("[value=chat]").click()
    assert all(str(tuned) in (option.get_attribute("value") or "") for option in page.all("#model option"))
    page.run("document.getElementById('temperature').value = 0; document.getElementById('max_tokens').value = 10")
    field = page.one("#prompt")
    field.send_keys("豆の")
    for composing in (
        "{key: 'Enter', isComposing: true, bubbles: true}",
        "{key: 'Enter', keyCode: 229, bubbles: true}",
    ):
        page.run(f"arguments[0].dispatchEvent(new KeyboardEvent('keydown', {composing}))", field)
    assert turns(page) == [] and field.get_attribute("value") == "豆の"
    field.send_keys(Keys.SHIFT, Keys.ENTER, Keys.SHIFT, "木", Keys.ENTER)
    loaded = load(tuned, device="cpu")
    first = loaded.answer("豆の\n木", max_new_tokens=10, top_p=0.9)
    page.until(page.is_done)
    assert turns(page) == ["豆の\n木", first] and field.get_attribute("value") == ""

    page.one("#heat").click()
    token = next(span for span in page.all("#turns .token") if span.text)
    token.click()
    page.until(page.one("#tip").is_displayed)
    assert len(page.all("#tip li")) in (5, 6)
    page.one("#heat").click()

    page.one(".question button").click()
    page.one(".editing textarea").send_keys(Keys.CONTROL, "a")
    page.one(".editing textarea").send_keys("春は", Keys.ENTER)
    page.until(lambda: len(turns(page)) == 2 and page.is_done())
    assert turns(page) == ["春は", loaded.answer("春は", max_new_tokens=10, top_p=0.9)]
    page.all(".answer footer button")[2].click()
    assert "client.chat.completions.create(" in page.one("pre").text
    page.one("[value=command]").click()
    assert page.one("pre").text.startswith(f"mamegpt chat --model '{tuned}' --prompt '春は'")
    page.one("#code form button").click()

    before = turns(page)
    page.open(chat_address)
    assert page.run("return document.body.dataset.mode") == "chat" and turns(page) == before
    page.one("#new-chat").click()
    assert turns(page) == [] and page.one("#examples").is_displayed()
    page.one("#open-history").click()
    page.one("#entries button").click()
    assert turns(page) == before
    page.one("[value=write]").click()
    assert not page.one("#turns").is_displayed() and len(page.all("#model option")) > 2


def test_an_answer_is_stopped_and_a_failed_question_comes_back(page: Page, chat_address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    page.one("[value=chat]").click()
    page.run("document.getElementById('max_tokens').value = 1000")
    page.one("#prompt").send_keys("豆", Keys.ENTER)
    page.until(lambda: len(turns(page)) == 2 and len(turns(page)[1]) > 3)
    page.one("#prompt").send_keys("次の", Keys.ENTER)  # not before the answer ends
    assert len(turns(page)) == 2
    page.one("#prompt").send_keys(Keys.ESCAPE)
    page.until(page.is_done)
    assert "停止しました" in [fact.text for fact in page.all(".fact")]
    page.run("document.getElementById('seed').value = -3")
    page.one("#prompt").send_keys(Keys.ENTER)
    page.until(lambda: page.one("#problem").is_displayed())
    assert len(turns(page)) == 2 and page.one("#prompt").get_attribute("value") == "次の"
    page.driver.get_log("browser")  # the answer 400 is in it


def test_a_chat_fits_a_phone(page: Page, chat_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from selenium.webdriver.common.keys import Keys

    monkeypatch.setattr("mamegpt.pretrained.stream_answer", written("豆の木の話。" * 20))
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.one("[value=chat]").click()
    for question in ("<img src=x onerror=alert(1)>", "a" * 200):
        page.one("#prompt").send_keys(question, Keys.ENTER)
        page.until(page.is_done)
    page.one("summary").click()
    assert page.run("return document.documentElement.scrollWidth") == 360
    assert page.all("#turns img") == [] and turns(page)[0].startswith("<img")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.driver.get_log("browser")  # the second question is longer than the context: 400


def test_a_page_without_a_model_that_answers_has_no_chat(page: Page, address: str) -> None:
    assert not page.one("#modes").is_displayed() and not page.one("#new-chat").is_displayed()


def test_a_server_that_is_gone_is_told(page: Page, little: Little) -> None:
    with serving([str(little.run)]) as port:
        page.open(f"http://127.0.0.1:{port}/")
    page.write("豆の")
    page.until(lambda: page.one("#problem").is_displayed())
    page.driver.get_log("browser")


def test_the_report_opens_alone_and_switches(page: Page, little: Little, tmp_path: Path) -> None:
    write_report([little.run], tmp_path / "report.html")
    page.driver.get((tmp_path / "report.html").as_uri())

    def visible() -> set[str]:
        return set(
            page.run(
                "return [...document.querySelectorAll('svg')].filter((svg) => svg.checkVisibility())"
                ".map((svg) => svg.parentNode.className)"
            )
        )

    assert visible() == {"by-step"}
    assert page.one("h2").text == "結果"
    page.run("document.getElementById('by-tokens').click(); document.getElementById('en').click()")
    assert visible() == {"by-tokens"}
    assert page.one("h2").text == "Results"
    assert page.complaints() == []


@pytest.mark.parametrize("name", ["run", "data"])
def test_a_report_shows_its_texts_in_either_language_and_fits_a_telephone(
    page: Page, little: Little, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "<b>長い名前のファイル" / "report.html"
    path.parent.mkdir()
    if name == "run":
        write_report([shutil.copytree(little.run, path.parent / ("長い名前の記録" * 8))], path)
    else:
        clean(shutil.copy(little.text, path.parent), tmp_path / "out.jsonl", report=path)
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.driver.get(path.as_uri())
    for language in ("ja", "en"):
        page.run("document.getElementById(arguments[0]).click()", language)
        assert page.run("return document.documentElement.scrollWidth") == 360
        texts = page.all(".written")
        assert len(texts) > 4 and all(text.is_displayed() for text in texts)
        assert page.run(
            "return [...document.querySelectorAll('svg')].filter((svg) => svg.checkVisibility())"
            ".every((svg) => parseFloat(getComputedStyle(svg.querySelector('text')).fontSize)"
            " * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width > 9.9)"
        ), "text of charts can be read"
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert page.complaints() == []
