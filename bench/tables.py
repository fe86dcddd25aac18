"""Write the README tables from `bench/results/*.json`: every figure there was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
EVALUATION = ROOT / "vlmrm_fast" / "assets" / "builtin" / "evaluation.json"


def load(name: str) -> dict[str, Any]:
    """Return a result file of pytest-benchmark."""
    return json.loads((RESULTS / name).read_text())


def find(results: dict[str, Any], test: str) -> dict[str, Any]:
    """Return the `extra_info` of the benchmark whose name is `test`."""
    (info,) = [b["extra_info"] for b in results["benchmarks"] if b["name"] == test]
    return info


def machine_line(results: dict[str, Any]) -> str:
    """Say in words what the figures were taken on."""
    info = results["machine_info"]
    packages = ", ".join(f"{k} {v}" for k, v in info["packages"].items())
    brand = info["cpu"].get("brand_raw", info["machine"])
    return (
        f"{info['cores']} cores ({brand}), no GPU, Python {info['python_version']}; {packages}. "
        "Ratios are medians of interleaved pairs in one run."
    )


def speed_table(results: dict[str, Any]) -> str:
    """Return the table of "How fast"."""
    render = find(results, "test_ray_over_mujoco_renderer")
    frames = find(results, "test_ray")["frames_per_second"]
    native = find(results, "test_native_steps_with_pictures")
    rows = [
        (
            "draw the humanoid, 224x224, shadows, reflection, anti-aliasing",
            f"{frames:,.0f} frames/s",
            f"{render['speedup_median']:.0f}x `mujoco.Renderer` (software OpenGL)",
        ),
        (
            "step and draw the humanoid, 224x224",
            f"{native['steps_per_second']:,.0f} env-steps/s",
            f"{native['ratio_to_gymnasium']:.0f}x gymnasium's `SyncVectorEnv` + `render()`",
        ),
    ]
    for model in ("builtin", "ViT-B-32"):
        for batch in (1, 64):
            info = find(results, f"test_reward[{batch}-{model}]")
            size = f"{info['size']}x{info['size']}"
            rows.append((
                f"reward of uint8 frames {size}, {model}, batch {batch}",
                f"{info['images_per_second']:,.0f} frames/s",
                f"{info['ratio_to_open_clip']:.2f}x plain open_clip",
            ))
    table = ["| what | measured | against |", "|---|---|---|"]
    table += [f"| {what} | {rate} | {ratio} |" for what, rate, ratio in rows]
    return "\n".join([*table, "", machine_line(results)])


def training_table(results: dict[str, Any]) -> str:
    """Return the table of training speed and its shares."""
    stages = ("simulate", "draw", "encode", "learn")
    heads = " | ".join(stages)
    table = [
        f"| `cartpole-upright`, end to end | env-steps/s | {heads} |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("task", "SAC"):
        info = find(results, f"test_training_end_to_end[{name}]")
        shares = " | ".join(f"{100 * info[f'share_{stage}']:.0f} %" for stage in stages)
        speed = f"{info['steps_per_second']:,.0f}"
        table.append(f"| {info['algorithm']}, {info['num_envs']} worlds | {speed} | {shares} |")
    return "\n".join(table)


def claim(results: dict[str, Any]) -> str:
    """Return the sentence of the first screen."""
    ratio = find(results, "test_ray_over_mujoco_renderer")["speedup_median"]
    frames = find(results, "test_ray")["frames_per_second"]
    steps = find(results, "test_training_end_to_end[task]")["steps_per_second"]
    return (
        f"On two CPU cores it draws MuJoCo's humanoid at {frames:,.0f} frames/s (224x224), "
        f"{ratio:.0f} times as fast as\n`mujoco.Renderer` there, and trains a cart-pole from its "
        f"sentence at {steps:,.0f} environment steps a second, learning included."
    )


def builtin_table(held_out: dict[str, Any]) -> str:
    """Return the table of the built-in model's accuracy, for alpha 0."""
    table = [
        "| pictures | upright pole | kneeling: standing | lying | random | sitting | one knee |",
        "|---|---|---|---|---|---|---|",
    ]
    others = ("standing", "lying", "random", "sitting", "one knee")
    for view, label in (("task", "the task's camera and look"), ("varied", "random ones")):
        upright = held_out["cartpole"][view]["0.0"]["auc_upright"]
        kneeling = held_out["humanoid"][view]["0.0"]["auc"]
        cells = " | ".join(f"{kneeling[name]:.3f}" for name in others)
        table.append(f"| {label} | {upright:.3f} | {cells} |")
    legend = "Area under the ROC curve (0.5 is chance) of upright poles and of kneeling robots."
    return "\n".join([*table, "", legend])


def replace_block(text: str, name: str, content: str) -> str:
    """Replace what stands between the two markers `name`."""
    pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
    new, count = re.subn(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)
    assert count == 1, f"README.md must hold one block {name!r}, found {count}"
    return new


def main() -> None:
    """Rewrite README.md."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    results = load("cpu.json")
    text = replace_block(text, "claim", claim(results))
    tables = f"{speed_table(results)}\n\n{training_table(results)}"
    text = replace_block(text, "table", tables)
    held_out = json.loads(EVALUATION.read_text())["held_out"]
    text = replace_block(text, "builtin", builtin_table(held_out))
    readme.write_text(text)


if __name__ == "__main__":
    main()
