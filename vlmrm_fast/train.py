"""Training, top to bottom: configuration, environment, algorithm, learning."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vlmrm_fast import checkpoint as checkpoints
from vlmrm_fast import run_folder
from vlmrm_fast.config import TrainConfig, from_yaml, to_dict, to_yaml
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.finish import RunResult, finish
from vlmrm_fast.gl_order import load_triton
from vlmrm_fast.progress import Progress
from vlmrm_fast.signals import StopSignals, TrainingStoppedError

# What a resume may change: nothing of it decides what a stored step or a weight means.
_MAY_CHANGE = (
    "steps",
    "device",
    "labels",
    "num_threads",
    "run_dir",
    "base_dir",
    "evaluation",
    "logging",
    "checkpoint",
)


def train(
    config: TrainConfig, resume: str | Path | None = None, *, overwrite: bool = False
) -> RunResult:
    """Train an agent, save it, evaluate it and film it.

    SIGTERM, SIGINT and SIGUSR1 save a checkpoint and end training.

    Args:
        config: what to train. On a resume: the run's configuration, perhaps with more steps.
        resume: a run folder, or one of its checkpoints, to continue from.
        overwrite: whether to replace a run that the run folder holds already; it is removed
            only once everything is built.

    Returns:
        The result; the run folder holds everything else.

    Raises:
        ArgumentError: something in the configuration does not fit; raised before any training.
        CheckpointError: the run cannot be resumed, or there is too little disk.
        TrainingStoppedError: a signal came; the state is saved.
    """
    load_triton()
    from vlmrm_fast.sb3.building import build_env, build_reward, resolve
    from vlmrm_fast.sb3.labeling import choose_labels
    from vlmrm_fast.sb3.logs import check_wandb, start_wandb

    config = resolve(config)
    check_wandb(config)
    found = None if resume is None else checkpoints.load(resume)
    if found is None:
        folder = run_folder.create(
            config.run_dir, _label(config), base=config.base_dir, overwrite=overwrite
        )
    else:
        folder = run_of(found)
        _check_resume(config, found)
    config = dataclasses.replace(config, run_dir=str(folder))
    env: Any = None
    try:
        reward = build_reward(config)
        if found is not None and (text := run_folder.other_reward(folder, reward.describe())):
            raise ArgumentError(f"{text} Restore them, or start a new run.")
        env = build_env(config, reward, training=True)
        model = build_model(config, env)
        labels = choose_labels(config.labels, model)
        config = dataclasses.replace(config, labels="deferred" if labels else "step")
        _check_disk(folder, model, config)
        if found is None and overwrite:
            run_folder.clear(folder)
        run_folder.write_text(folder / "config.yaml", to_yaml(config))
        tracker = start_wandb(config, folder)
        _write_provenance(folder, config, reward, found, env)
        metrics = _learn(config, folder, model, found, tracker, labels)
        return finish(config, folder, model, reward, metrics)
    finally:
        # What failed before it started leaves nothing behind: a folder in use is not empty.
        with contextlib.suppress(OSError):
            folder.rmdir()
        if env is not None:
            env.close()


def build_model(config: TrainConfig, env: Any) -> Any:
    """Build the algorithm of a resolved configuration.

    Args:
        config: the configuration.
        env: the VecEnv to train on.

    Returns:
        A Stable-Baselines3 algorithm.

    Raises:
        ArgumentError: algorithm, action space and hyperparameters do not fit.
    """
    from vlmrm_fast.sb3.algorithms import build_algorithm, find_algorithm, is_off_policy

    assert config.algorithm.algorithm is not None
    assert config.steps is not None
    cls = find_algorithm(config.algorithm.algorithm)
    # Small on-policy networks lose more on the way to a GPU than they gain there.
    host = config.device == "auto" and not is_off_policy(cls)
    return build_algorithm(
        cls,
        env,
        config.algorithm.hyperparameters,
        policy=config.algorithm.policy,
        seed=config.seed,
        device="cpu" if host else config.device,
        steps=config.steps,
    )


def _learn(
    config: TrainConfig,
    folder: Path,
    model: Any,
    found: checkpoints.Checkpoint | None,
    wandb: Any,
    labels: Any,
) -> Any:
    """Train to the configured number of steps; return the metrics callback."""
    from vlmrm_fast.sb3.callbacks import CheckpointCallback, MetricsCallback, StopRequestedError
    from vlmrm_fast.sb3.logs import make_logger
    from vlmrm_fast.sb3.state import restore

    steps, interval = config.steps, config.checkpoint.checkpoint_interval
    assert steps is not None
    assert interval is not None
    start = 0 if found is None else found.step
    files = run_folder.MetricsFiles(folder, None if found is None else start)
    logger = make_logger(folder, files, tensorboard=config.logging.tensorboard, wandb=wandb)
    model.set_logger(logger)
    with Progress(steps, config.logging.progress, start) as progress, StopSignals() as signals:
        metrics = MetricsCallback(config.logging.log_interval, logger.row, progress.tick)
        if found is not None:
            for note in restore(model, found):
                progress.note(note)
            metrics.set_state(found.state["extra"]["metrics"])
            if model._last_obs is None:
                # Episodes start anew, and so do their sums.
                metrics._returns = {}
        _announce(config, folder, start, model, progress)
        saver = CheckpointCallback(
            folder / "checkpoints",
            interval,
            keep=config.checkpoint.keep,
            config=to_yaml(config),
            signals=signals,
            metrics=metrics,
            resumed=None if found is None else found.state,
        )
        with contextlib.suppress(StopRequestedError):
            if start < steps:
                model.learn(
                    steps - start,
                    callback=[*labels, metrics, saver],
                    log_interval=None,
                    reset_num_timesteps=found is None,
                )
        saved = found and found.path
        if start < steps:
            saved = saver.save("between", in_haste=signals.received is not None)
        logger.close()
        if signals.received is not None:
            where = f"saved as {saved}" if saved else "NOT saved: see the warning above"
            text = f"Stopped at step {model.num_timesteps}; {where}. Go on with --resume {folder}"
            raise TrainingStoppedError(text, signals.exit_code)
        progress.note(f"step {model.num_timesteps}, {metrics.seconds:.0f} s; now evaluating")
    return metrics


def _write_provenance(
    folder: Path, config: TrainConfig, reward: Any, found: checkpoints.Checkpoint | None, env: Any
) -> None:
    """Write run.json, or run-STEP.json for a resume."""
    from vlmrm_fast import _core

    extra: Mapping[str, Any] = {
        "device": config.device,
        "renderer": {"backend": getattr(env, "renderer", "ray"), "simd": str(_core.simd_level())},
        "reward": reward.describe(),
        "resumed_from": None if found is None else str(found.path),
    }
    name = "run.json" if found is None else f"run-{found.step}.json"
    run_folder.write_json(folder / name, run_folder.provenance(config.seed, extra))


def _announce(
    config: TrainConfig, folder: Path, start: int, model: Any, progress: Progress
) -> None:
    """Say in two lines what starts, and what may surprise."""
    goal = ", ".join(config.reward.goal or ())
    progress.note(
        f"{config.task or config.env}: {config.algorithm.algorithm} on {config.num_envs} "
        f"environments, steps {start} to {config.steps}, model {config.reward.model}, "
        f'goal "{goal}"'
    )
    progress.note(f"run folder {folder}")
    first = getattr(model, "learning_starts", 0)
    if config.steps is not None and first >= config.steps:
        progress.note(
            f"note: learning starts after {first} steps, which this run does not reach; lower it "
            "with --hyperparameters learning_starts=N."
        )


def _check_disk(folder: Path, model: Any, config: TrainConfig) -> None:
    """Check that two checkpoints and the video fit onto the disk."""
    weights = sum(p.numel() * p.element_size() for p in model.policy.parameters())
    buffer = getattr(model, "replay_buffer", None)
    arrays = [] if buffer is None else [v for v in vars(buffer).values() if hasattr(v, "nbytes")]
    replay = sum(array.nbytes for array in arrays)
    # An optimiser keeps two moments a weight; a new replay buffer is written before the old goes.
    checkpoints.check_room(folder, 3 * weights * (config.checkpoint.keep + 1) + 2 * replay)


def _check_resume(config: TrainConfig, found: checkpoints.Checkpoint) -> None:
    """Check that a resumed run is the one that was saved, down to what its replay buffer holds."""
    saved = fixed_fields(from_yaml(found.config), _MAY_CHANGE)
    asked = fixed_fields(config, _MAY_CHANGE)
    for name in {**saved, **asked}:
        if saved.get(name) != asked.get(name):
            raise ArgumentError(
                f"{name} must stay as it was on a resume, got {asked.get(name)!r} for "
                f"{saved.get(name)!r}. Start a new run instead."
            )


def fixed_fields(config: TrainConfig, but: Collection[str]) -> dict[str, Any]:
    """Return the fields of a configuration by dotted name; tuples are lists.

    Args:
        config: the configuration.
        but: fields, or groups of fields, that are left out.

    Returns:
        Values by name, such as "reward.alpha".
    """
    fields: dict[str, Any] = {}

    def visit(prefix: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                visit(f"{prefix}{name}.", value)
            else:
                fields[prefix + name] = value

    every = to_dict(config)
    visit("", {name: value for name, value in every.items() if name not in but})
    return fields


def run_of(found: checkpoints.Checkpoint) -> Path:
    """Return the run folder that a checkpoint lies in.

    Args:
        found: a checkpoint that was read from a disk.

    Returns:
        The folder; of a checkpoint that lies in none, its own.
    """
    assert found.path is not None
    return found.path.parent.parent if found.path.parent.name == "checkpoints" else found.path


def _label(config: TrainConfig) -> str:
    """Return the name that a run folder starts with."""
    return f"{config.task or config.env}-{config.algorithm.algorithm}-s{config.seed}"
