"""Direct preference optimization (DPO): learning from pairs of a better and a worse answer.

Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model". The reward of an
answer is beta times how much more probable it is than for the reference, the model that a run starts from. Those
log-probabilities are computed once and kept in the folder of the run, so that it resumes without that model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mamegpt.data.conversation_order import Conversations
from mamegpt.distributed import processes
from mamegpt.distributed.processes import World
from mamegpt.errors import CheckpointError, first_line
from mamegpt.models.base import LanguageModel
from mamegpt.native.library import Native
from mamegpt.run.metrics import Quality
from mamegpt.system.devices import on_device
from mamegpt.system.files import atomic_write
from mamegpt.system.run_files import REFERENCE_FILE
from mamegpt.text.subsample import subsample
from mamegpt.training.forward import SummedLoss, compute_with

__all__ = ["DPOLoss", "dpo_losses", "evaluate_pairs", "keep_reference", "log_probabilities", "read_reference"]

BATCH_SIZE = 64
"""Answers whose log-probabilities are computed together."""


def dpo_losses(log_probabilities: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Return -log sigmoid of each pair's reward margin: (2 n,), (2 n,) -> (n,). Rafailov et al. 2023, equation 7."""
    return -F.logsigmoid(margins(log_probabilities, reference, beta))


def margins(log_probabilities: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Return how much higher the reward of the better answer is than that of the worse one: (2 n,), (2 n,) -> (n,)."""
    rewards = beta * (log_probabilities - reference)
    return rewards[::2] - rewards[1::2]


def answer_log_probabilities(hidden: Tensor, weight: Tensor, targets: Tensor, row: Tensor, n_rows: int) -> Tensor:
    """Return the log-probability of each row's answer: states (N, C), targets (N,), their rows (N,) -> (n_rows,)."""
    losses = F.cross_entropy(hidden.float() @ weight.float().T, targets, reduction="none")  # (N,)
    return -torch.zeros(n_rows, device=losses.device).index_add(0, row, losses)


class DPOLoss(SummedLoss):
    """The sum of `dpo_losses` over the pairs of a forward pass, whose rows take turns: better, worse, better, ..."""

    reference: Tensor
    """The log-probability of each conversation's answer by the reference, (n,)."""
    beta: float

    def forward(
        self,
        ids: Tensor,
        targets: Tensor,
        soft_targets: Tensor | None = None,
        true_share: float = 1.0,
        learned: Tensor | None = None,
        of_rows: Tensor | None = None,
    ) -> Tensor:
        """(B, T), (N,), the ``learned`` positions (N,), the numbers of conversations ``of_rows`` (B,) -> scalar."""
        assert learned is not None and of_rows is not None and soft_targets is None and true_share == 1, "of pairs"
        found = answer_log_probabilities(
            self.states(ids, learned), self.model.out_head.weight, targets, learned // ids.shape[1], len(ids)
        )
        return dpo_losses(found, self.reference[of_rows], self.beta).sum()


@torch.no_grad()
def log_probabilities(
    model: LanguageModel,
    conversations: Conversations,
    which: np.ndarray,
    world: World,
    native: Native | None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Tensor:
    """Return the log-probability of the answer in each of some conversations, (n,) float32 on the CPU.

    The processes share the work.
    """
    was_training = model.training
    model.eval()
    compute_with(native, model)
    found = torch.zeros(len(which))
    order = np.argsort(conversations.lengths[which], kind="stable")  # those of similar length share a pass
    for begin in range(world.rank * BATCH_SIZE, len(which), world.size * BATCH_SIZE):
        some = order[begin : begin + BATCH_SIZE]
        inputs, targets, learned = (on_device(it, world.device) for it in conversations.rows(which[some]))
        hidden = model.hidden(inputs).flatten(0, 1).index_select(0, learned)
        row = learned // inputs.shape[1]
        found[some] = answer_log_probabilities(hidden, model.out_head.weight, targets, row, len(some)).cpu()
        on_progress(min(1.0, (begin + BATCH_SIZE) / len(which)))
    model.train(was_training)
    return processes.sum_over_processes(found, world.host_group) if world.size > 1 else found


def keep_reference(
    run: Path, model: LanguageModel, pairs: Mapping[str, Conversations], world: World, native: Native | None
) -> None:
    """Write the log-probabilities of all answers by the model that a run starts from."""
    found = {name: log_probabilities(model, one, np.arange(len(one)), world, native) for name, one in pairs.items()}
    if world.is_main:
        with atomic_write(run / REFERENCE_FILE, "wb") as file:
            file.write(save(found))
    processes.barrier(world)


def read_reference(run: Path, pairs: Mapping[str, Conversations]) -> dict[str, Tensor]:
    """Return what `keep_reference` wrote. Raises `CheckpointError` if it is missing or damaged."""
    path = run / REFERENCE_FILE
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError("{file} cannot be read: {reason}", file=path, reason=first_line(error)) from None
    if {name: len(one) for name, one in pairs.items()} != {name: len(one) for name, one in found.items()}:
        raise CheckpointError("{path} does not fit this model: other names or sizes", path=path)
    return found


def evaluate_pairs(
    model: LanguageModel,
    pairs: Conversations,
    *,
    reference: Tensor,
    beta: float,
    world: World,
    max_tokens: int = 0,
    compute_dtype: torch.dtype | None = None,
    native: Native | None = None,
    step: int | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Quality:
    """Measure loss, accuracy and reward margin on pairs, of at most ``max_tokens`` tokens (0: all), in float32.

    The accuracy is the share of pairs whose better answer has the higher reward.
    """
    del compute_dtype  # differences of log-probabilities are small
    lengths = pairs.lengths[::2] + pairs.lengths[1::2]
    chosen = np.array(subsample(range(len(lengths)), max_tokens or None, lambda i: int(lengths[i])))
    which = np.stack((2 * chosen, 2 * chosen + 1), axis=1).ravel()
    found, before = (
        log_probabilities(model, pairs, which, world, native, on_progress),
        reference[torch.from_numpy(which)],
    )
    margin = margins(found, before, beta)
    return Quality(
        loss=dpo_losses(found, before, beta).mean().item(),
        bits_per_byte=0.0,
        bits_per_character=0.0,
        n_tokens=len(chosen),
        n_characters=len(chosen),
        n_bytes=0,
        of_n_characters=len(lengths),
        dtype="float32",
        step=step,
        accuracy=(margin > 0).float().mean().item(),
        margin=margin.mean().item(),
    )
