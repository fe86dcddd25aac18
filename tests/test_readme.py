"""Python snippets of README and docs run as they are printed, and print what their comments say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The renderer's page shows calls without the model that they need.
TESTED = ("scoring", "prompt-lab", "looks", "tasks", "reward-options", "relabel", "classic-control")
PAGES = ("README.md", *(f"docs/{name}.md" for name in TESTED))
SNIPPETS = {
    f"{page}-{index}": snippet
    for page in PAGES
    for index, snippet in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    )
}


def test_readme_shows_every_wrapper():
    text = "\n".join(SNIPPETS.values())
    for name in (
        "VLMReward(",
        "VLMRewardWrapper(",
        "VLMRewardVecEnv(",
        "make_vec_env(",
        "Renderer(",
    ):
        assert name in text


@pytest.mark.slow
@pytest.mark.parametrize("name", SNIPPETS)
def test_snippet_runs_and_prints_its_comments(name, tmp_path):
    snippet = SNIPPETS[name]
    expected = re.findall(r"^\s*print\(.*\)\s+# (.*)$", snippet, flags=re.MULTILINE)
    result = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == expected
