"""A process that has imported transformers, and forks for each script that it is asked to run.

    python -X utf8 -P fork_server.py

A line of standard input is JSON with ``words`` (the script and its arguments), ``env`` and ``cwd``, in which the files
``stdout`` and ``stderr`` take what is printed; the answer is a line with the exit code. Like the scripts of an export,
it imports public packages only.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from typing import NoReturn

__all__ = ["serve"]


def serve() -> None:
    """Fork for each line, and answer it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline  # noqa: F401
    from transformers.models.gpt2 import modeling_gpt2  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401
    from transformers.models.qwen3 import modeling_qwen3  # noqa: F401

    assert not any(name.partition(".")[0] == "mamegpt" for name in sys.modules)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            run(**asked)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(words: list[str], env: dict[str, str], cwd: str) -> NoReturn:
    """Run a script in this process as in a new one, and end."""
    os.chdir(cwd)
    for name, stream in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.clear()
    os.environ.update(env)
    for module in list(sys.modules.values()):  # what transformers read of the environment when it was imported
        if "HF_MODULES_CACHE" in vars(module):
            module.HF_MODULES_CACHE = env["HF_MODULES_CACHE"]  # type: ignore[attr-defined]
    sys.argv, code = words, 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
