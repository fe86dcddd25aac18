"""gymnasium's Humanoid-v5, rewarded for what a sentence says: the eight tasks of the paper."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from vlmrm_fast.tasks import humanoid_truth as truth
from vlmrm_fast.tasks import poses
from vlmrm_fast.tasks.gym_robots import model_path
from vlmrm_fast.tasks.task import Fields, PosedStates, Task, draw_names
from vlmrm_fast.tasks.textures import load

GroundTruth = Callable[[Any, Fields], tuple[np.ndarray, np.ndarray]]

# What observation, reward and the ground truths read.
FIELDS = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext", "xpos", "xmat", "xipos", "geom_xpos")
RESET_NOISE = 1e-2
FRAME_SKIP = 5

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
    return load(model_path("humanoid.xml"), textures)


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


def posed_states(
    goal: tuple[str, ...], near: tuple[str, ...], model: Any, rng: np.random.Generator, count: int
) -> PosedStates:
    """Draw robots that show the goal, almost show it, or do something else.

    Args:
        goal: names of poses that show the goal.
        near: names of near misses.
        model: the `MjModel`.
        rng: the source of randomness, advanced by this call.
        count: how many.

    Returns:
        The states; the others are the poses of `POSES` that are in neither list.
    """
    others = [name for name in poses.POSES if name not in {*goal, *near}]
    names = draw_names((goal, near, others), rng, count)
    return PosedStates(poses.sample_poses(model, names, rng), names)


def _task(
    name: str,
    description: str,
    goal: str,
    ground_truth: GroundTruth,
    goal_poses: tuple[str, ...],
    near_misses: tuple[str, ...],
) -> Task:
    """Return a humanoid task of the paper.

    Source:
        Prompts: Rocamonde et al., ICLR 2024, Table 3; camera and settings: its appendix.
    """
    return Task(
        name=name,
        description=description,
        goal=goal,
        baseline="a humanoid robot",
        alpha=0.0,
        load_model=load_model,
        observation=observation,
        initial_state=initial_state,
        ground_truth=ground_truth,
        view={"lookat": (0.0, 0.0, 1.0), "distance": 3.5, "azimuth": 180.0, "elevation": -10.0},
        fields=FIELDS,
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
        posed_states=partial(posed_states, goal_poses, near_misses),
        goal_poses=goal_poses,
        near_misses=near_misses,
    )


KNEELING = _task(
    "humanoid-kneeling",
    "Bring the humanoid robot of Humanoid-v5 from standing to its knees.",
    "a humanoid robot kneeling",
    truth.kneeling,
    ("kneeling", "kneeling_on_heels", "kneeling_arms_raised"),
    ("kneeling_one_knee", "crouching", "all_fours", "sitting_lotus"),
)
TASKS = (
    KNEELING,
    _task(
        "humanoid-lotus",
        "Bring the humanoid robot to sit with its shins crossed.",
        "a humanoid robot seated down, meditating in the lotus position",
        partial(truth.judge, truth.lotus),
        ("lotus",),
        ("lotus_open", "sitting_lotus", "sitting_knees_bent", "kneeling_on_heels"),
    ),
    _task(
        "humanoid-standing",
        "Keep the humanoid robot upright on both feet.",
        "a humanoid robot standing up",
        partial(truth.judge, truth.standing),
        ("standing", "standing_arms_down", "standing_arms_out"),
        ("half_squat", "standing_one_leg", "bending_forward", "falling_forward"),
    ),
    _task(
        "humanoid-arms-raised",
        "Have the humanoid robot stand with both hands above its head.",
        "a humanoid robot standing up, with both arms raised",
        partial(truth.judge, truth.arms_raised),
        ("standing_arms_raised",),
        ("standing_one_arm_raised", "standing_arms_out", "kneeling_arms_raised"),
    ),
    _task(
        "humanoid-splits",
        "Bring the humanoid robot to the floor with its legs straight out to both sides.",
        "a humanoid robot practicing gymnastics, doing the side splits",
        partial(truth.judge, truth.splits),
        ("splits",),
        ("straddle", "splits_bent", "standing_legs_apart", "sitting"),
    ),
    _task(
        "humanoid-hands-on-hips",
        "Have the humanoid robot stand with a hand on each hip and the elbows out.",
        "a humanoid robot standing up with hands on hips",
        partial(truth.judge, truth.hands_on_hips),
        ("standing_hands_on_hips",),
        ("standing_one_hand_on_hip", "standing_arms_down", "standing_arms_crossed"),
    ),
    _task(
        "humanoid-arms-crossed",
        "Have the humanoid robot stand with its forearms crossed in front of its chest.",
        "a humanoid robot standing up, with its arms crossed",
        partial(truth.judge, truth.arms_crossed),
        ("standing_forearms_crossed",),
        ("standing_arms_crossed", "standing_one_arm_crossed", "standing_hands_on_hips"),
    ),
    _task(
        "humanoid-one-leg",
        "Have the humanoid robot stand on one leg, the other foot clear of the floor.",
        "a humanoid robot standing up on one leg",
        partial(truth.judge, truth.one_leg),
        ("standing_one_leg",),
        ("standing_heel_lifted", "standing_arms_down", "walking", "kneeling_one_knee"),
    ),
)
