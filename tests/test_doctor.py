"""The doctor finds what is wrong, and says what to do about it."""

from __future__ import annotations

import json

import pytest

from vlmrm_fast import doctor
from vlmrm_fast.doctor import DoctorConfig, Finding


def test_a_sound_installation_has_no_problem_but_the_optional_ones() -> None:
    findings = {finding.name: finding for finding in doctor.examine(measure=False)}
    for name in ("python", "numpy", "torch", "mujoco", "gymnasium", "renderer", "disk"):
        assert findings[name].status != "problem", findings[name]
    assert findings["renderer"].value.startswith("ray, ")
    for finding in findings.values():
        assert finding.status == "ok" or finding.fix


def test_json_and_exit_code_say_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = Finding("a", "ok", "1"), Finding("b", "problem", "2", "mend it")
    for findings, code in (([good], 0), ([good, bad], 1)):
        monkeypatch.setattr(doctor, "examine", lambda measure, found=findings: found)
        assert doctor.run_doctor(DoctorConfig(json=True)) == code
        document = json.loads(capsys.readouterr().out)
        assert document["healthy"] is (code == 0)
        assert len(document["findings"]) == len(findings)
        assert doctor.run_doctor(DoctorConfig()) == code
        assert ("mend it" in capsys.readouterr().out) is (code == 1)


def test_an_old_or_missing_package_is_a_problem_with_its_command() -> None:
    old = doctor._package("numpy", "999.1")
    assert old.status == "problem"
    assert old.fix == "pip install --upgrade 'numpy>=999.1'"
    missing = doctor._package("no-such-package-here", "1")
    assert (missing.status, missing.value) == ("problem", "not installed")


def test_a_probe_that_dies_of_a_signal_is_reported_by_name() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    assert doctor._run_probe(code) == "the process died of SIGSEGV"
    assert doctor._run_probe("raise SystemExit('out of luck')") == "out of luck"
    assert doctor._run_probe("print('fine')") == "fine"


def test_a_check_that_raises_becomes_a_finding() -> None:
    def broken_check() -> Finding:
        raise RuntimeError("boom")

    finding = doctor._guarded(broken_check)
    assert (finding.name, finding.status) == ("broken check", "problem")
    assert "boom" in finding.value
    assert finding.fix


def test_speeds_are_measured() -> None:
    finding = doctor._frames_per_second()
    assert finding.status == "ok"
    assert "frames/s" in finding.value
