"""A model and a camera, ready to draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco

from vlmrm_fast import _camera, _look, _scene
from vlmrm_fast._camera import Camera
from vlmrm_fast._sources import extra_fields
from vlmrm_fast.errors import ArgumentError, UnsupportedSceneError


class Scene:
    """A model and a camera, ready to draw: immutable, made once, shared by any renderers.

    Attributes:
        model: the mjModel it was read from.
        camera: the camera as it was given.
        unsupported: why the `ray` renderer cannot draw it, naming every element that it does not
            draw; None if it can.
        needs: `MjData` fields that it is drawn from beyond those of `Poses`: worlds must then come
            as MjData, or as a batch unless "contact" is among them.
        option: what is shown; a copy.
        flags: every render flag by name.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        camera: Any = None,
        *,
        option: mujoco.MjvOption | None = None,
        flags: Mapping[str, bool] | None = None,
    ) -> None:
        """See `Scene.from_model`."""
        if not isinstance(model, mujoco.MjModel):
            raise ArgumentError(
                f"`model` must be a mujoco.MjModel, got {type(model).__name__}. "
                "Use mujoco.MjModel.from_xml_path(path) to load one."
            )
        self.model = model
        self.camera = camera
        self.option = _look.resolve_option(option)
        self.flags = _look.resolve_flags(flags)
        self._view = _camera.resolve(model, camera)
        self.needs = extra_fields(model, self.option)
        self.unsupported: str | None = None
        self._built: _scene.Built | None = None
        try:
            self._built = _scene.build(model, self._view.mjv, self.option, self.flags)
        except UnsupportedSceneError as error:
            self.unsupported = str(error)

    @classmethod
    def from_model(
        cls,
        model: mujoco.MjModel,
        camera: Camera | mujoco.MjvCamera | int | str | None = None,
        *,
        option: mujoco.MjvOption | None = None,
        flags: Mapping[str, bool] | None = None,
    ) -> Scene:
        """Read `model` once into plain arrays.

        A model may show elements that the `ray` renderer does not draw: `unsupported` names them,
        and a Renderer of backend "ray" refuses the scene.

        Args:
            model: the compiled model. Later changes to it are not seen.
            camera: None for the model's default free camera, a camera id (-1 is the free camera),
                a camera name, a mujoco.MjvCamera, or a Camera. Perspective or orthographic as the
                model says.
            option: which groups and elements are shown; None for MuJoCo's default.
            flags: render flags by their mjtRndFlag names in lower case: additive, cull_face, fog,
                haze, reflection, shadow, skybox. Those not given are MuJoCo's defaults: all on
                but additive and fog.

        Returns:
            The scene.

        Raises:
            UnsupportedSceneError: a flag asks for what is not drawn.
            UnknownNameError: no camera, body or flag has that name.
            ArgumentError: the camera's or its body's id is out of range, or an argument is of
                another type.
        """
        return cls(model, camera, option=option, flags=flags)
