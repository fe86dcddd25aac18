"""Phases of bench/gpu.py: the machine's two ceilings, and each kernel against eager and compile."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import torch
from gpu_timing import Clock, error
from torch.nn import functional

from vlmrm_fast.kernels import ops, reference
from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing, Tasks

Result = dict[str, Any]


def bandwidth(clock: Clock, small: bool) -> Result:
    """Measure copies, pinned and pageable, and the 16-bit matrix rate on random data."""
    device, count = clock.device, 1 << (16 if small else 31)
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    host = torch.empty(count // 8, dtype=torch.uint8, pin_memory=clock.cuda)
    plain, part = torch.empty_like(host), source[: count // 8]
    side = 64 if small else 8192
    a, b = torch.randn(2, side, side, dtype=torch.float16, device=device)
    return {
        "copy_gb_s": 2 * count / clock.calls(lambda _: target.copy_(source)) / 1e9,
        "pinned_to_device_gb_s": len(host)
        / clock.calls(lambda _: part.copy_(host, non_blocking=True)) / 1e9,
        "pageable_to_device_gb_s": len(host) / clock.wall(lambda _: part.copy_(plain), 3) / 1e9,
        "device_to_pinned_gb_s": len(host)
        / clock.calls(lambda _: host.copy_(part, non_blocking=True)) / 1e9,
        "matrix_tflop_s": 2 * side**3 / clock.calls(lambda _: a @ b) / 1e12,
    }  # fmt: skip


def three_ways(clock: Clock, ours: Any, eager: Any, inputs: list[Any], compiled: bool) -> Result:
    """Time our op, its eager twin and the compiled twin: called one by one, and within a graph.

    Args:
        clock: of the device.
        ours: a function of one element of `inputs`.
        eager: likewise.
        inputs: taken in turn, so that none stays in the cache.
        compiled: whether to compile `eager` too.
    """

    def turns(function: Any) -> Any:
        return lambda index: function(inputs[index % len(inputs)])

    times = {
        "ours_us": clock.graph(turns(ours)) * 1e6,
        "eager_us": clock.graph(turns(eager)) * 1e6,
        "ours_call_us": clock.calls(turns(ours)) * 1e6,
        "eager_call_us": clock.calls(turns(eager)) * 1e6,
    }
    if compiled:
        # Within a graph compiled code has no launch gaps: its best case.
        fast = torch.compile(eager, dynamic=False) if clock.cuda else eager
        times["compiled_us"] = clock.graph(turns(fast)) * 1e6
        times["ratio_to_compile"] = times["compiled_us"] / times["ours_us"]
    times["ratio_to_eager"] = times["eager_us"] / times["ours_us"]
    times["ratio_to_eager_called"] = times["eager_call_us"] / times["ours_call_us"]
    return times


def make_frames(clock: Clock, batch: int, side: int) -> list[torch.Tensor]:
    """Return several batches, so that none stays in the cache."""
    shape = (batch, side, side, 3)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, device=clock.device) for _ in range(4)]


def preprocess(clock: Clock, small: bool) -> Result:
    """Measure preprocessing into fp16: the model's own transform, the paper's, and equal size."""
    size, patch, sides, batches = (224, 14, (480, 224), (64, 512))
    if small:
        size, patch, sides, batches = (24, 8, (40, 24), (2,))
    how, half, results = Preprocessing(size, OPENAI_MEAN, OPENAI_STD), torch.float16, {}
    cases = [(sides[0], how, "own"), (sides[0], how.original(), "compat"), (sides[1], how, "equal")]
    for side, way, name in cases:
        for batch in batches:
            sets = make_frames(clock, batch, side)
            for layout in ("tokens", "nchw"):
                options = {"layout": layout, "patch": patch, "raw": True}

                def ours(frames: torch.Tensor, way=way, options=options) -> torch.Tensor:
                    return ops.preprocess(frames, way, half, **options)

                def eager(frames: torch.Tensor, way=way, options=options) -> torch.Tensor:
                    return reference.preprocess(frames, way, half, **options)

                compiled = batch == batches[0] and layout == "tokens" and name != "equal"
                times = three_ways(clock, ours, eager, sets, compiled)
                moved = batch * 3 * (side**2 + 2 * size**2)
                result = {**times, "us_a_frame": times["ours_us"] / batch, "bytes": moved}
                result["gb_s"] = moved / times["ours_us"] / 1e3
                off = (ours(sets[0]).float() - eager(sets[0]).float()).abs() * 256
                # Sums near n + 1/2 may round to the neighbouring level.
                result["off_by_a_level"] = float((off > 0.3).float().mean())
                assert float(off.max()) <= 1.3, f"{name}: off by {float(off.max())} levels"
                assert result["off_by_a_level"] <= 2e-3
                results[f"{name} {side} {layout} B={batch}"] = result
    return results


def tiles(clock: Clock, small: bool) -> Result:
    """Try other tiles of the resizing kernel: what to choose as its default."""
    from vlmrm_fast.kernels import preprocess as kernel

    size, side, batch = (24, 40, 2) if small else (224, 480, 256)
    how, sets, results = Preprocessing(size, OPENAI_MEAN, OPENAI_STD), [], {}
    sets = make_frames(clock, batch, side)
    options = {"layout": "tokens", "patch": 8 if small else 14, "raw": True}
    shapes = [
        (32, 16, 16, 64, 1), (32, 16, 16, 64, 1, 128), (32, 16, 16, 64, 1, 152),
        (32, 16, 16, 64, 2), (16, 16, 16, 64, 1), (64, 16, 16, 64, 1),
        (64, 16, 16, 64, 2), (32, 16, 32, 64, 2), (32, 32, 16, 128, 2), (32, 32, 16, 64, 2),
        (64, 32, 16, 64, 4), (32, 64, 16, 64, 4),
    ]  # fmt: skip
    for shape in shapes[:2] if small else shapes:
        tile = kernel.Tile(*shape)

        def call(index: int, tile=tile) -> torch.Tensor:
            frames = sets[index % 4]
            return kernel.preprocess(frames, how, torch.float16, tile=tile, **options)

        name = "rows {} columns {} steps {} {} warps {} registers {}".format(*shape, "free")
        try:
            results[name] = {"us_a_frame": clock.graph(call) / batch * 1e6}
        except Exception as failure:  # a tile that does not fit is a result too
            results[name] = {"failed": f"{type(failure).__name__}: {failure}"[:200]}
    return results


def make_tasks(prompts: int, width: int, device: torch.device) -> tuple[Tasks, Any]:
    """Return tasks and the (goal, projection) of each as the paper computes them."""
    goal, baseline = functional.normalize(torch.randn(2, prompts, width).double(), dim=-1)
    alpha = torch.full((prompts,), 0.5)
    direction = functional.normalize(goal - baseline, dim=-1)
    eye = torch.eye(width, dtype=torch.float64)
    pairs = [
        (g.float().to(device), (0.5 * torch.outer(d, d) + 0.5 * eye).float().to(device))
        for g, d in zip(goal[:32], direction[:32], strict=True)
    ]
    return reference.make_tasks(goal, baseline, alpha).to(device), pairs


def score(clock: Clock, small: bool) -> Result:
    """Measure scoring against the closed form in torch and the paper's D x D projection."""
    width, results = 64 if small else 1024, {}
    for batch in (5,) if small else (512, 10_000):
        z = torch.randn(batch, width, device=clock.device).half() * 5
        for prompts in (1, 17) if small else (1, 16, 256):
            tasks, pairs = make_tasks(prompts, width, clock.device)

            def original(_: int, z=z, pairs=pairs, prompts=prompts) -> torch.Tensor:
                rewards = []
                for index in range(prompts):
                    goal, projection = pairs[index % len(pairs)]
                    x = z.float() / z.float().norm(dim=-1, keepdim=True)
                    rewards.append(1 - ((x - goal) @ projection).square().sum(-1) / 2)
                return torch.stack(rewards, 1)

            def ours(rows: torch.Tensor, tasks=tasks) -> torch.Tensor:
                return ops.score(rows, tasks)

            def eager(rows: torch.Tensor, tasks=tasks) -> torch.Tensor:
                return reference.score(rows, tasks)

            result = three_ways(clock, ours, eager, [z], compiled=batch < 1000)
            result["original_call_us"] = clock.calls(original) * 1e6
            result["ratio_to_original_called"] = result["original_call_us"] / result["ours_call_us"]
            shown = min(prompts, len(pairs))
            result["error"] = error(ours(z)[:, :shown], original(0)[:, :shown])
            assert result["error"] <= 1e-5
            results[f"P={prompts} B={batch} D={width}"] = result
    return results


def add_layernorm(clock: Clock, small: bool) -> Result:
    """Measure residual sum and normalisation against eager autocast and compile."""
    results = {}
    shapes = [(3, 5, 48)] if small else [(512, 50, 768), (512, 257, 1024), (64, 257, 1664)]
    for shape in shapes:
        for stream in (torch.float16, torch.float32):
            sets = [torch.randn(shape, device=clock.device).to(stream) for _ in range(4)]
            delta = torch.randn(shape, device=clock.device).half()
            norm = torch.randn(2, shape[-1], device=clock.device).half().unbind()
            full = [part.float() for part in norm]

            def ours(x: torch.Tensor, delta=delta, norm=norm) -> Any:
                return ops.add_layernorm(x, delta, *norm, 1e-5)

            def eager(x: torch.Tensor, delta=delta, norm=full) -> Any:
                # Under autocast a normalisation returns float32, and the product casts it.
                total = x + delta
                return total, functional.layer_norm(total.float(), norm[0].shape, *norm).half()

            result = three_ways(clock, ours, eager, sets, compiled=stream == torch.float16)
            size = 2 if stream == torch.float16 else 4
            moved = sets[0].numel() * (2 * size + 2 + 2)
            result["bytes"], result["gb_s"] = moved, moved / result["ours_us"] / 1e3
            (total, y), (total_eager, y_eager) = ours(sets[0]), eager(sets[0])
            assert torch.equal(total, total_eager)
            result["error"] = error(y, y_eager)
            assert result["error"] <= 4e-2  # a unit in the last place of values up to 32
            results[f"{shape} {str(stream).removeprefix('torch.')} stream"] = result
    return results


def reward_head(clock: Clock, small: bool) -> Result:
    """Measure pooled rows to rewards, against the last layers and the D x D path."""
    results, half = {}, torch.float16
    shapes = [(5, 48, 64)] if small else [(512, 768, 512), (512, 1664, 1280), (32, 1664, 1280)]
    for batch, width, embed in shapes:
        sets = [torch.randn(batch, width, device=clock.device).to(half) for _ in range(4)]
        norm = torch.randn(2, width, device=clock.device).to(half).unbind()
        projection = (torch.randn(width, embed, device=clock.device) * width**-0.5).to(half)
        for prompts in (1, 16):
            tasks, pairs = make_tasks(prompts, embed, clock.device)

            def ours(rows: torch.Tensor, norm=norm, p=projection, tasks=tasks) -> torch.Tensor:
                return ops.reward_head(rows, *norm, 1e-5, p, tasks)

            def eager(rows: torch.Tensor, norm=norm, p=projection, tasks=tasks) -> torch.Tensor:
                return reference.reward_head(rows, *norm, 1e-5, p, tasks)

            def original(_: int, sets=sets, norm=norm, p=projection, pairs=pairs) -> torch.Tensor:
                z = functional.layer_norm(sets[0], norm[0].shape, *norm, 1e-5) @ p
                x = functional.normalize(z.float(), dim=-1)
                rewards = [1 - ((x - g) @ m).square().sum(-1) / 2 for g, m in pairs]
                return torch.stack(rewards, 1)

            result = three_ways(clock, ours, eager, sets, compiled=width == shapes[0][1])
            result["original_call_us"] = clock.calls(original) * 1e6
            result["ratio_to_original_called"] = result["original_call_us"] / result["ours_call_us"]
            result["error"] = error(ours(sets[0]), original(0))
            assert result["error"] <= 5e-3  # two products rounded to fp16, in another order
            results[f"P={prompts} B={batch} W={width} D={embed}"] = result
    return results


def attention(clock: Clock, small: bool) -> Result:
    """Measure torch's attention back ends at the shapes of CLIP's towers."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {"math": SDPBackend.MATH}
    if clock.cuda:
        backends |= {
            "flash": SDPBackend.FLASH_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION,
            "cudnn": SDPBackend.CUDNN_ATTENTION,
        }
    shapes = [(2, 2, 5, 8)] if small else [
        (512, 12, 50, 64), (64, 16, 257, 64), (64, 16, 257, 80), (64, 16, 257, 104),
    ]  # fmt: skip
    results: Result = {}
    for batch, heads, tokens, width in shapes:
        shape = (batch, tokens, 3, heads, width)
        half = torch.float16 if clock.cuda else torch.float32
        packed = torch.randn(shape, device=clock.device, dtype=half).permute(2, 0, 3, 1, 4)
        parts = packed.unbind(0)
        row = results[f"B={batch} heads={heads} T={tokens} width={width}"] = {}

        def call(_: int, parts=parts) -> torch.Tensor:
            return functional.scaled_dot_product_attention(*parts)

        for name, backend in backends.items():
            with contextlib.suppress(RuntimeError), sdpa_kernel(backend):  # not for this shape
                row[f"{name}_us"] = clock.graph(call) * 1e6
        row["default_us"] = clock.graph(call) * 1e6
    return results


def visibility(clock: Clock, small: bool) -> Result:
    """Measure the first stage of a GPU renderer: depth and shape of each pixel of many worlds."""
    from vlmrm_fast.kernels import raycast
    from vlmrm_fast.kernels import visibility as kernel

    worlds, side = (2, 20) if small else (1024, 224)
    # About what a humanoid is: 20 capsules within a metre, on an endless floor.
    kind = torch.tensor([raycast.PLANE, *[raycast.CAPSULE] * 20], dtype=torch.int32)
    size = torch.tensor([0.08, 0.15, 0.0]).repeat(len(kind), 1)
    size[0] = 0
    position = torch.randn(worlds, len(kind), 3) * 0.3 + torch.tensor([0.0, 0.0, -3.5])
    rotation = torch.linalg.qr(torch.randn(worlds, len(kind), 3, 3))[0]
    floor = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    position[:, 0], rotation[:, 0] = torch.tensor([0.0, -1.0, 0.0]), floor
    cpu = raycast.Shapes(kind, size, position, rotation)
    shapes = raycast.Shapes(*(part.to(clock.device) for part in cpu))
    took = clock.graph(lambda _: kernel.visibility(shapes, side, side, 0.41), 4)
    first = raycast.Shapes(kind, size, position[:2], rotation[:2])
    index = kernel.visibility(shapes, side, side, 0.41)[1][:2].cpu()
    same = float((index == raycast.visibility(first, side, side, 0.41)[1]).float().mean())
    assert same >= 0.995, same
    return {"frames_s": worlds / took, "us_a_frame": took / worlds * 1e6, "same_as_twin": same}


def quantize(clock: Clock, small: bool) -> Result:
    """Measure rows to fp8, with and without the activation before, against eager and compile."""
    results = {}
    shapes = [(3, 5, 48)] if small else [(512 * 50, 3072), (64 * 257, 1024), (64 * 257, 4096)]
    for shape in shapes:
        sets = [torch.randn(shape, device=clock.device).bfloat16() for _ in range(4)]
        for activation in ("none", "gelu"):

            def ours(x: torch.Tensor, activation=activation) -> Any:
                return ops.quantize(x, activation)

            def eager(x: torch.Tensor, activation=activation) -> Any:
                return reference.quantize(x, activation)

            result = three_ways(clock, ours, eager, sets, compiled=shape[-1] > 2000)
            moved = sets[0].numel() * 3
            result["bytes"], result["gb_s"] = moved, moved / result["ours_us"] / 1e3
            (q, scale), (q_eager, scale_eager) = ours(sets[0]), eager(sets[0])
            assert torch.allclose(scale, scale_eager, rtol=1e-5)
            result["same"] = float((q.float() == q_eager.float()).float().mean())
            assert result["same"] >= 0.999, result["same"]
            results[f"{shape} {activation}"] = result
    return results


def epilogue(clock: Clock, small: bool) -> Result:
    """Measure an MLP's first product with its GELU: apart, and in the library's one call."""
    shapes = [(15, 32, 64)] if small else [(512 * 50, 768, 3072), (64 * 257, 1024, 4096)]
    results = {}
    for rows, width, inner in shapes:
        half = torch.float16 if clock.cuda else torch.float32
        x, weight, bias = (
            torch.randn(shape, device=clock.device, dtype=half) * 0.03
            for shape in ((rows, width), (inner, width), (inner,))
        )

        def product(_: int, x=x, w=weight, b=bias) -> torch.Tensor:
            return functional.linear(x, w, b)

        def apart(_: int, x=x, w=weight, b=bias) -> torch.Tensor:
            return functional.gelu(functional.linear(x, w, b))

        def joined(_: int, x=x, w=weight, b=bias) -> torch.Tensor:
            return torch._addmm_activation(b, x, w.T, use_gelu=True)

        results[f"{rows} x {width} x {inner}"] = {
            "product_us": clock.graph(product) * 1e6,
            "product_then_gelu_us": clock.graph(apart) * 1e6,
            # By tanh on CUDA: not the function that the towers were trained with.
            "joined_us": clock.graph(joined) * 1e6,
            "joined_error": error(joined(0), apart(0)),
        }
    return results


def describe(clock: Clock) -> Result:
    """Say in words what the figures are taken on."""
    import platform

    import triton

    machine: Result = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "device": "CPU (rehearsal: no figure means anything)",
    }
    if clock.cuda:
        gpu = torch.cuda.get_device_properties(clock.device)
        machine |= {
            "device": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "memory_gb": gpu.total_memory / 1e9,
            "multiprocessors": gpu.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return machine | {"tile": dataclasses.asdict(_tile())}


def _tile() -> Any:
    """Return the default tile of the resizing kernel."""
    from vlmrm_fast.kernels.preprocess import TILE

    return TILE
