"""The commands of ``mamegpt``: a function each, whose docstring and parameters are its help and its options.

Heavy libraries are imported inside them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import json as json_format
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mamegpt import __version__
from mamegpt.config import Logger, TrainConfig
from mamegpt.console import INTERRUPTED, answering, busy, counted, is_terminal, say, sparkline, table, write_stream
from mamegpt.corpus.clean_steps import Normalisation, Step
from mamegpt.errors import ConfigError
from mamegpt.messages import translated
from mamegpt.presets import Recipe, Size, preset
from mamegpt.run_files import CONFIG_FILE, REPORT_FILE
from mamegpt.sampling import Sampling

__all__ = ["COMMANDS", "PARSING"]


def demo(
    data: str = "",
    keyword: str = "",
    out: Path = Path("demo"),
    seconds: float = 60.0,
    vocab_size: int = 0,
    seed: int = 42,
) -> int:
    """See it all work: text -> tokenizer -> training -> samples -> a folder that transformers loads.

    Args:
        data: Text to learn (file, folder or Hub data set); if empty, the built-in stories 豆物語.
        keyword: With --data: learn only documents with this word.
        out: Folder for everything that is made; a number is added if it exists.
        seconds: Seconds of training.
        vocab_size: Pieces of the tokenizer (0: 2,000 for the stories, 8,000 for other text).
        seed: Fixes everything random.
    """
    from mamegpt.demo import demo as show

    return show(data=data, keyword=keyword, out=out, seconds=seconds, vocab_size=vocab_size, seed=seed)


def download(dataset: str = "fujiki/wiki40b_ja", cache_dir: Path | None = None, json: bool = False) -> None:
    """Fetch a data set from the Hugging Face Hub into the cache, and say what it holds and where it lies.

    Args:
        dataset: Data set on the Hub, owner/name.
        cache_dir: Folder of the cache (default: the one all Hugging Face libraries share).
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.sources import download as fetch

    with answering(json) as answer:
        got = fetch(dataset, cache_dir)
        rows = []
        for name, split in got.splits.items():
            count = "rows unknown" if split.rows is None else f"{split.rows:,} rows"
            rows.append((name, f"{count}, {len(split.files)} file(s), {split.bytes / 1e6:,.1f} MB"))
        answer(
            dataclasses.asdict(got),
            f"{got.name} lies in {got.folder}",
            table(rows),
            f'next: mamegpt extract --dataset {dataset} --keyword "ファミコン" --out topic.txt',
        )


def extract(
    keyword: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    dataset: str = "fujiki/wiki40b_ja",
    split: str = "train",
    out: Path = Path("output_with_titles.txt"),
    match: Literal["any", "all"] = "any",
    exclude: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    regex: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    title_only: bool = False,
    min_hits: int = 1,
    window: int | None = None,
    preview: int = 0,
    text_column: str | None = None,
    title_column: str | None = None,
    txt_layout: Literal["auto", "file", "line", "block"] = "auto",
    json: bool = False,
) -> None:
    """Write the articles that mention a keyword into one file, each as 【title】 and its text.

    Args:
        keyword: Word to look for in title and text; width and case do not matter (ﾌｧﾐｺﾝ finds ファミコン). Repeatable.
        dataset: Data set on the Hub, or local: file, folder or 'pattern*' (parquet, jsonl, txt, xml; .gz .bz2 .zst).
        split: Split of the data set.
        out: File to write, text or .jsonl or .parquet; one that is there is replaced when the new one is complete.
        match: Whether any or all of the keywords and expressions must occur.
        exclude: Word that must not occur; width and case do not matter. Repeatable.
        regex: Python regular expression; it sees the text as it is written, width and case matter. Repeatable.
        title_only: Look at titles only.
        min_hits: Least number of hits in a document, of all keywords and expressions together.
        window: Keep only the paragraphs with a hit and this many before and after; all if the title has one.
        preview: Show this many hits, and write nothing.
        text_column: Column or key of the text (default: text, or the only one that holds strings).
        title_column: Column or key of the title (default: title).
        txt_layout: One document of a txt file; auto: articles headed 【title】, else pieces of plain text.
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.corpus.readers import Schema
    from mamegpt.corpus.topic import Topic
    from mamegpt.extract import extract as cut
    from mamegpt.extract import preview as hits

    topic = Topic(keyword, match, exclude, regex, title_only, min_hits, window)
    schema = Schema(text_column, title_column, txt_layout)
    if preview < 0:
        raise ConfigError(f"--preview must be at least 1, not {preview}; leave it out to write a file")
    if preview:
        for line in hits(dataset, split, topic, preview, schema):
            say(line)
        return

    with answering(json) as answer:
        with busy("reading") as show:
            report = cut(
                dataset, split, topic, out, schema=schema, on_start=say, on_progress=lambda read, kept: show(read)
            )
        answer(dataclasses.asdict(report), report.table(), f"next: mamegpt tokenizer --data {out} --out jp_tok")


def clean(
    data: str,
    out: Path,
    split: str = "train",
    normalisation: Normalisation = "nfc",
    without: tuple[Step, ...] = (),
    only: tuple[Step, ...] = (),
    against: tuple[Path, ...] = (),
    write_dropped: Path | None = None,
    report: Path | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Clean a corpus: edits, rules, personal data, duplicates, test items; all steps in a fixed order and counted.

    Args:
        data: Documents: a file or folder (parquet, jsonl, txt) or a Hub data set.
        out: File to write: .jsonl, .parquet or .txt.
        split: Split of the data.
        normalisation: Unicode normalisation: nfc, nfkc (unifies widths too), or none.
        without: Steps to leave out.
        only: The only steps to take.
        against: Files of test items (validation text, benchmarks; jsonl, parquet, txt): documents that share 50
            letters and digits in a row with one are dropped.
        write_dropped: File for the dropped documents, with the reason (.jsonl).
        report: Page with counts, charts and samples (.html or .md).
        overwrite: Replace files of these names when the new ones are complete.
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.clean import clean as run_steps

    with answering(json) as answer:
        with busy("cleaning") as show:
            done = run_steps(
                data,
                out,
                split=split,
                normalisation=normalisation,
                without=without,
                only=only,
                against=against,
                write_dropped=write_dropped,
                report=report,
                overwrite=overwrite,
                on_progress=show,
            )
        answer(
            dict(done.rows()) | {"out": str(done.out), "elapsed_s": done.elapsed_s},
            table([(name, translated(value, part=True)) for name, value in done.rows()]),
            f"wrote {done.out} in {done.elapsed_s:.1f} s",
            f"next: mamegpt tokenizer --data {out} --out jp_tok",
        )


def tokenizer(
    data: str,
    out: Path,
    split: str = "train",
    vocab_size: int = 16000,
    model_type: Literal["bpe", "unigram"] = "bpe",
    character_coverage: float = 0.9995,
    max_characters: int = 10_000_000,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Train a SentencePiece tokenizer that loses nothing; rare characters are spelt in bytes.

    Args:
        data: Text to learn from: file, folder, 'pattern*' or Hub data set; several with commas, weights as in a@0.5.
        out: Name of the files to write, OUT.model and OUT.vocab.
        split: Split of the data.
        vocab_size: Number of pieces.
        model_type: bpe gives the same ids in every program that loads it; unigram is SentencePiece's classic.
        character_coverage: Share of the text's characters that get a piece of their own.
        max_characters: Learn from a sample of this many characters (0: from all).
        overwrite: Replace files of that name.
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.sources import read_texts
    from mamegpt.tokenizer import train_tokenizer

    with answering(json) as answer:
        with busy("training a tokenizer") as show:
            report = train_tokenizer(
                counted(read_texts(data, split), show),
                out,
                vocab_size=vocab_size,
                model_type=model_type,
                character_coverage=character_coverage,
                max_characters=max_characters or None,
                overwrite=overwrite,
            )
        rows = [
            ("characters per token", f"{report.characters_per_token:.3f}"),
            ("byte-fallback tokens", f"{report.byte_fallback_rate:.3%}"),
            ("long lines split", f"{report.n_lines_split:,}"),
        ]
        answer(
            dataclasses.asdict(report),
            f"{report.path}: {report.vocab_size:,} {report.model_type} pieces from {report.n_characters:,} characters "
            f"in {report.elapsed_s:.1f} s",
            table(rows),
            f"next: mamegpt train --data {shlex.quote(data)} --tokenizer {report.path} --out runs/first",
        )


def tokenizer_report(
    model: str,
    data: str,
    split: str = "validation",
    compare: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    max_characters: int = 1_000_000,
    json: bool = False,
) -> None:
    """What a tokenizer does to a text it was not trained on, alone or beside others.

    Args:
        model: SentencePiece model, tokenizer.json, or a folder or Hub repository with one.
        data: Text to measure on: a file or folder (parquet, jsonl, txt) or a Hub data set.
        split: Split of the data.
        compare: Other tokenizers, given as the first one.
        words: Words to show the splits of (default: ten that tell much).
        max_characters: Read documents until there are this many characters (0: all).
        json: Print one line of JSON instead of tables.
    """
    from mamegpt.sources import read_texts
    from mamegpt.tokenizer_report import report

    with answering(json) as answer:
        with busy("measuring"):
            found = report(
                [model, *compare], read_texts(data, split), words=words, max_characters=max_characters or None
            )
        facts = dataclasses.asdict(found)
        del facts["text"]
        answer(
            facts, found.text, f"next: mamegpt train --data {shlex.quote(data)} --tokenizer {model} --out runs/first"
        )


def plan(
    minutes: float | None = None,
    data: str = "",
    split: str = "train",
    tokenizer: str = "",
    vocab_size: int = 0,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    cluster: str = "",
    json: bool = False,
) -> None:
    """What training will cost and be worth on this machine: it is measured for some seconds, nothing is trained.

    Args:
        minutes: Time there is for training (default: 10).
        data: Text to learn (as for train), to see how long it takes and how often it will be read.
        split: Split of the data.
        tokenizer: SentencePiece model for that text; without one, 1.66 characters a token are assumed.
        vocab_size: Pieces of the tokenizer, if there is none yet (0: 16,000).
        device: Where to compute; auto takes CUDA if there is one, else the CPU.
        cluster: Instead, reckon for 8 to 1,024 devices: a100, h100, h200, or a TOML file that describes a cluster.
        json: Print one line of JSON instead of a table.
    """
    if cluster:
        from mamegpt.cluster import plan_cluster

        if minutes is not None or data or tokenizer or vocab_size or device != "auto":
            raise ConfigError("--cluster reckons and measures nothing here; of the other options it takes --json only")
        planned = plan_cluster(cluster)
        with answering(json) as answer:
            answer(planned.to_dict(), planned.table())
        return
    from mamegpt.plan import make_plan

    with answering(json) as answer:
        with busy("measuring"):
            made = make_plan(
                minutes=10.0 if minutes is None else minutes, data=data, split=split, tokenizer=tokenizer,
                vocab_size=vocab_size, device=device,
            )  # fmt: skip
        answer(made.to_dict(), made.table(), f"next: {made.next_command(data, tokenizer)}")


def train(
    config: tyro.conf.OmitArgPrefixes[TrainConfig] = preset(),  # noqa: B008  (frozen)
    size: Size = "5m",
    recipe: Recipe = "mame",
    resume: Path | None = None,
    resume_intact: bool = False,
    log: tuple[Logger, ...] = (),
    report: bool = False,
    json: bool = False,
) -> int:
    """Train a model on text, or go on with a run that was stopped.

    Args:
        size: Preset of shape and learning rate, by parameters with 16,000 pieces; other options go before it.
        recipe: mame, or seed for the model and the training of the original training.py.
        resume: Folder of a run to go on with, exactly where its last checkpoint is; it brings all settings.
        resume_intact: With --resume: if the last checkpoint is damaged, set it aside and take the newest intact one.
        log: Write the figures also for these loggers (in the run's folder; trackio has a place of its own).
        report: Keep report.html in the run's folder, a page that renews itself while the run goes on.
        json: Print a line of JSON for every few steps, each validation and checkpoint, and the end.
    """
    if recipe == "seed" and size != "5m":
        raise ConfigError(f"--recipe seed has one size, its own; leave out --size {size}, or give --emb-dim and others")
    if resume_intact and resume is None:
        raise ConfigError("--resume-intact says how to go on with a run; give it with --resume RUN")
    from mamegpt.loggers import logger
    from mamegpt.report import report as write_report
    from mamegpt.report.live import live_report
    from mamegpt.terminal import json_lines, terminal
    from mamegpt.trainer import train as fit

    if resume is not None:
        asked, default = config.on_bad_loss, preset(size, recipe)
        if dataclasses.replace(config, on_bad_loss=default.on_bad_loss) != default:
            raise ConfigError("--resume takes every setting but --on-bad-loss from the run; leave the others out")
        config = dataclasses.replace(TrainConfig.load(resume / CONFIG_FILE), out=str(resume))
        if asked != default.on_bad_loss:
            config = dataclasses.replace(config, on_bad_loss=asked)
    elif config.init_from:
        from mamegpt.initial import with_shape_of_start

        if size != "5m":
            raise ConfigError(f"--init-from brings its own shape; leave out --size {size}")
        config = with_shape_of_start(config, recipe)
    with answering(json) as answer:
        watchers = [json_lines(answer) if json else terminal, *map(logger, log), *([live_report] if report else [])]
        result = fit(config, resume=resume is not None, intact=resume_intact, watchers=watchers)
        if not result.is_main:
            return INTERRUPTED if result.interrupted else 0
        facts = {
            "event": "interrupted" if result.interrupted else "done", "run": str(result.out), "step": result.step,
            "n_tokens": result.n_tokens, "n_parameters": result.n_parameters, "elapsed_s": result.elapsed_s,
        }  # fmt: skip
        if result.interrupted:
            answer(facts, f"saved at step {result.step}; go on with: mamegpt train --resume {result.out}")
            return INTERRUPTED
        if report:
            write_report([result.out], result.out / REPORT_FILE)
        answer(
            facts,
            f"loss {sparkline(result.losses)} {result.losses[-1]:.4f}",
            f"{result.step:,} steps, {result.n_tokens:,} tokens, {result.elapsed_s:.0f} s",
            f'next: mamegpt generate --model {result.out} --prompt "日本の"',
        )
    return 0


def evaluate(
    model: tyro.conf.UseAppendAction[tuple[str, ...]],
    data: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    split: str = "validation",
    train_data: str = "",
    train_split: str = "train",
    max_characters: int = 1_000_000,
    out: Path | None = None,
    spm_file: str = "",
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    json: bool = False,
) -> None:
    """How good models are: bits per character, minimal pairs, cloze, what they recite; beside an n-gram model.

    Args:
        model: Run, exported folder, or repository on the Hub (any causal model of transformers).
        data: Held-out text: file, folder, Hub data set or token shards (default: the run's validation).
        split: Split of the data (train or val for token shards).
        train_data: Text the models learned from (default: the run's), for what they recite and the n-gram model.
        train_split: Split of that text.
        max_characters: Take documents of each held-out text until there are this many characters (0: all).
        out: JSON file to write all numbers into; a run keeps its own in its folder.
        spm_file: SentencePiece model inside the folder or repository, if it has several.
        device: Where to compute.
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.evaluation import evaluate_models
    from mamegpt.files import write_json

    with answering(json) as answer:
        found = evaluate_models(
            model, data, split, train_data=train_data, train_split=train_split, max_characters=max_characters,
            spm_file=spm_file, device=device, on_stage=say if is_terminal() else lambda _: None,
        )  # fmt: skip
        found.keep()
        if out:
            write_json(out, found.to_dict())
        answer(found.to_dict(), found.table(), f'next: mamegpt generate --model {model[0]} --prompt "日本の"')


def generate(
    model: str,
    prompt: str | None = None,
    prompts: Path | None = None,
    max_new_tokens: int = 100,
    samples: int = 1,
    sampling: tyro.conf.OmitArgPrefixes[Sampling] = Sampling(),  # noqa: B008  (frozen)
    spm_file: str = "",
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    trust_remote_code: bool = False,
) -> None:
    """Go on with a text, streaming; greedy unless a temperature is given.

    Args:
        model: A run, an exported folder, or a repository on the Hub.
        prompt: Text to go on with; empty starts a new one.
        prompts: Instead, a file with a prompt a line, all gone on with together; prints JSON, a line a text.
        max_new_tokens: Longest continuation, in tokens.
        samples: Continuations to write; all but greedy ones differ.
        spm_file: SentencePiece model inside the folder or repository, if it has several.
        device: Where to compute.
        trust_remote_code: Let transformers run Python code from the repository, if the model is not ours.
    """
    from mamegpt.batched import generate_many, read_prompts
    from mamegpt.distributed import pick_device
    from mamegpt.generation import stream
    from mamegpt.pretrained import load_pretrained

    if samples < 1:
        raise ConfigError(f"--samples must be at least 1, not {samples}")
    if (prompt is None) == (prompts is None):
        raise ConfigError("give one of --prompt and --prompts")
    given = [] if prompts is None else [line for line in read_prompts(prompts) for _ in range(samples)]
    loaded = load_pretrained(model, spm_file=spm_file, device=pick_device(device), trust_remote_code=trust_remote_code)
    if prompt is None:
        texts = generate_many(
            loaded.model, loaded.tokenizer, given, max_new_tokens, sampling, use_cache=loaded.use_cache
        )
        for line, text in zip(given, texts, strict=True):
            say(json_format.dumps({"prompt": line, "text": text}, ensure_ascii=False))
        return
    for i in range(samples):
        chosen = dataclasses.replace(sampling, seed=sampling.seed + i)
        write_stream(
            prompt,
            stream(loaded.model, loaded.tokenizer, prompt, max_new_tokens, chosen, use_cache=loaded.use_cache),
        )
        if i + 1 < samples:
            say("---")


def play(
    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[MODEL ...]")] = (),
    host: str = "127.0.0.1",
    port: int = 8765,
) -> None:
    """Write with models on a local page, which also answers the clients of OpenAI's completions (http://HOST:PORT/v1).

    Args:
        models: Runs, exported folders, folders of these, or Hub repositories (default: what runs/ and demo/ hold).
        host: Address to listen at; only this machine reaches the default.
        port: Port to listen at (0: any that is free).
    """
    from mamegpt.playground import play as serve

    serve(models, host, port)


def export(
    model: str,
    out: Path,
    to: Literal["hf", "hf-native", "gguf", "all"] = "hf",
    gguf_type: Literal["f32", "f16", "bf16", "q8_0"] = "f32",
    push: str = "",
    dry_run: bool = False,
    spm_file: str = "",
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write what transformers or llama.cpp load, and compare it with the model before saying it is done.

    Args:
        model: A run, an exported folder, or a repository on the Hub.
        out: Folder to write.
        to: hf (a folder for transformers), hf-native (one without code of ours, also of the book's model), gguf (a
            file for llama.cpp), or all of them.
        gguf_type: Number format of a GGUF file's matrices.
        push: Upload the folder, with its model card, to this repository of the Hub (owner/name).
        dry_run: With --push: show what would go up, and upload nothing.
        spm_file: SentencePiece model inside the folder or repository, if it has several.
        overwrite: Replace a folder of that name when the new one is complete.
        json: Print one line of JSON instead of tables.
    """
    from mamegpt.hub import is_hub_name
    from mamegpt.publish import export_pretrained
    from mamegpt.publish import push as upload

    if gguf_type != "f32" and to not in ("gguf", "all"):
        raise ConfigError(f"--gguf-type {gguf_type} is for --to gguf (or all), not {to}; leave it out")
    if dry_run and not push:
        raise ConfigError("--dry-run shows what --push would upload; say --push owner/name as well")
    if push and not is_hub_name(push):
        raise ConfigError(f"--push {push} is no name on the Hub; give owner/name")
    if push and to == "all":
        raise ConfigError("--push uploads one folder; choose hf, hf-native or gguf with --to")
    with answering(json) as answer:
        report = export_pretrained(
            model, out, to, gguf_type=gguf_type, spm_file=spm_file, name=push, overwrite=overwrite
        )
        answer(
            dataclasses.asdict(report),
            f"{report.out}: loaded again in a clean process and compared, in {report.elapsed_s:.0f} s",
            f"next: see docs/serving.md for what runs {report.out}"
            if to == "gguf"
            else f'next: mamegpt generate --model {report.out / "hf" if to == "all" else report.out} --prompt "日本の"',
        )
        if push:
            say(upload(report.out, push, dry_run=dry_run))


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")],
    out: Path = Path("report.html"),
) -> None:
    """Show what happened in one or several runs, as one HTML file: curves, results, samples, text, settings.

    Args:
        runs: Folders of runs, finished or not.
        out: HTML file to write; one that is there is replaced when the new one is complete.
    """
    from mamegpt.report import report as write

    if not runs:
        raise ConfigError("name at least one run, such as: mamegpt report runs/first")
    write(runs, out, on_checkpoint=lambda path: say(f"{path} writes samples ..."))
    say(
        f"{out}: open it with any browser",
        f"next: mamegpt export --model {runs[-1]} --out {runs[-1].name}-hf",
    )


def doctor(json: bool = False) -> None:
    """What this machine can do, and what mamegpt would choose on it.

    Args:
        json: Print one line of JSON instead of a table.
    """
    from mamegpt.machine import facts

    with answering(json) as answer:
        found = facts(Path())
        answer(
            {"mamegpt": __version__, **dict(found)},
            f"mamegpt {__version__}",
            table([(name, translated(value, part=True)) for name, value in found]),
            "next: mamegpt demo, or mamegpt plan --minutes 10",
        )


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]) -> None:
    """Print a script with which a shell completes commands and options; save it where the shell looks for such.

    Args:
        shell: Shell to write for: bash looks in ~/.local/share/bash-completion/completions/mamegpt, zsh for _mamegpt
            in the folders of $fpath, fish in ~/.config/fish/completions/mamegpt.fish.
    """
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="mamegpt", args=["--tyro-write-completion", shell, "-"], config=PARSING
    )


PARSING = (tyro.conf.FlagConversionOff,)
"""How tyro reads every command line: a switch may be followed by True or False."""

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "download": download,
    "extract": extract,
    "clean": clean,
    "tokenizer": tokenizer,
    "tokenizer-report": tokenizer_report,
    "plan": plan,
    "train": train,
    "eval": evaluate,
    "generate": generate,
    "play": play,
    "report": report,
    "export": export,
    "doctor": doctor,
    "completion": completion,
}
