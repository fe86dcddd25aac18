"""Relabel a source: check, stream, journal, write."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel.config import (
    RelabelConfig,
    Wanted,
    check_numbers,
    choose_prompts,
    open_source,
)
from vlmrm_fast.relabel.journal import Journal
from vlmrm_fast.relabel.progress import ProgressLine, describe_rates
from vlmrm_fast.relabel.results import Relabelled, load_results, write_results
from vlmrm_fast.relabel.source import BrokenEpisodeError, Clock, Source, identity
from vlmrm_fast.relabel.stream import stream

_PACKAGES = ("vlmrm-fast", "torch", "open_clip_torch", "mujoco", "av", "minari", "numpy")


def relabel(
    source: str | Path,
    *,
    goal: str | Sequence[str] = (),
    out: str | Path = "relabelled",
    **options: Any,
) -> Relabelled:
    """Compute the rewards of stored trajectories; blocks until they are there.

    At most a few hundred MB of frames are held, however long the trajectories are. What is done is
    on disk every two seconds: a call that was killed goes on with `resume=True`, and its results
    are the same bits on a CPU.

    Args:
        source: as `RelabelConfig.source`.
        goal: one goal, or several; each is a reward of its own.
        out: folder for the results.
        options: the other fields of `RelabelConfig`.

    Returns:
        Rewards of all frames, by episode.

    Raises:
        ArgumentError: the source, a prompt or an option cannot be used; or an episode is broken,
            and the text says what was kept.
        CheckpointError: the journal or the results cannot be written or read.
    """
    goals = (goal,) if isinstance(goal, str) else tuple(goal)
    options = {"progress": "off", **options}
    try:
        config = RelabelConfig(str(source), goals, out=str(out), **options)
    except TypeError as error:
        raise ArgumentError(f"options must be fields of RelabelConfig, got {error}.") from None
    return relabel_config(config)


def relabel_config(config: RelabelConfig) -> Relabelled:
    """As `relabel`.

    Args:
        config: what to do.

    Returns:
        As `relabel`.

    Raises:
        ArgumentError: as `relabel`.
    """
    check_numbers(config)
    folder = Path(config.out).expanduser()
    with ExitStack() as stack:
        source = open_source(config)
        stack.callback(source.close)
        task = source.drawer.task if source.drawer is not None and config.task else None
        wanted = choose_prompts(config, task)
        copy = _open_copy(config, source)
        _check_folder(folder, resume=config.resume)
        job = _Job(config, source, wanted, folder)
        if not job.finished:
            job.run(stack)
    if copy is not None:
        copy.write(load_results(folder))
    return load_results(folder)


def _open_copy(config: RelabelConfig, source: Source) -> Any:
    """Return what writes a Minari dataset with new rewards, or None; checked before any work."""
    if config.minari_id is None:
        return None
    from vlmrm_fast.relabel.minari_copy import MinariCopy

    return MinariCopy(source, config.minari_id)


def _check_folder(folder: Path, *, resume: bool) -> None:
    """Make the results' folder, and refuse one that holds other things.

    Raises:
        ArgumentError: it is not empty, or nothing is there to resume, or it cannot be written.
    """
    journal, report = folder / "journal" / "lines.jsonl", folder / "relabel.json"
    began = journal.is_file() or report.is_file()
    if began and not resume:
        what = "an unfinished relabelling" if journal.is_file() else "results"
        fix = "Use --resume to go on, or another --out." if journal.is_file() else "Use another."
        raise ArgumentError(f"out must be a new or empty folder, got {folder} with {what}. {fix}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not began and any(folder.iterdir()):
            raise ArgumentError(f"out must be a new or empty folder, got {folder} with files.")
        probe = folder / ".vlmrm-fast-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ArgumentError(f"out must be a folder to write to, got {folder}: {error}.") from error


@dataclass
class _Job:
    """One call: what it needs to go on, and what it leaves."""

    config: RelabelConfig
    source: Source
    wanted: Wanted
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the results are whole already; an unfinished journal says that they are not."""
        report = self.folder / "relabel.json"
        if not report.is_file() or (self.folder / "journal" / "lines.jsonl").is_file():
            return False
        found = load_results(self.folder).report
        asked: dict[str, Any] = {
            "identity": identity(self.source),
            "goals": list(self.wanted.goals),
        }
        asked |= {"baseline": list(self.wanted.baseline), "alpha": self.wanted.alpha}
        asked |= {"rule": self.wanted.rule, "negatives": list(self.wanted.negatives)}
        asked["temperature"] = self.wanted.temperature
        for name, value in (asked | {"model": self.config.model}).items():
            if found.get(name) != value:
                raise ArgumentError(
                    f"resume must continue the same work, got {name} {value!r} where "
                    f"{self.folder} has {found.get(name)!r}. Use another --out."
                )
        return True

    def run(self, stack: ExitStack) -> None:
        """Score what is left, and write the results.

        Args:
            stack: closes what is opened.

        Raises:
            BrokenEpisodeError: an episode is broken; the text says what was kept.
        """
        reward, scorer = self._open_model(stack)
        header = self._header(reward)
        journal = Journal(self.folder, len(self.wanted.goals))
        stack.callback(journal.close)
        if journal.exists():
            journal.resume(header)
        else:
            journal.start(header)
        clock, began = Clock(), time.perf_counter()
        first = journal.progress.rows
        total = self.source.lengths
        line = ProgressLine(self.config.progress, total, first)
        if first:
            line.resumed(journal.progress)
        broken: BrokenEpisodeError | None = None
        start = (journal.progress.episode, journal.progress.frame)
        shape = (reward.batch_size, len(self.wanted.goals))
        scored = stream(
            self.source, scorer, start, shape, clock, skip_broken=self.config.skip_broken
        )
        try:
            for part in scored:
                journal.add(part)
                line.tick(journal.progress, clock)
        except BrokenEpisodeError as error:
            broken = error
        finally:
            # Ctrl-C comes this way too; what was scored is not lost.
            scored.close()
            journal.commit()
            line.close(journal.progress)
        seconds = time.perf_counter() - began
        rates = describe_rates(journal.progress.rows - first, seconds, clock)
        report = header | {"complete": broken is None, **self._provenance(reward, rates)}
        write_results(self.folder, journal, self.source, self.wanted.goals, report)
        if broken is not None:
            raise self._explain(broken, journal) from broken
        journal.remove()

    def _open_model(self, stack: ExitStack) -> tuple[Any, Any]:
        """Return the reward and an open scorer of all goals."""
        from vlmrm_fast.reward import VLMReward

        wanted, config = self.wanted, self.config
        baseline = wanted.baseline or None
        reward = VLMReward(
            config.model,
            goal=wanted.goals[0],
            baseline=baseline,
            alpha=wanted.alpha,
            rule=wanted.rule,
            **wanted.contest,
            device=config.device,
            precision=config.precision,
            compat=config.compat,
            batch_size=config.batch_size,
        )
        if self.source.drawer is not None:
            self.source.drawer.size = reward.image_size
        goals = list(wanted.goals)
        columns = goals, [baseline] * len(goals), wanted.alpha
        prompts = reward.prompt_set(*columns, rules=wanted.rule, **wanted.contest)
        # The thread that reads is the one that works meanwhile; one more would only wait.
        scorer = stack.enter_context(reward.scorer(background=False, prompts=prompts))
        return reward, scorer

    def _header(self, reward: Any) -> dict[str, Any]:
        """Return what decides about the bits of the rewards."""
        known = reward.describe()
        names = ("weights_sha256", "image_size", "precision", "engine", "batch_size", "compat")
        return {
            "model": self.config.model,
            **{name: known[name] for name in names},
            "goals": list(self.wanted.goals),
            "baseline": list(self.wanted.baseline),
            "alpha": self.wanted.alpha,
            "rule": self.wanted.rule,
            "negatives": list(self.wanted.negatives),
            "temperature": self.wanted.temperature,
            "identity": identity(self.source),
        }

    def _provenance(self, reward: Any, rates: dict[str, Any]) -> dict[str, Any]:
        return {
            "source": self.config.source,
            "device": str(reward.device),
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": sys.argv,
            "versions": _versions(),
            "rates": rates,
        }

    def _explain(self, error: BrokenEpisodeError, journal: Journal) -> BrokenEpisodeError:
        now = journal.progress
        name = self.source.names[now.episode]
        return BrokenEpisodeError(
            f"{name}: {error} Kept in {self.folder}: the rewards of {now.rows - now.frame} frames "
            f"of {len(now.ended)} episodes before it, and of {now.frame} of its own. Mend it and "
            "use --resume, or add --skip-broken to go on without the rest of it."
        )


def _versions() -> dict[str, str]:
    """Return the versions of what the rewards depend on, as far as it is installed."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def run_relabel(config: RelabelConfig) -> int:
    """Relabel, and print what was done.

    Args:
        config: what to do.

    Returns:
        The exit code: 0, or 1 where broken episodes were skipped.

    Raises:
        ArgumentError: as `relabel`.
    """
    from rich.console import Console

    from vlmrm_fast.relabel.progress import results_table

    found = relabel_config(config)
    width = shutil.get_terminal_size((100, 24)).columns
    console = Console(width=max(width, 80))
    console.print(results_table(found))
    for name, fault in found.faults.items():
        console.print(f"skipped the rest of {name}: {fault}", markup=False, highlight=False)
    console.print(found.report["rates"]["text"], markup=False, highlight=False)
    files = ", ".join(sorted(p.name for p in found.folder.iterdir() if p.is_file()))
    console.print(f"Wrote {files} to {found.folder}.", markup=False, highlight=False)
    if config.minari_id is not None:
        console.print(f"Wrote the Minari dataset {config.minari_id}.", markup=False)
    return 1 if found.faults else 0
