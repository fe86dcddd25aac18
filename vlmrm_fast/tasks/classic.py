"""`cartpole` and `mountaincar`: gymnasium's classic control, as the paper trained it."""

from __future__ import annotations

import numpy as np

from vlmrm_fast.tasks import mountain
from vlmrm_fast.tasks.gym_task import GymTask
from vlmrm_fast.tasks.task import PosedStates

# CartPole-v1's own limits: 12 degrees, and 2.4 on either side, where the picture ends.
ANGLE_BOUND = 12 * np.pi / 180
POSITION_BOUND = 2.4

# |angle| [rad] of the cart-pole's poses, in which the pole leans to either side.
_CARTPOLE_POSES = {
    "upright": (0.0, 0.05),
    "slightly_tilted": (0.22, 0.35),
    "tilted": (0.5, 1.0),
    "horizontal": (1.4, 1.75),
    "hanging": (2.7, np.pi),
}
# Where the car stands, in MountainCarContinuous-v0's positions: the flag is at 0.45.
_MOUNTAINCAR_POSES = {
    "at_flag": (mountain.GOAL, 0.6),
    "below_flag": (0.25, 0.4),
    "right_slope": (-0.2, 0.2),
    "valley": (-0.6, -0.4),
    "left_slope": (-1.2, -0.8),
}


def _places(
    poses: dict[str, tuple[float, float]], rng: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (count,) numbers uniform in the ranges of poses that take turns, and their names."""
    names = np.array([list(poses)[index % len(poses)] for index in range(count)], dtype=str)
    low, high = (np.array([poses[str(name)][side] for name in names]) for side in (0, 1))
    return rng.uniform(low, high), names


def cartpole_states(rng: np.random.Generator, count: int) -> PosedStates:
    """Draw cart-poles at rest, upright ones and others in turn, anywhere on the track.

    Args:
        rng: the source of randomness, advanced by this call.
        count: how many.

    Returns:
        States (count, 4).
    """
    size, names = _places(_CARTPOLE_POSES, rng, count)
    states = np.zeros((count, 4))
    states[:, 0] = rng.uniform(-0.9, 0.9, count) * POSITION_BOUND
    states[:, 2] = size * rng.choice((-1.0, 1.0), count)
    return PosedStates(states, names)


def mountaincar_states(rng: np.random.Generator, count: int) -> PosedStates:
    """Draw cars at rest, at the flag and elsewhere in turn.

    Args:
        rng: the source of randomness, advanced by this call.
        count: how many.

    Returns:
        States (count, 2).
    """
    place, names = _places(_MOUNTAINCAR_POSES, rng, count)
    return PosedStates(np.stack([place, np.zeros(count)], axis=1), names)


def balanced(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say which cart-poles balance: the pole within 12 degrees, the cart in the picture.

    Args:
        states: (N, 4) float64: position, speed, angle, angular speed.

    Returns:
        reward (N,) float64, 1 while balanced, else 0; success (N,) bool, the same.

    Source:
        gymnasium's `CartPoleEnv` (`theta_threshold_radians`, `x_threshold`).
    """
    angle = (states[:, 2] + np.pi) % (2 * np.pi) - np.pi
    success = (np.abs(angle) <= ANGLE_BOUND) & (np.abs(states[:, 0]) <= POSITION_BOUND)
    return success.astype(np.float64), success


def at_flag(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say which cars have reached the flag.

    Args:
        states: (N, 2) float64: position and speed.

    Returns:
        reward (N,) float64, 1 at the flag or beyond, else 0; success (N,) bool, the same.

    Source:
        gymnasium's `Continuous_MountainCarEnv` (`goal_position`).
    """
    # The environment keeps its state in float32, which rounds 0.45 down.
    success = states[:, 0] >= mountain.GOAL - 1e-6
    return success.astype(np.float64), success


# Prompts and settings: Rocamonde et al., ICLR 2024, Table 3 and appendix. What the paper leaves
# open is as the RL Baselines3 Zoo tunes the algorithm on the same environment.
CARTPOLE = GymTask(
    name="cartpole",
    description="Balance the pole of CartPole-v1, which goes on after the pole has fallen.",
    goal="pole vertically upright on top of the cart",
    baseline="pole and cart",
    alpha=0.0,
    env_id="CartPole-v1",
    state_names=("position [m]", "speed [m/s]", "angle [rad]", "angular speed [rad/s]"),
    ground_truth=balanced,
    posed_states=cartpole_states,
    goal_poses=("upright",),
    near_misses=("slightly_tilted",),
    # Farther out than this, nothing of cart or pole is in the picture.
    drawn_range=(-2 * POSITION_BOUND, 2 * POSITION_BOUND),
    horizon=200,
    success_steps=200,
    algorithm="DQN",
    hyperparameters={
        "learning_starts": 75_000,
        "train_freq": 200,
        "gradient_steps": 200,
        "learning_rate": 2.3e-3,
        "batch_size": 64,
        "buffer_size": 100_000,
        "target_update_interval": 10,
        "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04,
        "policy_kwargs": {"net_arch": [256, 256]},
    },
    num_envs=8,
    total_steps=3_000_000,
)
MOUNTAINCAR = GymTask(
    name="mountaincar",
    description="Drive the weak car of MountainCarContinuous-v0 out of the valley to the flag.",
    goal="a car at the peak of the mountain, next to the yellow flag",
    baseline="a car in the mountain",
    alpha=0.0,
    env_id="MountainCarContinuous-v0",
    state_names=("position", "speed"),
    ground_truth=at_flag,
    posed_states=mountaincar_states,
    goal_poses=("at_flag",),
    near_misses=("below_flag",),
    painters={"photographic": mountain.paint},
    textures="photographic",
    drawn_range=(mountain.LEFT, mountain.RIGHT),
    absorbing=True,
    horizon=200,
    success_steps=1,
    algorithm="SAC",
    hyperparameters={
        "learning_rate": 1e-4,
        "tau": 0.01,
        "gamma": 0.9999,
        "ent_coef": 0.1,
        "batch_size": 512,
        "buffer_size": 50_000,
        "train_freq": 32,
        "gradient_steps": 32,
        "use_sde": True,
        "policy_kwargs": {"net_arch": [64, 64], "log_std_init": -3.67},
    },
    num_envs=8,
    total_steps=3_000_000,
)
