"""The ops as users call them: registration, tracing, automatic choice and error texts."""

from __future__ import annotations

import pytest
import torch

from vlmrm_fast.kernels import ops, reference
from vlmrm_fast.kernels.reference import OPENAI_MEAN, OPENAI_STD, Preprocessing, Tasks

HOW = Preprocessing(32, OPENAI_MEAN, OPENAI_STD)
WIDTH, EPS = 24, 1e-5


def make_tasks(prompts: int = 3, width: int = WIDTH) -> Tasks:
    goal, baseline = torch.nn.functional.normalize(torch.randn(2, prompts, width), dim=-1)
    return reference.make_tasks(goal, baseline, torch.linspace(0, 1, prompts)).to("cpu")


def make_frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)


def calls() -> dict[str, tuple]:
    """Arguments of every registered op."""
    weight, bias = torch.randn(2, WIDTH)
    rows = torch.randn(4, 5, WIDTH)[:, 1]
    return {
        "preprocess": (make_frames(2, 40, 60), *ops._plain(HOW), torch.float32, "nchw", 0, False),
        "score": (rows.half(), *make_tasks()),
        "layernorm": (rows, weight, bias, EPS),
        "add_layernorm": (rows, torch.randn(4, WIDTH).half(), weight, bias, EPS),
        "quantize": (rows, "silu"),
        "reward_head": (rows, weight, bias, EPS, torch.randn(WIDTH, WIDTH), *make_tasks()),
    }


@pytest.mark.parametrize("name", sorted(calls()))
def test_torch_accepts_the_registration(name: str) -> None:
    op = getattr(torch.ops.vlmrm_fast, name).default
    assert set(torch.library.opcheck(op, calls()[name]).values()) == {"SUCCESS"}


def test_the_traced_shapes_of_tokens_are_the_real_ones() -> None:
    op = torch.ops.vlmrm_fast.preprocess.default
    for size, patch in ((32, 8), (32, 7), (5, 5)):
        how = Preprocessing(size, OPENAI_MEAN, OPENAI_STD)
        arguments = (make_frames(2, 9, 31), *ops._plain(how), torch.float16, "tokens", patch, True)
        torch.library.opcheck(op, arguments)


class Head(torch.nn.Module):
    """A reward path without its transformer: pixels in, rewards out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(192)
        self.projection = torch.nn.Parameter(torch.randn(192, WIDTH))
        self.tasks = make_tasks()

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        tokens = ops.preprocess(frames, HOW, layout="tokens", patch=8)
        norm = self.norm.weight, self.norm.bias, self.norm.eps
        total, rows = ops.add_layernorm(tokens[:, 1], tokens[:, 2], *norm)
        both = ops.score(rows @ self.projection, self.tasks)
        return both + ops.reward_head(total, *norm, self.projection, self.tasks)


def test_the_path_compiles_into_one_graph() -> None:
    head, frames = Head().eval().requires_grad_(False), make_frames(3, 32, 40)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(frames), head(frames), atol=1e-5)


def test_the_path_is_exported_with_any_batch_size() -> None:
    head = Head().eval().requires_grad_(False)
    batch = {"frames": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.export.export(head, (make_frames(3, 32, 40),), dynamic_shapes=batch)
    frames = make_frames(7, 32, 40)
    assert torch.equal(program.module()(frames), head(frames))


def test_the_cpu_gets_the_twins_bits() -> None:
    frames, tasks, z = make_frames(2, 9, 50), make_tasks(), torch.randn(5, WIDTH)
    assert torch.equal(ops.preprocess(frames, HOW), reference.preprocess(frames, HOW))
    assert torch.equal(ops.score(z, tasks), reference.score(z, tasks))


def test_without_a_residual_the_sum_is_the_input_itself() -> None:
    x = torch.randn(2, 3, WIDTH)
    total, y = ops.add_layernorm(x, None, torch.ones(WIDTH), torch.zeros(WIDTH), EPS)
    assert total is x
    assert y.mean(-1).abs().max() < 1e-6


def test_empty_batches_give_empty_results() -> None:
    assert ops.preprocess(make_frames(0, 40, 40), HOW).shape == (0, 3, 32, 32)
    tokens = ops.preprocess(make_frames(0, 40, 40), HOW, layout="tokens", patch=8)
    assert tokens.shape == (0, 16, 192)
    assert ops.score(torch.empty(0, WIDTH), make_tasks()).shape == (0, 3)


def on_gpu(value):
    """Move tensors, alone or in tuples, to the GPU."""
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda part: part.cuda(), value)


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(calls()))
def test_torch_accepts_the_kernels_registration(name: str) -> None:
    op, arguments = getattr(torch.ops.vlmrm_fast, name).default, calls()[name]
    assert set(torch.library.opcheck(op, on_gpu(arguments)).values()) == {"SUCCESS"}
    for ours, twin in zip(as_tuple(op(*on_gpu(arguments))), as_tuple(op(*arguments)), strict=True):
        # One of 255 levels, or one of fp8's, where sums near a tie round the other way.
        limit = {"preprocess": 0.02, "quantize": 32}.get(name, 1e-5)
        assert (ours.cpu().float() - twin.float()).abs().max() <= limit


def as_tuple(value) -> tuple:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.gpu
def test_a_cuda_tensor_takes_the_kernel() -> None:
    from vlmrm_fast.kernels import preprocess

    frames = make_frames(2, 40, 60).cuda()
    assert torch.equal(ops.preprocess(frames, HOW), preprocess.preprocess(frames, HOW))


@pytest.mark.gpu
def test_the_path_compiles_into_one_graph_on_a_gpu() -> None:
    head, frames = Head().eval().requires_grad_(False).cuda(), make_frames(3, 32, 32).cuda()
    head.tasks = on_gpu(head.tasks)
    compiled = torch.compile(head, fullgraph=True)
    assert torch.allclose(compiled(frames), head(frames), atol=1e-4)


@pytest.mark.gpu
def test_a_cuda_graph_holds_the_path() -> None:
    head = Head().eval().requires_grad_(False).cuda()
    head.tasks = on_gpu(head.tasks)
    frames = make_frames(3, 40, 60).cuda()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        head(frames)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = head(frames)
    frames.copy_(make_frames(3, 40, 60))
    graph.replay()
    assert torch.allclose(captured, head(frames), atol=1e-5)


@pytest.mark.gpu
def test_nothing_in_the_path_waits_for_the_gpu() -> None:
    head = Head().eval().requires_grad_(False).cuda()
    head.tasks = on_gpu(head.tasks)
    frames = make_frames(3, 40, 60).cuda()
    head(frames)
    torch.cuda.set_sync_debug_mode("error")
    try:
        head(frames)
    finally:
        torch.cuda.set_sync_debug_mode("default")


FRAMES, TASKS, Z = make_frames(1, 8, 8), make_tasks(), torch.randn(2, WIDTH)
ONES = torch.ones(WIDTH)
REFUSED = [
    (lambda: ops.preprocess(FRAMES.float(), HOW), r"frames must be \(B, H, W, 3\) uint8, got .*32"),
    (lambda: ops.preprocess(FRAMES[0], HOW), r"frames must be .* got \(8, 8, 3\) uint8"),
    (lambda: ops.preprocess(FRAMES[:, :0], HOW), "frames must have pixels in them"),
    (lambda: ops.preprocess(FRAMES, HOW, torch.int8), "dtype must be floating-point, got int8"),
    (lambda: ops.preprocess(FRAMES, HOW, layout="nhwc"), "one of nchw, tokens, got 'nhwc'"),
    (lambda: ops.preprocess(FRAMES, HOW, layout="tokens", patch=33), r"patch must be in 1 \.\.\. "),
    (lambda: ops.score(Z[0], TASKS), r"z must be \(B, 24\), got \(24,\)"),
    (lambda: ops.score(Z[:, :5], TASKS), r"z must be \(B, 24\), got \(2, 5\)"),
    (lambda: ops.score(Z.long(), TASKS), "z must be floating-point, got int64"),
    (lambda: ops.score(Z.to("meta"), TASKS), r"tasks must be on meta, got cpu.*tasks\.to\('meta"),
    (lambda: ops.add_layernorm(Z, None, ONES[:3], ONES, EPS), r"weight must be \(24,\), got \(3,"),
    (lambda: ops.add_layernorm(Z, None, ONES, ONES.half(), EPS), "bias must be .* float32, got"),
    (lambda: ops.add_layernorm(Z, Z[:1], ONES, ONES, EPS), r"residual must be \(2, 24\), got \(1"),
    (lambda: ops.quantize(Z, "relu"), "one of gelu, gelu_tanh, none, silu, got 'relu'"),
    (lambda: ops.quantize(Z[:, :0]), r"x must be \(\.\.\., K\) with columns, got \(2, 0\)"),
    (lambda: ops.quantize(Z.int()), "x must be floating-point, got int32"),
    (lambda: ops.reward_head(Z, ONES, ONES, EPS, Z, TASKS), r"projection must be \(24, 24\) fl"),
    (lambda: ops.reward_head(Z[0], ONES, ONES, EPS, Z, TASKS), r"rows must be \(B, W\), got"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_refused_with_its_value(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
