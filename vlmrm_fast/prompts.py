"""Prompts: checked before any work, and counted in tokens before a model can cut them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlmrm_fast.errors import ArgumentError

if TYPE_CHECKING:
    import torch

Prompts = str | Sequence[str]


def check_prompts(name: str, prompts: Prompts | None) -> tuple[str, ...]:
    """Return one or several prompts as a tuple; None becomes the empty tuple.

    Args:
        name: of the argument, for the error text.
        prompts: one prompt, several, or None.

    Returns:
        The prompts, in order, as they were written.

    Raises:
        ArgumentError: a prompt is empty or not a string, or the sequence is empty.
    """
    if prompts is None:
        return ()
    listed = (prompts,) if isinstance(prompts, str) else prompts
    if not isinstance(listed, Sequence) or not listed:
        raise ArgumentError(f"{name} must be a prompt or a list of prompts, got {prompts!r}.")
    for prompt in listed:
        if not isinstance(prompt, str) or not prompt.strip():
            raise ArgumentError(
                f"{name} must be a non-empty prompt, got {prompt!r}. "
                "Describe what the camera should see."
            )
    return tuple(listed)


def check_alpha(alpha: float, goal: tuple[str, ...], baseline: tuple[str, ...]) -> float:
    """Return alpha as a float if the prompts can be regularised with it.

    Args:
        alpha: strength of the goal-baseline regularisation, 0 ... 1.
        goal: checked prompts, at least one.
        baseline: checked prompts, may be empty where alpha is 0.

    Returns:
        Alpha.

    Raises:
        ArgumentError: alpha is not a number in [0, 1]; it is above 0 and the baseline is missing
            or says the same as the goal.
    """
    try:
        value = float(alpha)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(alpha, bool) or not 0.0 <= value <= 1.0:
        raise ArgumentError(f"alpha must be a number in [0, 1], got {alpha!r}.")
    if value > 0 and not baseline:
        raise ArgumentError(
            f"baseline must be given where alpha is above 0, got alpha={value:g} without one. "
            "Describe the scene without the goal, or set alpha=0."
        )
    if value > 0:
        check_differs("baseline", "where alpha is above 0", goal, baseline)
    return value


def check_differs(name: str, when: str, goal: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Refuse prompts that say the same as the goal.

    Args:
        name: of the argument that holds the others.
        when: in which case they must differ, for the error text.
        goal: checked prompts.
        other: likewise.

    Raises:
        ArgumentError: they are the same, but for case and spaces.
    """
    if sorted(map(_normal, goal)) == sorted(map(_normal, other)):
        fix = ", or set alpha=0" if "alpha" in when else ""
        raise ArgumentError(
            f"{name} must differ from goal {when}, got {other[0]!r} for both. "
            f"Describe the scene without the goal{fix}."
        )


def _normal(prompt: str) -> str:
    """Return the prompt as CLIP's tokenizer sees it: one case, single spaces."""
    return " ".join(prompt.lower().split())


class PromptTokenizer:
    """A model's own tokenizer that counts before it cuts.

    Args:
        tokenizer: open_clip's tokenizer of the model.

    Attributes:
        context_length: longest prompt [tokens], start and end marks included.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.context_length: int = tokenizer.context_length

    def count(self, prompt: str) -> int:
        """Return the number of tokens of `prompt`, start and end marks included."""
        tokenizer = self._tokenizer
        if hasattr(tokenizer, "encode"):  # the BPE of CLIP: two marks
            return len(tokenizer.encode(prompt)) + 2
        clean = getattr(tokenizer, "clean_fn", None)
        length = len(tokenizer.tokenizer(clean(prompt) if clean else prompt).input_ids)
        # "clips" mode adds one class token to the marks that are counted already.
        return length + (getattr(tokenizer, "tokenizer_mode", "") == "clips")

    def check(self, prompts: Sequence[str]) -> None:
        """Refuse prompts that the model would cut off silently.

        Raises:
            ArgumentError: a prompt has more tokens than the model's context; quotes the cut text.
        """
        for prompt in prompts:
            count = self.count(prompt)
            if count > self.context_length:
                raise ArgumentError(
                    f"prompt must be at most {self.context_length} tokens long, got {count}. "
                    f"The model would ignore {self._cut_text(prompt)!r}: shorten the prompt."
                )

    def _cut_text(self, prompt: str) -> str:
        """Return what is left of `prompt` after the longest prefix of words that fits."""
        ends = [place for place, letter in enumerate(prompt) if letter.isspace()]
        fitting = [end for end in ends if self.count(prompt[:end]) <= self.context_length]
        return prompt[fitting[-1] if fitting else 0 :].strip()

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return (P, context_length) int64 tokens; raises as `check`."""
        self.check(prompts)
        return self._tokenizer(list(prompts))
