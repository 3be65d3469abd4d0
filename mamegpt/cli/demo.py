"""The whole pipeline in two minutes: text, tokenizer, training, samples, questions and answers, a folder and a page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mamegpt.cli.console import INTERRUPTED, busy, counted, say, table
from mamegpt.cli.language import translated
from mamegpt.cli.progress import show_progress
from mamegpt.cli.render.data import chosen_vocabulary, extract_table
from mamegpt.cli.render.models import show_export
from mamegpt.cli.render.next_step import next_chat, next_text
from mamegpt.config import TuneConfig
from mamegpt.data.dialogues import IN_TRAINING, write_dialogues
from mamegpt.data.extract.extract import extract
from mamegpt.data.schema import GUESS, Schema
from mamegpt.data.sources import read_texts
from mamegpt.data.stories import write_stories
from mamegpt.errors import ConfigError
from mamegpt.evaluation.tasks import answered
from mamegpt.exporting.publish import export
from mamegpt.generation.settings import Sampling
from mamegpt.messages import Message, msg
from mamegpt.presets import preset
from mamegpt.pretrained import load
from mamegpt.report.verdict import verdict
from mamegpt.system.files import free_name, gone_if_empty, make_folder
from mamegpt.system.shell import command
from mamegpt.text.display import sparkline
from mamegpt.tokenizer.tokenizer import train_tokenizer
from mamegpt.training.init_from import tuned_config
from mamegpt.training.trainer import TrainResult, train

__all__ = ["demo"]

N_STORIES = 20_000
STORY_VOCAB_SIZE = 2_000
STORY_SETTINGS: dict[str, Any] = {"ngrams": False, "batch_size": 8, "lr": 2e-2, "emb_lr": 0.1}
"""What suits so regular a text (docs/log.md)."""
STORY_NGRAM_BITS = 0.86
"""Bits per character of a 3-gram model over the same tokens, on unseen stories (seed 0)."""
STORIES = "豆物語"
STORY_SHARE = 2 / 3
"""Share of the training time for stories; the rest is for questions."""
N_DIALOGUES = 10_000
N_QUESTIONS, N_SHOWN = 120, 3
"""Questions of 豆対話, of which those are asked that are in no training data; the first ones are shown."""
SENTENCES, PAGE_SENTENCES = 5000, 1000
"""Texts whose token ids are compared, of the folder and in a browser; an export of its own compares 20,000."""
STORY_PROMPTS = ("【ふしぎな手紙】", "【春の朝】", "【月見町】")
"""Prompts for stories, which all begin with a title."""
SAMPLING = Sampling(temperature=0.7, top_p=0.9)


def demo(
    *, data: str, keyword: str, out: Path, seconds: float, vocab_size: int, seed: int, schema: Schema = GUESS
) -> int:
    """Run the whole pipeline in a new folder and print the result of each step; returns an exit code.

    Without ``data`` the text is 豆物語, and no network is needed. ``seconds`` is the training time. Raises what the
    steps raise.
    """
    if keyword and not data:
        raise ConfigError("--keyword needs --data to look for it in, such as --data fujiki/wiki40b_ja")
    if not seconds > 0:
        raise ConfigError("--seconds must be above 0 (got {seconds:g})", seconds=seconds)
    out = free_name(out)  # a demo never overwrites another
    with gone_if_empty(make_folder(out)):
        return _demo(out, data, keyword, seconds, vocab_size, seed, schema)


def _demo(out: Path, data: str, keyword: str, seconds: float, vocab_size: int, seed: int, schema: Schema) -> int:
    """Run all steps of `demo` in a new folder; returns an exit code."""
    chats = not data  # what is asked is about the words of the stories
    say(_heading(1, msg("text"), chats))
    text, schema, prompts = _text(out, data, keyword, seed, schema)

    say("", _heading(2, msg("tokenizer"), chats))
    with busy(msg("training a tokenizer")) as show:
        report = train_tokenizer(
            counted(read_texts(text, schema=schema), show),
            out / "tokenizer",
            vocab_size=vocab_size or (0 if data else STORY_VOCAB_SIZE),
            for_minutes=seconds / 60,
        )
    if report.for_minutes is not None:
        say(chosen_vocabulary(report))
    say(
        msg(
            "{path}: vocabulary size {vocab_size:,}, {elapsed_s:.1f} s, {characters_per_token:.2f} "
            "characters per token",
            path=report.path,
            vocab_size=report.vocab_size,
            elapsed_s=report.elapsed_s,
            characters_per_token=report.characters_per_token,
        )
    )

    say("", _heading(3, msg("training"), chats))
    config = preset(
        data=text,
        tokenizer=str(report.path),
        out=str(out / "run"),
        seed=seed,
        eval_every_steps=200,
        minutes=seconds * (STORY_SHARE if chats else 1) / 60,
        **({} if data else STORY_SETTINGS),
        **dataclasses.asdict(schema),
    )
    result = train(config, watchers=[show_progress()])
    if result.interrupted:
        return _interrupted(result)
    say(
        msg(
            "loss {curve} {first_loss:.2f} -> {loss:.2f}",
            curve=sparkline(result.losses),
            first_loss=result.losses[0],
            loss=result.losses[-1],
        )
    )

    say("", _heading(4, msg("samples"), chats))
    model = load(result.out, device="cpu")
    for i, prompt in enumerate(prompts):
        sampling = dataclasses.replace(SAMPLING, seed=seed).of_text(i)
        say(f"[{prompt}]{model.generate(prompt, max_new_tokens=80, sampling=sampling)}", "")

    last = result
    if chats:
        say(_heading(5, msg("questions and answers"), chats))
        last = _tune(out, result.out, seconds * (1 - STORY_SHARE), seed)
        if last.interrupted:
            return _interrupted(last)
        _ask(last.out)

    say(_heading(6 if chats else 5, msg("export"), chats))
    with show_export() as on_event:
        exported = export(str(result.out), out / "hf", n_sentences=SENTENCES, on_event=on_event)
        name = keyword if data else STORIES
        page = export(
            str(last.out), out / "browser", to="html", name=name, n_sentences=PAGE_SENTENCES, on_event=on_event
        )
    run = translated(
        msg(
            "{run} ({n_parameters:,} parameters, {step:,} steps)",
            run=result.out,
            n_parameters=result.n_parameters,
            step=result.step,
        )
    )
    bits = result.quality and result.quality.bits_per_character
    quality = translated(msg("not validated") if bits is None else msg("{bits:.3f} bits per character", bits=bits))
    folder = translated(msg("{out} (loads in transformers)", out=exported.out))
    html = page.out / next(file for file in page.files if file.endswith(".html"))
    made = [
        (msg("text"), text),
        (msg("tokenizer"), str(report.path)),
        (msg("run"), run),
        (msg("validation (lower is better)"), quality),
        (msg("model"), folder),
        *([(msg("chat"), translated(msg("{run} (answers questions)", run=last.out)))] if chats else []),
        (msg("page"), translated(msg("{file} (opens in any browser, offline: one file to pass on)", file=html))),
    ]
    say("", msg("output:"), table(made), "")
    _judge(result, None if data else STORY_NGRAM_BITS, seconds)
    say(next_text(exported.out, prompts[-1]), *([next_chat(last.out)] if chats else []))
    return 0


def _judge(result: TrainResult, baseline: float | None, seconds: float) -> None:
    """Print the verdict on the model, and how to train for longer if it is no better than an n-gram model."""
    if not result.quality:
        return
    judged = verdict(result.quality.bits_per_character, baseline)
    say(judged.line)
    if judged.kind == "worse":
        again = command("demo", "--seconds", f"{4 * seconds:g}")
        say(
            msg(
                "{step:,} steps were too few: the samples above make little sense; train for longer: {again}",
                step=result.step,
                again=again,
            )
        )
    say("")


def _heading(number: int, name: Message, chats: bool) -> str:
    return f"{number}/{6 if chats else 5}  {translated(name)}"


def _interrupted(result: TrainResult) -> int:
    again = command("train", "--resume", result.out)
    say(msg("saved at step {step}; resume with: {command}", step=result.step, command=again))
    return INTERRUPTED


def _tune(out: Path, run: Path, seconds: float, seed: int) -> TrainResult:
    """Tune the model of a run on questions of 豆対話."""
    data = out / "dialogues.jsonl"
    n_questions = write_dialogues(data, N_DIALOGUES, seed=seed)
    say(msg("{path}: {n_questions:,} questions and their answers (豆対話)", path=data, n_questions=n_questions))
    config = TuneConfig(
        init_from=str(run),
        data=str(data),
        out=str(out / "tuned"),
        seed=seed,
        minutes=seconds / 60,
    )
    return train(tuned_config(config, ()), watchers=[show_progress()])


def _ask(run: Path) -> None:
    """Ask a tuned model, and show the first answers as they are, and how many of all are right."""
    found = answered(load(run, device="cpu"), "test", N_QUESTIONS, without=IN_TRAINING)
    for one in found[:N_SHOWN]:
        judged = msg("right") if one.is_right else msg("wrong: {expected}", expected=one.expected)
        say(f"? {one.question}", f"> {one.answer}  [{translated(judged)}]")
    n_right = sum(one.is_right for one in found)
    say(
        msg(
            "{n_right} of {n} questions that are in no training data are answered rightly",
            n_right=n_right,
            n=len(found),
        ),
        "",
    )


def _text(out: Path, data: str, keyword: str, seed: int, schema: Schema) -> tuple[str, Schema, tuple[str, ...]]:
    """Return the path of the text, how to read it, and suitable prompts."""
    if data and keyword:
        report = extract(data, keyword, out / "corpus.txt", schema=schema)
        say(extract_table(report))
        return (
            str(report.out),
            GUESS,
            (f"【{keyword}】\n{keyword}は、", f"【{keyword}】\n{keyword}の", f"【{keyword}】"),
        )
    if data:
        say(msg("{data}, as it is", data=data))
        return data, schema, ("日本の", "これは、", "昔、")
    path = out / "stories.txt"
    n_characters = write_stories(path, N_STORIES, seed=seed)
    say(
        msg(
            "{path}: {n_stories:,} stories (豆物語), {n_characters:,} characters",
            path=path,
            n_stories=N_STORIES,
            n_characters=n_characters,
        )
    )
    return str(path), GUESS, STORY_PROMPTS
