"""Fixtures that several test files share."""

import os
import sysconfig
from pathlib import Path

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
