"""The commands for trained models: eval, generate, chat, classify, play, report, export."""

from __future__ import annotations

import dataclasses
import json as json_format
import tempfile
from pathlib import Path
from typing import Literal

from mamegpt.cli.console import answering, deliver, is_terminal, say, show_stream
from mamegpt.cli.options import Flat, Given, Repeatable, Switch, refuse_idle
from mamegpt.cli.render.models import (
    evaluation_table,
    export_line,
    measuring_line,
    samples_line,
    serving_line,
    show_export,
    upload_table,
)
from mamegpt.cli.render.next_step import next_step, next_use
from mamegpt.data.schema import GUESS, SETTINGS, Schema
from mamegpt.errors import ConfigError, DataError
from mamegpt.generation.settings import Sampling
from mamegpt.messages import msg, tally
from mamegpt.run.run import Run

__all__ = [
    "chat_command",
    "classify_command",
    "evaluate_command",
    "export_command",
    "generate_command",
    "play_command",
    "read_prompts",
    "report_command",
]


def evaluate_command(
    model: Repeatable,
    data: Repeatable = (),
    split: str = "validation",
    train_data: str = "",
    train_split: str = "train",
    max_characters: int = 1_000_000,
    tasks: bool = False,
    out: Path | None = None,
    schema: Flat[Schema] = GUESS,
    spm_file: str = "",
    device: str = "auto",
    json: bool = False,
    given: Given = frozenset(),
) -> None:
    """Evaluate models: bits per character, minimal pairs, cloze tests, memorization; compared with an n-gram baseline.

    Args:
        model: Run, exported folder, or repository on the Hub (any causal model of transformers).
        data: Validation data: file, folder, Hub dataset or token shards (default: the run's).
        split: Split of the data (train or val for token shards).
        train_data: Training data of the models (default: the run's), for memorization and the n-gram baseline.
        train_split: Split of that text.
        max_characters: Measure a sample of documents of at most this many characters of each held-out text (0: all).
        tasks: Also ask models that were tuned to answer questions of 豆対話 (mamegpt dialogues) that are in no training
            data.
        out: JSON file to write all numbers into; a run keeps its own in its folder.
        spm_file: SentencePiece model inside the folder or repository, if it has several.
        device: Where to compute: auto (the first GPU that works, else the CPU), cpu, cuda, cuda:N, xpu, xpu:N or mps.
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.evaluation.evaluate import evaluate
    from mamegpt.evaluation.texts import text_files
    from mamegpt.system.files import write_json
    from mamegpt.system.outputs import check_outputs

    refuse_idle(
        given,
        [
            (all(map(Run.find, model)), ("spm_file",), msg("with a run")),
            (not data, ("split",), msg("without --data")),
            (not train_data, ("train_split",), msg("without --train-data")),
            (not data and not train_data, SETTINGS, msg("without --data and --train-data")),
        ],
    )
    if out:
        texts = [*((name, split) for name in data), *([(train_data, train_split)] if train_data else [])]
        check_outputs([out], [*model, *(path for text in texts for path in text_files(*text, schema))])
    with answering(json, is_product=out is None) as answer:
        found = evaluate(
            model,
            data,
            split=split,
            train_data=train_data,
            train_split=train_split,
            max_characters=max_characters,
            tasks=tasks,
            schema=schema,
            spm_file=spm_file,
            device=device,
            on_event=lambda event: say(measuring_line(event)) if is_terminal() else None,
        )
        found.keep()
        if out:
            write_json(out, found.to_dict())
        answer(found.to_dict(), evaluation_table(found), next_use(model[0]))


def generate_command(
    model: str,
    prompt: str | None = None,
    prompts: Path | None = None,
    encoding: str = "utf-8",
    max_new_tokens: int = 100,
    samples: int = 1,
    at_start: bool | None = None,
    sampling: Flat[Sampling] = Sampling(),  # noqa: B008  (frozen)
    spm_file: str = "",
    device: str = "auto",
    trust_remote_code: bool = False,
    given: Given = frozenset(),
) -> None:
    """Continue a prompt, streaming; greedy decoding unless a temperature is given.

    Args:
        model: A run, an exported folder, or a repository on the Hub.
        prompt: Prompt; empty generates from nothing.
        prompts: Instead of --prompt: a file with one prompt per line; prints one line of JSON per sample.
        encoding: Encoding of that file, such as cp932, euc-jp or utf-16.
        max_new_tokens: Maximum number of tokens to generate.
        samples: Number of samples; they differ if the temperature is above 0.
        at_start: Read each prompt as the start of a document, after the end-of-text token as in training; False: as
            the middle of one (default: True if the model was trained that way).
        spm_file: SentencePiece model inside the folder or repository, if it has several.
        device: Where to compute: auto (the first GPU that works, else the CPU), cpu, cuda, cuda:N, xpu, xpu:N or mps.
        trust_remote_code: Let transformers run Python code from the repository, if the model is not ours.
    """
    from mamegpt.pretrained import load

    if samples < 1:
        raise ConfigError("--samples must be at least 1 (got {samples})", samples=samples)
    if (prompt is None) == (prompts is None):
        raise ConfigError("give one of --prompt and --prompts")
    sampling.validate()
    refuse_idle(
        given,
        [
            (sampling.temperature == 0, ("top_k", "top_p", "min_p", "seed"), msg("with --temperature 0")),
            (Run.find(model) is not None, ("spm_file",), msg("with a run")),
            (prompts is None, ("encoding",), msg("without --prompts")),
        ],
    )
    lines = [] if prompts is None else [line for line in read_prompts(prompts, encoding) for _ in range(samples)]
    loaded = load(model, device=device, spm_file=spm_file, trust_remote_code=trust_remote_code)
    if prompt is None:
        texts = loaded.generate_many(lines, max_new_tokens=max_new_tokens, at_start=at_start, sampling=sampling)
        for line, text in zip(lines, texts, strict=True):
            deliver(json_format.dumps({"prompt": line, "text": text}, ensure_ascii=False))
        return
    for i in range(samples):
        one = sampling.of_text(i)
        show_stream(prompt, loaded.stream(prompt, max_new_tokens=max_new_tokens, at_start=at_start, sampling=one))
        if i + 1 < samples:
            deliver("---")


def chat_command(
    model: str,
    prompt: str | None = None,
    system: str = "",
    max_new_tokens: int = 100,
    sampling: Flat[Sampling] = Sampling(),  # noqa: B008  (frozen)
    spm_file: str = "",
    device: str = "auto",
    given: Given = frozenset(),
) -> None:
    """Talk with a model that was tuned to answer: a line is a question, Ctrl-D ends.

    Questions and answers so far are read again with each question; when the context is full, the oldest are left out.

    Args:
        model: A tuned run, a folder exported from one, or a repository on the Hub.
        prompt: Ask this one question, and end.
        system: Text of a system turn before the conversation; only for models that were tuned with one.
        max_new_tokens: Maximum number of tokens in an answer.
        spm_file: SentencePiece model inside the folder or repository, if it has several.
        device: Where to compute: auto (the first GPU that works, else the CPU), cpu, cuda, cuda:N, xpu, xpu:N or mps.
    """
    from mamegpt.cli.console import asked
    from mamegpt.pretrained import load

    sampling.validate()
    refuse_idle(
        given,
        [
            (sampling.temperature == 0, ("top_k", "top_p", "min_p", "seed"), msg("with --temperature 0")),
            (Run.find(model) is not None, ("spm_file",), msg("with a run")),
        ],
    )
    loaded = load(model, device=device, spm_file=spm_file)
    loaded.refuse_unless_it_answers()
    messages = [("system", system)] if system else []
    for question in asked() if prompt is None else [prompt]:
        messages.append(("user", question))
        try:
            tokens = loaded.stream_answer(messages, max_new_tokens=max_new_tokens, sampling=sampling)
        except ConfigError as error:
            if prompt is not None:
                raise
            say(error.message)  # another question may be short enough
            del messages[-1]
            continue
        messages.append(("assistant", show_stream("", (token.text for token in tokens))))


def classify_command(
    model: str,
    text: str | None = None,
    texts: Path | None = None,
    data: str = "",
    split: str = "validation",
    encoding: str = "utf-8",
    out: Path | None = None,
    spm_file: str = "",
    device: str = "auto",
    json: bool = False,
    given: Given = frozenset(),
) -> None:
    """Find the labels of texts with a model of tune --task classify, or measure how often they are right.

    Without --text, --texts and --data, the held-out texts of a run are measured.

    Example: mamegpt classify --model runs/reviews --text "思ったより甘くておいしかった。"

    Args:
        model: A run of tune --task classify, a folder exported from one, or a repository on the Hub.
        text: Text to classify; shows the probability of each label.
        texts: File with one text per line to classify; prints one line of JSON per text.
        data: Texts with labels (columns text and label) to measure on: accuracy and confusion table.
        split: Split of --data.
        encoding: Encoding of --texts or --data, such as cp932, euc-jp or utf-16.
        out: JSON file to write the confusion table into.
        spm_file: SentencePiece model inside the folder or repository, if it has several.
        device: Where to compute: auto (the first GPU that works, else the CPU), cpu, cuda, cuda:N, xpu, xpu:N or mps.
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.cli.render.models import confusion_table, label_table
    from mamegpt.data.labelled import LabelledReader
    from mamegpt.evaluation.classification import measure_held_out, measure_texts
    from mamegpt.pretrained import load_classifier
    from mamegpt.system.files import write_json
    from mamegpt.system.outputs import check_outputs

    measures = text is None and texts is None
    if (text is not None) + (texts is not None) + bool(data) > 1:
        raise ConfigError("give one of --text, --texts and --data")
    refuse_idle(
        given,
        [
            (Run.find(model) is not None, ("spm_file",), msg("with a run")),
            (not data, ("split",), msg("without --data")),
            (texts is None and not data, ("encoding",), msg("without --texts and --data")),
            (not measures, ("out",), msg("with --text or --texts")),
            (texts is not None, ("json",), msg("with --texts, which prints JSON")),
        ],
    )
    run = Run.find(model)
    if measures and not data and run is None:
        raise ConfigError("{model} is no run with held-out texts; give --text, --texts or --data", model=model)
    reader = LabelledReader(data, split, encoding) if data else None
    if out:
        check_outputs([out], [model, *(file.path for file in (reader.files if reader else ()))])
    lines = [] if texts is None else read_prompts(texts, encoding, "--texts")
    classifier = load_classifier(model, device=device, spm_file=spm_file)
    if texts is not None:
        for line, found in zip(lines, classifier.classify(lines), strict=True):
            deliver(json_format.dumps({"text": line, **dataclasses.asdict(found)}, ensure_ascii=False))
        return
    with answering(json, is_product=out is None) as answer:
        if text is not None:
            (one,) = classifier.classify(text)
            answer(dataclasses.asdict(one), label_table(one))
            return
        confusion = measure_texts(classifier, reader, data) if reader else None
        if run and not reader:
            confusion = measure_held_out(classifier, run)
        if confusion is None:
            raise DataError("{model} has no held-out texts; give texts with labels as --data", model=model)
        if reader and reader.dropped:
            say(msg("rows left out: {reasons}", reasons=tally(reader.dropped)))
        if out:
            write_json(out, confusion.to_dict())
        answer(confusion.to_dict(), confusion_table(confusion))


def read_prompts(path: Path, encoding: str = "utf-8", option: str = "--prompts") -> list[str]:
    """Return the `lines` of a text, but for empty ones. Raises `DataError` if it cannot be read or has none."""
    from mamegpt.data.readers.lines import lines

    prompts = list(filter(None, lines(path, encoding)))
    if not prompts:
        raise DataError("{option} {path} has no lines with text", option=option, path=path)
    return prompts


def play_command(
    *models: str,
    host: str = "127.0.0.1",
    port: int = 8765,
) -> None:
    """Generate in the browser on a local page; clients of OpenAI's APIs work as well (http://HOST:PORT/v1).

    Args:
        models: Runs, exported folders, folders of these, or Hub repositories (default: what runs/ and demo/ hold).
        host: Address to listen at; only this machine reaches the default.
        port: Port to listen at (0: any that is free).
    """
    from mamegpt.playground.server import serve

    serve(models, host, port, _page_of, on_event=lambda event: say(serving_line(event)))


def _page_of(model: str, name: str) -> bytes:
    """Return the HTML file that holds a model, verified as `export` does. Raises what that raises."""
    from mamegpt.cli.demo import PAGE_SENTENCES
    from mamegpt.exporting.publish import export

    with tempfile.TemporaryDirectory() as folder:
        shown = Path(name).name  # the file is for others, whom the folders here do not concern
        report = export(model, Path(folder) / "page", to="html", name=shown, n_sentences=PAGE_SENTENCES)
        return (report.out / "page.html").read_bytes()


def report_command(
    *runs: Path,
    out: Path = Path("report.html"),
) -> None:
    """Write a training report of one or several runs, one HTML file: curves, results, samples, data, settings.

    Args:
        runs: Folders of runs, finished or not.
        out: HTML file to write; one that is there is replaced when the new one is complete.
    """
    from mamegpt.report.write import write_report

    if not runs:
        raise ConfigError("name at least one run, such as: mamegpt report runs/first")
    write_report(runs, out, on_event=lambda event: say(samples_line(event)))
    say(
        msg("{out}: open it with any browser", out=out),
        next_step("export", "--model", runs[-1], "--out", f"{runs[-1].name}-hf"),
    )


def export_command(
    model: str,
    out: Path,
    to: Literal["hf", "hf-native", "gguf", "html", "onnx", "all"] = "hf",
    gguf_type: Literal["f32", "f16", "bf16", "q8_0", "q5_k_m", "q4_k_m"] = "f32",
    html_type: Literal["q8_0", "f16"] = "q8_0",
    push: str = "",
    private: Switch = None,
    revision: str = "",
    create_pr: bool = False,
    dry_run: bool = False,
    spm_file: str = "",
    data_license: str = "",
    overwrite: bool = False,
    json: bool = False,
    given: Given = frozenset(),
) -> None:
    """Export a model for transformers, llama.cpp or a browser, and verify that it equals the original.

    Args:
        model: A run, an exported folder, or a repository on the Hub.
        out: Folder to write.
        to: hf (a folder for transformers), hf-native (one without code of ours, also of the book's model), gguf (a
            file for llama.cpp), html (one file that any browser opens, offline), onnx (a folder for ONNX Runtime and
            transformers.js), or all of these but onnx.
        gguf_type: Data type of a GGUF file's matrices.
        html_type: Data type of an HTML file's matrices.
        push: Upload the folder, with its model card, to this repository of the Hub (owner/name).
        private: With --push: whether a repository that does not exist yet is created private (default: True).
        revision: With --push: branch to commit to, created if there is none (default: main).
        create_pr: With --push: open a pull request against main instead of committing.
        dry_run: With --push: show what would be uploaded, and upload nothing.
        spm_file: SentencePiece model inside the folder or repository, if it has several.
        data_license: License of the training text for the model card, an identifier of the Hub such as cc-by-sa-4.0
            (default: as in the data card next to that text, or unknown).
        overwrite: Replace a folder of that name when the new one is complete.
        json: Print one line of JSON instead of tables.
    """
    from mamegpt.exporting.publish import export

    if "gguf_type" in given and to not in ("gguf", "all"):
        raise ConfigError(
            "--gguf-type {gguf_type} is for --to gguf (or all), not {to}; leave it out", gguf_type=gguf_type, to=to
        )
    if "html_type" in given and to not in ("html", "all"):
        raise ConfigError(
            "--html-type {html_type} is for --to html (or all), not {to}; leave it out", html_type=html_type, to=to
        )
    refuse_idle(given, [(Run.find(model) is not None, ("spm_file",), msg("with a run"))])
    with answering(json) as answer:
        with show_export() as on_event:
            report = export(
                model,
                out,
                to=to,
                gguf_type=gguf_type,
                html_type=html_type,
                spm_file=spm_file,
                data_license=data_license,
                push=push,
                private=private,
                revision=revision,
                create_pr=create_pr,
                dry_run=dry_run,
                overwrite=overwrite,
                on_event=on_event,
            )
        answer(dataclasses.asdict(report), export_line(report))
        if report.upload:
            say(upload_table(report.upload))
        if dry_run:
            say(
                msg(
                    "nothing was uploaded; to upload: hf auth login, then the same command with --overwrite "
                    "instead of --dry-run (it overwrites the local folder)"
                )
            )
        elif to == "html":
            file = report.out / f"{report.out.name}.html"
            say(msg("{file}: open it with any browser; it needs no network", file=file))
        elif to in ("gguf", "onnx"):
            say(msg("next: docs/serving.en.md explains how to serve {out}", out=report.out))
        else:
            made = report.out / "hf" if to == "all" else report.out
            run = Run.find(model)
            classifies = run is not None and run.config.task == "classify"
            say(next_step("classify", "--model", made, "--text", "") if classifies else next_use(made))
