"""The command line: it only finds the function to call. No logic lives here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from vlmrm_fast import __version__
from vlmrm_fast.errors import ArgumentError, VLMRMError, unknown_name

_HELP = """\
vlmrm-fast {version}: train reinforcement-learning agents from a sentence.

usage: vlmrm-fast COMMAND [options]

commands:
  train TASK | CONFIG.yaml | "A SENTENCE" --env ID
              train an agent; leaves video, plots, metrics and checkpoints in a run folder
  eval RUN    report card of a run: success, reward against ground truth, policies, video
  compare RUN RUN ...
              learning curves and results of runs, seeds of one configuration together
  score       score frames, a video or a task's states against prompts
  relabel SOURCE
              rewards for stored trajectories: Minari, LeRobot, videos, states, frames
  lab TASK --goal "..." ...
              judge prompts, strengths, models and cameras before training: go or no go
  landscape TASK
              plot the reward along an angle, a position or joints, strengths side by side
  fidelity TASK
              compare a precision of the image tower with open_clip in float32
  tasks       list the registered tasks
  doctor      check this installation and measure its speed
  pretrain    train the built-in vision-language model anew

options of every command: --help; of vlmrm-fast itself: --version

first run:  vlmrm-fast train cartpole-upright
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        The exit code: 0 for success, 1 where fidelity misses its gates or relabel skipped broken
        episodes, 2 for bad input, 130 or 143 after a signal, 141 where the output was closed.

    Raises:
        ArgumentError: never; it is printed as one line.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_HELP.format(version=__version__))
        return 0
    if arguments[0] in {"-V", "--version"}:
        sys.stdout.write(f"vlmrm-fast {__version__}\n")
        return 0
    # Threads that spin while they wait lose a factor of four and more where others want the cores
    # too; read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if arguments[0] not in _COMMANDS:
            raise ArgumentError(str(unknown_name("command", arguments[0], _COMMANDS)))
        return _COMMANDS[arguments[0]](arguments[1:])
    except VLMRMError as error:
        code = getattr(error, "exit_code", 2)
        sys.stderr.write(f"{'error: ' if code == 2 else ''}{error}\n")
        return code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone, as `| head` does; the flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _train(arguments: list[str]) -> int:
    """Train, or try out."""
    from vlmrm_fast.cli_train import parse_train

    command = parse_train(arguments)
    if command.dry_run:
        from vlmrm_fast.train_dry_run import dry_run

        _show(dry_run(command.config))
        return 0
    from vlmrm_fast.report import summary_table
    from vlmrm_fast.train import train

    result = train(command.config, resume=command.resume, overwrite=command.overwrite)
    _show(summary_table(result.summary))
    return 0


def _eval(arguments: list[str]) -> int:
    """Make a run's report card."""
    from vlmrm_fast.evaluation.card import CardConfig, run_eval

    return run_eval(_parse(CardConfig, arguments, "eval"))


def _compare(arguments: list[str]) -> int:
    """Compare runs."""
    from vlmrm_fast.evaluation.compare import CompareConfig, run_compare

    return run_compare(_parse(CompareConfig, arguments, "compare"))


def _score(arguments: list[str]) -> int:
    """Score frames."""
    from vlmrm_fast.scoring import ScoreConfig, run_score

    return run_score(_parse(ScoreConfig, arguments, "score"))


def _relabel(arguments: list[str]) -> int:
    """Score stored trajectories."""
    from vlmrm_fast.relabel import RelabelConfig, run_relabel

    return run_relabel(_parse(RelabelConfig, arguments, "relabel"))


def _lab(arguments: list[str]) -> int:
    """Judge prompts."""
    from vlmrm_fast.evaluation.lab import LabConfig, run_lab

    return run_lab(_parse(LabConfig, arguments, "lab"))


def _landscape(arguments: list[str]) -> int:
    """Plot rewards along coordinates."""
    from vlmrm_fast.evaluation.landscape import LandscapeConfig, run_landscape

    return run_landscape(_parse(LandscapeConfig, arguments, "landscape"))


def _fidelity(arguments: list[str]) -> int:
    """Compare precisions."""
    from vlmrm_fast.fidelity import FidelityConfig, run_fidelity

    return run_fidelity(_parse(FidelityConfig, arguments, "fidelity"))


def _tasks(arguments: list[str]) -> int:
    """List the tasks."""
    from vlmrm_fast.report import tasks_table

    _no_arguments(arguments, "tasks", "list the registered tasks")
    _show(tasks_table())
    return 0


def _doctor(arguments: list[str]) -> int:
    """Check the installation."""
    from vlmrm_fast.doctor import DoctorConfig, run_doctor

    return run_doctor(_parse(DoctorConfig, arguments, "doctor"))


def _pretrain(arguments: list[str]) -> int:
    """Train the built-in model."""
    from vlmrm_fast.pretrain import PretrainConfig, pretrain

    pretrain(_parse(PretrainConfig, arguments, "pretrain"))
    return 0


def _parse(kind: Any, arguments: list[str], command: str) -> Any:
    """Return a configuration dataclass filled from flags."""
    import tyro

    return tyro.cli(kind, args=arguments, prog=f"vlmrm-fast {command}")


def _no_arguments(arguments: list[str], command: str, purpose: str) -> None:
    """Answer --help, and refuse all other arguments."""
    if arguments and arguments[0] in {"-h", "--help"}:
        sys.stdout.write(f"usage: vlmrm-fast {command}\n\n{purpose}\n")
        raise SystemExit(0)
    if arguments:
        raise ArgumentError(f"{command} must have no arguments, got {' '.join(arguments)!r}.")


def _show(table: Any) -> None:
    """Print a table."""
    from rich.console import Console

    Console().print(table)


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "eval": _eval,
    "compare": _compare,
    "score": _score,
    "relabel": _relabel,
    "lab": _lab,
    "landscape": _landscape,
    "fidelity": _fidelity,
    "tasks": _tasks,
    "doctor": _doctor,
    "pretrain": _pretrain,
}


if __name__ == "__main__":
    raise SystemExit(main())
