"""Relabel a source: check, stream, journal, write."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
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
from vlmrm_fast.relabel.fingerprint import fingerprints, restart
from vlmrm_fast.relabel.journal import Journal, refuse_other_work
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
    are the same bits on a CPU. Behind a broken episode, mended or skipped, they agree within
    rounding. A file that changed after its rewards were computed is refused; one that changed
    under way is scored from its start.

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
        _lock(folder, stack)
        _Job(config, source, wanted, folder).run(stack)
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
    journal, report = (folder / "journal").is_dir(), (folder / "relabel.json").is_file()
    began = journal or report
    if began and not resume:
        what = "an unfinished relabelling" if journal else "results"
        fix = "Use --resume to go on, or another --out." if journal else "Use another."
        raise ArgumentError(f"out must be a new or empty folder, got {folder} with {what}. {fix}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".vlmrm-fast-probe"
        # A call that was killed here left the probe behind.
        if not began and any(path != probe for path in folder.iterdir()):
            raise ArgumentError(f"out must be a new or empty folder, got {folder} with files.")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ArgumentError(f"out must be a folder to write to, got {folder}: {error}.") from error


def _lock(folder: Path, stack: ExitStack) -> None:
    """Keep other processes out of the results' folder; the lock ends with this process at latest.

    Raises:
        ArgumentError: another process writes there.
    """
    file = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ArgumentError(
            f"out must be written by one process at a time, got {folder}, where another one is at "
            "work. Wait for it, or use another --out."
        ) from error
    except OSError:
        # Some network file systems lock no folders; there the user must take care.
        return


@dataclass
class _Job:
    """One call: what it needs to go on, and what it leaves."""

    config: RelabelConfig
    source: Source
    wanted: Wanted
    folder: Path

    def run(self, stack: ExitStack) -> None:
        """Score what is left, and write the results.

        Args:
            stack: closes what is opened.

        Raises:
            BrokenEpisodeError: an episode is broken; the text says what was kept.
        """
        reward = self._open_model()
        header, files = self._header(reward), fingerprints(self.source)
        journal = Journal(self.folder, len(self.wanted.goals))
        stack.callback(journal.close)
        if self._finished(header, files):
            # A call that was killed while it cleaned up may have left the journal.
            journal.remove()
            return
        self._open_journal(journal, header, files)
        scorer = self._open_scorer(reward, stack)
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
        report["files"] = files
        write_results(self.folder, journal, self.source, self.wanted.goals, report)
        if broken is not None:
            raise self._explain(broken, journal) from broken
        journal.remove()

    def _finished(self, header: Mapping[str, Any], files: Mapping[str, str]) -> bool:
        """Return whether the results are whole already, by the same work on the same data."""
        if not (self.folder / "relabel.json").is_file():
            return False
        found = load_results(self.folder).report
        if not found["complete"]:
            return False
        same = {name: found.get(name) for name in header}
        refuse_other_work(self.folder, same, header, "Use another --out.")
        restart(self.source, found["files"], files, (len(self.source.names), 0))
        return True

    def _open_journal(
        self, journal: Journal, header: Mapping[str, Any], files: Mapping[str, str]
    ) -> None:
        """Begin it, or go on where it ends; in a file that has changed, at its first episode."""
        if not journal.exists():
            journal.start(header, files)
            return
        journal.resume(header)
        if journal.files != files:
            place = journal.progress.episode, journal.progress.frame
            journal.rewrite(header, files, restart(self.source, journal.files, files, place))

    def _open_model(self) -> Any:
        """Return the reward of the first goal."""
        from vlmrm_fast.reward import VLMReward

        wanted, config = self.wanted, self.config
        reward = VLMReward(
            config.model,
            goal=wanted.goals[0],
            baseline=wanted.baseline or None,
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
        return reward

    def _open_scorer(self, reward: Any, stack: ExitStack) -> Any:
        """Return an open scorer of all goals."""
        wanted = self.wanted
        goals = list(wanted.goals)
        columns = goals, [wanted.baseline or None] * len(goals), wanted.alpha
        prompts = reward.prompt_set(*columns, rules=wanted.rule, **wanted.contest)
        # The thread that reads is the one that works meanwhile; one more would only wait.
        return stack.enter_context(reward.scorer(background=False, prompts=prompts))

    def _header(self, reward: Any) -> dict[str, Any]:
        """Return what decides about the bits of the rewards."""
        known = reward.describe()
        names = ("weights_sha256", "image_size", "precision", "engine", "batch_size", "compat")
        return {
            "model": self.config.model,
            "device_kind": reward.device.type,
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
