"""Precision reports and what guards a precision."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmrm_fast import VLMReward, cli, clip
from vlmrm_fast.errors import ArgumentError, ModelError, UnknownNameError
from vlmrm_fast.fidelity import GATES, Fidelity, FidelityConfig, measure_fidelity
from vlmrm_fast.precision import DTYPES, usable_precisions


def test_exact_towers_pass_the_gate_of_float32() -> None:
    found = measure_fidelity(FidelityConfig("cartpole-upright", num_states=24, device="cpu"))
    assert found.passed
    assert (found.precision, found.engine, found.num_states) == ("fp32", "lean", 24)
    assert found.spread > 0.01
    assert 0 < found.max_error <= 1e-6
    assert found.mean_error <= found.max_error
    assert 1 - 1e-6 <= found.min_cosine <= 1 + 1e-6


def test_every_precision_has_a_gate_and_each_gate_can_fail() -> None:
    assert set(GATES) == set(DTYPES)
    for precision, (error, spearman) in GATES.items():
        good = Fidelity(precision, "lean", 9, error, error / 2, 1.0, spearman, 1.0, 1.0)
        assert good.passed
        assert not dataclasses.replace(good, max_error=error * 1.01).passed
        assert not dataclasses.replace(good, spearman=spearman - 0.001).passed
        assert not dataclasses.replace(good, spearman=float("nan")).passed


def test_the_command_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fidelity", "cartpole-upright", "--num-states", "8", "--device", "cpu"]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "builtin in fp32 (lean) on cartpole-upright" in shown
    assert "rank correlation" in shown
    assert "8 frames against open_clip's own tower in float32" in shown


def test_the_command_fails_where_a_gate_is_missed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GATES, "fp32", (0.0, 0.9999))
    arguments = ["fidelity", "cartpole-upright", "--num-states", "8", "--device", "cpu"]
    assert cli.main(arguments) == 1
    assert "<= 0: missed" in capsys.readouterr().out


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(ArgumentError, match="num_states must be at least 2, got 1"):
        measure_fidelity(FidelityConfig("cartpole-upright", num_states=1))
    with pytest.raises(UnknownNameError, match="task"):
        measure_fidelity(FidelityConfig("cartpole-uprite"))
    with pytest.raises(ArgumentError, match=r"precision must be one of .* on a CPU, got 'fp16'"):
        measure_fidelity(FidelityConfig("cartpole-upright", precision="fp16", device="cpu"))
    with pytest.raises(ArgumentError, match="engine must be one of auto, eager, got 'quick'"):
        VLMReward(goal="a robot", engine="quick")


def test_a_cpu_runs_float32_and_never_fp8() -> None:
    usable = usable_precisions(torch.device("cpu"))
    assert "fp32" in usable
    assert not {"fp8", "fp16"} & set(usable)


def test_a_tower_that_overflows_its_format_is_refused_at_load(
    untrained_folder: str, tmp_path: Path
) -> None:
    state = load_file(Path(untrained_folder) / clip.WEIGHTS_FILE)
    state["visual.bn1.weight"] = state["visual.bn1.weight"].float() * 1e6
    save_file(state, tmp_path / clip.WEIGHTS_FILE)
    config = (Path(untrained_folder) / clip.CONFIG_FILE).read_text()
    (tmp_path / clip.CONFIG_FILE).write_text(config)
    clip.load_model(str(tmp_path), "cpu", "fp32")
    with pytest.raises(ModelError, match=r"got 'fp16', in which they overflow.*\"bf16\""):
        clip.load_model(str(tmp_path), "cpu", "fp16")


def test_a_model_without_an_image_tower_is_named(
    untrained_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = clip.build_model(untrained_folder)
    del build.visual
    monkeypatch.setattr("open_clip.create_model", lambda *_, **__: build)
    monkeypatch.setattr("open_clip.load_checkpoint", lambda *_: None)
    with pytest.raises(ModelError, match="must have an image tower, got"):
        clip.load_model(untrained_folder)


def test_an_image_smaller_than_a_patch_is_refused(untrained_folder: str, tmp_path: Path) -> None:
    config = json.loads((Path(untrained_folder) / clip.CONFIG_FILE).read_text())
    vision = {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 32}
    config["model_cfg"]["vision_cfg"] = vision
    (tmp_path / clip.CONFIG_FILE).write_text(json.dumps(config))
    clip.save_model(clip.build_model(tmp_path), tmp_path)
    with pytest.raises(ModelError, match="at least one patch, 32 pixels, got 16"):
        clip.load_model(str(tmp_path))
