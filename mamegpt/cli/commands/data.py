"""The commands for text: download, extract, clean, tokenizer, tokenizer-report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from mamegpt.cli.console import answering, busy, counted, output_must_succeed, say
from mamegpt.cli.options import Flat, Given, Repeatable, refuse_idle
from mamegpt.cli.render.data import (
    clean_table,
    comparison_table,
    download_table,
    extract_table,
    hit_line,
    reading_line,
    tokenizer_table,
    vocabulary_table,
)
from mamegpt.cli.render.next_step import next_step
from mamegpt.data.clean.steps import Normalisation, Step
from mamegpt.data.schema import GUESS, Schema
from mamegpt.errors import ConfigError, OutputError
from mamegpt.messages import msg

__all__ = [
    "clean_command",
    "dialogues_command",
    "download_command",
    "extract_command",
    "reviews_command",
    "tokenizer_command",
    "tokenizer_report_command",
]


def download_command(dataset: str = "fujiki/wiki40b_ja", cache_dir: Path | None = None, json: bool = False) -> None:
    """Fetch a dataset from the Hugging Face Hub into the cache, and show its files and place.

    Args:
        dataset: Dataset on the Hub, owner/name:configuration@revision, or URL.
        cache_dir: Folder of the cache (default: the one all Hugging Face libraries share).
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.data.sources import download

    with answering(json) as answer:
        got = download(dataset, cache_dir)
        answer(
            dataclasses.asdict(got),
            download_table(got),
        )


def extract_command(
    keyword: Repeatable = (),
    dataset: str = "fujiki/wiki40b_ja",
    split: str = "train",
    out: Path = Path("output_with_titles.txt"),
    match: Literal["any", "all"] = "any",
    exclude: Repeatable = (),
    regex: Repeatable = (),
    title_only: bool = False,
    min_hits: int = 1,
    window: int | None = None,
    preview: int = 0,
    schema: Flat[Schema] = GUESS,
    json: bool = False,
    given: Given = frozenset(),
) -> None:
    """Write the articles that mention a keyword into one file, each as 【title】 and its text.

    Args:
        keyword: Word to look for in title and text; width and case do not matter (ﾌｧﾐｺﾝ finds ファミコン).
        dataset: Dataset on the Hub, URL, file, folder or 'pattern*' (parquet, jsonl, csv, txt, xml; .gz .xz .zst).
        split: Split of the dataset.
        out: File to write, text or .jsonl or .parquet; one that is there is replaced when the new one is complete.
        match: Whether any or all of the keywords and expressions must occur.
        exclude: Word that must not occur; width and case do not matter.
        regex: Python regular expression, matched against the text as written (width and case matter).
        title_only: Look at titles only.
        min_hits: Least number of hits in a document, of all keywords and expressions together.
        window: Keep only the paragraphs with a hit and this many before and after; all if the title has one.
        preview: Show this many hits, and write nothing.
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.data.events import Counted, Event, Reading
    from mamegpt.data.extract.extract import extract, preview_hits
    from mamegpt.data.extract.topic import Topic
    from mamegpt.data.writers import OUTPUT_FORMATS

    topic = Topic(keyword, match, exclude, regex, title_only, min_hits, window)
    if out.suffix.lower() not in ("", *OUTPUT_FORMATS):
        raise OutputError(
            "{out}: mamegpt cannot read {suffix} files back; use one of {formats}",
            out=out,
            suffix=out.suffix,
            formats=", ".join(OUTPUT_FORMATS),
        )
    if preview < 0:
        raise ConfigError("--preview must be at least 1 (got {preview}); leave it out to write a file", preview=preview)
    refuse_idle(given, [(preview > 0, ("json",), msg("with --preview"))])

    def on_event(event: Event) -> None:
        match event:
            case Reading():
                say(reading_line(event))
            case Counted():
                show(event.n_read)

    if preview:
        with output_must_succeed():
            for hit in preview_hits(dataset, topic, preview, split=split, schema=schema, on_event=on_event):
                say(hit_line(hit))
        return

    with answering(json) as answer:
        with busy(msg("reading")) as show:
            report = extract(dataset, topic, out, split=split, schema=schema, overwrite=True, on_event=on_event)
        answer(
            dataclasses.asdict(report),
            extract_table(report),
            next_step("tokenizer", "--data", out, "--out", "jp_tok"),
        )


def clean_command(
    data: str,
    out: Path,
    split: str = "train",
    normalisation: Normalisation = "nfc",
    without: tuple[Step, ...] = (),
    only: tuple[Step, ...] = (),
    against: tuple[Path, ...] = (),
    write_dropped: Path | None = None,
    report: Path | None = None,
    schema: Flat[Schema] = GUESS,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Clean a corpus: normalization, rules, personal data, duplicates, benchmark data; in a fixed order, with counts.

    Args:
        data: Documents: file, folder, 'pattern*', Hub dataset or URL (parquet, jsonl, csv, txt, xml).
        out: File to write: .jsonl, .parquet or .txt.
        split: Split of the data.
        normalisation: Unicode normalization: nfc, nfkc (unifies widths too), or none.
        without: Steps to leave out.
        only: The only steps to take.
        against: Files of benchmark data (validation text, test items; jsonl, parquet, txt): documents that share 50
            letters and digits in a row with one are dropped.
        write_dropped: File for the dropped documents, with the reason (.jsonl).
        report: Page with counts, charts and samples (.html or .md).
        overwrite: Replace files of these names when the new ones are complete.
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.data.clean.clean import clean
    from mamegpt.data.clean.page import count_rows

    with answering(json) as answer:
        with busy(msg("cleaning")) as show:
            done = clean(
                data,
                out,
                split=split,
                normalisation=normalisation,
                without=without,
                only=only,
                against=against,
                write_dropped=write_dropped,
                report=report,
                schema=schema,
                overwrite=overwrite,
                on_event=lambda event: show(event.n_read),
            )
        answer(
            dict(count_rows(done)) | {"out": str(done.out), "elapsed_s": done.elapsed_s},
            clean_table(done),
            next_step("tokenizer", "--data", out, "--out", "jp_tok"),
        )


def dialogues_command(
    out: Path,
    n: int = 20_000,
    split: Literal["train", "test", "new"] = "train",
    pairs: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write questions with answers that a program can check (豆対話), from which a model learns to answer.

    Args:
        out: File to write (.jsonl), with the columns messages and kinds.
        n: Number of conversations.
        pairs: Write a right and a wrong answer to each question, for tune --task dpo (prompt, chosen and rejected).
        split: train; test, other questions with the same words; or new, questions with words that are not in train.
        seed: Random seed.
        overwrite: Replace a file of that name.
        json: Print one line of JSON instead of a line of text.
    """
    from mamegpt.data.dialogues import write_dialogues, write_preferences

    _check_jsonl(out, overwrite=overwrite)
    with answering(json) as answer:
        if pairs:
            write_preferences(out, n, seed=seed, split=split, overwrite=overwrite)
            answer(
                {"out": str(out), "n_pairs": n},
                msg("{out}: {n:,} questions with a right and a wrong answer (豆対話)", out=out, n=n),
                next_step(
                    "tune", "--task", "dpo", "--model", "runs/tuned", "--data", out, "--out", "runs/dpo", "--minutes", 1
                ),
            )
            return
        n_questions = write_dialogues(out, n, seed=seed, split=split, overwrite=overwrite)
        answer(
            {"out": str(out), "n_conversations": n, "n_questions": n_questions},
            msg(
                "{out}: {n:,} conversations with {n_questions:,} questions (豆対話)",
                out=out,
                n=n,
                n_questions=n_questions,
            ),
            next_step("tune", "--model", "runs/first", "--data", out, "--out", "runs/tuned", "--minutes", 2),
        )


def _check_jsonl(out: Path, *, overwrite: bool) -> None:
    """Raise `ConfigError` if ``out`` is no name of a jsonl file, `OutputError` if it may not be written."""
    from mamegpt.system.outputs import check_outputs

    if out.suffix != ".jsonl":
        raise ConfigError("--out {out} must end with .jsonl", out=out)
    check_outputs([out], [], overwrite=overwrite)


def reviews_command(
    out: Path,
    n: int = 5000,
    split: Literal["train", "test", "new"] = "train",
    seed: int = 0,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write short reviews with the labels good, bad and both (豆感想), from which a model learns to classify.

    Args:
        out: File to write (.jsonl), with the columns text and label.
        n: Number of reviews.
        split: train; test, other reviews with the same words; or new, reviews of things that are not in train.
        seed: Random seed.
        overwrite: Replace a file of that name.
        json: Print one line of JSON instead of a line of text.
    """
    from mamegpt.data.reviews import write_reviews

    _check_jsonl(out, overwrite=overwrite)
    with answering(json) as answer:
        write_reviews(out, n, seed=seed, split=split, overwrite=overwrite)
        answer(
            {"out": str(out), "n_reviews": n},
            msg("{out}: {n:,} reviews with labels (豆感想)", out=out, n=n),
            next_step(
                "tune",
                "--task",
                "classify",
                "--model",
                "runs/first",
                "--data",
                out,
                "--out",
                "runs/reviews",
                "--minutes",
                1,
            ),
        )


def tokenizer_command(
    data: str,
    out: Path,
    split: str = "train",
    vocab_size: int = 0,
    for_minutes: float = 10.0,
    model_type: Literal["bpe", "unigram"] = "bpe",
    character_coverage: float = 0.0,
    max_characters: int = 10_000_000,
    schema: Flat[Schema] = GUESS,
    overwrite: bool = False,
    json: bool = False,
    given: Given = frozenset(),
) -> None:
    """Train a lossless SentencePiece tokenizer; rare characters are represented by bytes (byte fallback).

    Args:
        data: Training data: file, folder, 'pattern*', Hub dataset or URL; several with commas;
            a@0.5 uses half of the documents.
        out: Name of the files to write, OUT.model and OUT.vocab.
        split: Split of the data.
        vocab_size: Vocabulary size (0: chosen for --for-minutes and the length of the text).
        for_minutes: Minutes of training that the vocabulary size is chosen for.
        model_type: bpe gives the same ids in every program that loads it; unigram is SentencePiece's classic.
        character_coverage: Character coverage: share of the text's characters that get a token of their own (0:
            0.9995, less for a small vocabulary).
        max_characters: Train on a sample of this many characters (0: all).
        overwrite: Replace files of that name.
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.data.sources import find_files, read_texts
    from mamegpt.system.outputs import check_outputs
    from mamegpt.tokenizer.tokenizer import output_paths, train_tokenizer

    refuse_idle(given, [(bool(vocab_size), ("for_minutes",), msg("with --vocab-size"))])
    check_outputs(output_paths(out), (file.path for file in find_files(data, split, schema)), overwrite=overwrite)
    with answering(json) as answer:
        with busy(msg("training a tokenizer")) as show:
            report = train_tokenizer(
                counted(read_texts(data, split, schema), show),
                out,
                vocab_size=vocab_size,
                for_minutes=for_minutes,
                model_type=model_type,
                character_coverage=character_coverage,
                max_characters=max_characters or None,
                overwrite=overwrite,
            )
        reading = [*(["--split", split] if split != "train" else []), *schema.options()]
        time = ["--minutes", f"{for_minutes:g}"] if "for_minutes" in given else []
        answer(
            dataclasses.asdict(report),
            tokenizer_table(report),
            next_step("plan", "--data", data, *reading, "--tokenizer", report.path, *time),
        )


def tokenizer_report_command(
    model: str,
    data: str,
    split: str = "validation",
    compare: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    max_characters: int = 1_000_000,
    schema: Flat[Schema] = GUESS,
    json: bool = False,
) -> None:
    """Measure a tokenizer on text it was not trained on, and compare it with others.

    Args:
        model: SentencePiece model, tokenizer.json, or a folder or Hub repository with one.
        data: Text to measure on: file, folder, 'pattern*', Hub dataset or URL (parquet, jsonl, csv, txt).
        split: Split of the data.
        compare: Other tokenizers, given as the first one.
        words: Words to show the splits of (default: ten instructive ones).
        max_characters: Compare on a sample of documents of at most this many characters (0: all).
        json: Print one line of JSON instead of tables.
    """
    from mamegpt.data.sources import read_texts
    from mamegpt.tokenizer.report import compare_tokenizers
    from mamegpt.tokenizer.vocab_size import best_vocab_sizes

    with answering(json, is_product=True) as answer:
        with busy(msg("measuring")):
            found = compare_tokenizers(
                [model, *compare], read_texts(data, split, schema), words=words, max_characters=max_characters or None
            )
        facts = dataclasses.asdict(found)
        answer(
            {name: facts[name] for name in ("n_documents", "n_characters", "fits")}
            | {"best_vocab_sizes": best_vocab_sizes()},
            comparison_table(found),
            "",
            vocabulary_table(),
            next_step("plan", "--data", data, *schema.options(), "--tokenizer", model),
        )
