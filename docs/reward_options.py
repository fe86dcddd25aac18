"""Write the table of docs/reward-options.md and draw its pictures anew.

About a minute of one CPU core, with the built-in model: its figures change with its weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from vlmrm_fast import Camera, RewardOptions, VLMReward, get_task, make_vec_env
from vlmrm_fast.evaluation.metrics import auc, epic_distance, fpr_at_recall, spearman
from vlmrm_fast.evaluation.state_sets import draw_states, make_state_set

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
TASKS = ("cartpole-upright", "humanoid-kneeling")
NEGATIVES = {
    "cartpole-upright": ("a pole lying on its side", "a pole leaning to one side", "pole and cart"),
    "humanoid-kneeling": (
        "a humanoid robot standing up",
        "a humanoid robot lying on the ground",
        "a humanoid robot sitting on the ground",
    ),
}
SIDES = {
    "cartpole-upright": Camera(lookat=(0, 0, 0.2), distance=3, azimuth=60, elevation=-15),
    "humanoid-kneeling": Camera(lookat=(0, 0, 1), distance=3.5, azimuth=90, elevation=-10),
}


def rewards_by_rule(task: Any, goal_frames: np.ndarray) -> dict[str, VLMReward]:
    """Return the rewards that are compared."""
    goal, baseline, negatives = task.goal, task.baseline, NEGATIVES[task.name]
    first = VLMReward(goal=goal, device="cpu")
    return {
        "goal-baseline, alpha 0 (= cosine)": first,
        "goal-baseline, alpha 0.5": first.with_prompts(goal, baseline, 0.5),
        "goal-baseline, alpha 1": first.with_prompts(goal, baseline, 1.0),
        "difference": first.with_prompts(goal, baseline, rule="difference"),
        "softmax, 3 negatives, own temperature": first.with_prompts(
            goal, rule="softmax", negatives=negatives
        ),
        "softmax, 3 negatives, temperature 0.5": first.with_prompts(
            goal, rule="softmax", negatives=negatives, temperature=0.5
        ),
        "4 goal images": first.with_prompts(goal_images=goal_frames),
        "sentence and 4 goal images": first.with_prompts(goal, goal_images=goal_frames),
    }


def frames_of(task: Any, states: np.ndarray, camera: Any = None) -> np.ndarray:
    """Return the frames (n, 96, 96, 3) of states."""
    return np.concatenate(list(draw_states(task, states, 96, camera)))


def row(name: str, reward: np.ndarray, states: Any) -> str:
    """Return a line of the tables."""
    label = states.success.astype(float)
    found = (
        auc(reward, states.success),
        fpr_at_recall(reward, states.success),
        epic_distance(reward, label),
        spearman(reward, states.reward),
    )
    return f"| {name} | " + " | ".join(f"{value:.3f}" for value in found) + " |"


def compare(name: str) -> list[str]:
    """Return the figures of every rule and of both cameras for one task, line by line."""
    task = get_task(name)
    states, others = make_state_set(task, 600, seed=0), make_state_set(task, 60, seed=1)
    goal = others.states[others.success][:4]
    frames = frames_of(task, states.states)
    lines = [
        f"`{name}`, {len(frames)} states, {states.success.sum()} of them of the goal:",
        "",
        "| reward | AUC | false positives at recall 0.95 | EPIC | Spearman |",
        "|---|---|---|---|---|",
    ]
    for rule, reward in rewards_by_rule(task, frames_of(task, goal)).items():
        lines.append(row(rule, reward.score(frames).astype(float), states))
    reward = VLMReward(goal=task.goal, device="cpu")
    views = [reward.score(frames), reward.score(frames_of(task, states.states, SIDES[name]))]
    lines.append(row("alpha 0, another camera", views[1].astype(float), states))
    for reduce in ("mean", "min", "max"):
        both = getattr(np, reduce)(np.array(views, float), axis=0)
        lines.append(row(f"alpha 0, both cameras, {reduce}", both, states))
    return lines


def draw_rules() -> None:
    """Draw the rewards over the pole's angle."""
    task = get_task("cartpole-upright")
    angle = np.linspace(-90, 90, 181)
    states = np.stack([np.zeros(181), np.radians(angle)], axis=1)
    frames = frames_of(task, states)
    rewards = rewards_by_rule(task, frames[88:92])
    figure, axes = plt.subplots(2, 4, figsize=(12, 5), sharex=True, layout="constrained")
    for axis, (rule, reward) in zip(axes.flat, rewards.items(), strict=True):
        axis.plot(angle, reward.score(frames), color="tab:blue")
        axis.set_title(rule, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("angle of the pole [degrees]")
    for axis in axes[:, 0]:
        axis.set_ylabel("reward")
    figure.savefig(IMAGES / "reward-rules.png", dpi=80)


def draw_stream() -> None:
    """Draw the rewards of an episode as they are, held and normalised."""
    options = {
        "every step": RewardOptions(),
        "score_every=8, hold": RewardOptions(score_every=8),
        "score_every=8, zero": RewardOptions(score_every=8, unscored="zero"),
        "normalize": RewardOptions(normalize=True),
    }
    figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
    reward = VLMReward(goal=get_task("cartpole-upright").goal, device="cpu")
    for name, chosen in options.items():
        env: Any = make_vec_env("cartpole-upright", 1, reward=reward, seed=3, options=chosen)
        env.reset()
        # Pushed to and fro: the pole sways and falls.
        found = [env.step(np.array([[np.sin(t / 6)]]))[1][0] for t in range(120)]
        axes[int(name == "normalize")].step(range(1, 121), found, where="mid", label=name)
        env.close()
    for axis in axes:
        axis.legend(loc="upper center", fontsize=8)
        axis.set_ylabel("reward")
        axis.grid(alpha=0.3)
    axes[1].set_xlabel("step of the first episode")
    figure.savefig(IMAGES / "reward-stream.png", dpi=80)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    draw_rules()
    draw_stream()
    table = "\n".join("\n".join([*compare(each), ""]) for each in TASKS)
    page = DOCS / "reward-options.md"
    before, begin, rest = page.read_text().partition("<!-- reward-options:begin -->\n")
    _, end, after = rest.partition("<!-- reward-options:end -->")
    assert begin
    assert end
    page.write_text(before + begin + table + end + after)
