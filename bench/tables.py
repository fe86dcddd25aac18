"""Write the README tables from `bench/results/*.json`: every figure there was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from gpu_table import gpu_table

from vlmrm_fast.fidelity import GATES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
LIKENESS = {
    "test_likeness": "gymnasium models",
    "test_likeness_of_a_task": "task scenes",
    "test_likeness_of_a_feature": "small scenes, one a feature",
}
EVALUATION = ROOT / "vlmrm_fast" / "assets" / "builtin" / "evaluation.json"


def load(name: str) -> dict[str, Any]:
    """Return a result file."""
    return json.loads((RESULTS / name).read_text())


def find(results: dict[str, Any], test: str) -> dict[str, Any]:
    """Return the `extra_info` of the benchmark whose name is `test`."""
    (info,) = [b["extra_info"] for b in results["benchmarks"] if b["name"] == test]
    return info


def look_up(results: dict[str, Any], test: str) -> dict[str, Any] | None:
    """As `find`, or None where the benchmark was skipped."""
    names = {b["name"] for b in results["benchmarks"] if len(b["extra_info"]) > 0}
    return find(results, test) if test in names else None


class Row(NamedTuple):
    """One line of the renderer's table."""

    what: str
    measured: str
    against: str
    goal: str | None
    met: bool


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
    rows = []
    for model in ("builtin", "ViT-B-32"):
        for batch in (1, 64):
            info = find(results, f"test_reward[{batch}-{model}]")
            size = f"{info['size']}x{info['size']}"
            rows.append((
                f"reward of uint8 frames {size}, {model}, batch {batch}",
                f"{info['images_per_second']:,.0f} frames/s",
                f"{info['ratio_to_open_clip']:.2f}x plain open_clip",
            ))
    for prompts in (1, 16):
        if info := look_up(results, f"test_score[{prompts}]"):
            what = f"score {info['B']} embeddings of width {info['D']}, {prompts} prompt"
            rate = f"{info['scores_per_second'] / 1e6:.1f} million scores/s"
            ratio = f"{info['ratio']:.0f}x the D x D projection"
            rows.append((what + "s" * (prompts > 1), rate, ratio))
    for prompts in (1, 16):
        if info := look_up(results, f"test_reward_head[{prompts}]"):
            what = f"pooled rows to rewards, {info['B']} x {info['W']}, {prompts} prompt"
            rate = f"{info['scores_per_second'] / 1e6:.1f} million scores/s"
            ratio = f"{info['ratio']:.1f}x open_clip's last layers and the D x D projection"
            rows.append((what + "s" * (prompts > 1), rate, ratio))
    table = ["| what | measured | against |", "|---|---|---|"]
    table += [f"| {what} | {rate} | {ratio} |" for what, rate, ratio in rows]
    return "\n".join([*table, "", machine_line(results)])


def tower_rows(results: dict[str, Any]) -> list[Row]:
    """Return the rows of image towers, preprocessing and many prompts on the CPU."""
    rows = []
    goals = {"fp32": {1: 1.07, 8: 1.15, 16: 1.15}, "int8": {1: 2.5, 8: 1.6, 16: 1.6}, "bf16": {}}
    for precision, least in goals.items():
        for batch in (1, 8, 16):
            what = f"ViT-B-32 in {precision}, batch {batch}"
            goal = f">= {least[batch]}x" if batch in least else None
            info = look_up(results, f"test_tower[{batch}-{precision}]")
            if info is None:
                rows.append(Row(what, "not measured", "", goal, False))
                continue
            rate = f"{info['images_per_second']:,.1f} frames/s"
            against = f"{info['ratio']:.2f}x open_clip in float32, cosine {info['cosine']:.6f}"
            rows.append(Row(what, rate, against, goal, info["ratio"] >= least.get(batch, 0)))
    for side in (480, 224):
        info = find(results, f"test_cpu_preprocess[{side}]")
        rate = f"{info['images_per_second']:,.0f} frames/s"
        against = f"{info['ratio']:.1f}x open_clip's transform, within {info['levels']:.0f} level"
        what = f"frames {side}x{side} to 224x224 pixels"
        rows.append(Row(what, rate, against, ">= 2x", info["ratio"] >= 2))
    info = find(results, "test_many_prompts")
    took = f"{info['time_over_one']:.2f} of the time"
    what = f"{info['prompts']} prompts, ViT-B-32, batch {info['batch']}"
    rows.append(Row(what, took, "one prompt", "< 1.1", info["time_over_one"] < 1.1))
    if info := look_up(results, "test_lab"):
        what = f"lab: {info['prompts']} prompts x {info['alphas']} alphas, {info['frames']} frames"
        took = f"{info['ratio']:.2f} of the time"
        rows.append(Row(what, took, "encoding the frames once", "<= 1.1", info["ratio"] <= 1.1))
    for task in ("cartpole-upright", "humanoid-kneeling"):
        for precision in goals:
            if (info := look_up(results, f"test_fidelity[{task}-{precision}]")) is None:
                continue
            error, least = GATES[precision]
            what = f"builtin in {precision}, rewards of {task}"
            took = f"error {info['max_error']:.1e}, Spearman {info['spearman']:.5f}"
            gate = f"<= {error:.1e}, >= {least}"
            rows.append(Row(what, took, "open_clip in float32", gate, info["passed"]))
    return rows


def towers_table(results: dict[str, Any]) -> str:
    """Return the table of image towers on the CPU."""
    table = ["| what | measured | against | goal |", "|---|---|---|---|"]
    for row in tower_rows(results):
        goal = "" if row.goal is None else row.goal if row.met else f"**{row.goal}: missed**"
        table.append(f"| {row.what} | {row.measured} | {row.against} | {goal} |")
    return "\n".join(table)


def speed_rows(results: dict[str, Any]) -> list[Row]:
    """Return the renderer's rows of speed and memory."""
    rows = []
    draws = {
        "draw the humanoid, 224x224, moving camera": ("test_ray[224-moving]", 150),
        "224x224, still camera": ("test_ray[224-still]", 350),
        "480x480, moving camera": ("test_ray[480-moving]", None),
        "480x480, still camera": ("test_ray[480-still]", 180),
        "meshes of 100,000 triangles, 224x224": ("test_ray_meshes", 20),
    }
    for what, (test, goal) in draws.items():
        if (info := look_up(results, test)) is None:
            rows.append(Row(what, "not measured", "", goal and f">= {goal}x", False))
            continue
        speed = f"{info['frames_per_second']:,.0f} frames/s"
        against = f"{info['ratio']:.0f}x `mujoco.Renderer`"
        goal_text = goal and f">= {goal}x"
        rows.append(Row(what, speed, against, goal_text, goal is None or info["ratio"] >= goal))
    for kind, goal in (("async", 100), ("sync", None)):
        info = find(results, f"test_native_steps_with_pictures[{kind}]")
        what = f"step and draw {info['N']} humanoids, 224x224"
        speed = f"{info['steps_per_second']:,.0f} env-steps/s"
        against = f"{info['ratio']:.0f}x `{info['baseline'].rpartition('.')[2]}`"
        met = goal is None or info["ratio"] >= goal
        rows.append(Row(what, speed, against, goal and f">= {goal}x", met))
    for camera in ("moving", "still"):
        info = find(results, f"test_a_second_thread[{camera}]")
        ratio, lone = info["ratio"], info.get("two_processes")
        what = f"a second thread, {camera} camera"
        against = "one thread" + (f"; two processes: {lone:.2f}" if lone else "")
        rows.append(Row(what, f"{ratio:.2f} a core", against, ">= 0.95", ratio >= 0.95))
    used = find(results, "test_memory_of_a_worker")["bytes_a_worker"] / 1e6
    rows.append(Row("memory of a worker, humanoid", f"{used:.2f} MB", "", "< 2 MB", used < 2))
    ratio = find(results, "test_fused[32]")["ratio"]
    what = "step and draw each world on one core"
    rows.append(Row(what, f"{ratio:.2f}x", "stepping all, then drawing", None, True))
    for dtype in ("uint8", "float32", "float16", "bfloat16"):
        info = find(results, f"test_output[{dtype}]")
        took = f"{info['time_over_plain']:.2f} of the time of bytes, channels last"
        against = f"{info['ratio']:.2f}x converting with torch"
        rows.append(Row(f"channels first, {dtype}", took, against, None, True))
    return rows


def likeness(results: dict[str, Any], test: str) -> dict[str, dict[str, Any]]:
    """Return the figures of a group of scenes by name."""
    name = re.compile(re.escape(test) + r"\[(.*)\]")
    return {
        match[1]: b["extra_info"]
        for b in results["benchmarks"]
        if (match := name.fullmatch(b["name"])) and "psnr" in b["extra_info"]
    }


def likeness_misses(results: dict[str, Any]) -> str:
    """Return a table of the scenes that are outside of the bounds, and why."""
    table = ["| scene | PSNR | SSIM | off by more than 16 | why |", "|---|---|---|---|---|"]
    for test in LIKENESS:
        for scene, info in likeness(results, test).items():
            if info["psnr"] >= 40 and info["ssim"] >= 0.995 and info["off"] <= 0.005:
                continue
            figures = f"{info['psnr']:.1f} dB | {info['ssim']:.4f} | {info['off']:.2%}"
            table.append(f"| {scene} | {figures} | {info['reason'] or 'not traced'} |")
    return "\n".join(table)


def likeness_rows(results: dict[str, Any], test: str, kind: str) -> list[Row]:
    """Return what a group of scenes reaches: how many, and the worst."""
    scenes = likeness(results, test)
    if not scenes:
        return [Row(f"likeness, {kind}", "not measured", "", ">= 40 dB", False)]
    rows = []
    for key, label, form, goal, sign in (
        ("psnr", "PSNR", "{:.1f} dB", 40, 1),
        ("ssim", "SSIM", "{:.4f}", 0.995, 1),
        ("off", "pixels off by more than 16", "{:.2%}", 0.005, -1),
    ):
        good = [scene for scene, info in scenes.items() if sign * info[key] >= sign * goal]
        worst = min(scenes, key=lambda scene: sign * scenes[scene][key])
        share = f"worst {form.format(scenes[worst][key])} ({worst})"
        what = f"{label}, {len(scenes)} {kind}"
        text = f"{'>=' if sign > 0 else '<='} {form.format(goal)}"
        met = len(good) == len(scenes)
        rows.append(Row(what, f"{len(good)} of {len(scenes)}; {share}", "", text, met))
    return rows


def fidelity_rows(results: dict[str, Any]) -> list[Row]:
    """Return the renderer's rows of likeness."""
    rows = []
    for test, kind in LIKENESS.items():
        rows += likeness_rows(results, test, kind)
    tests = "test_rewards_on_both_pictures"
    for task in ("cartpole-upright", "humanoid-kneeling"):
        if (info := look_up(results, f"{tests}[{task}]")) is None:
            continue
        for way in (key for key, value in info.items() if isinstance(value, dict)):
            rho = info[way]["spearman"]
            what = f"rewards on both pictures {way}, {task}"
            against = "`mujoco.Renderer`'s picture"
            rows.append(Row(what, f"Spearman {rho:.4f}", against, ">= 0.999", rho >= 0.999))
        sizes = find(results, f"test_rewards_by_drawing_size[{task}]")
        for way in (key for key, value in sizes.items() if isinstance(value, dict)):
            info = sizes[way]
            gap = f"mean {info['mean_difference']:.4f}, max {info['max_difference']:.4f}"
            took = f"Spearman {info['spearman']:.4f}; difference {gap}, spread {info['spread']:.4f}"
            rows.append(Row(f"{task}: {way}", took, "drawn at 480, resized", None, True))
    return rows


def renderer_table(results: dict[str, Any]) -> str:
    """Return the table of the renderer, with misses of its goals in bold."""
    table = ["| what | measured | against | goal |", "|---|---|---|---|"]
    for row in speed_rows(results) + fidelity_rows(results):
        goal = "" if row.goal is None else row.goal if row.met else f"**{row.goal}: missed**"
        table.append(f"| {row.what} | {row.measured} | {row.against} | {goal} |")
    info = find(results, "test_ray[224-moving]")
    how = (
        f"Shadows, reflection and anti-aliasing as in MuJoCo; {info['threads']} threads, "
        f"{info['simd']}; `mujoco.Renderer` on software OpenGL."
    )
    return "\n".join([*table, "", how])


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


def relabel_table(results: dict[str, Any]) -> str:
    """Return the table of relabelling stored trajectories; empty where it was not measured."""
    table = [
        "| relabel | frames/s | of the encoder's own rate | goal |",
        "|---|---|---|---|",
    ]
    for case in ("builtin-video", "builtin-cartpole", "builtin-humanoid", "ViT-B-32-video"):
        if (info := look_up(results, f"test_relabel[{case}]")) is None:
            continue
        ratio = info["ratio_to_encoder"]
        goal = ">= 0.9" if ratio >= 0.9 else "**>= 0.9: missed**"
        what = f"{info['stored']}, {info['model']}"
        table.append(f"| {what} | {info['frames_per_second']:,.0f} | {ratio:.2f} | {goal} |")
    return "\n".join(table) if len(table) > 2 else ""


def deferred_table(results: dict[str, Any]) -> str:
    """Return the table of training with rewards that come later."""
    table = [
        "| `cartpole-upright`, rewards deferred | torch threads | env-steps/s | against |",
        "|---|---|---|---|",
    ]
    for algorithm in ("PPO", "SAC"):
        for threads in (1, 2):
            info = look_up(results, f"test_deferred_training[{algorithm}-{threads}]")
            if info is not None:
                speed, ratio = f"{info['steps_per_second']:,.0f}", f"{info['ratio']:.2f}x"
                against = f"{ratio} rewards at each step"
                table.append(f"| {algorithm} | {threads} | {speed} | {against} |")
    return "\n".join(table) if len(table) > 2 else ""


def skipping_table(results: dict[str, Any]) -> str:
    """Return the table of scoring every k-th step, with misses of its goals in bold."""
    table = [
        "| `cartpole-upright`, built-in model | env-steps a CPU second | against | goal |",
        "|---|---|---|---|",
    ]
    for every, goal in ((2, 1.7), (4, 3.0), (8, 5.0)):
        info = look_up(results, f"test_score_every[{every}]")
        if info is None:
            table.append(f"| score_every={every} | not measured | | **>= {goal}x: missed** |")
            continue
        wanted = f">= {goal}x"
        wanted = wanted if info["ratio"] >= goal else f"**{wanted}: missed**"
        speed, ratio = f"{info['steps_per_cpu_second']:,.0f}", f"{info['ratio']:.2f}x every step"
        table.append(f"| score_every={every} | {speed} | {ratio} | {wanted} |")
    return "\n".join(table)


def claim(results: dict[str, Any]) -> str:
    """Return the sentence of the first screen."""
    render = find(results, "test_ray[224-moving]")
    ratio, frames = render["ratio"], render["frames_per_second"]
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
    """Replace what stands between the two markers `name` of a page."""
    pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
    new, count = re.subn(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)
    assert count == 1, f"the page must hold one block {name!r}, found {count}"
    return new


def main() -> None:
    """Rewrite the tables of README.md, docs/renderer.md and docs/reward-options.md."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    results = load("cpu.json")
    text = replace_block(text, "claim", claim(results))
    tables = f"{speed_table(results)}\n\n{towers_table(results)}\n\n{training_table(results)}"
    if deferred := deferred_table(results):
        tables += f"\n\n{deferred}"
    if relabelled := relabel_table(results):
        tables += f"\n\n{relabelled}"
    text = replace_block(text, "table", tables)
    text = replace_block(text, "renderer", renderer_table(results))
    measured = RESULTS / "gpu.json"
    text = replace_block(text, "gpu", gpu_table(load("gpu.json") if measured.exists() else None))
    held_out = json.loads(EVALUATION.read_text())["held_out"]
    text = replace_block(text, "builtin", builtin_table(held_out))
    readme.write_text(text)
    page = ROOT / "docs" / "renderer.md"
    page.write_text(replace_block(page.read_text(), "likeness", likeness_misses(results)))
    page = ROOT / "docs" / "reward-options.md"
    page.write_text(replace_block(page.read_text(), "skipping", skipping_table(results)))


if __name__ == "__main__":
    main()
