"""submit and collect give the rewards of `score`, in order, with bounded memory."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmrm_fast import VLMReward
from vlmrm_fast.errors import ArgumentError, VLMRMError
from vlmrm_fast.inputs import choose_device
from vlmrm_fast.lanes import CpuLane
from vlmrm_fast.scorer import Scorer, split_rows

GOAL = "pole vertically upright on top of the cart"

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def reward(untrained_folder: str) -> VLMReward:
    return VLMReward(untrained_folder, goal=GOAL, device="cpu", batch_size=8)


def pictures(count: int, size: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


class Shade:
    """A reward of P numbers a frame that is quick to compute, for what is not about models."""

    def __init__(self, prompts: int = 1) -> None:
        self.prompts = prompts
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        assert self.gate.wait(10)
        mean = frames.float().mean((1, 2, 3))
        return torch.stack([mean * (p + 1) for p in range(self.prompts)], 1)

    def expect(self, frames: np.ndarray) -> np.ndarray:
        return self(torch.from_numpy(frames)).numpy()


def scorer_of(encode: Any, lanes: int = 1, num_slots: int = 3, background: bool = True) -> Scorer:
    return Scorer([CpuLane(encode, background=background) for _ in range(lanes)], num_slots)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("count", "size"), [(1, 96), (5, 96), (19, 96), (3, 60)])
def test_rewards_are_those_of_score_bit_for_bit(
    reward: VLMReward, background: bool, count: int, size: int
) -> None:
    steps = [pictures(count, size, seed) for seed in range(5)]
    with reward.scorer(background=background) as scorer:
        rewards = scorer.collect([scorer.submit(frames) for frames in steps])
    assert (rewards.shape, rewards.dtype) == ((5, count), np.float32)
    np.testing.assert_array_equal(rewards, [reward.score(frames) for frames in steps])


def test_a_background_thread_takes_over_the_callers_number_of_threads(reward: VLMReward) -> None:
    frames, found = pictures(8), {}
    with reward.scorer() as scorer:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            found[threads] = scorer.collect([scorer.submit(frames)])[0]
            np.testing.assert_array_equal(found[threads], reward.score(frames))
            assert torch.get_num_threads() == threads


def test_frames_drawn_into_the_ring_are_not_copied(reward: VLMReward) -> None:
    frames = pictures(4)
    with reward.scorer() as scorer:
        for _ in range(7):
            drawn = scorer.acquire(frames.shape)
            drawn[:] = frames
            ticket = scorer.submit(drawn)
            assert any(drawn is slot.frames for slot in scorer._ring.slots)  # type: ignore[union-attr]
            np.testing.assert_array_equal(scorer.collect([ticket])[0], reward.score(frames))
        assert scorer.in_flight == 0


def test_tickets_are_collected_in_any_order_and_grouping() -> None:
    shade = Shade()
    steps = [pictures(3, 8, seed) for seed in range(9)]
    with scorer_of(shade) as scorer:
        tickets = [scorer.submit(frames) for frames in steps]
        order = [4, 0, 8, 3]
        rewards = scorer.collect([tickets[i] for i in order])
        np.testing.assert_array_equal(rewards, [shade.expect(steps[i])[:, 0] for i in order])
        one = scorer.collect([tickets[1]])
        np.testing.assert_array_equal(one[0], shade.expect(steps[1])[:, 0])
        assert scorer.collect([]).shape[0] == 0


def test_several_rewards_a_frame_have_an_axis_of_their_own() -> None:
    shade, frames = Shade(4), pictures(3, 8)
    with scorer_of(shade, lanes=2) as scorer:
        rewards = scorer.collect([scorer.submit(frames), scorer.submit(frames)])
    assert rewards.shape == (2, 3, 4)
    np.testing.assert_array_equal(rewards[1], shade.expect(frames))


def test_frames_in_flight_never_exceed_the_ring_however_long_the_rollout() -> None:
    shade, most, addresses = Shade(), 0, set()
    with scorer_of(shade, num_slots=4) as scorer:
        tickets = []
        for seed in range(300):
            frames = scorer.acquire((2, 8, 8, 3))
            addresses.add(frames.ctypes.data)
            frames[:] = seed % 256
            tickets.append(scorer.submit(frames))
            most = max(most, scorer.in_flight)
        rewards = scorer.collect(tickets)
    assert most <= 4
    assert len(addresses) == 4
    np.testing.assert_array_equal(rewards, np.repeat(np.arange(300) % 256, 2).reshape(300, 2))


def test_submit_blocks_while_the_ring_is_full_and_rewrites_no_frame_that_is_read() -> None:
    shade = Shade()
    with scorer_of(shade) as scorer:
        shade.gate.clear()
        steps = [pictures(2, 8, seed) for seed in range(4)]
        tickets = [scorer.submit(frames) for frames in steps[:3]]
        fourth: list[Any] = []
        thread = threading.Thread(target=lambda: fourth.append(scorer.submit(steps[3])))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert scorer.in_flight == 3
        shade.gate.set()
        thread.join(10)
        rewards = scorer.collect(tickets + fourth)
    np.testing.assert_array_equal(rewards, [shade.expect(frames)[:, 0] for frames in steps])


def test_submit_returns_before_the_frames_are_scored() -> None:
    shade = Shade()
    with scorer_of(shade) as scorer:
        shade.gate.clear()
        ticket = scorer.submit(pictures(2, 8))
        assert scorer.in_flight == 1
        shade.gate.set()
        assert scorer.collect([ticket]).shape == (1, 2)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_rows_are_split_evenly_in_order_and_completely(count: int, parts: int) -> None:
    split = split_rows(count, parts)
    sizes = [rows.stop - rows.start for rows in split]
    assert len(split) == parts
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    assert [i for rows in split for i in range(count)[rows]] == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_score_their_rows_and_the_result_is_in_order(
    reward: VLMReward, count: int, replicas: int
) -> None:
    steps = [pictures(count, seed=seed) for seed in range(4)]
    with reward.scorer(devices=["cpu"] * replicas) as scorer:
        assert len(scorer.lanes) == replicas
        rewards = scorer.collect([scorer.submit(frames) for frames in steps])
    parts = [[f[rows] for rows in split_rows(count, replicas)] for f in steps]
    expected = [np.concatenate([reward.score(p) for p in part if len(p)]) for part in parts]
    np.testing.assert_array_equal(rewards, expected)
    whole = [reward.score(frames) for frames in steps]
    assert np.abs(rewards - np.array(whole)).max() <= 1e-6


def test_a_replica_is_loaded_once(untrained_folder: str) -> None:
    reward = VLMReward(untrained_folder, goal=GOAL, device="cpu")
    with reward.scorer(devices=["cpu"] * 3) as first, reward.scorer(devices=["cpu"] * 3) as second:
        models = [[lane._encode.__self__._model for lane in s.lanes] for s in (first, second)]  # type: ignore[attr-defined]
    assert models[0] == models[1]
    assert len(set(map(id, models[0]))) == 3
    assert models[0][0] is reward._model


def test_many_prompts_are_scored_at_once(reward: VLMReward) -> None:
    prompts = reward.prompt_set([GOAL, "a fallen pole", "a cart"])
    steps = [pictures(5, seed=seed) for seed in range(3)]
    for devices in (None, ["cpu", "cpu"]):
        with reward.scorer(prompts=prompts, devices=devices) as scorer:
            rewards = scorer.collect([scorer.submit(frames) for frames in steps])
        assert rewards.shape == (3, 5, 3)
        expected = [reward.score_many(frames, prompts) for frames in steps]
        assert np.abs(rewards - np.array(expected)).max() <= 1e-6


def test_replicas_run_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def encode(frames: torch.Tensor) -> torch.Tensor:
        # Passes only if both lanes are here at once.
        meeting.wait()
        return frames.float().mean((1, 2, 3))[:, None]

    with scorer_of(encode, lanes=2) as scorer:
        assert scorer.collect([scorer.submit(pictures(4, 8))]).shape == (1, 4)


@pytest.mark.parametrize("background", [False, True])
def test_after_an_out_of_memory_the_scorer_still_works(
    untrained_folder: str, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    # No machine runs out of memory on demand: the encoder refuses large batches instead.
    reward = VLMReward(untrained_folder, goal=GOAL, device="cpu", batch_size=8)
    frames = pictures(8)
    expected = reward.score(frames)
    encode, limit = reward._model.embed_images, 4

    def limited(batch: torch.Tensor, how: Any) -> torch.Tensor:
        if len(batch) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return encode(batch, how)

    monkeypatch.setattr(reward._model, "embed_images", limited)
    with reward.scorer(background=background) as scorer:
        with pytest.warns(UserWarning, match="batch_size is now 4"):
            rewards = scorer.collect([scorer.submit(frames)])
        assert np.abs(rewards[0] - expected).max() <= 1e-6
        limit = 0
        with (
            pytest.warns(UserWarning, match="batch_size is now 1"),
            pytest.raises(VLMRMError, match="no memory for one frame"),
        ):
            scorer.collect([scorer.submit(frames)])
        assert scorer.in_flight == 0
        limit = 8
        again = [scorer.submit(frames) for _ in range(5)]
        assert np.abs(scorer.collect(again) - expected).max() <= 1e-6


def test_what_goes_wrong_in_the_background_is_raised_by_collect() -> None:
    def encode(frames: torch.Tensor) -> torch.Tensor:
        if frames.max() == 0:
            raise VLMRMError("the frames are black")
        return frames.float().mean((1, 2, 3))[:, None]

    with scorer_of(encode) as scorer:
        bad = scorer.submit(np.zeros((2, 8, 8, 3), np.uint8))
        good = [scorer.submit(np.full((2, 8, 8, 3), 7, np.uint8)) for _ in range(4)]
        with pytest.raises(VLMRMError, match="the frames are black"):
            scorer.collect([bad])
        np.testing.assert_array_equal(scorer.collect(good), np.full((4, 2), 7))


def test_another_shape_of_frames_is_scored_after_those_under_way() -> None:
    shade = Shade()
    with scorer_of(shade) as scorer:
        small, large = pictures(2, 8), pictures(2, 16)
        tickets = [scorer.submit(frames) for frames in (small, large, small)]
        rewards = scorer.collect(tickets)
    expected = [shade.expect(frames)[:, 0] for frames in (small, large, small)]
    np.testing.assert_array_equal(rewards, expected)


def strided() -> np.ndarray:
    return pictures(4, 16)[::-2, ::2, ::-1]


def test_strided_and_read_only_frames_are_copied_as_they_look() -> None:
    shade, frames = Shade(), strided()
    frames.flags.writeable = False
    with scorer_of(shade) as scorer:
        rewards = scorer.collect([scorer.submit(frames)])
    np.testing.assert_array_equal(rewards[0], shade.expect(frames.copy())[:, 0])


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"got float32 of shape \(2, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), r"got uint8 of shape \(8, 8, 3\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"each at least 1, got \(2, 3, 8, 8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"each at least 1, got \(0, 8, 8, 3\)"),
        ([1, 2], r"got list of shape \(\)"),
    ],
)
def test_what_is_no_batch_of_frames_is_refused(frames: Any, text: str) -> None:
    with scorer_of(Shade()) as scorer, pytest.raises(ArgumentError, match=text):
        scorer.submit(frames)


def test_tickets_of_others_and_spent_ones_are_refused() -> None:
    with scorer_of(Shade()) as scorer, scorer_of(Shade()) as other:
        ticket = scorer.submit(pictures(2, 8))
        with pytest.raises(ArgumentError, match="got one another scorer's"):
            other.collect([ticket])
        wider = scorer.submit(pictures(3, 8))
        with pytest.raises(ArgumentError, match="for equally many frames, got 2 and 3"):
            scorer.collect([ticket, wider])
        scorer.collect([ticket])
        with pytest.raises(ArgumentError, match="got one collected already"):
            scorer.collect([ticket])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_slots": 2}, "num_slots must be at least 3, got 2"),
        ({"devices": []}, r"devices must be a list of at least one name, got \[\]"),
        ({"devices": "cpu"}, "devices must be a list of at least one name, got 'cpu'"),
        ({"devices": ["cuda:99"]}, "device must be one of this machine's"),
        ({"devices": ["tpu"]}, "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    reward: VLMReward, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ArgumentError, match=text):
        reward.scorer(**options)


@pytest.mark.parametrize("background", [False, True])
def test_a_closed_scorer_takes_no_frames_and_gives_the_rewards_it_owes(background: bool) -> None:
    shade, frames = Shade(), pictures(2, 8)
    scorer = scorer_of(shade, background=background)
    ticket = scorer.submit(frames)
    for _ in range(2):
        scorer.close()
    for refused in (lambda: scorer.submit(frames), lambda: scorer.acquire(frames.shape)):
        with pytest.raises(ArgumentError, match="scorer must be open to take frames"):
            refused()
    np.testing.assert_array_equal(scorer.collect([ticket])[0], shade.expect(frames)[:, 0])


@pytest.mark.parametrize(
    ("precision", "fix"),
    [
        ("fp16", 'in fp16. Use precision="bf16" or "fp32".'),
        ("bf16", 'in bf16. Use precision="fp32".'),
        ("fp32", "in fp32. Check the model's weights."),
    ],
)
def test_rewards_that_are_no_numbers_are_refused_with_the_fix(
    untrained_folder: str, precision: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward, frames = VLMReward(untrained_folder, goal=GOAL, device="cpu"), pictures(2)
    encode = reward._model.embed_images

    def overflow(batch: torch.Tensor, how: Any) -> torch.Tensor:
        z = encode(batch, how).clone()
        z[1] = float("inf")
        return z

    # A weight that overflows in one format only is not had on demand.
    monkeypatch.setattr(reward._model, "embed_images", overflow)
    monkeypatch.setattr(reward._model, "precision", precision)
    prompts, text = (
        reward.prompt_set([GOAL]),
        re.escape(f"got 1 of 2 that are not, from a model {fix}"),
    )
    with reward.scorer() as scorer:
        for call in (
            lambda: scorer.collect([scorer.submit(frames)]),
            lambda: reward.score(frames),
            lambda: reward.score_many(frames, prompts),
        ):
            with pytest.raises(VLMRMError, match=text):
                call()


def test_prompts_of_another_model_are_refused(
    reward: VLMReward, untrained_folder: str, tmp_path: Path
) -> None:
    other = str(shutil.copytree(untrained_folder, tmp_path / "other"))
    prompts = VLMReward(other, goal=GOAL, device="cpu").prompt_set([GOAL])
    for call in (
        lambda: reward.score_many(pictures(1), prompts),
        lambda: reward.score_many_embeddings(np.ones((1, reward.embed_dim)), prompts),
        lambda: reward.scorer(prompts=prompts),
    ):
        with pytest.raises(ArgumentError, match="prompts must be of the reward's own model"):
            call()


def test_auto_is_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert choose_device("auto") == torch.device("cuda:1")
