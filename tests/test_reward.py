from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from vlmrm_fast import VLMReward, clip
from vlmrm_fast.errors import ArgumentError, ModelError, VLMRMError

GOAL, BASELINE = "pole vertically upright on top of the cart", "pole and cart"
OPENAI_MEAN = np.array([0.48145466, 0.4578275, 0.40821073]).reshape(1, 3, 1, 1)
OPENAI_STD = np.array([0.26862954, 0.26130258, 0.27577711]).reshape(1, 3, 1, 1)


@pytest.fixture(scope="module")
def reward(untrained_folder: str) -> VLMReward:
    return VLMReward(untrained_folder, goal=GOAL, baseline=BASELINE, alpha=0.5)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 96, 96, 3), dtype=np.uint8)


def definition(x: np.ndarray, goal: np.ndarray, base: np.ndarray, alpha: float) -> np.ndarray:
    """Definition 1 of the paper with its D x D matrix, in float64."""
    d = goal - base
    projection = alpha * np.outer(d, d) / (d @ d) + (1 - alpha) * np.eye(len(d))
    return 1 - np.square((x - goal) @ projection.T).sum(-1) / 2


def bicubic(old: int, new: int) -> np.ndarray:
    """The (new, old) matrix of bicubic resampling (a = -0.75), no antialias, edges repeated."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        t = np.abs(centre - first - tap)
        near, far = (1.25 * t - 2.25) * t * t + 1, ((-0.75 * t + 3.75) * t - 6) * t + 3
        weight = np.where(t <= 1, near, np.where(t < 2, far, 0))
        np.add.at(matrix, (np.arange(new), np.clip(first + tap, 0, old - 1)), weight)
    return matrix


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [(96, 96), (120, 150)])
def test_compat_reproduces_the_original_from_pixels_to_reward(
    untrained_folder: str, alpha: float, size: tuple[int, int]
) -> None:
    goals, bases = [GOAL, "an upright pole"], [BASELINE, "a cart with a pole"]
    images = np.random.default_rng(1).integers(0, 256, (5, *size, 3), dtype=np.uint8)
    ours = VLMReward(untrained_folder, goal=goals, baseline=bases, alpha=alpha, compat=True).score(
        images
    )

    # Independent: float64 pixels, open_clip's own towers in float64, the matrix definition.
    pixels = np.einsum(
        "sh,bhwc,tw->bcst", bicubic(size[0], 96), images / 255, bicubic(size[1], 96), optimize=True
    )
    model = open_clip.create_model(f"local-dir:{untrained_folder}").double().eval()
    words = open_clip.get_tokenizer(f"local-dir:{untrained_folder}")(goals + bases)
    with torch.inference_mode():
        x = model.encode_image(torch.from_numpy((pixels - OPENAI_MEAN) / OPENAI_STD)).numpy()
        text = model.encode_text(words).numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    goal, base = text[:2].mean(0), text[2:].mean(0)
    assert np.linalg.norm(goal) < 0.9999  # the mean is not renormalised
    golden = definition(x, goal, base, alpha)
    assert np.abs(ours - golden).max() <= 1e-5


def test_default_renormalises_the_mean_of_several_prompts(
    untrained_folder: str, frames: np.ndarray, reward: VLMReward
) -> None:
    several = reward.with_prompts([GOAL, "an upright pole"])
    mean = reward.embed_text([GOAL, "an upright pole"]).mean(0)
    cosine = reward.embed_images(frames) @ (mean / np.linalg.norm(mean))
    assert np.abs(several.score(frames) - cosine).max() <= 1e-6


def test_alpha_zero_is_the_cosine_similarity(frames: np.ndarray, reward: VLMReward) -> None:
    plain = reward.with_prompts(GOAL)
    cosine = reward.embed_images(frames) @ reward.embed_text(GOAL)[0]
    assert np.abs(plain.score(frames) - cosine).max() <= 1e-6


def test_alpha_above_zero_follows_the_definition(frames: np.ndarray, reward: VLMReward) -> None:
    goal, base = reward.embed_text([GOAL, BASELINE]).astype(np.float64)
    exact = definition(reward.embed_images(frames).astype(np.float64), goal, base, 0.5)
    assert np.abs(reward.score(frames) - exact).max() <= 1e-5


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7, 16, 23, 64])
def test_a_reward_does_not_depend_on_the_rest_of_the_batch(
    untrained_folder: str, frames: np.ndarray, reward: VLMReward, batch_size: int
) -> None:
    split = VLMReward(
        untrained_folder, goal=GOAL, baseline=BASELINE, alpha=0.5, batch_size=batch_size
    )
    assert np.abs(split.score(frames) - reward.score(frames)).max() <= 1e-6
    assert np.abs(reward.score(frames[3:4]) - reward.score(frames)[3]).max() <= 1e-6


def test_the_same_frames_give_the_same_bits(frames: np.ndarray, reward: VLMReward) -> None:
    assert np.array_equal(reward.score(frames), reward.score(frames.copy()))


def test_outputs_are_float32_arrays_of_the_stated_shapes(
    frames: np.ndarray, reward: VLMReward
) -> None:
    scores, images = reward.score(frames), reward.embed_images(frames)
    text = reward.embed_text([GOAL, BASELINE, "a"])
    assert (scores.shape, images.shape, text.shape) == ((23,), (23, 128), (3, 128))
    assert scores.dtype == images.dtype == text.dtype == np.float32
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(text, axis=1), 1, atol=1e-6)
    assert np.abs(reward.score_embeddings(images) - scores).max() <= 1e-6
    assert np.abs(reward.score_embeddings(3 * images) - scores).max() <= 1e-6


def test_no_frames_give_no_rewards(reward: VLMReward) -> None:
    none = np.empty((0, 96, 96, 3), np.uint8)
    assert reward.score(none).shape == (0,)
    assert reward.score(none).dtype == np.float32
    assert reward.embed_images(none).shape == (0, 128)


@pytest.mark.parametrize(
    "view",
    [
        lambda f: f[::-1],
        lambda f: f[:, ::-1],
        lambda f: f[::2, :, ::-1],
        lambda f: np.broadcast_to(f[:1], f.shape),
        lambda f: np.asfortranarray(f),
        torch.from_numpy,
        lambda f: torch.from_numpy(f).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    ],
)
def test_strided_and_read_only_frames_score_like_copies(
    frames: np.ndarray, reward: VLMReward, view: Any, recwarn: pytest.WarningsRecorder
) -> None:
    seen = view(frames.copy())
    copied = np.ascontiguousarray(np.asarray(seen))
    assert np.abs(reward.score(seen) - reward.score(copied)).max() <= 1e-6
    assert not [warning for warning in recwarn if "writ" in str(warning.message)]


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.zeros((2, 96, 96, 3), np.float32), r"got float32\. .*astype\('uint8'\)"),
        (torch.zeros(2, 96, 96, 3), r"got float32"),
        (np.zeros((96, 96, 3), np.uint8), r"got \(96, 96, 3\)\. .*frames\[None\]"),
        (np.zeros((2, 3, 96, 96), np.uint8), r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((2, 96, 96, 4), np.uint8), r"frames\[\.\.\., :3\]"),
        (np.zeros((2, 96, 96), np.uint8), r"got \(2, 96, 96\)"),
        (np.zeros((2, 0, 96, 3), np.uint8), r"with pixels in them"),
        ([np.zeros((96, 96, 3), np.uint8)], r"got list\. Use numpy\.stack"),
        (None, r"got NoneType"),
    ],
)
def test_wrong_frames_are_refused_with_the_fix(reward: VLMReward, bad: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=r"frames must be \(B, H, W, 3\) uint8.*" + text):
        reward.score(bad)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"goal": ""}, "goal must be a non-empty prompt, got ''"),
        ({"goal": "  "}, "goal must be a non-empty prompt"),
        ({"goal": []}, "goal must be a prompt or a list of prompts"),
        ({"goal": None}, "goal must be a prompt or a list of prompts"),
        ({"goal": ["a", 3]}, "goal must be a non-empty prompt, got 3"),
        ({"goal": "a", "baseline": ["b", ""]}, "baseline must be a non-empty prompt"),
        ({"goal": "a", "baseline": "b", "alpha": 1.01}, r"alpha must be a number in \[0, 1\]"),
        ({"goal": "a", "baseline": "b", "alpha": -0.1}, r"alpha must be .*got -0\.1"),
        ({"goal": "a", "baseline": "b", "alpha": float("nan")}, r"alpha must be .*got nan"),
        ({"goal": "a", "baseline": "b", "alpha": "x"}, "alpha must be a number"),
        ({"goal": "a", "baseline": "b", "alpha": True}, "alpha must be a number"),
        ({"goal": "a", "alpha": 0.5}, "baseline must be given where alpha is above 0"),
        ({"goal": "a b", "baseline": " A  B", "alpha": 0.5}, "baseline must differ from goal"),
        ({"goal": "a", "device": "tpu"}, "device must be auto, cpu, cuda or cuda:N"),
        ({"goal": "a", "device": "cuda:99"}, "device must be one of this machine's"),
        (
            {"goal": "a", "device": "cpu", "precision": "fp16"},
            "precision must be one of .*fp32.* on a CPU",
        ),
        (
            {"goal": "a", "device": "cpu", "precision": "fp8"},
            "on a CPU, got 'fp8'. fp8 needs a CUDA",
        ),
        (
            {"goal": "a", "precision": "fp4"},
            "must be one of auto, bf16, fp16, fp32, fp8, int8, got",
        ),
        ({"goal": "a", "batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"goal": "a", "batch_size": 2.5}, "batch_size must be a positive integer"),
    ],
)
def test_wrong_arguments_are_refused_before_the_model_is_looked_for(
    arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ArgumentError, match=text):
        VLMReward("/no/such/model", **arguments)


def test_a_long_prompt_is_refused_before_the_weights_are_read(
    untrained_folder: str, tmp_path: Path
) -> None:
    (tmp_path / clip.CONFIG_FILE).write_text(
        (Path(untrained_folder) / clip.CONFIG_FILE).read_text()
    )
    (tmp_path / clip.WEIGHTS_FILE).write_bytes(b"not weights")
    with pytest.raises(ArgumentError, match="would ignore 'the end'"):
        VLMReward(str(tmp_path), goal=" ".join(["cart"] * 30) + " the end")
    with pytest.raises(ModelError, match="cannot be read"):
        VLMReward(str(tmp_path), goal="cart")


def test_equal_prompts_are_fine_at_alpha_zero(untrained_folder: str, frames: np.ndarray) -> None:
    same = VLMReward(untrained_folder, goal=GOAL, baseline=GOAL)
    assert np.isfinite(same.score(frames)).all()


def test_prompts_that_the_model_cannot_tell_apart_are_refused(reward: VLMReward) -> None:
    # Different text, the same tokens: the tokenizer unescapes HTML.
    with pytest.raises(ArgumentError, match="cannot tell from the goal"):
        reward.with_prompts("a &amp; b", baseline="a & b", alpha=0.5)


def test_with_prompts_shares_the_model_and_leaves_the_first_reward_alone(
    reward: VLMReward, frames: np.ndarray
) -> None:
    before = reward.score(frames)
    other = reward.with_prompts("a cart", baseline="a pole", alpha=1.0)
    assert other._model is reward._model
    assert not np.allclose(other.score(frames), before)
    assert np.array_equal(reward.score(frames), before)
    with pytest.raises(ArgumentError, match="alpha must be"):
        reward.with_prompts("a cart", alpha=3)
    with pytest.raises(ArgumentError, match="tokens long"):
        reward.with_prompts("cart " * 40)


def test_describe_records_what_a_run_needs_as_json(
    untrained_folder: str, reward: VLMReward
) -> None:
    record = json.loads(json.dumps(reward.describe()))
    assert record["model"] == untrained_folder
    assert len(record["weights_sha256"]) == 64
    assert record["prompt_tokens"] == {GOAL: 11, BASELINE: 5}
    assert (record["device"], record["precision"]) in {("cpu", "fp32"), ("cuda:0", "fp16")}
    assert record["alpha"] == 0.5


def test_scoring_leaves_torchs_threads_alone(reward: VLMReward, frames: np.ndarray) -> None:
    before = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state()
    reward.score(frames)
    assert torch.get_num_threads() == before[0]
    assert torch.is_grad_enabled() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_running_out_of_gpu_memory_halves_the_batch_and_says_so(
    untrained_folder: str, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No machine runs out of memory on demand: the encoder refuses large batches instead.
    reward = VLMReward(untrained_folder, goal=GOAL, batch_size=16)
    expected = reward.score(frames)
    encode = reward._model.embed_images

    def limited(batch: torch.Tensor, how: Any) -> torch.Tensor:
        if len(batch) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return encode(batch, how)

    monkeypatch.setattr(reward._model, "embed_images", limited)
    limit = 8
    with pytest.warns(UserWarning, match="batch_size is now 8"):
        assert np.abs(reward.score(frames) - expected).max() <= 1e-6
    limit = 0
    with (
        pytest.warns(UserWarning, match="batch_size is now 1"),
        pytest.raises(VLMRMError, match="no memory for one frame"),
    ):
        reward.score(frames)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fp16_on_a_gpu_stays_close_to_the_cpu(untrained_folder: str, frames: np.ndarray) -> None:
    arguments: dict[str, Any] = {"goal": GOAL, "baseline": BASELINE, "alpha": 0.5}
    gpu = VLMReward(untrained_folder, device="cuda", **arguments)
    cpu = VLMReward(untrained_folder, device="cpu", **arguments)
    assert gpu.describe()["precision"] == "fp16"
    assert np.abs(gpu.score(frames) - cpu.score(frames)).max() <= 1e-3
