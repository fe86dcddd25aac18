"""How textures shrink with distance, against mujoco.Renderer's pictures."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from parity import Oracle

from vlmrm_fast.rendering import Renderer, Scene

_XML = """
<mujoco><visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual><asset>
<texture name="t" type="2d" builtin="checker" rgb1="1 .9 .8" rgb2="0 .1 .3" width="{side}"
 height="{side}" mark="random" markrgb=".2 1 .4"/>
<material name="m" texture="t" texrepeat="{repeat} {repeat}" texuniform="true"/></asset>
<worldbody><camera name="c" pos="0 -4 {height}" xyaxes="1 .2 0 0 .2 1" {view}/>
<geom type="{shape}" size="40 40 .1" pos="0 0 {down}" material="m"/></worldbody></mujoco>"""

_GRAZING = {"shape": "plane", "side": 300, "repeat": 1, "height": 1, "view": "", "down": 0}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shape": "box", "down": -0.1},
        {"side": 64, "repeat": 7.3},
        {"height": 4},
        {"view": 'projection="orthographic" fovy="5"'},
    ],
)
@pytest.mark.parametrize("size", [(120, 120), (75, 101)])
def test_floors_are_filtered_as_in_mujoco(
    oracle: Oracle, change: dict[str, object], size: tuple[int, int]
) -> None:
    model = mujoco.MjModel.from_xml_string(_XML.format(**_GRAZING | change))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    theirs = oracle.draw(model, [data], "c", size)[0]
    with Renderer(Scene.from_model(model, "c"), *size, 1) as renderer:
        difference = np.abs(theirs.astype(int) - renderer.render(data)[0])
    below = slice(size[0] // 2 + 8, None)  # the horizon
    assert theirs[below].std() > 20
    assert difference[below].max() <= 4
    assert difference[below].mean() <= 0.5
