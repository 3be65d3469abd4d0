"""Group relative policy optimization (GRPO): learning from rewards for the model's own answers.

Shao et al. 2024, "DeepSeekMath", section 4.1. For each question of a step the model samples a group of answers. The
advantage of an answer is how far its reward is from the mean of its group, in standard deviations; answers with a
positive advantage become more probable. A step is one update of the answers that were sampled for it, so the ratio of
new and old probabilities, which the paper clips, is 1, and clipping never acts. What is sampled is a function of the
weights and (seed, step), so that a run resumes exactly.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mamegpt.data.conversation_order import ConversationOrder, Questions
from mamegpt.distributed import processes
from mamegpt.distributed.processes import World
from mamegpt.errors import CheckpointError, first_line
from mamegpt.generation.batch import BATCH_SIZE, continue_ids
from mamegpt.generation.settings import SEEDS, Sampling
from mamegpt.models.base import LanguageModel, cpu_state_dict
from mamegpt.models.weights import load_weights
from mamegpt.run.metrics import Quality
from mamegpt.system.devices import on_device
from mamegpt.system.files import atomic_write
from mamegpt.system.run_files import REFERENCE_FILE
from mamegpt.text.subsample import subsample
from mamegpt.tokenizer.tokenizer import Tokenizer
from mamegpt.training.batches import ExampleBatches, Pass, chunks
from mamegpt.training.forward import SummedLoss, compute_with
from mamegpt.training.rewards import Reward, scored

__all__ = ["Answerer", "GRPOLoss", "GroupBatches", "advantages", "evaluate_rewards", "reference_model"]

IdArray = npt.NDArray[np.int64]

SPREAD = 1e-4
"""What is added to the standard deviation of a group, so that equal rewards give advantages of 0."""


def advantages(rewards: Tensor) -> Tensor:
    """Return how many standard deviations each reward is above the mean of its group: (n, G) -> (n, G)."""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + SPREAD)


def token_log_probabilities(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of each target: states (N, C), targets (N,) -> (N,)."""
    return -F.cross_entropy(hidden.float() @ weight.float().T, targets, reduction="none")


def divergences(log_probabilities: Tensor, reference: Tensor) -> Tensor:
    """Return an estimate of the Kullback-Leibler divergence from the reference for each token: (N,), (N,) -> (N,).

    It is never negative, and right on average over tokens that the model sampled (Schulman 2020, "Approximating KL
    Divergence", k3).
    """
    gain = reference - log_probabilities
    return gain.exp() - gain - 1


class GRPOLoss(SummedLoss):
    """The sum of ratio x (kl_beta x divergence from the ``reference`` - advantage) over all tokens of answers.

    With the ratio, the gradient of the divergence has no bias (DeepSeek-AI 2025, "DeepSeek-V3.2", section 3.1).
    """

    reference: LanguageModel
    kl_beta: float

    def forward(
        self,
        ids: Tensor,
        targets: Tensor,
        soft_targets: Tensor | None = None,
        true_share: float = 1.0,
        learned: Tensor | None = None,
        of_rows: Tensor | None = None,
    ) -> Tensor:
        """(B, T), (N,), the ``learned`` positions (N,), the advantages ``of_rows`` (B,) -> scalar."""
        assert learned is not None and of_rows is not None and soft_targets is None and true_share == 1, "of answers"
        found = token_log_probabilities(self.states(ids, learned), self.model.out_head.weight, targets)
        ratio = (found - found.detach()).exp()
        losses = -of_rows[learned // ids.shape[1]]
        if self.kl_beta:
            losses = losses + self.kl_beta * divergences(found, _thought(self.reference, ids, targets, learned))
        return (ratio * losses).sum()


@torch.no_grad()
def _thought(model: LanguageModel, ids: Tensor, targets: Tensor, learned: Tensor) -> Tensor:
    """Return the log-probabilities of the targets by a model: (B, T), (N,), their positions (N,) -> (N,)."""
    hidden = model.hidden(ids).flatten(0, 1).index_select(0, learned)
    return token_log_probabilities(hidden, model.out_head.weight, targets)


class Answers(NamedTuple):
    """What a model read and the answers that it sampled, as ids with the end of each, and what they are worth."""

    prompts: list[list[int]]
    ids: list[list[int]]
    rewards: Tensor
    """(n,)"""

    def rows(self, which: Sequence[int], padding: int) -> tuple[IdArray, IdArray, IdArray]:
        """Return some of them: inputs (B, T), targets (N,), and the places of these among the B T positions."""
        T = max(len(self.prompts[i]) + len(self.ids[i]) for i in which) - 1
        inputs = np.full((len(which), T), padding, np.int64)
        targets, learned = [], []
        for row, i in enumerate(which):
            ids, n = [*self.prompts[i], *self.ids[i]], len(self.prompts[i])
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets.append(ids[n:])
            learned.append(np.arange(n - 1, len(ids) - 1) + row * T)
        return inputs, np.concatenate(targets).astype(np.int64), np.concatenate(learned)


@dataclass(frozen=True)
class Answerer:
    """Samples answers at temperature 1 from the whole distribution, as the loss needs them, and has them rewarded."""

    model: LanguageModel
    tokenizer: Tokenizer
    reward: Reward
    max_tokens: int
    seed: int

    def __call__(self, questions: Questions, which: Sequence[int], places: Sequence[tuple[int, ...]]) -> Answers:
        """Return an answer to each of ``which`` questions; its random numbers are a function of the seed and its place.

        Raises `TrainingError` if the reward fails.
        """
        turns, eos_id = self.tokenizer.turns, self.tokenizer.eos_id
        assert turns is not None, "asked before tokenizing"
        parts = [questions.split(i) for i in which]
        prompts = [prompt for prompt, _, _ in parts]
        found: list[list[int]] = [[] for _ in which]
        was_training = self.model.training
        compute_with(None, self.model)  # the same whatever was computed before
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # those of similar length share a pass
        for some in chunks(len(order), -(-len(order) // BATCH_SIZE)):
            now = order[some]
            answers = continue_ids(
                self.model,
                [prompts[i] for i in now],
                self.max_tokens,
                [Sampling(temperature=1.0, seed=_seed(self.seed, *places[i])) for i in now],
                turns.end,
                ends=lambda _, token: token == eos_id,
            )
            for i, ids in zip(now, answers, strict=True):
                is_ended = len(ids) < self.max_tokens and ids[-1:] != [eos_id]
                found[i] = [*ids, turns.end] if is_ended else ids
        self.model.train(was_training)
        decode = self.tokenizer.decode
        rewards = [
            scored(self.reward, decode(question), decode(ids), decode(expected))
            for (_, question, expected), ids in zip(parts, found, strict=True)
        ]
        return Answers(prompts, found, torch.tensor(rewards))


def _seed(*place: int) -> int:
    """Return the seed of an answer."""
    digest = hashlib.blake2b(":".join(map(str, place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % SEEDS


@dataclass(frozen=True)
class GroupBatches(ExampleBatches):
    """Questions, each with a group of answers that the model samples for a step.

    The loss of a step is the mean over all tokens of its answers (Yu et al. 2025, "DAPO", equation 8). What it learns
    from is a function of the weights and (seed, step, rank, world).
    """

    conversations: Questions
    order: ConversationOrder
    n_rows: int
    """Answers in a forward pass, at most."""
    group_size: int
    answer: Answerer
    host_group: Any

    def n_tokens_after(self, step: int) -> int:
        """Return how many tokens all processes have read after ``step`` steps, for answers as long as in the data."""
        return round(step * self.order.batch_size * self.group_size * float(self.conversations.lengths.mean()))

    def passes(self, step: int, rank: int, world: int) -> list[Pass]:
        """Sample the answers of one process in a step, and return them, the longest first."""
        chosen, G = self.order.conversations(step), self.group_size
        own = np.arange(len(chosen))[rank::world]
        which = [int(chosen[i]) for i in own for _ in range(G)]
        answers = self.answer(self.conversations, which, [(step, int(i), g) for i in own for g in range(G)])
        worth = advantages(answers.rewards.view(-1, G)).flatten().numpy()
        sums = torch.tensor([sum(map(len, answers.ids)), answers.rewards.sum().item(), len(which)], dtype=torch.float64)
        n_tokens, reward, n = processes.sum_over_processes(sums, self.host_group).tolist()
        figures = {"reward": reward / n, "answer_tokens": n_tokens / n}
        lengths = np.array([len(p) + len(a) for p, a in zip(answers.prompts, answers.ids, strict=True)])
        order = np.argsort(-lengths, kind="stable")
        found = []
        for rows in chunks(len(order), -(-len(order) // self.n_rows)):
            inputs, targets, learned = answers.rows(order[rows].tolist(), int(self.conversations.tokens[0]))
            found.append(Pass(inputs, targets, n_tokens, learned=learned, of_rows=worth[order[rows]], figures=figures))
        return found


def reference_model(run: Path, model: LanguageModel, world: World, *, is_new: bool) -> LanguageModel:
    """Return the model that a run starts from, which its folder keeps.

    ``model`` has its weights if the run ``is_new``. Raises `CheckpointError` if they are missing or damaged.
    """
    path, found = run / REFERENCE_FILE, copy.deepcopy(model).requires_grad_(False).eval()
    if is_new and world.is_main:
        with atomic_write(path, "wb") as file:
            file.write(save(cpu_state_dict(found)))
    processes.barrier(world)
    if not is_new:
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError("{file} cannot be read: {reason}", file=path, reason=first_line(error)) from None
        load_weights(found, weights, str(path))
    return found


@torch.no_grad()
def evaluate_rewards(
    answer: Answerer,
    questions: Questions,
    *,
    reference: LanguageModel,
    kl_beta: float,
    max_tokens: int = 0,
    compute_dtype: torch.dtype | None = None,
    step: int | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Quality:
    """Sample an answer to each of some questions, of at most ``max_tokens`` tokens (0: all), and measure in float32.

    The reward, the tokens of an answer, the share of answers that no other equals, and the divergence from the
    ``reference`` are means; the loss is kl_beta times the divergence minus the reward. All processes measure the same.
    """
    del compute_dtype  # differences of log-probabilities are small
    lengths = questions.lengths
    which = subsample(range(len(lengths)), max_tokens or None, lambda i: int(lengths[i]))
    answers = answer(questions, which, [(i,) for i in which])
    model, device = answer.model, answer.model.out_head.weight.device
    was_training, total = model.training, 0.0
    model.eval()
    for rows in chunks(len(which), -(-len(which) // BATCH_SIZE)):
        some = range(len(which))[rows]
        ids, targets, learned = (on_device(it, device) for it in answers.rows(some, int(questions.tokens[0])))
        found, before = (_thought(one, ids, targets, learned) for one in (model, reference))
        total += divergences(found, before).sum().item()
        on_progress(rows.stop / len(which))
    model.train(was_training)
    n_tokens = sum(map(len, answers.ids))
    reward, kl = answers.rewards.mean().item(), total / n_tokens
    return Quality(
        loss=kl_beta * kl - reward,
        bits_per_byte=0.0,
        bits_per_character=0.0,
        n_tokens=len(which),
        n_characters=len(which),
        n_bytes=0,
        of_n_characters=len(lengths),
        dtype="float32",
        step=step,
        reward=reward,
        kl=kl,
        answer_tokens=n_tokens / len(which),
        distinct=len({*map(tuple, answers.ids)}) / len(which),
    )
