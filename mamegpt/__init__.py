"""豆GPT: raw Japanese text in, a published language model out, on the machine you have."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors; at run time a name is imported when it is first asked for
    from mamegpt.cli.console import show_stream as show_stream
    from mamegpt.cli.main import run_command_line as run_command_line
    from mamegpt.cli.original import train_original as train_original
    from mamegpt.cli.progress import show_progress as show_progress
    from mamegpt.cli.render.models import show_export as show_export
    from mamegpt.cli.show import show as show
    from mamegpt.config import TrainConfig as TrainConfig
    from mamegpt.data.clean.clean import clean as clean
    from mamegpt.data.clean.counts import CleanReport as CleanReport
    from mamegpt.data.extract.extract import ExtractReport as ExtractReport
    from mamegpt.data.extract.extract import extract as extract
    from mamegpt.data.extract.topic import Topic as Topic
    from mamegpt.data.schema import Schema as Schema
    from mamegpt.data.sources import Document as Document
    from mamegpt.data.sources import Downloaded as Downloaded
    from mamegpt.data.sources import download as download
    from mamegpt.data.sources import read_documents as read_documents
    from mamegpt.data.sources import read_texts as read_texts
    from mamegpt.data.stories import write_stories as write_stories
    from mamegpt.errors import CheckpointError as CheckpointError
    from mamegpt.errors import ConfigError as ConfigError
    from mamegpt.errors import DataError as DataError
    from mamegpt.errors import ExportError as ExportError
    from mamegpt.errors import HubError as HubError
    from mamegpt.errors import MamegptError as MamegptError
    from mamegpt.errors import MamegptWarning as MamegptWarning
    from mamegpt.errors import ModelError as ModelError
    from mamegpt.errors import OutputError as OutputError
    from mamegpt.errors import TokenizerError as TokenizerError
    from mamegpt.errors import TrainingError as TrainingError
    from mamegpt.evaluation.evaluate import Evaluation as Evaluation
    from mamegpt.evaluation.evaluate import evaluate as evaluate
    from mamegpt.exporting.export import ExportReport as ExportReport
    from mamegpt.exporting.publish import export as export
    from mamegpt.exporting.publish import export_weights as export_weights
    from mamegpt.generation.settings import Sampling as Sampling
    from mamegpt.generation.stream import Token as Token
    from mamegpt.models.classifier import Classification as Classification
    from mamegpt.models.classifier import Classifier as Classifier
    from mamegpt.planning.plan import Plan as Plan
    from mamegpt.planning.plan import plan as plan
    from mamegpt.presets import preset as preset
    from mamegpt.pretrained import Pretrained as Pretrained
    from mamegpt.pretrained import load as load
    from mamegpt.pretrained import load_classifier as load_classifier
    from mamegpt.report.write import write_report as write_report
    from mamegpt.run.metrics import Quality as Quality
    from mamegpt.run.run import Checkpoint as Checkpoint
    from mamegpt.run.run import Extension as Extension
    from mamegpt.run.run import Run as Run
    from mamegpt.tokenizer.tokenizer import Tokenizer as Tokenizer
    from mamegpt.tokenizer.tokenizer import TokenizerReport as TokenizerReport
    from mamegpt.tokenizer.tokenizer import train_tokenizer as train_tokenizer
    from mamegpt.training.trainer import TrainResult as TrainResult
    from mamegpt.training.trainer import train as train
    from mamegpt.training.tune import tune as tune

__version__ = "0.1.0"

_NAMES = {
    "data.stories": ["write_stories"],
    "data.sources": ["Document", "Downloaded", "download", "read_documents", "read_texts"],
    "data.schema": ["Schema"],
    "data.extract.topic": ["Topic"],
    "data.extract.extract": ["ExtractReport", "extract"],
    "data.clean.clean": ["clean"],
    "data.clean.counts": ["CleanReport"],
    "tokenizer.tokenizer": ["Tokenizer", "TokenizerReport", "train_tokenizer"],
    "config": ["TrainConfig"],
    "presets": ["preset"],
    "training.trainer": ["TrainResult", "train"],
    "training.tune": ["tune"],
    "run.run": ["Checkpoint", "Extension", "Run"],
    "run.metrics": ["Quality"],
    "models.classifier": ["Classification", "Classifier"],
    "pretrained": ["Pretrained", "load", "load_classifier"],
    "generation.settings": ["Sampling"],
    "generation.stream": ["Token"],
    "evaluation.evaluate": ["Evaluation", "evaluate"],
    "exporting.export": ["ExportReport"],
    "exporting.publish": ["export", "export_weights"],
    "report.write": ["write_report"],
    "planning.plan": ["Plan", "plan"],
    "cli.show": ["show"],
    "cli.progress": ["show_progress"],
    "cli.render.models": ["show_export"],
    "cli.console": ["show_stream"],
    "cli.original": ["train_original"],
    "cli.main": ["run_command_line"],
    "errors": [
        "CheckpointError",
        "ConfigError",
        "DataError",
        "ExportError",
        "HubError",
        "MamegptError",
        "MamegptWarning",
        "ModelError",
        "OutputError",
        "TokenizerError",
        "TrainingError",
    ],
}
"""The public names by the modules that they are in."""
_MODULES = {name: f"mamegpt.{module}" for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULES)

if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if "torch" not in sys.modules:
            import_module("mamegpt.system.limits").configure_libraries()
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
