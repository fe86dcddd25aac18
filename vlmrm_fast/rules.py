"""Rules that turn the embedding of a frame into rewards, P of them at once.

With x the frame's embedding, g the goal's, b the baseline's and n_j the negatives', all of unit
length, and s = 1 / temperature:

    cosine          x . g                                        in [-1, 1]
    difference      x . g - x . b                                in [-2, 2]
    goal-baseline   1 - 1/2 | alpha proj_L x + (1 - alpha) x - g |^2, L the line through b and g
    softmax         exp(s x . g) / (exp(s x . g) + sum_j exp(s x . n_j))        in (0, 1)

All but the softmax are dot products with constants, which one op computes; the softmax follows it
on the same device, without waiting, so that both can be captured in a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from vlmrm_fast.kernels import ops
from vlmrm_fast.kernels.reference import Tasks, make_tasks


class Contest(NamedTuple):
    """How P rewards are read out of R dot products where some are a softmax.

    Attributes:
        columns: (P * K,) int64, which dot products each reward reads; the first one repeated where
            it reads fewer than K.
        scale: (P, K), 1 / temperature.
        mask: (P, K), 0 where a dot product counts, else -inf.
        wanted: (P,) bool, whether a reward is a softmax.
    """

    columns: torch.Tensor
    scale: torch.Tensor
    mask: torch.Tensor
    wanted: torch.Tensor


@dataclass(frozen=True)
class Heads:
    """Constants of P rewards of any rule.

    Attributes:
        tasks: of R dot products, one a reward, or one a negative where a reward is a softmax.
        contest: how rewards are read out of them; None where each is one of them.
    """

    tasks: Tasks
    contest: Contest | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Heads:
        """Return the same constants elsewhere.

        Args:
            device: where to.
            dtype: of all that is not an index.

        Returns:
            New constants.
        """
        if self.contest is None:
            return Heads(self.tasks.to(device, dtype))
        columns, scale, mask, wanted = (part.to(device) for part in self.contest)
        contest = Contest(columns, scale.to(dtype), mask.to(dtype), wanted)
        return Heads(self.tasks.to(device, dtype), contest)

    def score(self, z: torch.Tensor) -> torch.Tensor:
        """Return P rewards of each embedding; only enqueues on a GPU.

        Args:
            z: (B, D) of any length but 0, on the constants' device.

        Returns:
            (B, P), in the dtype of the constants.
        """
        products = ops.score(z, self.tasks)
        if self.contest is None:
            return products
        columns, scale, mask, wanted = self.contest
        read = products.index_select(1, columns).view(-1, *scale.shape)
        # 1 / (1 + sum_j exp(s x.(n_j - g))): of differences, which keep their digits.
        against = torch.logsumexp(read * scale + mask, dim=-1)
        return torch.where(wanted, torch.sigmoid(-against), read[..., 0])


def make_heads(
    rules: Sequence[str],
    goal: torch.Tensor,
    baseline: torch.Tensor,
    alpha: torch.Tensor,
    negatives: Sequence[torch.Tensor],
    scales: Sequence[float],
) -> Heads:
    """Fold P rewards into constants, in float64 whatever the inputs.

    Args:
        rules: P names.
        goal: (P, D) embeddings g.
        baseline: (P, D) embeddings b; only read where a rule or alpha needs them.
        alpha: (P,) in [0, 1]; 0 but for "goal-baseline".
        negatives: P times (K_p, D) embeddings n_j; only read where a rule needs them.
        scales: P times 1 / temperature; likewise.

    Returns:
        The constants, on the device of `goal`.
    """
    g, b = goal.double(), baseline.double()
    folded = make_tasks(g, b, alpha)
    parts: list[Tasks] = []
    columns: list[list[int]] = []
    first = 0
    for index, rule in enumerate(rules):
        part = _rows(rule, folded, index, g[index], b[index], negatives[index].double())
        columns.append(list(range(first, first + len(part.goal))))
        parts.append(part)
        first += len(part.goal)
    tasks = Tasks(*(torch.cat(group) for group in zip(*parts, strict=True)))
    wanted = [rule == "softmax" for rule in rules]
    if not any(wanted):
        return Heads(tasks)
    most = max(map(len, columns))
    read = [own + own[:1] * (most - len(own)) for own in columns]
    mask = torch.zeros(len(rules), most, dtype=torch.float64)
    for row, own in zip(mask, columns, strict=True):
        row[len(own) :] = -torch.inf
    # A reward that is no softmax is read as it is.
    factors = [scale if soft else 1.0 for scale, soft in zip(scales, wanted, strict=True)]
    scale = torch.tensor(factors, dtype=torch.float64)[:, None].repeat(1, most)
    contest = Contest(torch.tensor(read).flatten(), scale, mask, torch.tensor(wanted))
    return Heads(tasks, contest).to(g.device, torch.float64)


def _rows(
    rule: str, folded: Tasks, index: int, g: torch.Tensor, b: torch.Tensor, n: torch.Tensor
) -> Tasks:
    """Return the dot products that one reward is read out of."""
    if rule == "goal-baseline":
        return Tasks(*(part[index : index + 1] for part in folded))
    directions = {
        "cosine": lambda: (g / g.norm())[None],
        "difference": lambda: (g - b)[None],
        "softmax": lambda: n - g,
    }[rule]()
    zero = directions.new_zeros(len(directions))
    return Tasks(directions, torch.zeros_like(directions), zero, zero, zero)
