"""The photographic look: what it changes, what it leaves alone, and that both renderers agree."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import gymnasium
import mujoco
import numpy as np
import pytest
from parity import ASSETS, BOUNDS, Figures, Oracle, compare, random_worlds, task_scenes
from PIL import Image

from vlmrm_fast._textures import _cube_border
from vlmrm_fast.config import from_yaml
from vlmrm_fast.envs import make_vec_env
from vlmrm_fast.envs.dressing import dress
from vlmrm_fast.errors import ArgumentError, ModelError, UnknownNameError
from vlmrm_fast.evaluation.lab import LabConfig, make_plan
from vlmrm_fast.rendering import Renderer, Scene
from vlmrm_fast.sb3.building import build_task, resolve
from vlmrm_fast.scoring import ScoreConfig, _find_task, score_frames
from vlmrm_fast.tasks import get_task, textures

SCRIPT = textures.FOLDER / "make_textures.py"
# Fields of MjModel that a look may change: how things are drawn, and how many of them there are.
_VISUAL = ("tex_", "mat_", "light_", "geom_matid", "geom_rgba", "name", "_sizes", "paths", "tuple")


def _arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    found = {name: getattr(model, name) for name in dir(model) if not name.startswith("__")}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and not name.startswith(_VISUAL)
    }


@pytest.mark.parametrize("name", task_scenes())
def test_photographic_textures_change_nothing_but_looks(name: str) -> None:
    task = get_task(name)
    plain, dressed = _arrays(task.load_model()), _arrays(_photographic(name))
    assert plain.keys() == dressed.keys()
    different = [
        field for field, value in plain.items() if not np.array_equal(value, dressed[field])
    ]
    assert not different


def _photographic(name: str) -> mujoco.MjModel:
    return get_task(name).with_textures("photographic").load_model()


@pytest.mark.parametrize("name", ["cartpole-upright", "humanoid-kneeling"])
def test_photographic_scenes_look_as_in_mujoco(oracle: Oracle, name: str) -> None:
    task = get_task(name).with_textures("photographic")
    model = task.load_model()
    world = random_worlds(model, 1)[0]
    theirs = oracle.draw(model, [world], task.camera)[0]
    with Renderer(Scene.from_model(model, task.camera), 224, 224, 1) as renderer:
        figures = compare(theirs, renderer.render(world)[0])
    assert figures.within(BOUNDS), figures


def test_gymnasiums_ant_is_drawn_alike_but_for_the_dots_of_mujocos_shadow_map(
    oracle: Oracle,
) -> None:
    model = textures.load(ASSETS / "ant.xml", "photographic")
    world = random_worlds(model, 1)[0]
    flags = {"shadow": False}
    theirs = oracle.draw(model, [world], flags=flags)[0]
    with Renderer(Scene.from_model(model, flags=flags), 224, 224, 1) as renderer:
        assert compare(theirs, renderer.render(world)[0]).within(Figures(40, 0.99, 0.005))


def test_the_light_shines_straight_down_in_full() -> None:
    model = _photographic("cartpole-upright")
    assert model.nlight == 1
    assert model.light_type[0] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    np.testing.assert_array_equal(model.light_dir[0], (0, 0, -1))
    np.testing.assert_array_equal(model.light_diffuse[0], (1, 1, 1))


def test_a_model_without_lights_gets_one() -> None:
    assert mujoco.MjModel.from_xml_path(str(ASSETS / "reacher.xml")).nlight == 0
    assert textures.load(ASSETS / "reacher.xml", "photographic").nlight == 1


def test_parts_of_their_own_colour_keep_it() -> None:
    model = textures.load(ASSETS / "walker2d_v5.xml", "photographic")
    np.testing.assert_allclose(model.geom("leg_left_geom").rgba, (0.7, 0.3, 0.6, 1), atol=1e-6)
    np.testing.assert_array_equal(model.geom("leg_geom").rgba, (1, 1, 1, 1))
    cart = _photographic("cartpole-upright").geom("cart").rgba
    np.testing.assert_allclose(cart, (0.12, 0.22, 0.55, 1), atol=1e-6)


def test_unknown_textures_are_answered_with_the_names() -> None:
    with pytest.raises(UnknownNameError, match=r"textures must be one of original, photographic"):
        get_task("humanoid-kneeling").with_textures("photografic")
    with pytest.raises(UnknownNameError, match="Did you mean 'original'"):
        textures.load(ASSETS / "ant.xml", "origin")


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    for look in textures.TEXTURES:
        with pytest.raises(ModelError, match=r"readable MJCF file, got .*none\.xml"):
            textures.load(tmp_path / "none.xml", look)


def test_original_textures_are_the_task_itself() -> None:
    task = get_task("humanoid-kneeling")
    assert task.with_textures("original") is task
    assert task.with_textures("photographic").with_textures("original").load_model().ntex == 3


def test_a_gymnasium_environment_is_drawn_in_another_look_and_moves_as_before() -> None:
    envs = [gymnasium.make("Hopper-v5", render_mode="rgb_array", width=64, height=64)]
    envs.append(gymnasium.make("Hopper-v5", render_mode="rgb_array", width=64, height=64))
    dress(envs[1], "photographic")
    action = np.array([0.3, -0.2, 0.5])
    for env in envs:
        env.reset(seed=3)
    (first, *_), (second, *_) = (env.step(action) for env in envs)
    np.testing.assert_array_equal(first, second)
    plain, dressed = (np.asarray(env.render(), float) for env in envs)
    # The sky is dark in one picture and bright in the other.
    assert plain[:8].mean() + 60 < dressed[:8].mean()
    for env in envs:
        env.close()


def test_only_mujoco_environments_can_be_dressed() -> None:
    env = gymnasium.make("CartPole-v1")
    with pytest.raises(ArgumentError, match=r"textures must be original for CartPoleEnv"):
        dress(env, "photographic")


@pytest.mark.parametrize(
    ("text", "textures"),
    [
        ("task: humanoid-kneeling", "original"),
        ("{task: humanoid-kneeling, camera: {textures: photographic}}", "photographic"),
        ("task: mountaincar", "photographic"),
        ("{task: mountaincar, camera: {textures: original}}", "original"),
    ],
)
def test_a_resolved_configuration_names_its_textures(text: str, textures: str) -> None:
    config = resolve(from_yaml(text))
    assert config.camera.textures == textures
    assert build_task(config).textures == textures


def test_textures_of_a_run_are_checked_before_any_work() -> None:
    with pytest.raises(UnknownNameError, match=r"camera.textures must be one of original, photo"):
        from_yaml("{task: humanoid-kneeling, camera: {textures: photo}}")
    with pytest.raises(UnknownNameError, match=r"textures of cartpole must be one of original"):
        resolve(from_yaml("{task: cartpole, camera: {textures: photographic}}"))


def test_score_and_lab_draw_a_task_in_the_look_that_is_asked_for() -> None:
    found = _find_task(ScoreConfig(task="cartpole-upright", textures="photographic"))
    assert found is not None
    assert found.textures == "photographic"
    lab = LabConfig("cartpole-upright", num_states=30)
    frames = [
        next(iter(make_plan(replace(lab, textures=look)).subject.frames(16, None)))
        for look in (None, "photographic")
    ]
    assert not np.array_equal(*frames)
    with pytest.raises(UnknownNameError, match=r"textures must be one of original, photographic"):
        make_plan(LabConfig("cartpole-upright", textures="wood"))
    with pytest.raises(ArgumentError, match="textures must be left out where frames are given"):
        score_frames(ScoreConfig(source="a.npz", textures="original"))
    with pytest.raises(ArgumentError, match="textures must be left out where frames are given"):
        make_plan(LabConfig("a.npz", textures="original"))


class _Mean:
    """The mean brightness as a reward."""

    image_size = 32

    def score(self, frames: np.ndarray) -> np.ndarray:
        return np.asarray(frames).mean(axis=(1, 2, 3), dtype=np.float32)


def test_an_environment_is_built_in_the_look_that_is_asked_for() -> None:
    brightness = []
    for look in (None, "photographic"):
        env = make_vec_env(
            "humanoid-kneeling", 1, reward=_Mean(), api="gymnasium", seed=1, textures=look
        )
        env.reset()
        brightness.append(float(env.step(np.zeros((1, 17)))[1][0]))
        env.close()
    assert brightness[0] + 30 < brightness[1]
    with pytest.raises(UnknownNameError, match="textures must be one of"):
        make_vec_env("humanoid-kneeling", reward=_Mean(), textures="none")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_textures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["tiles", "metal"])
def test_the_script_draws_the_committed_pictures(script: ModuleType, name: str) -> None:
    committed = np.asarray(Image.open(textures.FOLDER / f"{name}.png"))
    drawn = getattr(script, name)()
    assert np.abs(drawn.astype(int) - committed).max() <= 1


def test_brushed_metal_repeats_without_a_seam() -> None:
    rows = np.asarray(Image.open(textures.FOLDER / "metal.png")).astype(float)
    for axis in (0, 1):
        inner = np.abs(np.diff(rows, axis=axis)).mean()
        seam = np.abs(np.take(rows, 0, axis) - np.take(rows, -1, axis)).mean()
        assert seam < 2 * inner


def test_the_sky_has_no_seams_between_its_faces(script: ModuleType) -> None:
    faces = np.asarray(Image.open(textures.FOLDER / "sky.png")).reshape(6, 512, 512, 3)
    directions = script.cube_directions(512)
    borders, colours = _borders(directions), _borders(faces).astype(int)
    # Along the border of each face lie texels of another one, in almost the same direction.
    for face in range(6):
        others = [other for other in range(6) if other != face]
        nearest = (borders[face] @ borders[others].reshape(-1, 3).T).argmax(1)
        twins = colours[others].reshape(-1, 3)[nearest]
        assert np.abs(twins - colours[face]).mean() < 6


def test_a_cubes_face_is_surrounded_by_its_neighbours() -> None:
    faces = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None], (6, 4, 4, 3))
    right = _cube_border(faces)[0, ..., 0]
    # OpenGL's order is +x, -x, +y, -y, +z, -z; rows of the +x face go down, columns towards -z.
    assert (right[0, 1:-1] == 2).all()
    assert (right[-1, 1:-1] == 3).all()
    assert (right[1:-1, 0] == 4).all()
    assert (right[1:-1, -1] == 5).all()
    assert (right[1:-1, 1:-1] == 0).all()


def _borders(faces: np.ndarray) -> np.ndarray:
    """Return the outermost texels of each face, (6, 4 * side, 3)."""
    edges = (faces[:, 0], faces[:, -1], faces[:, :, 0], faces[:, :, -1])
    return np.concatenate(edges, axis=1)
