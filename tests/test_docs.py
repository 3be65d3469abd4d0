"""The pages are equal to the program: their commands parse and run as written, their links lead somewhere."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from little import ROOT, run_mamegpt, run_script
from readme import code_cells, commands

from benchmarks import tables
from examples.walk import table, walk
from mamegpt.cli import main
from mamegpt.cli.commands.registry import COMMANDS

PAGES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))]
SMALLER = {
    "training.py": ["--max-steps", "2"],
    "demo": ["--seconds", "2"],
}
"""What is done less of here than on the pages."""


@pytest.mark.parametrize("page", ["tutorial", "howto", "serving"])
def test_a_page_gives_the_same_commands_in_both_languages(page: str) -> None:
    japanese, english = (commands(f"docs/{page}{language}.md") for language in ("", ".en"))
    assert japanese == english and len(japanese) > 5


def test_the_tables_of_the_benchmarks_are_the_results() -> None:
    pages = [path.read_text(encoding="utf-8") for path in tables.PAGES]
    assert [tables.rendered(page) for page in pages] == pages
    assert set(re.findall(r"<!-- table ([\w-]+) -->", "".join(pages))) == set(tables.TABLES)


def test_there_is_a_how_to_for_each_command() -> None:
    shown = [words[1] for words in commands("docs/howto.md") if words[0] == "mamegpt"]
    assert set(shown) == set(COMMANDS)


@pytest.mark.parametrize("page", [*PAGES, "examples/colab.ipynb"])
def test_every_command_parses(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def parsed(name: str) -> object:
        @functools.wraps(COMMANDS[name])
        def note(*_: object, **__: object) -> None:
            ran.append(name)

        return note

    monkeypatch.setattr(main, "COMMANDS", {name: parsed(name) for name in COMMANDS})
    monkeypatch.setattr(main, "train_command", parsed("train"))
    wanted = [words for words in commands(page) if words[0] == "mamegpt"]
    for words in wanted:
        with pytest.raises(SystemExit) as end:
            main.main(words[1:])
        assert end.value.code == 0, words
    assert ran == [words[1] for words in wanted]


def test_notebooks_are_stored_without_outputs() -> None:
    for path in (ROOT / "examples").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path


def test_every_link_leads_to_a_file() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        assert [link for link in links if not (ROOT / "docs" / link).is_file()] == [], page


def test_every_page_is_in_the_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    contents = index[index.index("```{toctree}") :].split()
    assert {Path(page).stem for page in PAGES} - {"index"} == set(contents) - {"```{toctree}", ":hidden:", "```"}


def test_the_tree_names_every_folder_and_nothing_else() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.split("```\nmamegpt/\n")[1].split("```")[0]
    found, folders = set(), list[str]()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        folders[depth:] = [line.split()[0]]
        found.add("".join(folders))
    package = ROOT / "mamegpt"
    packages = {path.parent.relative_to(package).as_posix() + "/" for path in package.rglob("*/__init__.py")}
    assert found == {path.name for path in package.glob("*.py")} | packages


def test_every_path_on_the_map_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = re.findall(r"`([a-z_]+/[\w/.]*)`", page)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / "mamegpt" / path).exists() and not (ROOT / path).exists()] == []


def test_the_walked_text_is_the_one_on_the_page(tmp_path: Path) -> None:
    assert table(walk(tmp_path)) in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/tutorial.md", "docs/howto.md"])
def test_the_commands_run_as_written(wiki: HubServer, tmp_path: Path, page: str) -> None:
    """Word for word, from top to bottom, but for fewer steps."""
    env = wiki.env(tmp_path)
    for words in commands(page):
        if words[0] == "printf":
            _, text, _, name = words
            (tmp_path / name).write_text(text.replace("\\n", "\n"), encoding="utf-8")
            continue
        rest = words[2:] + SMALLER.get(words[1], [])
        if "--minutes" in rest and words[1] in ("train", "tune"):
            at = rest.index("--minutes")
            rest[at : at + 2] = ["--max-steps", "3"]
        if words[1] == "play":
            assert_serves(rest, tmp_path)
            continue
        if words[0] == "python":
            done = run_script(words[1], *rest, cwd=tmp_path, env=env)
        else:
            done = run_mamegpt(words[1], *rest, cwd=tmp_path, env=env)
        assert done.returncode == 0, (words, done.stdout, done.stderr)


def assert_serves(models: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "mamegpt", "play", *models, "--port", "0"]
    with subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, encoding="utf-8"
    ) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline().startswith("http://127.0.0.1:")
        finally:
            server.terminate()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    docs = tmp_path / "project" / "docs"
    shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("_build"))
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "project" / "benchmarks" / "results")  # charts
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "-b", "html", docs, tmp_path / "site"]
    done = subprocess.run(
        build,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mamegpt.training.trainer.train" in (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "examples" / "mamegpt.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs and not any(output["output_type"] == "error" for output in outputs)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="its commands are for Colab's shell")
def test_the_notebook_for_colab_runs_from_top_to_bottom(wiki: HubServer, tmp_path: Path) -> None:
    """Word for word, but for fewer steps, and with an end where a command fails."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "examples" / "colab.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            fewer = cell.source.replace("--size 5m --minutes 10", "--size 1m --max-steps 3")
            cell.source = fewer.replace("sleep(10)", "sleep(0.5)")
            cell.source += "\nassert not globals().get('_exit_code')"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = wiki.env(tmp_path) | {"PATH": path, "PYTHONPATH": str(ROOT)}
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute(env=env)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("<iframe srcdoc=" in output.get("data", {}).get("text/html", "") for output in outputs) == 1
    for made in ("my-model/my-model.html", "hf/model.safetensors"):
        assert (tmp_path / made).is_file(), made
    assert len(commands("examples/colab.ipynb")) == 8 and len(code_cells("examples/colab.ipynb")) == 7
