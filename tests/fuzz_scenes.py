"""Draw random scenes until the time is up; report every seed that crashes or breaks a promise.

Cases run in child processes, so that a signal costs one child: `make fuzz SECONDS=600`. One case
again: `python tests/fuzz_scenes.py --first 123 --count 1`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import mujoco
import native_build
import numpy as np
from random_scenes import SceneMaker

from vlmrm_fast.errors import VLMRMError
from vlmrm_fast.rendering import Poses, Renderer, Scene

assert native_build  # takes a sanitizer's build, if one is named, before vlmrm_fast is imported

CASES_PER_CHILD = 100


def run_case(seed: int) -> str:
    """Draw one random scene twice and return what came of it.

    Returns:
        "drawn", "refused" (a VLMRMError) or "rejected by MuJoCo".

    Raises:
        AssertionError: two pictures of the same worlds differ.
    """
    maker = SceneMaker(seed)
    xml = maker.xml()
    try:
        model = mujoco.MjModel.from_xml_string(xml)
    except (ValueError, mujoco.FatalError):
        return "rejected by MuJoCo"
    try:
        frames = draw(maker, model)
    except VLMRMError:
        return "refused"
    assert frames[0].dtype == np.uint8
    np.testing.assert_array_equal(frames[0], frames[1])
    return "drawn"


def draw(maker: SceneMaker, model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Return the pictures of one renderer with one thread and of one with several."""
    names = ("shadow", "reflection", "fog", "haze", "skybox", "cull_face", "additive")
    flags = {name: maker.chance(0.5) for name in names if maker.chance(0.2)}
    option = mujoco.MjvOption()
    if maker.chance(0.2):
        option.flags[:] = maker.rng.random(len(option.flags)) < 0.3
    scene = Scene.from_model(model, maker.camera(model), option=option, flags=flags)
    height, width = maker.pick((1, 1), (8, 8), (5, 31), (33, 7), (40, 40), (64, 100))
    count = int(maker.pick(0, 1, 1, 3, 5))
    if maker.chance(0.005):
        height, width, count = 8, 8, 10_000
    poses = maker.poses(model, count) if count else no_worlds(model)
    frames = []
    for threads in (1, int(maker.pick(2, 3, 5))):
        with Renderer(scene, height, width, threads, backend="ray") as renderer:
            frames.append(renderer.render(poses))
            assert frames[-1].shape == (count, height, width, 3)
            if maker.chance(0.3):
                np.testing.assert_array_equal(frames[-1], renderer.render(poses))
            for name in ("render_depth", "render_segmentation"):
                if hasattr(renderer, name):
                    getattr(renderer, name)(poses)
    return frames[0], frames[1]


def no_worlds(model: mujoco.MjModel) -> Poses:
    """Return poses of zero worlds."""
    one = Poses.from_data(mujoco.MjData(model))
    return Poses(**{name: array[:0] for name, array in vars(one).items()})


def run_child(first: int, count: int) -> None:
    """Run cases in this process and say before each which one it is."""
    for seed in range(first, first + count):
        print(seed, flush=True)
        print(run_case(seed), flush=True)


def run_parent(first: int, seconds: float) -> int:
    """Run children until the time is up; return the number of failed cases."""
    end, seed, failed = time.monotonic() + seconds, first, 0
    tally: dict[str, int] = {}
    while time.monotonic() < end:
        command = [sys.executable, __file__, "--first", str(seed), "--count", str(CASES_PER_CHILD)]
        child = subprocess.run(command, capture_output=True, text=True)
        lines = child.stdout.split("\n")
        for outcome in lines[1:-1:2]:
            tally[outcome] = tally.get(outcome, 0) + 1
        if child.returncode:
            last = int(lines[-2])
            failed += 1
            print(f"seed {last}: exit status {child.returncode}\n{child.stderr[-4000:]}")
            print(SceneMaker(last).xml(), flush=True)
            seed = last + 1
        else:
            seed += CASES_PER_CHILD
    print(f"seeds {first} to {seed - 1}: {tally}, {failed} failed")
    return failed


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--count", type=int, help="run this many cases in this process")
    args = parser.parse_args()
    if args.count is not None:
        run_child(args.first, args.count)
    else:
        sys.exit(run_parent(args.first, args.seconds) > 0)


if __name__ == "__main__":
    main()
