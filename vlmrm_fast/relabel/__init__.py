"""Rewards for stored trajectories, with any prompt."""

from __future__ import annotations

from vlmrm_fast.relabel.config import RelabelConfig
from vlmrm_fast.relabel.results import Relabelled, load_results
from vlmrm_fast.relabel.run import relabel, run_relabel

__all__ = ["RelabelConfig", "Relabelled", "load_results", "relabel", "run_relabel"]
