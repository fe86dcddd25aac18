"""The command line: fast to answer, one meaning with the configuration, one line an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vlmrm_fast import __version__
from vlmrm_fast.cli import _COMMANDS, main
from vlmrm_fast.cli_train import parse_train
from vlmrm_fast.config import RewardConfig, TrainConfig, to_yaml
from vlmrm_fast.errors import ArgumentError, CheckpointError
from vlmrm_fast.tasks import task_names


def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that code loads in a new process."""
    heavy = "{'torch', 'mujoco', 'numpy', 'tyro', 'yaml', 'gymnasium', 'stable_baselines3'}"
    code += f"\nimport sys; sys.stderr.write(' '.join({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_and_version_load_nothing_heavy() -> None:
    for flag in ("--help", "--version"):
        assert loaded_by(f"from vlmrm_fast.cli import main; main([{flag!r}])") == set()


def test_parsing_loads_no_torch() -> None:
    code = "from vlmrm_fast.cli_train import parse_train; parse_train(['cartpole-upright'])"
    assert loaded_by(code) <= {"numpy", "tyro", "yaml"}


def test_help_and_version_answer(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["--version"]):
        assert main(arguments) == 0
        assert __version__ in capsys.readouterr().out


def test_a_task_with_flags() -> None:
    flags = (
        "cartpole-upright --steps 1e4 --num-envs 4 --alpha 0.5 --no-tensorboard --dry-run "
        "--lookat 0 0 1 --render-size 480 --supersample 2 --renderer gl --algorithm SAC --keep 2 "
        "--video-size 64 "
        "--hyperparameters learning_rate=3e-4 gamma=0.9 --goal"
    )
    command = parse_train([*flags.split(), "a b", "c"])
    config = command.config
    assert command.dry_run
    assert (config.task, config.steps, config.num_envs) == ("cartpole-upright", 10_000, 4)
    assert config.reward.goal == ("a b", "c")
    assert config.reward.alpha == 0.5
    assert config.camera.lookat == (0.0, 0.0, 1.0)
    assert (config.camera.render_size, config.camera.supersample) == (480, 2)
    assert config.camera.renderer == "gl"
    assert not config.logging.tensorboard
    assert config.algorithm.hyperparameters == {"learning_rate": 3e-4, "gamma": 0.9}
    assert (config.checkpoint.keep, config.evaluation.video_size) == (2, 64)


def test_a_sentence_with_an_environment() -> None:
    config = parse_train(["a robot kneeling", "--env", "Humanoid-v5", "--seed", "3"]).config
    assert config == TrainConfig(
        env="Humanoid-v5", seed=3, reward=RewardConfig(goal=("a robot kneeling",))
    )
    assert parse_train(["one", "--env=Ant-v5"]).config.reward.goal == ("one",)


def test_flags_go_over_yaml_and_hyperparameters_merge(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "task: cartpole-upright\nsteps: 50\nseed: 4\n"
        "algorithm: {hyperparameters: {gamma: 0.9, policy_kwargs: {net_arch: [8]}}}\n"
    )
    arguments = [str(path), "--steps", "60", "--hyperparameters", "policy_kwargs.log_std_init=-1"]
    config = parse_train(arguments).config
    assert (config.steps, config.seed) == (60, 4)
    expected = {"gamma": 0.9, "policy_kwargs": {"net_arch": [8], "log_std_init": -1}}
    assert config.algorithm.hyperparameters == expected


def test_a_resume_takes_the_runs_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(TrainConfig(task="cartpole-upright", seed=9)))
    command = parse_train(["--resume", str(tmp_path), "--steps", "70"])
    assert command.resume == str(tmp_path)
    assert (command.config.seed, command.config.steps) == (9, 70)
    with pytest.raises(ArgumentError, match="TARGET must be left out with --resume"):
        parse_train(["cartpole-upright", "--resume", str(tmp_path)])
    with pytest.raises(CheckpointError, match=r"has no config\.yaml"):
        parse_train(["--resume", str(tmp_path / "missing")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], f"command must be one of {', '.join(sorted(_COMMANDS))}, got 'trian'. Did you"),
        (["train"], "TARGET must be a task, a YAML file or a sentence, got none."),
        (["train", "cartpole-uprigth"], "Did you mean 'cartpole-upright'?"),
        (["train", "a robot kneeling"], "--env Humanoid-v5"),
        (["train", "missing.yaml"], "config must be a readable YAML file"),
        (["train", "--resume", "missing"], "run must be a run folder"),
        (["eval", "missing"], "run must be a run folder"),
        (["compare", "missing"], "run must be a run folder"),
        (["tasks", "x"], "tasks must have no arguments, got 'x'."),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stpes", "3"], "--steps"),
        (["--steps", "many"], "--steps"),
        (["--steps", "0"], "steps must be at least 1, got 0."),
        (["--alpha", "2"], "reward.alpha must lie in [0, 1], got 2.0."),
        (["--mode", "both"], "replace"),
        (["--hyperparameters", "gamma"], "NAME=VALUE"),
    ],
)
def test_bad_flags_exit_with_2_and_say_why(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "cartpole-upright", *flags])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert message in " ".join((captured.out + captured.err).replace("│", " ").split())


def test_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    text = capsys.readouterr().out
    for name in task_names():
        assert f" {name} " in text


def test_every_command_answers_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "eval", "compare", "tasks", "doctor"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code in {0, None}
        assert command in capsys.readouterr().out


def test_an_interrupt_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlmrm_fast import cli

    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._COMMANDS, "tasks", interrupted)
    assert main(["tasks"]) == 130


def test_a_closed_output_ends_quietly() -> None:
    command = [sys.executable, "-m", "vlmrm_fast.cli", "train", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141
