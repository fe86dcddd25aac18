"""Judging many prompts against encoding the frames once: the prompt lab's own cost.

Text embeddings, scores, all figures and the ranking are on our side; drawing is on neither, for the
frames are there already. Process time, pairs interleaved.
"""

from __future__ import annotations

import itertools
import statistics
import time

import numpy as np
import pytest

from vlmrm_fast import VLMReward
from vlmrm_fast.evaluation.candidates import ALPHAS, cross
from vlmrm_fast.evaluation.lab import LabConfig, Plan, score_plan
from vlmrm_fast.evaluation.state_sets import make_state_set
from vlmrm_fast.evaluation.subjects import TaskSubject
from vlmrm_fast.tasks import get_task

PROMPTS, PAIRS = 64, 5


class Held(TaskSubject):
    """A task's states whose frames were drawn before."""

    def __init__(self, task, states, size):
        super().__init__(task, states)
        self.held = np.concatenate(list(super().frames(size, None)))

    def frames(self, size, camera):
        """Yield chunks as drawing does."""
        for start in range(0, len(self.held), 64):
            yield self.held[start : start + 64]


def prompts():
    """Return 64 different sentences about the task."""
    poles = ("a pole", "the pole", "a wooden pole", "a stick")
    how = (
        "upright",
        "vertical",
        "leaning",
        "tilted",
        "horizontal",
        "fallen",
        "hanging",
        "balanced",
    )
    where = ("on a cart", "above the cart")
    return [" ".join(words) for words in itertools.product(poles, how, where)][:PROMPTS]


def seconds(run):
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


@pytest.mark.benchmark(group="prompt lab")
def test_lab(benchmark):
    count = 2000 if benchmark.enabled else 64
    task, reward = get_task("cartpole-upright"), VLMReward("builtin", goal="x", device="cpu")
    subject = Held(task, make_state_set(task, count), reward.image_size)
    candidates = cross(prompts(), ["pole and cart"], ALPHAS, None)
    settings = LabConfig(task.name, num_states=count)
    plan = Plan(subject, candidates, ("builtin",), {"task": None}, lambda _: reward, settings)
    assert len(candidates) == PROMPTS * len(ALPHAS)

    def judge():
        return score_plan(plan)

    def encode():
        return reward.embed_images(subject.held)

    found = benchmark.pedantic(judge, rounds=1, warmup_rounds=1)
    if benchmark.enabled:
        encode()
        ratios = []
        for pair in range(PAIRS):
            order = (judge, encode) if pair % 2 else (encode, judge)
            took = {run: seconds(run)[0] for run in order}
            ratios.append(took[judge] / took[encode])
        benchmark.extra_info |= {
            "frames": count,
            "prompts": PROMPTS,
            "alphas": len(ALPHAS),
            "frames_per_second": count / benchmark.stats.stats.median,
            "ratio": statistics.median(ratios),
            "ratios": sorted(ratios),
        }
    row = found.rows[0]
    alone = reward.with_prompts(row.goal, row.baseline, row.alpha).score(subject.held)
    assert np.abs(found.rewards(row) - alone).max() <= 1e-6
