"""`cartpole-upright`: balance a pole on a cart that runs on a rail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.tasks.task import Fields, PosedStates, Task, draw_names
from vlmrm_fast.tasks.textures import load

MODEL_FILE = Path(__file__).parent.parent / "assets" / "tasks" / "cartpole_upright.xml"

# CartPole-v1 counts the pole as fallen beyond 12 degrees.
ANGLE_BOUND = 12 * np.pi / 180
# The slider's stops are at 0.6 m; a cart that leans on one is not balancing.
POSITION_BOUND = 0.58
# Ranges of the pole's angle from upright by the name of the pose [rad]: within two thirds of the
# bound, just beyond it as a pole that still looks almost upright, and well beyond.
POSES = {
    "upright": (0.0, ANGLE_BOUND * 2 / 3),
    "leaning": (ANGLE_BOUND * 4 / 3, np.deg2rad(35.0)),
    "fallen": (np.deg2rad(50.0), np.deg2rad(130.0)),
    "hanging": (np.deg2rad(150.0), np.pi),
}
# Half-width of the uniform start around upright, of every coordinate, as in CartPole-v1.
START_NOISE = 0.05


def load_model(textures: str = "original") -> Any:
    """Return a fresh `MjModel` of the cart-pole.

    Args:
        textures: as `textures.load` takes it.

    Returns:
        The model: qpos is the cart's position [m] and the pole's angle [rad], 0 upright; ctrl is
        the force on the cart [10 N], in [-1, 1].
    """
    return load(MODEL_FILE, textures)


def pole_angle(qpos: np.ndarray) -> np.ndarray:
    """Return the angle between the pole and upright.

    Args:
        qpos: (N, 2) float64.

    Returns:
        (N,) float64, in [-pi, pi) rad.
    """
    return (qpos[:, 1] + np.pi) % (2 * np.pi) - np.pi


def observation(model: Any, fields: Fields) -> np.ndarray:
    """Return cart position, cosine and sine of the angle, cart speed and angular speed.

    Args:
        model: the `MjModel`, not read.
        fields: qpos (N, 2) and qvel (N, 2).

    Returns:
        (N, 5) float64.
    """
    del model
    qpos, qvel = fields["qpos"], fields["qvel"]
    angle = qpos[:, 1]
    return np.stack([qpos[:, 0], np.cos(angle), np.sin(angle), qvel[:, 0], qvel[:, 1]], axis=1)


def initial_state(model: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a start near upright, in the middle of the rail.

    Args:
        model: the `MjModel`, not read.
        rng: the world's generator; four numbers are drawn.

    Returns:
        qpos (2,) and qvel (2,) float64, uniform within `START_NOISE`.
    """
    del model
    state = rng.uniform(-START_NOISE, START_NOISE, 4)
    return state[:2], state[2:]


def ground_truth(model: Any, fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Say which worlds balance: the pole within 12 degrees and the cart clear of the stops.

    Args:
        model: the `MjModel`, not read.
        fields: qpos (N, 2).

    Returns:
        reward (N,) float64, 1 while balanced, else 0; success (N,) bool, the same.

    Source:
        gymnasium's CartPole-v1 (`theta_threshold_radians`).
    """
    del model
    qpos = fields["qpos"]
    balanced = np.abs(pole_angle(qpos)) < ANGLE_BOUND
    balanced &= np.abs(qpos[:, 0]) < POSITION_BOUND
    return balanced.astype(np.float64), balanced


def posed_states(model: Any, rng: np.random.Generator, count: int) -> PosedStates:
    """Draw states of `POSES` to either side, the cart anywhere between its bounds.

    Args:
        model: the `MjModel`, not read.
        rng: the source of randomness, advanced by this call.
        count: how many.

    Returns:
        The states.
    """
    del model
    names = draw_names((("upright",), ("leaning",), ("fallen", "hanging")), rng, count)
    ranges = np.array([POSES[name] for name in names]).reshape(-1, 2)
    angle = rng.uniform(ranges[:, 0], ranges[:, 1]) * rng.choice((-1.0, 1.0), count)
    place = rng.uniform(-0.9 * POSITION_BOUND, 0.9 * POSITION_BOUND, count)
    return PosedStates(np.stack([place, angle], axis=1), names)


TASK = Task(
    name="cartpole-upright",
    description="Keep a pole upright on a cart by pushing the cart along its rail.",
    # Prompts: Rocamonde et al., ICLR 2024, Table 3, CartPole.
    goal="pole vertically upright on top of the cart",
    baseline="pole and cart",
    alpha=0.0,
    load_model=load_model,
    observation=observation,
    initial_state=initial_state,
    ground_truth=ground_truth,
    view="side",
    horizon=200,
    frame_skip=2,
    success_steps=200,
    algorithm="PPO",
    hyperparameters={
        "n_steps": 256,
        "batch_size": 256,
        "n_epochs": 10,
        "learning_rate": 1e-3,
        "gamma": 0.98,
        "gae_lambda": 0.9,
        "policy_kwargs": {"net_arch": [64, 64], "log_std_init": -0.5},
    },
    num_envs=8,
    total_steps=60_000,
    posed_states=posed_states,
    goal_poses=("upright",),
    near_misses=("leaning",),
)
