"""Every Python snippet of the README runs as it is printed, and prints what its comments say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_readme_shows_every_wrapper():
    text = "\n".join(SNIPPETS)
    for name in (
        "VLMReward(",
        "VLMRewardWrapper(",
        "VLMRewardVecEnv(",
        "make_vec_env(",
        "Renderer(",
    ):
        assert name in text


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS, ids=[f"snippet{i}" for i in range(len(SNIPPETS))])
def test_snippet_runs_and_prints_its_comments(snippet, tmp_path):
    expected = re.findall(r"^\s*print\(.*\)\s+# (.*)$", snippet, flags=re.MULTILINE)
    result = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == expected
