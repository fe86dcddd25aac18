"""What a task of gymnasium's is that no MuJoCo model describes: it steps and draws itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmrm_fast.errors import ArgumentError, unknown_name
from vlmrm_fast.tasks.task import PosedStates

if TYPE_CHECKING:
    import gymnasium

Painter = Callable[[np.ndarray], np.ndarray]
"""Draws one state (d,) as a picture (height, width, 3) uint8."""


@dataclass(frozen=True)
class GymTask:
    """A task whose environment gymnasium makes; attributes shared with `Task` mean the same.

    A state is the environment's own: a vector (d,) float64 that decides what happens next and
    what is drawn.

    Attributes:
        name: the registry name.
        description: one sentence for people.
        goal: what the agent should look like, as a prompt.
        baseline: what it looks like in general, as a prompt.
        alpha: weight of goal-baseline regularisation, in [0, 1].
        env_id: the id in gymnasium's registry.
        state_names: what the d numbers of a state are, with their units.
        ground_truth: `(states (N, d)) -> reward (N,) float64, success (N,) bool`.
        posed_states: `(rng, count) -> PosedStates` whose qpos is (count, d), at rest.
        goal_poses: names of the poses that are goal states.
        near_misses: names of the poses that look like the goal and are none.
        painters: pictures other than the environment's own, by name.
        textures: the picture to draw by default, "original" for the environment's own.
        drawn_range: of the state's first number: beyond it, the picture is that of the nearer end.
        absorbing: whether a goal state, once reached, lasts until the episode ends.
        horizon: episode length [steps]. Episodes end by truncation only.
        success_steps: an episode succeeds if each of its last `success_steps` states is a goal
            state; equal to `horizon` where every state must be one.
        height: height of the picture [pixels].
        width: width of the picture [pixels].
        algorithm: class name in Stable-Baselines3 that the settings below belong to.
        hyperparameters: keyword arguments of that class.
        num_envs: number of environments that the settings are meant for.
        total_steps: environment steps of a whole training run.
    """

    name: str
    description: str
    goal: str
    baseline: str | None
    alpha: float
    env_id: str
    state_names: tuple[str, ...]
    ground_truth: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    posed_states: Callable[[np.random.Generator, int], PosedStates]
    goal_poses: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()
    painters: Mapping[str, Painter] = field(default_factory=dict)
    textures: str = "original"
    drawn_range: tuple[float, float] | None = None
    absorbing: bool = False
    horizon: int = 200
    success_steps: int = 1
    height: int = 400
    width: int = 600
    algorithm: str = "DQN"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    num_envs: int = 8
    total_steps: int = 100_000

    @property
    def looks(self) -> tuple[str, ...]:
        """The names that `make` takes as `textures`."""
        return ("original", *sorted(self.painters))

    def make(self, *, textures: str | None = None, **kwargs: Any) -> gymnasium.Env:
        """Make one environment.

        Its reward is the ground truth's; gymnasium's own is `info["gym_reward"]`. Every step's info
        has "success" (bool), the last one's "is_success" too.

        Args:
            textures: the picture to draw, one of `looks`; None for the task's.
            kwargs: passed on to `gymnasium.make`.

        Returns:
            The environment, not yet reset; `render()` returns (height, width, 3) uint8.

        Raises:
            ArgumentError: if there is no such picture, or gymnasium cannot make the environment,
                pygame missing among other reasons.
        """
        from vlmrm_fast.tasks.gym_env import make_env

        textures = self.textures if textures is None else textures
        if textures not in self.looks:
            error = unknown_name("textures", textures, self.looks)
            raise error
        return make_env(self, textures, kwargs)

    def with_textures(self, textures: str) -> GymTask:
        """Return the same task with another picture.

        Args:
            textures: one of `looks`.

        Returns:
            A task whose environments draw that picture.

        Raises:
            UnknownNameError: if there is no such picture.
        """
        if textures not in self.looks:
            error = unknown_name(f"textures of {self.name}", str(textures), self.looks)
            raise error
        return dataclasses.replace(self, textures=textures)

    def set_state(self, env: gymnasium.Env, state: np.ndarray) -> None:
        """Put an environment into a state, which no goal that was reached before holds.

        The episode's counters stay as they are.

        Args:
            env: what `make` returned, or a wrapper around it.
            state: (d,) finite numbers.

        Raises:
            ArgumentError: if the state has another size or is not finite.
        """
        state = np.array(state, np.float64)
        if state.shape != (len(self.state_names),) or not np.isfinite(state).all():
            raise ArgumentError(
                f"state must be {len(self.state_names)} finite numbers "
                f"({', '.join(self.state_names)}), got {state.tolist()}."
            )
        env.get_wrapper_attr("set_state")(state)
