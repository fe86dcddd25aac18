"""`reacher`: gymnasium's Reacher-v5, seen from above."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlmrm_fast.tasks.gym_robots import model_path
from vlmrm_fast.tasks.task import Fields, PosedStates, Task, draw_names
from vlmrm_fast.tasks.textures import load

FRAME_SKIP = 2
# gymnasium's start: half-widths of the arm's angles [rad] and speeds [rad/s], and the radius of the
# disc in which the ball lies [m].
ANGLE_NOISE, SPEED_NOISE, BALL_RADIUS = 0.1, 0.005, 0.2
# Lengths of the links [m]; the fingertip is a sphere of 0.010, the ball one of 0.009.
LINKS = (0.1, 0.11)
# The two spheres touch at 0.019 m; a policy's last few millimetres are left to it.
TOUCH = 0.025
# How far fingertip and ball are apart by the name of the pose [m].
POSES = {"touching": (0.0, 0.018), "close": (0.04, 0.08), "apart": (0.12, 0.38)}
# Elbow angles of posed arms [rad]: a folded arm hides its own tip, and the joint ends at 3.
ELBOW = 2.6


def load_model(textures: str = "original") -> Any:
    """Return a fresh `MjModel` of gymnasium's reacher.

    Args:
        textures: as `textures.load` takes it.

    Returns:
        The model that Reacher-v5 loads, in that look: qpos is two angles [rad] and the ball's
        place [m].
    """
    return load(model_path("reacher.xml"), textures)


def observation(model: Any, fields: Fields) -> np.ndarray:
    """Return Reacher-v5's observation.

    Args:
        model: the `MjModel`; bodies are found by name.
        fields: qpos (N, 4), qvel (N, 4) and xpos.

    Returns:
        (N, 10) float64: cosines, sines, the ball's place, angular speeds, and the way from the ball
        to the fingertip.

    Source:
        gymnasium's `ReacherEnv._get_obs` (v5).
    """
    qpos, qvel = fields["qpos"], fields["qvel"]
    angles, way = qpos[:, :2], _way(model, fields)[:, :2]
    return np.concatenate([np.cos(angles), np.sin(angles), qpos[:, 2:], qvel[:, :2], way], axis=1)


def initial_state(model: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a start: the arm almost straight, the ball anywhere in its disc, at rest.

    Args:
        model: the `MjModel`; its qpos0 is the pose.
        rng: the world's generator.

    Returns:
        qpos (4,) and qvel (4,) float64.

    Source:
        gymnasium's `ReacherEnv.reset_model` (v5).
    """
    qpos = rng.uniform(-ANGLE_NOISE, ANGLE_NOISE, model.nq) + model.qpos0
    qpos[2:] = _place_ball(rng)
    qvel = rng.uniform(-SPEED_NOISE, SPEED_NOISE, model.nv)
    qvel[2:] = 0
    return qpos, qvel


def touching(model: Any, fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Say which fingertips touch the ball.

    Args:
        model: the `MjModel`; bodies are found by name.
        fields: xpos (N, nbody, 3).

    Returns:
        reward (N,) float64, 1 while they touch, else 0; success (N,) bool, the same.
    """
    touches = np.linalg.norm(_way(model, fields), axis=1) < TOUCH
    return touches.astype(np.float64), touches


def reaching(model: Any, fields: Fields, before: Fields) -> dict[str, np.ndarray]:
    """Return Reacher-v5's own reward.

    Args:
        model: the `MjModel`; bodies are found by name.
        fields: xpos and ctrl after the step.
        before: not read.

    Returns:
        `{"reaching_reward": (N,) float64}`.

    Source:
        gymnasium's `ReacherEnv._get_rew` (v5).
    """
    del before
    distance = np.linalg.norm(_way(model, fields), axis=1)
    return {"reaching_reward": -distance - np.square(fields["ctrl"]).sum(axis=1)}


def posed_states(model: Any, rng: np.random.Generator, count: int) -> PosedStates:
    """Draw arms whose fingertip is as far from the ball as `POSES` says.

    Args:
        model: the `MjModel`, not read.
        rng: the source of randomness, advanced by this call.
        count: how many.

    Returns:
        The states.
    """
    del model
    names = draw_names([(name,) for name in POSES], rng, count)
    qpos = np.empty((count, 4))
    for state, name in zip(qpos, names, strict=True):
        while True:
            shoulder, elbow = rng.uniform(-np.pi, np.pi), rng.uniform(-ELBOW, ELBOW)
            tip = sum(
                length * np.array([np.cos(angle), np.sin(angle)])
                for length, angle in zip(LINKS, (shoulder, shoulder + elbow), strict=True)
            )
            turn, (least, most) = rng.uniform(-np.pi, np.pi), POSES[str(name)]
            ball = tip + rng.uniform(least, most) * np.array([np.cos(turn), np.sin(turn)])
            if np.linalg.norm(ball) < BALL_RADIUS:
                break
        state[:] = shoulder, elbow, *ball
    return PosedStates(qpos, names)


def _way(model: Any, fields: Fields) -> np.ndarray:
    """Return (N, 3) from the ball to the fingertip [m]."""
    xpos = fields["xpos"]
    return xpos[:, model.body("fingertip").id] - xpos[:, model.body("target").id]


def _place_ball(rng: np.random.Generator) -> np.ndarray:
    """Draw (2,) uniformly from the disc, as gymnasium does."""
    while True:
        place = rng.uniform(-BALL_RADIUS, BALL_RADIUS, 2)
        if np.linalg.norm(place) < BALL_RADIUS:
            return place


TASK = Task(
    name="reacher",
    description="Bring the tip of the arm of Reacher-v5 to the red ball.",
    goal="the tip of a robot arm touching a red ball",
    baseline="a robot arm and a red ball",
    alpha=0.0,
    load_model=load_model,
    observation=observation,
    initial_state=initial_state,
    ground_truth=touching,
    view={"distance": 0.85, "azimuth": 90.0, "elevation": -90.0},
    fields=("xpos",),
    horizon=50,
    frame_skip=FRAME_SKIP,
    success_steps=10,
    algorithm="SAC",
    hyperparameters={"learning_starts": 5_000, "train_freq": 1, "gradient_steps": 8},
    num_envs=8,
    total_steps=200_000,
    measures=reaching,
    posed_states=posed_states,
    goal_poses=("touching",),
    near_misses=("close",),
)
