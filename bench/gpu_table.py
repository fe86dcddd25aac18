"""The table of GPU figures, made from bench/results/gpu.json."""

from __future__ import annotations

from typing import Any

NOT_MEASURED = "not measured yet"


class Rows:
    """Lines of the table.

    Args:
        results: content of gpu.json.
    """

    def __init__(self, results: dict[str, Any]) -> None:
        self.phases = results["phases"]
        self.lines: list[str] = []
        ceiling = self.figures("bandwidth")
        self.copy = ceiling.get("copy_gb_s")
        self.matrix = ceiling.get("matrix_tflop_s")

    def figures(self, phase: str) -> dict[str, Any]:
        """Return a phase's figures; empty where it did not run."""
        return self.phases.get(phase, {}).get("figures", {})

    def add(self, what: str, measured: str, against: str, value: Any, goal: Any) -> None:
        """Add a line; a goal is ("x", least) or ("us", most)."""
        text = ""
        if goal is not None:
            unit, bound = goal
            met = value <= bound if unit == "us" else value >= bound
            text = {"us": f"<= {bound} us", "x": f">= {bound}x", "%": f">= {bound:.0%}"}[unit]
            text = text if met else f"**{text}: missed**"
        self.lines.append(f"| {what} | {measured} | {against} | {text} |")

    def share(self, gb_s: float) -> str:
        """Return a rate as a share of the copy's."""
        return f"{gb_s / self.copy:.0%} of a copy's bandwidth" if self.copy else f"{gb_s:.0f} GB/s"


def compiled(row: dict[str, Any]) -> str:
    """Return the ratio to torch.compile, where that was measured."""
    return f", {row['ratio_to_compile']:.2f}x compiled" if "ratio_to_compile" in row else ""


def _preprocess(rows: Rows) -> None:
    for name, row in rows.figures("preprocess").items():
        what, measured = f"preprocess, {name}", f"{row['us_a_frame']:.2f} us a frame"
        measured += f", {rows.share(row['gb_s'])}"
        goal = ("us", 1.0) if name.startswith("own") and "tokens B=512" in name else None
        against = f"{row['ratio_to_eager']:.1f}x eager"
        rows.add(what, measured, against, row["us_a_frame"], goal)
        if "ratio_to_compile" in row and "tokens" in name and not name.startswith("equal"):
            ratio = row["ratio_to_compile"]
            rows.add(what, "", f"{ratio:.1f}x torch.compile", ratio, ("x", 2))
            ratio = row["ratio_to_eager"]
            rows.add(what, "", f"{ratio:.1f}x eager", ratio, ("x", 10))


def _score(rows: Rows) -> None:
    goals = {"P=1 ": 5, "P=16 ": 20, "P=256 ": 100}
    for name, row in rows.figures("score").items():
        ratio = row["ratio_to_original_called"]
        measured = f"{row['ours_us']:.1f} us in a graph, {row['ours_call_us']:.1f} us called"
        against = f"{ratio:.1f}x the D x D path, {row['ratio_to_eager']:.1f}x eager closed form"
        against += compiled(row)
        goal = next((("x", least) for key, least in goals.items() if name.startswith(key)), None)
        rows.add(f"score, {name}", measured, against, ratio, goal)


def _add_layernorm(rows: Rows) -> None:
    for name, row in rows.figures("add_layernorm").items():
        what, measured = f"add_layernorm, {name}", f"{row['ours_us']:.0f} us"
        ratio = row["ratio_to_eager"]
        against = f"{ratio:.1f}x eager{compiled(row)}"
        rows.add(what, measured, against, ratio, ("x", 2.5))
        if rows.copy:
            share = row["gb_s"] / rows.copy
            rows.add(what, f"{row['gb_s']:.0f} GB/s", rows.share(row["gb_s"]), share, ("%", 0.75))


def _reward_head(rows: Rows) -> None:
    for name, row in rows.figures("reward_head").items():
        ratio = row["ratio_to_original_called"]
        measured = f"{row['ours_us']:.1f} us in a graph, {row['ours_call_us']:.1f} us called"
        against = f"{ratio:.1f}x the D x D path, {row['ratio_to_eager']:.1f}x eager"
        rows.add(f"reward_head, {name}", measured, against + compiled(row), ratio, None)


def _quantize(rows: Rows) -> None:
    for name, row in rows.figures("quantize").items():
        measured = f"{row['ours_us']:.0f} us, {rows.share(row['gb_s'])}"
        against = f"{row['ratio_to_eager']:.1f}x eager{compiled(row)}"
        rows.add(f"quantize, {name}", measured, against, row["ratio_to_eager"], None)


def _visibility(rows: Rows) -> None:
    if row := rows.figures("visibility"):
        what, rate = "depth and shape a pixel, 20 capsules, 224 x 224", f"{row['frames_s']:,.0f}/s"
        rows.add(what, rate, "", row["frames_s"], None)


def _towers(rows: Rows) -> None:
    # Against the paper's path in fp16 and fp8, and the share of the matrix rate.
    goals = {
        "ViT-B-32": (4, 5, 0.6),
        "ViT-L-14": (1.6, 2.2, 0.65),
        "ViT-H-14": (1.45, 2, 0.65),
        "ViT-bigG-14": (1.25, 1.7, 0.7),
    }
    for name, (least, eight, share_goal) in goals.items():
        batches = {k: v for k, v in rows.figures(name).items() if k.startswith("B=")}
        for key, row in batches.items():
            largest = key == list(batches)[-1]
            ratio = row["same_frames_ratio"]
            measured = f"{row['same_frames_frames_s']:,.0f} frames/s of 480 x 480, "
            measured += f"{row['drawn_at_size_frames_s']:,.0f} of 224 x 224"
            against = (
                f"{ratio:.2f}x the paper's path; {row['drawn_at_size_ratio']:.2f}x drawn at 224"
            )
            what = f"{name}, {key}, host to host"
            rows.add(what, measured, against, ratio, ("x", least) if largest else None)
            if key == "B=8":
                ratio = row["plain_latency_ms"] / row["same_frames_latency_ms"]
                took = f"{row['same_frames_latency_ms']:.2f} ms"
                rows.add(f"{name}, {key}, latency", took, f"{ratio:.2f}x", ratio, ("x", 4))
            if rows.matrix:
                share = row["lean_tflop_s"] / rows.matrix
                measured = (
                    f"{row['lean_frames_s']:,.0f} frames/s, {row['lean_tflop_s']:.0f} TFLOP/s"
                )
                against = f"{share:.0%} of the matrix rate; products alone "
                against += f"{row['products_ms'] / row['lean_ms']:.0%} of its time"
                goal = ("%", share_goal) if largest else None
                rows.add(f"{name}, {key}, tower alone", measured, against, share, goal)
            if "fp8_ratio" in row:
                ratio, goal = row["fp8_ratio"], ("x", eight) if largest else None
                rate = f"{row['fp8_frames_s']:,.0f} frames/s"
                against = f"{ratio:.2f}x the paper's path; the tower alone "
                against += f"{row['fp8_ratio_to_fp16']:.2f}x fp16's, "
                against += f"cosine >= {row['fp8_least_cosine']:.4f}"
                rows.add(f"{name}, {key}, fp8, host to host", rate, against, ratio, goal)
    for name in goals:
        if row := rows.figures(f"compiled {name}"):
            ratio, rate = row["ratio_to_compile"], f"{row['same_frames_frames_s']:,.0f} frames/s"
            what = f"{name}, B={row['batch']}, host to host"
            rows.add(what, rate, f"{ratio:.2f}x torch.compile(max-autotune)", ratio, ("x", 1.1))


def _loops(rows: Rows) -> None:
    for key, row in rows.figures("loop ViT-L-14").items():
        what, share = f"ViT-L-14, {key}, whole loop, frames {row['how']}", row["share_of_tower"]
        measured = f"{row['loop_frames_s']:,.0f} frames/s"
        against = f"{share:.0%} of the tower alone ({row['tower_frames_s']:,.0f} frames/s)"
        goal = ("%", 0.95) if key in {"B=32", "B=128"} else None
        rows.add(what, measured, against, share, goal)
        if "latency_ms" in row:
            ratio, took = row["latency_ratio"], f"{row['latency_ms']:.2f} ms"
            rows.add(f"ViT-L-14, {key}, latency", took, f"{ratio:.2f}x", ratio, ("x", 4))


def gpu_table(results: dict[str, Any] | None) -> str:
    """Return the table of gpu.json, or that there is none yet.

    Args:
        results: content of gpu.json, or None.
    """
    if results is None:
        return f"Kernels and towers on a GPU: {NOT_MEASURED}."
    rows = Rows(results)
    parts = (_preprocess, _score, _add_layernorm, _reward_head, _quantize, _visibility)
    parts += (_towers, _loops)
    for part in parts:
        part(rows)
    table = ["| on a GPU | measured | against | goal |", "|---|---|---|---|", *rows.lines]
    machine = results["machine"]
    line = f"{machine.get('device', '?')}; torch {machine.get('torch')}, triton "
    line += f"{machine.get('triton')}, CUDA {machine.get('cuda')}."
    if rows.copy:
        line += f" Copy on the device {rows.copy:,.0f} GB/s, fp16 matrix rate {rows.matrix:.0f} "
        line += "TFLOP/s on random data."
    missing = [name for name, phase in results["phases"].items() if phase["status"] != "ok"]
    if missing:
        line += f" {NOT_MEASURED.capitalize()}: {', '.join(missing)}."
    return "\n".join([*table, "", line])
