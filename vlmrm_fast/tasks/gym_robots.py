"""Ant, half-cheetah, hopper and walker as gymnasium's v5: observation, start and reward."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.tasks.task import Fields
from vlmrm_fast.tasks.textures import load


def model_path(name: str) -> Path:
    """Return the path of a model file of the installed gymnasium.

    Args:
        name: the file's name, "ant.xml".

    Returns:
        The path; importing gymnasium's MuJoCo environments is not needed for it.
    """
    import gymnasium

    return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / name


@dataclass(frozen=True)
class Robot:
    """What tells one of the four environments from the others; the defaults of their constructors.

    Attributes:
        file: the model's file.
        frame_skip: substeps a control step.
        control_weight: cost of the squared controls.
        noise: half-width of the uniform start around the default pose.
        normal_speeds: speeds start from a normal distribution of that width, not a uniform one.
        hidden: how many coordinates, x first, the observation leaves out.
        speed_bound: speeds are clipped to it in the observation.
        contact_weight: cost of the squared contact forces, each clipped to [-1, 1]; if it is not 0
            they are observed, and progress is that of the torso's frame.
        healthy_reward: what a step in the ranges below earns.
        height_range: healthy height of the root [m].
        angle_bound: greatest healthy tilt of a planar robot [rad].
        state_bound: greatest healthy size of all other coordinates and speeds.
    """

    file: str
    frame_skip: int
    control_weight: float
    noise: float
    normal_speeds: bool = False
    hidden: int = 1
    speed_bound: float = np.inf
    contact_weight: float = 0.0
    healthy_reward: float = 0.0
    height_range: tuple[float, float] = (-np.inf, np.inf)
    angle_bound: float = np.inf
    state_bound: float = np.inf

    def load_model(self, textures: str = "original") -> Any:
        """Return a fresh `MjModel`.

        Args:
            textures: as `textures.load` takes it.

        Returns:
            The model that the environment loads, in that look.
        """
        return load(model_path(self.file), textures)

    def observation(self, model: Any, fields: Fields) -> np.ndarray:
        """Return the v5 observation.

        Args:
            model: the `MjModel`, not read.
            fields: qpos and qvel of N worlds, and cfrc_ext if contacts are observed.

        Returns:
            (N, d) float64: positions, speeds, contact forces without the world's.

        Source:
            `_get_obs` of gymnasium's environments (v5).
        """
        del model
        speeds = np.clip(fields["qvel"], -self.speed_bound, self.speed_bound)
        parts = [fields["qpos"][:, self.hidden :], speeds]
        if self.contact_weight:
            forces = np.clip(fields["cfrc_ext"][:, 1:], -1.0, 1.0)
            parts.append(forces.reshape(len(forces), -1))
        return np.concatenate(parts, axis=1)

    def initial_state(self, model: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a start around the default pose.

        Args:
            model: the `MjModel`; its qpos0 is the pose.
            rng: the world's generator; nq + nv numbers are drawn.

        Returns:
            qpos (nq,) and qvel (nv,) float64.

        Source:
            `reset_model` of gymnasium's environments (v5).
        """
        qpos = model.qpos0 + rng.uniform(-self.noise, self.noise, model.nq)
        if self.normal_speeds:
            return qpos, self.noise * rng.standard_normal(model.nv)
        return qpos, rng.uniform(-self.noise, self.noise, model.nv)

    def measures(self, model: Any, fields: Fields, before: Fields) -> dict[str, np.ndarray]:
        """Return the environment's own reward, the one for running.

        Args:
            model: the `MjModel`.
            fields: qpos, qvel, ctrl, and xpos and cfrc_ext if contacts are observed, after the
                step.
            before: `measure_fields` before it.

        Returns:
            `{"locomotion_reward": (N,) float64}`.

        Source:
            `step`, `_get_rew` and `is_healthy` of gymnasium's environments (v5).
        """
        name = self.measure_fields[0]
        moved = fields[name] - before[name]
        forward = moved[:, 1, 0] if self.contact_weight else moved[:, 0]
        reward = forward / (model.opt.timestep * self.frame_skip)
        reward = reward + self.healthy_reward * self._healthy(fields)
        reward -= self.control_weight * np.square(fields["ctrl"]).sum(axis=1)
        if self.contact_weight:
            forces = np.clip(fields["cfrc_ext"], -1.0, 1.0)
            reward -= self.contact_weight * np.square(forces).sum(axis=(1, 2))
        return {"locomotion_reward": reward}

    @property
    def measure_fields(self) -> tuple[str, ...]:
        """The field that progress is read from."""
        return ("xpos",) if self.contact_weight else ("qpos",)

    @property
    def fields(self) -> tuple[str, ...]:
        """The derived fields that this class reads."""
        return ("xpos", "cfrc_ext") if self.contact_weight else ()

    def _healthy(self, fields: Fields) -> np.ndarray:
        """Return (N,) bool."""
        qpos, qvel = fields["qpos"], fields["qvel"]
        # The free joint of the ant has x, y, z; a planar root has x, z and the angle.
        height, angle = (qpos[:, 2], 0.0 * qpos[:, 2]) if self.contact_weight else qpos[:, 1:3].T
        low, high = self.height_range
        healthy = (low <= height) & (height <= high) & (np.abs(angle) < self.angle_bound)
        rest = np.concatenate([qpos[:, 2:], qvel], axis=1)
        return healthy & (np.abs(rest) < self.state_bound).all(axis=1)


ANT = Robot(
    "ant.xml",
    frame_skip=5,
    control_weight=0.5,
    noise=0.1,
    normal_speeds=True,
    hidden=2,
    contact_weight=5e-4,
    healthy_reward=1.0,
    height_range=(0.2, 1.0),
)
HALF_CHEETAH = Robot(
    "half_cheetah.xml", frame_skip=5, control_weight=0.1, noise=0.1, normal_speeds=True
)
HOPPER = Robot(
    "hopper.xml",
    frame_skip=4,
    control_weight=1e-3,
    noise=5e-3,
    speed_bound=10.0,
    healthy_reward=1.0,
    height_range=(0.7, np.inf),
    angle_bound=0.2,
    state_bound=100.0,
)
WALKER = Robot(
    "walker2d_v5.xml",
    frame_skip=4,
    control_weight=1e-3,
    noise=5e-3,
    speed_bound=10.0,
    healthy_reward=1.0,
    height_range=(0.8, 2.0),
    angle_bound=1.0,
)
