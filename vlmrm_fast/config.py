"""What a training run is: frozen dataclasses, and YAML in and out.

Every option is a field here, a YAML key and a command-line flag of the same name. `None` means
"as the task says"; a resolved configuration, as a run folder holds it, has no such field left
that matters, so that it reproduces the run. Values are checked in `config_checks`, files of the
paper's authors translated in `foreign_config`. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlmrm_fast.coercion import from_dict, load_yaml
from vlmrm_fast.config_checks import check_train_config
from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.foreign_config import convert, is_foreign

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewardConfig:
    """The reward: which model scores frames against which prompts."""

    model: str = "builtin"
    """Model: "builtin", "NAME/PRETRAINED" of open_clip, a local path, or "hf-hub:ORG/NAME"."""
    goal: tuple[str, ...] | None = None
    """Goal prompt or prompts. None: the task's."""
    baseline: tuple[str, ...] | None = None
    """Baseline prompt or prompts. None: the task's."""
    alpha: float | None = None
    """Strength of goal-baseline regularisation, in [0, 1]. None: the task's, or 0."""
    rule: Literal["cosine", "difference", "goal-baseline", "softmax"] = "goal-baseline"
    """How a frame is scored; alpha belongs to goal-baseline, negatives to softmax."""
    negatives: tuple[str, ...] = ()
    """Prompts that compete with the goal under softmax."""
    temperature: float | None = None
    """Temperature of the softmax. None: the one that the model was trained with."""
    goal_images: tuple[str, ...] = ()
    """Files or folders of pictures of the goal."""
    image_weight: float | None = None
    """Share of the pictures in the goal, 1 to leave the sentence out. None: a half."""
    mode: Literal["replace", "add"] = "replace"
    """Whether the VLM reward replaces the environment's own or is added to it."""
    weight: float = 1.0
    """Factor on the VLM reward."""
    env_weight: float = 1.0
    """Factor on the environment's own reward, for mode add."""
    normalize: bool = False
    """Whether the VLM reward is normalised by its running mean and deviation."""
    score_every: int = 1
    """Score and draw only the first of so many steps, and the last step of each episode."""
    unscored: Literal["hold", "zero"] = "hold"
    """What the steps between get: the last scored reward, or none."""
    compat: bool = False
    """Score as the original implementation did: several prompts are averaged, not renormalised."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8", "fp8"] = "auto"
    """Arithmetic of the vision-language model."""


@dataclass(frozen=True)
class CameraConfig:
    """The camera, if not the task's (a name of the model's, or a free one), and its picture."""

    camera: str | None = None
    """Name of one of the model's cameras, or an id. None: the task's camera."""
    lookat: tuple[float, float, float] | None = None
    """Point that the free camera looks at [m]."""
    distance: float | None = None
    """Distance of the free camera from that point [m]."""
    azimuth: float | None = None
    """Azimuth of the free camera [degrees]."""
    elevation: float | None = None
    """Elevation of the free camera [degrees]."""
    track_body: str | None = None
    """Body that the free camera follows, by name or id."""
    render_size: int | None = None
    """Height and width of native frames [pixels], resized by the model. None: its input size."""
    supersample: int = 1
    """Draw native frames this many times as high and wide, 1 to 8, and average them down."""
    more_cameras: tuple[str, ...] = ()
    """Further cameras: a name, an id, or what differs from the first, as azimuth=90,distance=4."""
    camera_reduce: Literal["max", "mean", "min"] = "mean"
    """How the rewards of several cameras become one."""
    renderer: Literal["auto", "ray", "gl"] = "auto"
    """What draws a task: this package's ray caster, MuJoCo's OpenGL, or whichever can."""
    textures: Literal["original", "photographic"] | None = None
    """Look of the scene: the model's own, or sky, tiles and metal. None: the task's."""

    @property
    def is_free(self) -> bool:
        """Whether any field of the free camera is set.

        Returns:
            True if so.
        """
        names = ("lookat", "distance", "azimuth", "elevation", "track_body")
        return any(getattr(self, name) is not None for name in names)


@dataclass(frozen=True)
class AlgorithmConfig:
    """The learner: any Stable-Baselines3 algorithm, unmodified."""

    algorithm: str | None = None
    """SAC, PPO, DQN, TD3, A2C, DDPG, "package.module:Class". None: the task's or a fitting one."""
    policy: str = "MlpPolicy"
    """Policy class, by Stable-Baselines3's name."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """Arguments of the algorithm, as NAME=VALUE; they go over the task's registered ones."""
    task_settings: bool = True
    """Whether the task's registered hyperparameters apply where none are given."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured and filmed when training has ended."""

    episodes: int = 10
    """Deterministic evaluation episodes, on seeds that training never used."""
    video: bool = True
    """Whether to film one of them."""
    video_size: int = 480
    """Height and width of the video [pixels]."""


@dataclass(frozen=True)
class LoggingConfig:
    """Metrics and progress."""

    log_interval: int = 1000
    """Environment steps between two rows of the metrics."""
    tensorboard: bool = True
    """Whether to write TensorBoard events."""
    wandb: bool = False
    """Whether to send metrics to Weights & Biases (extra `wandb`)."""
    progress: Literal["auto", "bar", "plain", "off"] = "auto"
    """Progress: a bar, plain lines, nothing; auto takes the bar on a terminal."""


@dataclass(frozen=True)
class CheckpointConfig:
    """How often training is saved, and how much of it is kept."""

    checkpoint_interval: int | None = None
    """Environment steps between two checkpoints. None: a tenth of the run, at least 1,000."""
    keep: int = 3
    """Checkpoints kept; the replay buffer is kept in the newest one only."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Either `task` names a registered task, or `env` is a gymnasium environment and `reward.goal`
    the sentence to train on.
    """

    task: str | None = None
    """Registered task; see `vlmrm-fast tasks`."""
    env: str | None = None
    """Gymnasium environment id, for training on a sentence."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment, as NAME=VALUE: terminate_when_unhealthy=false."""
    steps: int | None = None
    """Environment steps in all. None: the task's."""
    num_envs: int | None = None
    """Environments stepped together. None: the task's, or 8."""
    episode_length: int | None = None
    """Steps until an episode is truncated. None: the task's or the environment's."""
    seed: int = 0
    """Seed of everything: weights, exploration, start states."""
    device: str = "auto"
    """Device of policy and reward: auto (one GPU, else the CPU), cpu, cuda (all GPUs) or cuda:N."""
    labels: Literal["auto", "step", "deferred"] = "auto"
    """Rewards come with each step, or later while simulation goes on; auto picks by device."""
    num_threads: int = 0
    """Threads of simulation and drawing; 0: one per CPU core."""
    run_dir: str | None = None
    """Run folder. None: a new one, named by task and time, in base_dir."""
    base_dir: str = "runs"
    """Folder that new run folders are made in."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        """Check every field that can be checked without loading anything."""
        check_train_config(self)


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain dicts, lists, strings and numbers.

    Args:
        config: a dataclass of this module.

    Returns:
        One key a field, in the order of the fields; tuples become lists.
    """

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(item) for item in value]
        return value

    return plain(config)


def to_yaml(config: TrainConfig) -> str:
    """Return a configuration as YAML that `from_yaml` reads back to an equal one.

    Args:
        config: the configuration.

    Returns:
        The text.
    """
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, width=100)


def from_yaml(text: str, name: str = "configuration") -> TrainConfig:
    """Read a configuration from YAML, in our schema or in that of the paper's authors.

    What means something else here than there is logged as warnings, one line each.

    Args:
        text: the YAML.
        name: what to call it in errors, for example the file's path.

    Returns:
        The configuration, checked.

    Raises:
        ArgumentError: the text is not YAML, or has a key twice, an unknown key or a value out of
            range.
    """
    import yaml

    try:
        values = load_yaml(text)
    # A ValueError is what a date such as 2020-13-45 raises.
    except (yaml.YAMLError, ValueError) as error:
        raise ArgumentError(f"{name} must be valid YAML, got: {error}") from error
    if not isinstance(values, Mapping):
        raise ArgumentError(f"{name} must be a YAML mapping such as `task: ...`, got {values!r}.")
    if not is_foreign(values):
        return from_dict(TrainConfig, values)
    converted = convert(values)
    config = from_dict(TrainConfig, converted.values)
    _log.warning("%s is in the schema of the paper's authors. What changes:", name)
    for note in converted.notes:
        _log.warning("  %s.", note)
    return config


def load_config(path: str | Path) -> TrainConfig:
    """Read a configuration file.

    Args:
        path: a YAML file.

    Returns:
        The configuration, checked.

    Raises:
        ArgumentError: the file cannot be read, or its content is refused; see `from_yaml`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"config must be a readable YAML file, got {path}: {error}") from error
    return from_yaml(text, name=str(path))
