"""Damaged archives of arrays."""

from __future__ import annotations

import numpy as np
import pytest
from relabel_data import ALPHA, BASELINE, GOALS, make_frames

from vlmrm_fast.errors import ArgumentError
from vlmrm_fast.relabel import relabel


@pytest.fixture
def call(untrained_folder, tmp_path):
    """Relabel into a folder with the tests' prompts and an untrained model."""

    def call(source, out="out", **options):
        prompts = {"goal": GOALS, "baseline": BASELINE, "alpha": ALPHA}
        merged = prompts | {"model": untrained_folder} | options
        return relabel(source, out=tmp_path / out, **merged)

    return call


def damage(path, at, size=64):
    raw = bytearray(path.read_bytes())
    raw[at : at + size] = b"\xff" * size
    path.write_bytes(raw)


def test_a_damaged_compressed_array_is_broken_and_so_is_what_follows(call, tmp_path):
    path = tmp_path / "a.npz"
    # Noise is stored in blocks of at most 64 KiB, so that the damage meets the head of one.
    frames = np.random.default_rng(0).integers(0, 256, (400, 40, 40, 3), dtype=np.uint8)
    np.savez_compressed(path, frames=frames, episode_ends=np.array([100, 300, 400]))
    damage(path, path.stat().st_size // 2, 2**16)
    with pytest.raises(
        ArgumentError, match=r"^a\.npz:1: array must be whole, got frames of .*Error -3"
    ):
        call(path)
    found = call(path, out="rest", skip_broken=True)
    assert list(found.faults) == ["a.npz:1", "a.npz:2"]
    assert np.isfinite(found.rewards[:100]).all()
    assert np.isnan(found.rewards[300:]).all()


def test_a_damaged_list_of_ends_is_refused_before_any_work(call, tmp_path):
    path = tmp_path / "a.npz"
    ends = np.sort(np.random.default_rng(0).integers(0, 4000, 4000))
    ends[-1] = 4
    np.savez_compressed(path, episode_ends=ends, frames=make_frames(4))
    damage(path, 400)
    with pytest.raises(ArgumentError, match="source must be a NumPy file, got"):
        call(path)
    assert not (tmp_path / "out").exists()
