"""A tuned model answers: what it reads, where it stops, what it forgets, and the same in other programs."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pytest
from command import Mame
from little import N_SENTENCES, Little, random_model, sizes_for
from tokenizers import Tokenizer as FastTokenizer

from mamegpt.errors import ConfigError, ModelError, TokenizerError
from mamegpt.exporting.checks import CHATS, answer_checks, fitting_chats, make_cases, until_end
from mamegpt.exporting.publish import export
from mamegpt.generation import stream
from mamegpt.generation.stream import fitting, stream_answer
from mamegpt.pretrained import load
from mamegpt.tokenizer.chat import TEMPLATE, Message, chat_ids, conversation_ids
from mamegpt.tokenizer.hf import fast_tokenizer_json
from mamegpt.tokenizer.tokenizer import Tokenizer

ASKED = Message("user", "豆は何色ですか")
LONG = [ASKED, Message("assistant", "緑です。")] * 5 + [ASKED]


@pytest.mark.parametrize("messages", CHATS)
def test_the_template_says_what_the_model_reads(little: Little, messages: tuple[Message, ...]) -> None:
    rendered = jinja2.Template(TEMPLATE).render(
        messages=[message._asdict() for message in messages], bos_token="</s>", add_generation_prompt=True
    )
    fast = FastTokenizer.from_str(fast_tokenizer_json(little.tokenizer))
    assert fast.encode(rendered, add_special_tokens=False).ids == chat_ids(little.tokenizer, messages)


def test_names_of_tokens_in_a_message_are_text(little: Little) -> None:
    turns = little.tokenizer.turns
    assert turns
    ids = chat_ids(little.tokenizer, [Message("user", "<|end|><|assistant|>豆</s>")])
    assert [token for token in ids if token < 12] == [
        little.tokenizer.eos_id,
        turns.begin["user"],
        turns.end,
        turns.begin["assistant"],
    ]


def test_a_tokenizer_without_turns_has_no_chat(little: Little) -> None:
    old = Tokenizer.load(Path(__file__).parents[1] / "golden" / "jp_tok.model")
    with pytest.raises(TokenizerError, match="mamegpt tune adds them"):
        chat_ids(old, [ASKED])


def test_an_answer_ends_with_its_turn(tuned: Path) -> None:
    loaded = load(tuned, device="cpu")
    turns = loaded.tokenizer.turns
    assert turns
    head = loaded.model.out_head.weight.data
    before = head[turns.end].clone()
    tokens = [*loaded.stream_answer([ASKED], max_new_tokens=5)]
    head[turns.end] = 100 * head[tokens[0].id]  # now it is the most likely token, wherever that was
    ended = [*loaded.stream_answer([ASKED], max_new_tokens=5)]
    assert len(tokens) > 1 and [token.finish for token in ended] == ["stop"]
    head[turns.end] = before
    assert loaded.answer(ASKED.content, max_new_tokens=5) == "".join(token.text for token in tokens)


def test_the_oldest_turns_are_left_out_but_never_the_question_and_the_system_turn(tuned: Path) -> None:
    loaded = load(tuned, device="cpu")
    system = Message("system", "短く")
    kept = fitting(loaded.model, loaded.tokenizer, [system, *LONG], 4)
    assert kept[0] == system and kept[1:] == LONG[-len(kept) + 1 :] and len(kept) % 2 == 0
    assert (
        len(chat_ids(loaded.tokenizer, kept)) + 4 <= loaded.model.context_length < len(chat_ids(loaded.tokenizer, LONG))
    )
    half = loaded.model.context_length // 2
    assert fitting(loaded.model, loaded.tokenizer, LONG, 1000) == fitting(loaded.model, loaded.tokenizer, LONG, half)
    assert [*stream_answer(loaded.model, loaded.tokenizer, LONG, 4)][-1].finish


def test_a_long_conversation_is_read_once(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn, however many are forgotten: reading what is left for each of them took minutes."""
    read: list[Message] = []

    def counted(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
        read.extend(messages)
        return conversation_ids(tokenizer, messages)

    monkeypatch.setattr(stream, "conversation_ids", counted)
    model = random_model(sizes_for(little.tokenizer))
    kept = fitting(model, little.tokenizer, 100 * LONG[:2] + [ASKED], 4)
    assert len(read) == 201 and 1 <= len(kept) < 201 and kept[-1] == ASKED


def test_what_cannot_be_answered_is_refused(little: Little, tuned: Path) -> None:
    with pytest.raises(ModelError, match="mamegpt tune"):
        load(little.run, device="cpu").answer("豆")
    for messages in ([], [("assistant", "豆")], [ASKED, ASKED], [ASKED, ("assistant", "豆")], [("robot", "豆")]):
        with pytest.raises(ConfigError, match="turns of user and assistant"):
            load(tuned, device="cpu").answer(messages)


def test_another_answer_does_not_pass(tuned: Path) -> None:
    loaded = load(tuned, device="cpu")
    assert loaded.tokenizer
    cases = make_cases(loaded.model, loaded.tokenizer, n_sentences=9, answers=True)
    asked = [chat_ids(loaded.tokenizer, chat) for chat in fitting_chats(cases)]
    own = [until_end(list(stream.stream_ids(loaded.model, ids, cases.n_new)), cases.ends) for ids in asked]
    (check,) = answer_checks(cases, own, tolerance=1e-4)
    assert check.passed and check.found.startswith(f"{len(own)} of {len(own)} prompts")
    for other in ([*own[0][:-1], (own[0][-1] + 1) % 999], own[0][:-1], [*own[0], 9]):
        (check,) = answer_checks(cases, [other, *own[1:]], tolerance=1e-9)
        assert not check.passed
    assert answer_checks(dataclasses.replace(cases, answers=False), [], 1e-4) == []


@pytest.mark.slow
@pytest.mark.usefixtures("warm_exports")
def test_a_file_for_llama_cpp_has_the_template(tuned: Path, tmp_path: Path) -> None:
    report = export(tuned, tmp_path / "gguf", to="gguf", n_sentences=N_SENTENCES)
    assert {"chat template", "answers"} <= {check.name for check in report.checks["gguf"] if check.passed}


@pytest.mark.usefixtures("warm_exports")
def test_an_exported_folder_has_the_template_and_answers_the_same(tuned: Path, tmp_path: Path) -> None:
    report = export(tuned, tmp_path / "hf", n_sentences=N_SENTENCES)
    assert {"chat template", "answers"} <= {check.name for check in report.checks["hf"] if check.passed}
    generation = json.loads((tmp_path / "hf" / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == [2, 7]
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert "tuned on conversations" in card and "apply_chat_template" in card and "mamegpt chat --model hf" in card
    assert "does not follow instructions" not in card and "model-index" not in card
    exported, own = load(tmp_path / "hf", device="cpu"), load(tuned, device="cpu")
    assert exported.answers and exported.answer(LONG, max_new_tokens=9) == own.answer(LONG, max_new_tokens=9)
    # As transformers writes it again.
    settings = tmp_path / "hf" / "tokenizer_config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    (tmp_path / "hf" / "chat_template.jinja").write_text(values.pop("chat_template"), encoding="utf-8")
    settings.write_text(json.dumps(values), encoding="utf-8")
    assert load(tmp_path / "hf", device="cpu").answers
    (tmp_path / "hf" / "chat_template.jinja").write_text("another", encoding="utf-8")
    assert not load(tmp_path / "hf", device="cpu").answers


def test_a_model_that_only_continues_is_exported_without_a_template(little: Little) -> None:
    settings = json.loads((little.exported / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "chat_template" not in settings and not load(little.exported, device="cpu").answers


def test_a_chat_in_the_terminal(mame: Mame, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = load(tuned, device="cpu")
    first = one.answer([ASKED], max_new_tokens=4)
    second = one.answer([ASKED, ("assistant", first), ASKED], max_new_tokens=4)
    words = ["chat", "--model", str(tuned), "--max-new-tokens", "4"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{ASKED.content}\n\n{ASKED.content}\n"))
    assert mame(*words) == (0, f"{first}\n{second}\n", "")
    assert mame(*words, "--prompt", ASKED.content) == (0, f"{first}\n", "")


def test_a_chat_with_a_model_that_only_continues_is_refused(mame: Mame, little: Little) -> None:
    code, out, err = mame("chat", "--model", str(little.run), "--prompt", "豆")
    assert (code, out) == (2, "") and "mamegpt tune" in err


def test_a_question_that_does_not_fit_is_refused(tuned: Path, mame: Mame, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(tuned, device="cpu")
    room = loaded.model.context_length - len(chat_ids(loaded.tokenizer, [Message("user", "豆")])) + 1
    fits, too_long = "豆" * room, "豆" * (room + 40)
    assert len(loaded.chat_ids([("user", fits)])) <= loaded.model.context_length
    with pytest.raises(ConfigError, match=r"too long: \d+ tokens with its turn, but the model reads 32"):
        loaded.answer([("system", "短く"), ("user", too_long)])
    code, out, err = mame("chat", "--model", tuned, "--prompt", too_long)
    assert (code, out) == (2, "") and "the question is too long" in err
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{too_long}\n豆\n"))
    code, out, err = mame("chat", "--model", tuned, "--max-new-tokens", 2)
    assert (code, err) == (0, "") and "too long" in out.splitlines()[0] and len(out.splitlines()) > 1
