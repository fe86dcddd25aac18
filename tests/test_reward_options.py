"""Several cameras, steps that are not scored, normalisation and weights, at once and deferred."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
from labeling_cases import N, Shades, Slider, assert_same, task_env, train, wrapped_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from vlmrm_fast import Camera, RewardOptions, VLMRewardVecEnv, VLMRewardWrapper
from vlmrm_fast.envs import Mix, make_vec_env
from vlmrm_fast.envs.stream import Moments, RewardStream
from vlmrm_fast.errors import ArgumentError, UnknownNameError

pytestmark = pytest.mark.usefixtures("one_torch_thread")

OTHER = Camera(lookat=(0, 0, 0.5), distance=4, azimuth=120, elevation=-20)


class CountedShades(Shades):
    """Keeps how many frames each call scored."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, frames: np.ndarray) -> np.ndarray:
        self.calls.append(len(frames))
        return super().score(frames)


def roll(env: Any, steps: int, seed: int = 0) -> list[tuple[Any, ...]]:
    """Step with the same random actions each time; return (rewards, vlm, own, dones) a step."""
    env.seed(seed)
    env.reset()
    env.action_space.seed(0)
    found = []
    for _ in range(steps):
        actions = np.stack([env.action_space.sample() for _ in range(env.num_envs)])
        _, rewards, dones, infos = env.step(actions)
        vlm = np.array([info["vlm_reward"] for info in infos])
        own = np.array([info["env_reward"] for info in infos])
        found.append((rewards, vlm, own, dones))
    return found


def expected_due(dones: list[np.ndarray], every: int) -> np.ndarray:
    """Say which steps are scored: the first of an episode, every k-th, and its last."""
    length = np.zeros(len(dones[0]), int)
    due = []
    for done in dones:
        due.append((length % every == 0) | done)
        length = np.where(done, 0, length + 1)
    return np.array(due)


def test_moments_are_those_of_the_whole_stream_however_it_is_split() -> None:
    values = np.random.default_rng(0).normal(3, 0.2, 1000)
    moments = Moments()
    for part in np.split(values, [1, 2, 10, 10, 500]):
        moments.add(part)
    assert moments.sums[0] == 1000
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(moments.normalize(values), expected, atol=1e-10)
    assert moments.normalize(np.array([1e6, -1e6])).tolist() == [10, -10]


def test_equal_rewards_are_normalised_to_zero() -> None:
    moments = Moments()
    assert moments.normalize(np.ones(2)).tolist() == [0, 0]
    moments.add(np.full(3, 0.25))
    assert moments.normalize(np.full(2, 0.25)).tolist() == [0, 0]
    # A millionth is no deviation to be blown up.
    assert abs(moments.normalize(np.array([0.25 + 1e-6]))[0]) < 0.1


@pytest.mark.parametrize("make", [task_env, wrapped_env])
@pytest.mark.parametrize("unscored", ["hold", "zero"])
def test_steps_between_are_not_scored_and_get_the_last_reward_or_none(
    make: Any, unscored: str
) -> None:
    # The pendulum falls: its episodes end at different times.
    every = roll(make(Shades()), 40)
    options = RewardOptions(score_every=3, unscored=unscored)
    reward = CountedShades()
    some = roll(make(reward, options=options), 40)
    due = expected_due([dones for *_, dones in every], 3)
    assert due.any(axis=0).all()
    assert 0.3 < due.mean() < 0.8
    assert reward.calls == [int(count) for count in due.sum(axis=1) if count]
    last = np.zeros(N)
    for (_, full, own, dones), (rewards, vlm, own_2, dones_2), wanted in zip(
        every, some, due, strict=True
    ):
        np.testing.assert_array_equal(dones, dones_2)
        np.testing.assert_allclose(own, own_2, rtol=1e-12)
        last = np.where(wanted, full, last if unscored == "hold" else 0)
        # Fewer frames at once may round differently.
        np.testing.assert_allclose(vlm, last, rtol=2e-6, atol=2e-6)
        np.testing.assert_array_equal(rewards, vlm.astype(np.float32))


def test_environments_that_draw_themselves_are_asked_for_due_frames_only() -> None:
    drawn = []

    class Counting(Slider):
        def render(self) -> Any:
            drawn.append(self.place)
            return super().render()

    def make() -> Any:
        return gymnasium.wrappers.TimeLimit(Counting(), 9)

    options = RewardOptions(score_every=4)
    env = VLMRewardVecEnv(DummyVecEnv([make] * 2), Shades(), options=options)
    found = roll(env, 30)
    due = expected_due([dones for *_, dones in found], 4)
    assert len(drawn) == due.sum() < 0.6 * due.size
    single = VLMRewardWrapper(make(), Shades(), options=options)
    for seed in range(3):
        drawn.clear()
        single.reset(seed=seed)
        ends = []
        while not ends or not ends[-1][0]:
            _, reward, terminated, truncated, info = single.step(1)
            ends.append(np.array([terminated or truncated]))
            assert reward == pytest.approx(info["vlm_reward"])
        assert len(drawn) == expected_due(ends, 4).sum()


def test_environments_in_other_processes_send_due_states_only() -> None:
    options = RewardOptions(score_every=4, camera_reduce="max")
    found = []
    for kind in (DummyVecEnv, SubprocVecEnv):
        venv = kind([functools.partial(gymnasium.make, "Hopper-v5", max_episode_steps=9)] * 2)
        reward = CountedShades()
        env = VLMRewardVecEnv(
            venv, reward, camera=[None, {"azimuth": 20.0}], options=options, num_threads=1
        )
        found.append([row[0] for row in roll(env, 20)])
        due = expected_due([row[3] for row in roll(env, 20)], 4)
        assert reward.calls[: len(reward.calls) // 2] == [2 * int(n) for n in due.sum(1) if n]
        env.close()
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("make", [task_env, wrapped_env])
@pytest.mark.parametrize("reduce", ["mean", "max", "min"])
def test_several_cameras_are_scored_together(make: Any, reduce: str) -> None:
    one = [make(Shades()), make(Shades(), camera=OTHER)]
    options = RewardOptions(camera_reduce=reduce)
    reward = CountedShades()
    both = make(reward, camera=[None, OTHER], options=options)
    alone = [roll(env, 12) for env in one]
    found = roll(both, 12)
    assert reward.calls == [2 * N] * 12
    for (rewards, vlm, *_), first, second in zip(found, *alone, strict=True):
        expected = getattr(np, reduce)([first[1], second[1]], axis=0)
        assert np.abs(first[1] - second[1]).max() > 1e-3
        np.testing.assert_allclose(vlm, expected, rtol=2e-6)
        np.testing.assert_array_equal(rewards, vlm.astype(np.float32))
    frames = both.camera_frames
    assert frames.shape == (2, N, 16, 16, 3)
    for view, env in zip(frames, one, strict=True):
        np.testing.assert_array_equal(view, env.last_frames)
    np.testing.assert_array_equal(both.last_frames, frames[0])


def test_a_single_environment_is_seen_by_several_cameras() -> None:
    def make(**options: Any) -> Any:
        return VLMRewardWrapper(gymnasium.make("InvertedPendulum-v5"), Shades(), **options)

    views = [None, {"azimuth": 30.0}]
    envs = [make(), make(camera=views[1]), make(camera=views)]
    for env in envs:
        env.reset(seed=1)
    first, second, both = ([env.step([0.3])[4]["vlm_reward"] for _ in range(3)] for env in envs)
    assert np.abs(np.subtract(first, second)).max() > 1e-3
    np.testing.assert_allclose(both, np.mean([first, second], axis=0), rtol=2e-6)
    np.testing.assert_array_equal(envs[2].camera_frames[1], envs[1].last_frames)


def test_pictures_of_an_environments_own_come_from_one_camera() -> None:
    with pytest.raises(ArgumentError, match="camera must be a single one for environments that"):
        wrapped_env(Shades(), "Slider", camera=[None, "side"])
    with pytest.raises(ArgumentError, match=r"camera must be a single one .* got 2"):
        VLMRewardWrapper(Slider(), Shades(), camera=[None, None])
    with pytest.raises(ArgumentError, match="at least one, got an empty list"):
        task_env(Shades(), camera=[])


@pytest.mark.parametrize("make", [task_env, wrapped_env])
def test_weights_of_both_rewards(make: Any) -> None:
    found = roll(make(Shades(), mode="add", weight=0.5, env_weight=-3.0), 12)
    for rewards, vlm, own, _ in found:
        np.testing.assert_allclose(rewards, 0.5 * vlm - 3 * own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [task_env, wrapped_env])
@pytest.mark.parametrize("every", [1, 3])
def test_rewards_are_normalised_by_the_steps_so_far(make: Any, every: int) -> None:
    options = RewardOptions(normalize=True, score_every=every)
    found = roll(make(Shades(), weight=2.0, options=options), 30)
    plain = roll(make(Shades(), options=RewardOptions(score_every=every)), 30)
    due = expected_due([dones for *_, dones in found], every)
    seen: list[float] = []
    for (rewards, vlm, *_), (_, raw, *_), wanted in zip(found, plain, due, strict=True):
        np.testing.assert_array_equal(vlm, raw)
        seen += raw[wanted].tolist()
        deviation = max(np.std(seen), 1e-4)
        expected = 2 * np.clip((raw - np.mean(seen)) / deviation, -10, 10)
        np.testing.assert_allclose(rewards, expected, rtol=1e-4, atol=1e-5)


MIX = {"mode": "add", "weight": 0.5, "env_weight": 0.1}
ALL: dict[str, tuple[dict[str, Any], bool]] = {
    "skip": ({"options": RewardOptions(score_every=3, unscored="zero")}, False),
    "everything": ({"options": RewardOptions("min", 3, "hold", True), **MIX}, True),
}


@pytest.mark.parametrize("case", ["SAC", "PPO"])
@pytest.mark.parametrize("name", ALL)
def test_deferred_rewards_are_the_same_bits(case: str, name: str) -> None:
    options, cameras = ALL[name]
    camera = [None, OTHER] if cameras else None
    for make in (task_env, wrapped_env):
        envs = [make(Shades(), camera=camera, **options) for _ in range(2)]
        step, seen_step = train(case, envs[0], deferred=False, steps=120)
        late, seen_late = train(case, envs[1], deferred=True, steps=120)
        assert_same(step, late)
        assert [i["vlm_reward"] for i in seen_step.infos] == [
            i["vlm_reward"] for i in seen_late.infos
        ]


def test_a_models_rewards_of_some_environments_are_deferred_alike(untrained_folder: str) -> None:
    from vlmrm_fast import VLMReward

    reward = VLMReward(untrained_folder, goal="a pole", device="cpu")
    # Falling pendulums: other environments are due at each step.
    options = {"options": RewardOptions(score_every=3, normalize=True), "render_size": 48}
    step, _ = train("SAC", wrapped_env(reward, **options), deferred=False, steps=90)
    late, _ = train("SAC", wrapped_env(reward, **options), deferred=True, steps=90)
    assert_same(step, late)


@pytest.mark.parametrize("deferred", [False, True])
def test_states_go_on_where_they_were(deferred: bool) -> None:
    options = RewardOptions("max", 3, "hold", True)
    envs = [task_env(Shades(), camera=[None, OTHER], options=options) for _ in range(2)]
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (40, N, 1)).astype(np.float32)
    envs[0].reset()
    heard: list[list[np.ndarray]] = [[], []]

    def step(which: int, action: np.ndarray) -> np.ndarray:
        _, rewards, _, infos = envs[which].step(action)
        return np.concatenate([rewards, [info["vlm_reward"] for info in infos]])

    if deferred:
        envs[0].defer_labels(lambda step, rewards: heard[0].append(rewards))
    for action in actions[:20]:
        step(0, action)
    state = envs[0].get_state()
    envs[1].reset()
    envs[1].set_state(state)
    if deferred:
        envs[1].defer_labels(lambda step, rewards: heard[1].append(rewards))
    for action in actions[20:]:
        one, other = step(0, action), step(1, action)
        np.testing.assert_array_equal(one, other)
    for env in envs:
        env.settle_labels()
    if deferred:
        np.testing.assert_array_equal(heard[0][20:], heard[1])


def test_wrapped_environments_go_on_where_they_were() -> None:
    from vlmrm_fast import snapshot

    options = RewardOptions(score_every=4, normalize=True)
    envs = [wrapped_env(Shades(), options=options) for _ in range(2)]
    actions = np.random.default_rng(0).uniform(-1, 1, (30, N, 1)).astype(np.float32)
    envs[0].reset()
    for action in actions[:13]:
        envs[0].step(action)
    envs[1].reset()
    snapshot.set_environment_state(envs[1], snapshot.environment_state(envs[0]))
    for action in actions[13:]:
        for one, other in zip(envs[0].step(action)[1:3], envs[1].step(action)[1:3], strict=True):
            np.testing.assert_array_equal(one, other)


def test_single_environments_go_on_where_they_were() -> None:
    from vlmrm_fast import snapshot

    def make() -> Any:
        inner = gymnasium.make("InvertedPendulum-v5", max_episode_steps=9)
        options = RewardOptions(score_every=4, normalize=True)
        return DummyVecEnv([lambda: VLMRewardWrapper(inner, Shades(), options=options)])

    one, other = make(), make()
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 1, 1)).astype(np.float32)
    for env in (one, other):
        # The camera follows from the first state.
        env.seed(0)
        env.reset()
    for action in actions[:14]:
        one.step(action)
    snapshot.set_environment_state(other, snapshot.environment_state(one))
    for action in actions[14:]:
        assert one.step(action)[1] == other.step(action)[1]


def test_diverged_steps_are_not_counted_by_the_normalisation() -> None:
    stream = RewardStream(3, Mix(), RewardOptions(normalize=True))
    none = np.zeros(3, bool)
    bad = np.array([False, True, False])
    own = np.zeros(3)
    stream.step(np.array([1, 1e6, 3], np.float32), None, own, bad)
    given = stream.step(np.array([1, 2, 3], np.float32), None, own, none)
    seen = np.array([1, 3, 1, 2, 3])
    expected = (np.array([1, 2, 3]) - seen.mean()) / seen.std()
    np.testing.assert_allclose(given.reward, expected, rtol=1e-6)


def test_fewer_frames_than_before_need_no_other_memory() -> None:
    reward = Shades()
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    with reward.scorer() as scorer:
        tickets = [scorer.submit(frames)]
        ring = scorer._ring
        tickets += [scorer.submit(frames[:rows]) for rows in (2, 5, 1, 3)]
        assert scorer._ring is ring
        for ticket in tickets:
            found = scorer.collect([ticket])[0]
            np.testing.assert_allclose(found, reward.score(frames)[: len(found)], atol=2e-5)
        # What is drawn into the scorer's memory fills it.
        assert scorer.acquire((2, 16, 16, 3)).shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: RewardOptions("median"), UnknownNameError, "camera_reduce must be one of max"),
        (lambda: RewardOptions(unscored="holt"), UnknownNameError, "Did you mean 'hold'"),
        (lambda: RewardOptions(score_every=0), ArgumentError, "at least 1, got 0"),
        (lambda: RewardOptions(score_every=2.5), ArgumentError, "whole number .* got 2.5"),  # type: ignore[arg-type]
        (lambda: Mix("replace", 1.0, 2.0), ArgumentError, "env_weight must be left out where mode"),
        (lambda: Mix("add", 1.0, float("nan")), ArgumentError, "env_weight must be finite"),
    ],
)
def test_options_that_cannot_be_are_refused(make: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_every_face_takes_the_options() -> None:
    options = RewardOptions(score_every=2, normalize=True)
    env = make_vec_env(
        "cartpole-upright", 2, reward=Shades(), api="gymnasium", seed=0, options=options,
        camera=[None, OTHER],
    )  # fmt: skip
    env.reset()
    found = [env.step(np.zeros((2, 1)))[4]["vlm_reward"] for _ in range(4)]
    for one, other in itertools.pairwise(found[:2]):
        np.testing.assert_array_equal(one, other)
    assert env.camera_frames.shape[:2] == (2, 2)
    env.close()
