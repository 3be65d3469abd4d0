"""mamegpt clean past one machine, as tasks of datatrove: python examples/clean_cluster.py --data FOLDER --out FOLDER

Given again, the same command runs the tasks that failed or never ran, and no others. docs/web-scale.md tells more. Edit
the Slurm settings below for your cluster. Both folders must be on a file system that all machines see.
"""

import os
from pathlib import Path
from typing import Any, Literal

from mamegpt.cli.console import say
from mamegpt.cli.main import run_command_line
from mamegpt.data.clean.steps import Step
from mamegpt.data.clean.tasks import CleanTasks
from mamegpt.errors import ConfigError

SLURM = {"partition": "cpu", "time": "24:00:00", "mem_per_cpu_gb": 4, "venv_path": ".venv/bin/activate"}
DECIDE = {"mem_per_cpu_gb": 64}
"""What the one task of "decide" needs instead (docs/web-scale.md)."""


def main(
    data: str,
    out: Path,
    tasks: int = 1,
    workers: int = 1,
    executor: Literal["local", "slurm", "ray"] = "local",
    split: str = "train",
    format: Literal[".parquet", ".jsonl", ".txt"] = ".parquet",
    without: tuple[Step, ...] = (),
    against: tuple[Path, ...] = (),
) -> None:
    """Clean a corpus in tasks: the documents and the report are those of mamegpt clean.

    Args:
        data: Documents: a folder or pattern of files.
        out: Folder for the parts, one a task, and report.html.
        tasks: Tasks; each takes as many of the files.
        workers: Tasks that run at the same time.
        executor: This machine, Slurm, or the Ray cluster that RAY_ADDRESS names (else one of WORKERS on this machine).
        split: Split of the data.
        format: Format of the parts.
        without: Steps to leave out.
        against: Files of test items.
    """
    try:
        if executor == "ray":
            import ray
        from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
    except ImportError as error:
        raise ConfigError(f'this needs datatrove ({error.name} is missing): pip install -e ".[cluster]"') from error
    items = tuple(path.resolve() for path in against)  # a task may run in another folder
    job = CleanTasks(data, out.resolve(), tasks, split, format, without=without, against=items)
    job.start()
    if executor == "ray":
        ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else workers, include_dashboard=False)
    before: Any = None
    for stage in job.stages():
        common: dict[str, Any] = {
            "pipeline": [stage],
            "tasks": stage.n_tasks,
            "workers": min(workers, stage.n_tasks),
            "depends": before,
            "logging_dir": str(job.work / "logs" / stage.name),
        }
        if executor == "local":
            before = LocalPipelineExecutor(**common)
        elif executor == "ray":
            before = RayPipelineExecutor(**common)
        else:
            extra = DECIDE if stage.name == "decide" else {}
            before = SlurmPipelineExecutor(**common, **(SLURM | extra), job_name=f"clean-{stage.name}")
    before.run()
    say(f"{out}: the jobs are queued" if executor == "slurm" else f"{out}: parts and report.html")


if __name__ == "__main__":
    run_command_line(main)
