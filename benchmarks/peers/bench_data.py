"""How fast does everyone cut a topic out of parquet files: read, search, take titles out of markers, write one file?

    make bench-data                                                # some ten minutes
    python -m benchmarks.peers.bench_data [--rounds 5] [--gb 1] [--keyword WORD ...] [--data FILE] [--out FILE]

A contestant is a whole process, from its start to its end, output on disk: the command ``mamegpt extract``, or one of
the short programs that follow, as somebody who knows the library would write them. In each round all of them run, one
after the other, in random order; a result is the median of the rounds' ratios to mamegpt, with the smallest and the
largest. All files have been read once, so that the disk does not count. Processor seconds and the peak memory are what
the kernel says when a process is gone; how many cores other programs used meanwhile is written down too.

They do not do the same. The others look for the keyword as it is spelt; mamegpt compares without width and case,
normalises, counts hits and drops duplicates. "Polars by hand, in full" does all of that but the counts. How much each
of them wrote is in the results.

The text is one parquet file in the format of Wiki-40B, repeated; a line at the end of each article tells the copies
apart, so that nobody finds duplicates. Results go to ``benchmarks/results/data.json``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from mamegpt.system.files import atomic_directory, write_json

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "wiki_ja" / "train.parquet"
RESULTS = ROOT / "benchmarks" / "results"
OURS = "mamegpt"
PACKAGES = ("pyarrow", "polars", "duckdb", "datasets", "numpy")
KEYWORDS = ("ファミコン", "京都")  # in one article of 7,000, and in every third


def article(raw: str) -> str:
    """By hand: a row of Wiki-40B as 【title】 and text."""
    title, _, text = raw.removeprefix("\n_START_ARTICLE_\n").partition("\n")
    return f"【{title}】\n" + re.sub(r"\n?_START_(?:SECTION|PARAGRAPH)_\n|_NEWLINE_", "\n", text).strip("\n") + "\n\n"


def with_polars(folder: Path, keyword: str, out: Path) -> None:
    import polars as pl

    raw = pl.col("text")
    title = raw.str.extract(r"^\n_START_ARTICLE_\n(.*)")
    text = raw.str.replace(r"^\n_START_ARTICLE_\n.*", "").str.replace_all(r"\n?_START_(?:SECTION|PARAGRAPH)_\n", "\n")
    text = text.str.replace_all("_NEWLINE_", "\n", literal=True).str.strip_chars("\n")
    rows = pl.scan_parquet(folder / "*.parquet").filter(raw.str.contains(keyword, literal=True))
    with out.open("w", encoding="utf-8") as file:
        frame = rows.select(pl.format("【{}】\n{}\n\n", title, text)).collect(engine="streaming")
        file.writelines(frame.to_series())


def with_polars_in_full(folder: Path, keyword: str, out: Path) -> None:
    """All that mamegpt does but the counts: keyword without width and case, NFC, each text once but for white space."""
    import polars as pl

    def fold(text: pl.Expr) -> pl.Expr:
        return text.str.normalize("NFKC").str.to_lowercase().str.normalize("NFKC")

    raw, whole = pl.col("text"), fold(pl.lit(keyword))
    title = raw.str.extract(r"^\n_START_ARTICLE_\n(.*)").str.normalize("NFC")
    text = raw.str.replace(r"^\n_START_ARTICLE_\n.*", "").str.replace_all(r"\n?_START_(?:SECTION|PARAGRAPH)_\n", "\n")
    text = text.str.replace_all("_NEWLINE_", "\n", literal=True).str.replace_all(r"\n\s*\n", "\n").str.strip_chars("\n")
    rows = pl.scan_parquet(folder / "*.parquet").select(title=title, text=text.str.normalize("NFC"), folded=fold(text))
    rows = rows.filter(pl.col("folded").str.contains(whole, literal=True) | fold(pl.col("title")).str.contains(whole))
    rows = rows.with_columns(key=pl.col("folded").str.replace_all(r"\s", "").hash()).drop("folded")
    frame = rows.unique("key", keep="first", maintain_order=True).select(pl.format("【{}】\n{}\n\n", "title", "text"))
    with out.open("w", encoding="utf-8") as file:
        file.writelines(frame.collect(engine="streaming").to_series())


def with_duckdb(folder: Path, keyword: str, out: Path) -> None:
    import duckdb

    rows = duckdb.execute(
        "select '【' || regexp_extract(text, '^\n_START_ARTICLE_\n(.*)', 1) || '】\n' || trim(replace(regexp_replace("
        "regexp_replace(text, '^\n_START_ARTICLE_\n[^\n]*', ''), '\n?_START_(SECTION|PARAGRAPH)_\n', '\n', 'g'), "
        "'_NEWLINE_', '\n'), '\n') || '\n\n' from read_parquet(?) where contains(text, ?)",
        [str(folder / "*.parquet"), keyword],
    )
    with out.open("w", encoding="utf-8") as file:
        while some := rows.fetchmany(1000):
            file.writelines(row[0] for row in some)


def with_pyarrow(folder: Path, keyword: str, out: Path) -> None:
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    scanner = ds.dataset(folder, format="parquet").scanner(
        columns=["text"], filter=pc.match_substring(pc.field("text"), keyword), batch_size=1000, batch_readahead=4
    )
    with out.open("w", encoding="utf-8") as file:
        for batch in scanner.to_batches():
            file.writelines(map(article, batch.column(0).to_pylist()))


def with_datasets(folder: Path, keyword: str, out: Path) -> None:
    from datasets import load_dataset

    files = sorted(map(str, folder.glob("*.parquet")))
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder.parent / "datasets-cache"))
    with out.open("w", encoding="utf-8") as file:
        file.writelines(article(item["text"]) for item in rows if keyword in item["text"])


BY_HAND: dict[str, Callable[[Path, str, Path], None]] = {
    "Polars by hand": with_polars,
    "Polars by hand, in full": with_polars_in_full,
    "DuckDB by hand": with_duckdb,
    "PyArrow by hand": with_pyarrow,
    "for item in load_dataset(...)": with_datasets,
}


def command(name: str, folder: Path, keyword: str, out: Path) -> list[str]:
    """The process of a contestant."""
    if name == OURS:
        words = ["-m", "mamegpt", "extract", "--dataset", str(folder), "--keyword", keyword, "--out", str(out)]
    else:
        words = ["-m", "benchmarks.peers.bench_data", "--run", name, str(folder), keyword, str(out)]
    return [sys.executable, *words]


def run(name: str, folder: Path, keyword: str, out: Path) -> dict[str, float]:
    """Run one of them: seconds, processor seconds, peak bytes, cores that others used, what it wrote."""
    out.unlink(missing_ok=True)
    idle, begin = _busy(), time.perf_counter()
    process = subprocess.Popen(command(name, folder, keyword, out), cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} ended with exit code {process.returncode}")
    own_s = usage.ru_utime + usage.ru_stime
    return {
        "wall_s": wall_s,
        "processor_s": own_s,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "elsewhere": max(0.0, _busy() - idle - own_s) / wall_s,
        "written_bytes": out.stat().st_size,
        "articles": sum(line.startswith("【") and line.endswith("】\n") for line in _lines(out)),
    }


def _busy() -> float:
    """Processor seconds of the whole machine so far."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from file


def folder_of(data: Path, gb: float) -> Path:
    """A folder with as many copies of a parquet file as make ``gb`` billion bytes of text, made if it is not there."""
    folder = ROOT / "runs" / "bench-data" / f"{data.parent.name}-{gb:g}gb"
    if not folder.is_dir():
        # In a process of its own: what this one has ever held would count as the peak of those it starts.
        words = ["-m", "benchmarks.peers.bench_data", "--prepare", str(data), str(gb), str(folder)]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True)
    return folder


def prepare(data: Path, gb: float, folder: Path) -> None:
    """Write the copies."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    texts = pq.read_table(data, columns=["text"])["text"]
    n_copies = max(1, round(gb * 1e9 / pc.sum(pc.binary_length(texts)).as_py()))
    with atomic_directory(folder) as made:
        for i in range(n_copies):
            marked = pc.binary_join_element_wise(texts, f"第{i}版。", "_NEWLINE_")
            pq.write_table(
                pa.table({"text": marked}), made / f"{i:03}.parquet", row_group_size=1000, compression="zstd"
            )


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        BY_HAND[sys.argv[2]](Path(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
        return
    if sys.argv[1:2] == ["--prepare"]:
        prepare(Path(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="parquet file with a column text, as in Wiki-40B")
    parser.add_argument("--gb", type=float, default=1.0, help="billions of bytes of text to make of it")
    parser.add_argument("--keyword", nargs="+", default=KEYWORDS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the order in a round")
    parser.add_argument("--out", type=Path, default=RESULTS / "data.json")
    args = parser.parse_args()
    folder, dice = folder_of(args.data, args.gb), random.Random(args.seed)
    names, scratch = [OURS, *BY_HAND], folder.parent / "out.txt"
    n_bytes = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    results: dict[str, Any] = {
        "task": {"text": args.data.parent.name, "gb": args.gb, "file_bytes": n_bytes},
        "rounds": args.rounds,
        "cores": os.cpu_count(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "keywords": (found := {}),
    }
    for keyword in args.keyword:
        for name in names:  # not counted: caches of the disk, of Python and of load_dataset
            print(f"{keyword} {name}: {run(name, folder, keyword, scratch)['wall_s']:.1f} s", flush=True)
        rounds = [
            {n: run(n, folder, keyword, scratch) for n in dice.sample(names, len(names))} for _ in range(args.rounds)
        ]
        found[keyword] = {}
        for name in names:
            runs = [each[name] for each in rounds]
            ours = [each[OURS] for each in rounds]
            ratios = {
                f"{kind}_over_ours": spread([a[f"{kind}_s"] / b[f"{kind}_s"] for a, b in zip(runs, ours, strict=True)])
                for kind in ("wall", "processor")
            }
            kinds = ("wall_s", "processor_s", "peak_bytes", "elsewhere")
            values = {kind: spread([each[kind] for each in runs]) for kind in kinds}
            wrote = {kind: runs[0][kind] for kind in ("written_bytes", "articles")}
            found[keyword][name] = {**ratios, **values, **wrote, "runs": runs}
            print(
                f"{keyword} {name:30} {ratios['wall_over_ours']['median']:5.2f} x the time of mamegpt "
                f"({ratios['wall_over_ours']['min']:.2f} to {ratios['wall_over_ours']['max']:.2f}), processor "
                f"{ratios['processor_over_ours']['median']:.2f} x, {values['wall_s']['median']:.2f} s, "
                f"{values['peak_bytes']['median'] / 1e6:,.0f} MB, {wrote['articles']:,.0f} articles, "
                f"others {values['elsewhere']['median']:.2f} cores",
                flush=True,
            )
        write_json(args.out, results)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
