"""Fixtures that several test files share."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of subprocesses; tiny tensors only lose by more threads

os.environ["MAMEGPT_LANG"] = "en"  # whatever the machine's locale is

os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])  # mamegpt is found by name

from command import mame  # noqa: F401
from hub_server import hub, wiki  # noqa: F401
from little import classifier_run, little, tuned  # noqa: F401
from warm_exports import fork_server, warm_exports  # noqa: F401

from mamegpt.data.stories import stories
from mamegpt.text.articles import format_article
from mamegpt.tokenizer.tokenizer import train_tokenizer

hypothesis.settings.load_profile("ci")  # the same examples each time; --hypothesis-profile=default draws new ones


@pytest.fixture(scope="session", autouse=True)
def engine_is_not_measured() -> Iterator[None]:
    """Let a run compute with PyTorch where the faster engine would be measured: two runs could differ by that."""
    if "mamegpt.training.setup" not in sys.modules:  # no test of this session trains
        yield
        return
    from mamegpt.training.engine import choose_engine

    def decided(*arguments: Any) -> Any:
        found = choose_engine(*arguments)
        return "torch" if found == "auto" else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mamegpt.training.setup.choose_engine", decided)
        yield


@pytest.fixture(scope="session")
def stories_txt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 300 stories, some 100,000 characters."""
    path = tmp_path_factory.mktemp("stories") / "stories.txt"
    path.write_text("".join(format_article(*story) for story in stories(seed=1, n=300)), encoding="utf-8", newline="")
    return path


@pytest.fixture(scope="session")
def stories_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 1,000 pieces for these stories."""
    texts = [format_article(*story) for story in stories(seed=1, n=300)]
    return train_tokenizer(
        [*texts, "豆 と 豆\n" * 100], tmp_path_factory.mktemp("tokenizer") / "stories", vocab_size=1000
    ).path
