"""`humanoid-kneeling`: gymnasium's Humanoid-v5, rewarded for what a sentence says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.tasks import poses
from vlmrm_fast.tasks.task import Fields, PosedStates, Task, draw_names
from vlmrm_fast.tasks.textures import load

RESET_NOISE = 1e-2
FRAME_SKIP = 5

# Kneeling, in metres above the floor and degrees of tilt. A knee (origin of the shin) is 0.05 to
# 0.1 high with the shin on the floor, 0.4 in a squat and 0.5 when standing; the pelvis is 0.24 high
# when sitting on the heels, 0.45 on upright thighs, and about 0.1 when sitting or lying.
KNEE_HEIGHT = 0.20
PELVIS_HEIGHT = 0.20
TORSO_TILT = np.deg2rad(40.0)

# Weights of Humanoid-v5's own reward (its constructor's defaults).
FORWARD_WEIGHT, CONTROL_WEIGHT, HEALTHY_REWARD = 1.25, 0.1, 5.0
CONTACT_WEIGHT, CONTACT_MAX = 5e-7, 10.0
HEALTHY_HEIGHT = (1.0, 2.0)


def load_model(textures: str = "original") -> Any:
    """Return a fresh `MjModel` of gymnasium's humanoid.

    Args:
        textures: as `textures.load` takes it.

    Returns:
        The model that Humanoid-v5 loads, from the installed gymnasium, in that look.
    """
    import gymnasium

    folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    return load(folder / "humanoid.xml", textures)


def observation(model: Any, fields: Fields) -> np.ndarray:
    """Return Humanoid-v5's observation.

    Args:
        model: the `MjModel`, not read.
        fields: qpos, qvel, cinert, cvel, qfrc_actuator and cfrc_ext of N worlds.

    Returns:
        (N, 348) float64: qpos without x and y (22), qvel (23), cinert (130), cvel (78),
        qfrc_actuator (17), cfrc_ext (78), the world body and the free joint left out.

    Source:
        gymnasium's `HumanoidEnv._get_obs` (v5).
    """
    del model
    n = len(fields["qpos"])
    return np.concatenate(
        [
            fields["qpos"][:, 2:],
            fields["qvel"],
            fields["cinert"][:, 1:].reshape(n, -1),
            fields["cvel"][:, 1:].reshape(n, -1),
            fields["qfrc_actuator"][:, 6:],
            fields["cfrc_ext"][:, 1:].reshape(n, -1),
        ],
        axis=1,
    )


def initial_state(model: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a start around the standing pose.

    Args:
        model: the `MjModel`; its qpos0 is the pose.
        rng: the world's generator; nq + nv numbers are drawn.

    Returns:
        qpos (nq,) and qvel (nv,) float64, uniform within `RESET_NOISE`.

    Source:
        gymnasium's `HumanoidEnv.reset_model` (v5).
    """
    qpos = model.qpos0 + rng.uniform(-RESET_NOISE, RESET_NOISE, model.nq)
    return qpos, rng.uniform(-RESET_NOISE, RESET_NOISE, model.nv)


def kneeling(model: Any, fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Say which worlds kneel: both knees down, the pelvis off the floor, the torso upright.

    Sitting, lying and the lotus position fail by the pelvis, squatting and standing by the knees,
    all fours by the torso.

    Args:
        model: the `MjModel`; bodies are found by name.
        fields: xpos (N, nbody, 3) and xmat (N, nbody, 9).

    Returns:
        reward (N,) float64, 1 while kneeling, else 0; success (N,) bool, the same.
    """
    xpos, xmat = fields["xpos"], fields["xmat"]
    knees = xpos[:, [model.body("left_shin").id, model.body("right_shin").id], 2]
    pelvis = xpos[:, model.body("pelvis").id, 2]
    # The last element of a rotation matrix is the cosine between the body's z axis and up.
    upright = xmat[:, model.body("torso").id].reshape(-1, 9)[:, 8]
    kneels = (knees < KNEE_HEIGHT).all(axis=1)
    kneels &= (pelvis > PELVIS_HEIGHT) & (upright > np.cos(TORSO_TILT))
    return kneels.astype(np.float64), kneels


def locomotion(model: Any, fields: Fields, before: Fields) -> dict[str, np.ndarray]:
    """Return Humanoid-v5's own reward, the one for walking.

    Args:
        model: the `MjModel`.
        fields: xipos, qpos, ctrl and cfrc_ext after the step.
        before: xipos before it.

    Returns:
        `{"locomotion_reward": (N,) float64}`.

    Source:
        gymnasium's `HumanoidEnv.step` and `_get_rew` (v5).
    """
    mass = model.body_mass / model.body_mass.sum()
    moved = (fields["xipos"][:, :, 0] - before["xipos"][:, :, 0]) @ mass
    forward = FORWARD_WEIGHT * moved / (model.opt.timestep * FRAME_SKIP)
    height = fields["qpos"][:, 2]
    healthy = HEALTHY_REWARD * ((HEALTHY_HEIGHT[0] < height) & (height < HEALTHY_HEIGHT[1]))
    control = CONTROL_WEIGHT * np.square(fields["ctrl"]).sum(axis=1)
    contact = CONTACT_WEIGHT * np.square(fields["cfrc_ext"]).sum(axis=(1, 2))
    reward = forward + healthy - control - np.minimum(contact, CONTACT_MAX)
    return {"locomotion_reward": reward}


_GOAL = ("kneeling", "kneeling_on_heels", "kneeling_arms_raised")
_NEAR = ("kneeling_one_knee", "crouching", "all_fours", "sitting_lotus")


def posed_states(model: Any, rng: np.random.Generator, count: int) -> PosedStates:
    """Draw kneeling, almost kneeling and other robots.

    Args:
        model: the `MjModel`.
        rng: the source of randomness, advanced by this call.
        count: how many.

    Returns:
        The states.
    """
    others = [name for name in poses.POSES if name not in {*_GOAL, *_NEAR}]
    names = draw_names((_GOAL, _NEAR, others), rng, count)
    return PosedStates(poses.sample_poses(model, names, rng), names)


KNEELING = Task(
    name="humanoid-kneeling",
    description="Bring the humanoid robot of Humanoid-v5 from standing to its knees.",
    # Prompts: Rocamonde et al., ICLR 2024, Table 3, Kneeling; settings: its appendix.
    goal="a humanoid robot kneeling",
    baseline="a humanoid robot",
    alpha=0.0,
    load_model=load_model,
    observation=observation,
    initial_state=initial_state,
    ground_truth=kneeling,
    view={"lookat": (0.0, 0.0, 1.0), "distance": 3.5, "azimuth": 180.0, "elevation": -10.0},
    fields=("cinert", "cvel", "qfrc_actuator", "cfrc_ext", "xpos", "xmat", "xipos"),
    horizon=100,
    frame_skip=FRAME_SKIP,
    success_steps=20,
    algorithm="SAC",
    hyperparameters={
        "learning_starts": 50_000,
        "train_freq": 100,
        "gradient_steps": 100,
        "batch_size": 512,
        "tau": 0.005,
        "gamma": 0.95,
        "learning_rate": 6e-4,
    },
    num_envs=32,
    total_steps=10_000_000,
    measures=locomotion,
    measure_fields=("xipos",),
    posed_states=posed_states,
    goal_poses=_GOAL,
    near_misses=_NEAR,
)
