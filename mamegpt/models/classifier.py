"""A model with a classification head on the last token of a text: the result of `mamegpt tune --task classify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mamegpt.arguments import checked
from mamegpt.config import ModelConfig
from mamegpt.errors import ConfigError
from mamegpt.models.base import LanguageModel
from mamegpt.text.normalize import normalize
from mamegpt.tokenizer.tokenizer import Tokenizer, check_characters

__all__ = ["Classification", "Classifier"]

BATCH_SIZE = 32


@dataclass(frozen=True)
class Classification:
    """The most probable label of a text, and the probabilities of all labels, the highest first."""

    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Classifier:
    """A model that finds the label of a text, with its tokenizer: the result of `load_classifier`."""

    model: LanguageModel
    """The network in evaluation mode; its ``out_head`` has a row for each label."""
    tokenizer: Tokenizer
    sizes: ModelConfig
    architecture: str
    origin: str
    """The path or name that was loaded; for a run, the folder of its checkpoint."""
    labels: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"Classifier({self.origin!r}, architecture={self.architecture!r}, n_parameters={self.n_parameters:_}, "
            f"labels={self.labels!r})"
        )

    @property
    def n_parameters(self) -> int:
        """Parameters of the model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @checked
    def text_ids(self, text: str) -> list[int]:
        """Return the ids that the model reads of a text: normalized as training text is, cut to the context.

        Raises `ConfigError` for a text without characters, `TokenizerError` for an unpaired surrogate.
        """
        check_characters(text)  # normalizing would put U+FFFD there without a word
        ids = self.tokenizer.encode(normalize(text.strip()))
        if not ids:
            raise ConfigError("--text is empty; give a text to classify")
        return ids[: self.model.context_length]

    @torch.inference_mode()
    @checked
    def logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits (N, n_labels) of rows of ids, each at its last token."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # those of similar length share a pass
        found = torch.empty(len(rows), len(self.labels))
        device = self.model.out_head.weight.device
        for begin in range(0, len(order), BATCH_SIZE):
            some = order[begin : begin + BATCH_SIZE]
            lengths = torch.tensor([len(rows[i]) for i in some])
            ids = torch.zeros(len(some), int(lengths.max()), dtype=torch.long)  # padding, which no token before it sees
            for row, i in zip(ids, some, strict=True):
                row[: len(rows[i])] = torch.tensor(rows[i])
            hidden = self.model.hidden(ids.to(device))[torch.arange(len(some)), lengths - 1]  # (B, C)
            found[some] = self.model.out_head(hidden).float().cpu()
        return found

    @checked
    def classify(self, texts: str | Sequence[str]) -> list[Classification]:
        """Return the classification of a text, or of each of several.

        A text that is longer than the context is cut. Raises `ConfigError` for one without characters.
        """
        rows = [self.text_ids(text) for text in ([texts] if isinstance(texts, str) else texts)]
        found = []
        for probabilities in self.logits(rows).double().softmax(-1).tolist():
            ordered = sorted(zip(self.labels, probabilities, strict=True), key=lambda pair: -pair[1])
            found.append(Classification(ordered[0][0], dict(ordered)))
        return found
