"""An algorithm's whole state, to and from a checkpoint.

Between two rollouts, everything that decides how training goes on is in: network weights,
optimisers, replay buffer, counters, the last observation, action noise, the environment and the
random generators. Two details belong inside the first rollout after a resume: `learn` resets the
action noise, and state-dependent exploration draws its matrices before the rollout starts; both
are set once more by `restore_exploration`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import snapshot
from vlmrm_fast.checkpoint import Checkpoint
from vlmrm_fast.errors import CheckpointError

# Attributes of Stable-Baselines3 algorithms that carry over from one rollout to the next.
_FIELDS = (
    "num_timesteps",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "exploration_rate",
    "_current_progress_remaining",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
)


def capture(model: Any, place: str, extra: Mapping[str, Any], config: str = "") -> Checkpoint:
    """Read an algorithm's state between two rollouts.

    Args:
        model: a Stable-Baselines3 algorithm with an environment.
        place: "start" inside `on_rollout_start`, "between" outside of `learn` or after an
            interruption.
        extra: more state to keep, for example of callbacks.
        config: the resolved configuration as YAML.

    Returns:
        The checkpoint, in memory; it shares the replay buffer's memory.
    """
    names, variables = model._get_torch_save_params()
    modules: dict[str, Any] = {}
    optimizers: dict[str, Any] = {}
    for name, values in model.get_parameters().items():
        # An optimiser's state dict is {"state", "param_groups"}; a module's holds tensors.
        (optimizers if "param_groups" in values else modules)[name] = values
    assert set(names) == set(modules) | set(optimizers)
    state = {
        "place": place,
        "fields": {name: getattr(model, name) for name in _FIELDS if hasattr(model, name)},
        "variables": {name: _find(model, name) for name in variables},
        "episodes": _plain_episodes(model),
        "random": snapshot.random_state(),
        "action_space": _generator_state(model.action_space),
        "exploration": _exploration(model),
        "environment": snapshot.environment_state(model.get_env()),
        "extra": dict(extra),
    }
    buffer = getattr(model, "replay_buffer", None)
    replay = None if buffer is None else _buffer_arrays(buffer)
    if buffer is not None:
        state["replay"] = {"pos": buffer.pos, "full": buffer.full}
    return Checkpoint(
        step=model.num_timesteps,
        modules=modules,
        optimizers=optimizers,
        state=state,
        replay=replay,
        config=config,
    )


def restore(model: Any, checkpoint: Checkpoint) -> list[str]:
    """Bring a freshly built algorithm to a checkpoint.

    Call `learn(..., reset_num_timesteps=False)` next, and `restore_exploration` in its first
    `on_rollout_start`. The environment is reset once on the way.

    Args:
        model: an algorithm built from the checkpoint's configuration.
        checkpoint: what `capture` read.

    Returns:
        What could not be restored, one sentence each; empty where training continues exactly.

    Raises:
        CheckpointError: networks or environment are built differently.
    """
    restore_networks(model, checkpoint)
    notes = []
    state = checkpoint.state
    env = model.get_env()
    env.reset()
    try:
        snapshot.set_environment_state(env, state["environment"])
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"environment must be built as when the checkpoint was saved, got: {error}. "
            "Resume with the configuration of the run."
        ) from error
    for name, value in state["fields"].items():
        setattr(model, name, value)
    if not snapshot.is_whole(env):
        # `learn` resets the environment where there is no last observation.
        model._last_obs = None
        notes.append("The environment's physics cannot be restored; its episodes start anew.")
    model.ep_info_buffer = deque(state["episodes"]["info"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(state["episodes"]["success"], maxlen=model._stats_window_size)
    if "replay" in state and checkpoint.replay is None:
        notes.append("The replay buffer was dropped from this checkpoint; it fills anew.")
    elif checkpoint.replay is not None:
        _fill_buffer(model.replay_buffer, checkpoint.replay, state["replay"])
    _set_generator_state(model.action_space, state["action_space"])
    snapshot.set_random_state(state["random"])
    return notes


def restore_networks(model: Any, checkpoint: Checkpoint) -> None:
    """Load network weights and optimisers only, as evaluation needs them.

    Args:
        model: an algorithm built from the checkpoint's configuration.
        checkpoint: the checkpoint.

    Raises:
        CheckpointError: the networks have other names or shapes.
    """
    import torch

    params: dict[str, Any] = {
        name: checkpoints.module_tensors(values) for name, values in checkpoint.modules.items()
    }
    params |= {name: checkpoints.tree_tensors(v) for name, v in checkpoint.optimizers.items()}
    try:
        model.set_parameters(params, exact_match=True, device=model.device)
        for name, value in checkpoint.state["variables"].items():
            with torch.no_grad():
                _find(model, name).copy_(torch.from_numpy(np.array(value)))
    except (RuntimeError, ValueError, AttributeError, KeyError) as error:
        raise CheckpointError(
            "networks must be built as when the checkpoint was saved, got: "
            f"{str(error).splitlines()[0]} Resume with the configuration of the run."
        ) from error


def restore_exploration(model: Any, state: Mapping[str, Any]) -> None:
    """Set action noise, exploration matrices and generators, inside the first rollout.

    Args:
        model: the algorithm, inside `on_rollout_start`.
        state: a checkpoint's `state`.
    """
    exploration = state["exploration"]
    for noise, values in zip(_noises(model), exploration["noise"], strict=True):
        snapshot.set_attributes(noise, values)
    if state["place"] != "start":
        return
    import torch

    for owner, values in exploration["matrices"].items():
        distribution = (model.policy if owner == "policy" else model.actor).action_dist
        for name, value in values.items():
            setattr(distribution, name, torch.from_numpy(np.array(value)).to(model.device))
    snapshot.set_random_state(state["random"])


def _find(owner: Any, dotted: str) -> Any:
    """Return a nested attribute."""
    for name in dotted.split("."):
        owner = getattr(owner, name)
    return owner


def _plain_episodes(model: Any) -> dict[str, Any]:
    """Return the running statistics of finished episodes."""
    infos = [
        {key: float(value) for key, value in info.items() if isinstance(value, (int, float))}
        for info in model.ep_info_buffer or ()
    ]
    return {"info": infos, "success": [bool(value) for value in model.ep_success_buffer or ()]}


def _generator_state(space: Any) -> dict[str, Any]:
    """Return the state of a space's generator, which warm-up actions are drawn from."""
    return dict(space.np_random.bit_generator.state)


def _set_generator_state(space: Any, state: Mapping[str, Any]) -> None:
    """Set the state of a space's generator."""
    space.np_random.bit_generator.state = dict(state)


def _noises(model: Any) -> list[Any]:
    """Return the action noise objects of an algorithm."""
    noise = getattr(model, "action_noise", None)
    if noise is None:
        return []
    return list(getattr(noise, "noises", [noise]))


def _exploration(model: Any) -> dict[str, Any]:
    """Return the state of action noise and of state-dependent exploration."""
    matrices: dict[str, Any] = {}
    for owner, network in (("policy", model.policy), ("actor", getattr(model, "actor", None))):
        distribution = getattr(network, "action_dist", None)
        found = {
            name: getattr(distribution, name)
            for name in ("exploration_mat", "exploration_matrices")
            if getattr(distribution, name, None) is not None
        }
        if found:
            matrices[owner] = found
    return {"noise": [snapshot.attributes(noise) for noise in _noises(model)], "matrices": matrices}


def _buffer_arrays(buffer: Any) -> dict[str, np.ndarray]:
    """Return the filled part of each array of a replay buffer, without copies."""
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays: dict[str, np.ndarray] = {}
    for name, value in vars(buffer).items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for key, array in parts:
            if isinstance(array, np.ndarray) and array.shape[:1] == (buffer.buffer_size,):
                arrays[f"{name}.{key}" if key else name] = array[:filled]
    return arrays


def _fill_buffer(
    buffer: Any, arrays: Mapping[str, np.ndarray], counters: Mapping[str, Any]
) -> None:
    """Copy arrays back into a replay buffer, which may be larger than the saved one."""
    pos, full, size = int(counters["pos"]), bool(counters["full"]), buffer.buffer_size
    rows = max(map(len, arrays.values()), default=0)
    # A ring of another size is unrolled, the oldest row first: new rows go behind the newest one.
    same_ring = full and rows == size
    first = pos if full and not same_ring else 0
    # Where rows share observations, the oldest row's has become the newest row's successor.
    lost = int(full and not same_ring and bool(getattr(buffer, "optimize_memory_usage", False)))
    for name, saved in arrays.items():
        owner, _, key = name.partition(".")
        target = getattr(buffer, owner, None)
        target = target.get(key) if key and isinstance(target, dict) else target
        if target is None or target.shape[1:] != saved.shape[1:] or len(target) < len(saved):
            raise CheckpointError(
                f"replay buffer must be as large as when it was saved, got another {name}. "
                "Resume with the configuration of the run."
            )
        head = saved[first + lost :]
        target[: len(head)] = head
        target[len(head) : len(head) + first] = saved[:first]
    kept = rows - lost
    buffer.pos, buffer.full = (pos, full) if same_ring else (kept % size, kept == size)
