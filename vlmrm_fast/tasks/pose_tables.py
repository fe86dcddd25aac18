"""Tables of humanoid poses: joint angles with spread, by name.

The angles suit the humanoid of gymnasium's Humanoid-v5; `poses` draws from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# A joint angle: (mean, half spread) [degrees].
Angle = tuple[float, float]

# Joints that come in pairs. Mirroring swaps the sides; the shoulders also change sign, as their
# axes are mirror images of each other, which the axes of hips, knees and elbows already encode.
LEGS = ("hip_x", "hip_z", "hip_y", "knee")
ARMS = ("shoulder1", "shoulder2", "elbow")
ABDOMEN = ("abdomen_z", "abdomen_y", "abdomen_x")

# Right-arm angles (shoulder1, shoulder2, elbow) [degrees] found by a search for the hand and elbow
# positions that the name says, within the joint ranges.
ARM_POSITIONS: dict[str, tuple[float, float, float]] = {
    "down": (42, -39, -85),
    "raised": (-85, 7, -62),
    "hips": (48, -70, -7),
    "crossed": (60, -10, 3),
    "side": (-51, -33, -89),
    "forward": (-6, 43, -90),
    "knees": (22, -6, -61),
    "back": (60, -84, -60),
    "head": (-85, -10, 38),
    "zero": (0, 0, 0),
}

# Arm positions of `TASK_POSES` alone: "any" of `ARM_POSITIONS` is drawn from by pretraining, whose
# frames must not change. The two forearms cross at different heights, so that they do not touch.
TASK_ARM_POSITIONS: dict[str, tuple[float, float, float]] = {
    "crossed_low": (59, -3, -48),
    "crossed_high": (60, 2, -28),
}


@dataclass(frozen=True)
class Pose:
    """One named pose.

    Attributes:
        joints: angles by joint name; a name without a side ("knee") sets both sides.
        roll: rotation of the torso about its forward axis [degrees].
        pitch: rotation about its left axis, positive leans forward [degrees].
        arms: arm positions of the first arm, of either side, to choose from; () draws any.
        other_arm: positions of the second arm to choose from; () mostly does as the first.
        lift: height above the floor of the lowest point [m], (least, greatest).
        weight: how often the pose is drawn, relative to the others.
    """

    joints: Mapping[str, Angle] = field(default_factory=dict)
    roll: Angle = (0.0, 4.0)
    pitch: Angle = (0.0, 6.0)
    arms: tuple[str, ...] = ()
    other_arm: tuple[str, ...] = ()
    lift: tuple[float, float] = (-0.01, 0.01)
    weight: float = 1.0


_STRAIGHT = {"hip_y": (-4.0, 7.0), "knee": (-7.0, 5.0), "hip_x": (-4.0, 4.0)}
_KNEEL = {"hip_x": (-8.0, 8.0), "hip_y": (-8.0, 12.0), "knee": (-98.0, 12.0)}
_HEELS = {"hip_x": (-8.0, 8.0), "hip_y": (-62.0, 12.0), "knee": (-148.0, 10.0)}
_FLAT = {
    "hip_x": (-8.0, 8.0),
    "hip_y": (-8.0, 14.0),
    "knee": (-18.0, 16.0),
    "abdomen_y": (0.0, 12.0),
}
_SIT = {"hip_y": (-96.0, 8.0), "hip_x": (-5.0, 6.0), "knee": (-16.0, 12.0)}

POSES: dict[str, Pose] = {
    "standing": Pose(_STRAIGHT, weight=3.0),
    "standing_arms_raised": Pose(_STRAIGHT, arms=("raised",), weight=1.5),
    "standing_hands_on_hips": Pose(_STRAIGHT, arms=("hips",), weight=1.5),
    "standing_arms_crossed": Pose(_STRAIGHT, arms=("crossed",), weight=1.5),
    "standing_arms_out": Pose(_STRAIGHT, arms=("side",)),
    "standing_one_leg": Pose(
        {**_STRAIGHT, "right_hip_y": (-75.0, 25.0), "right_knee": (-90.0, 35.0)}, weight=2.0
    ),
    "standing_legs_apart": Pose({"hip_x": (-21.0, 4.0), "knee": (-4.0, 3.0), "hip_y": (0.0, 6.0)}),
    "walking": Pose({
        "right_hip_y": (-32.0, 10.0),
        "left_hip_y": (12.0, 7.0),
        "knee": (-16.0, 12.0),
    }),
    "kneeling": Pose(_KNEEL, weight=5.0),
    "kneeling_on_heels": Pose(_HEELS, pitch=(4.0, 8.0), weight=3.0),
    "kneeling_arms_raised": Pose(_KNEEL, arms=("raised",)),
    "kneeling_one_knee": Pose(
        {
            "right_hip_y": (-84.0, 10.0),
            "right_knee": (-86.0, 10.0),
            "left_hip_y": (6.0, 10.0),
            "left_knee": (-94.0, 10.0),
        },
        weight=1.5,
    ),
    "crouching": Pose(
        {"hip_y": (-85.0, 20.0), "knee": (-105.0, 20.0), "abdomen_y": (-20.0, 10.0)},
        pitch=(22.0, 10.0),
        weight=1.5,
    ),
    "bending_forward": Pose(
        {"hip_y": (-60.0, 15.0), "knee": (-6.0, 4.0), "abdomen_y": (-30.0, 20.0)},
        pitch=(85.0, 15.0),
        arms=("forward", "raised", "knees"),
    ),
    "sitting": Pose(_SIT, pitch=(-2.0, 5.0), weight=2.0),
    "sitting_knees_bent": Pose(
        {"hip_y": (-106.0, 4.0), "hip_x": (-5.0, 6.0), "knee": (-48.0, 14.0)}, pitch=(-6.0, 6.0)
    ),
    "sitting_lotus": Pose(
        {
            "hip_y": (-106.0, 4.0),
            "hip_z": (-54.0, 6.0),
            "hip_x": (-20.0, 5.0),
            "knee": (-142.0, 14.0),
        },
        pitch=(-8.0, 5.0),
        arms=("knees",),
        weight=1.5,
    ),
    "splits": Pose(
        {"hip_y": (-84.0, 10.0), "hip_z": (-56.0, 4.0), "hip_x": (-20.0, 5.0), "knee": (-4.0, 2.0)},
        weight=1.5,
    ),
    "all_fours": Pose(
        {"hip_y": (-82.0, 12.0), "knee": (-90.0, 12.0)},
        pitch=(82.0, 8.0),
        arms=("forward",),
        weight=1.5,
    ),
    "lying_back": Pose(_FLAT, pitch=(-90.0, 6.0), weight=2.0),
    "lying_front": Pose(
        _FLAT, pitch=(90.0, 6.0), arms=("down", "side", "hips", "back"), weight=2.0
    ),
    "lying_side": Pose(
        {"hip_y": (-30.0, 30.0), "knee": (-40.0, 36.0)},
        roll=(88.0, 10.0),
        arms=("down", "forward", "knees", "crossed"),
        weight=2.0,
    ),
    "falling_forward": Pose(_FLAT, pitch=(40.0, 18.0), lift=(0.0, 0.2)),
    "falling_backward": Pose(_FLAT, pitch=(-40.0, 18.0), lift=(0.0, 0.2)),
    "falling_sideways": Pose(_FLAT, roll=(40.0, 18.0), lift=(0.0, 0.2)),
    "random": Pose(weight=2.0, lift=(-0.02, 0.25)),
}

_TAILOR = {
    "abdomen_y": (-72.0, 3.0),
    "hip_x": (3.0, 2.0),
    "hip_z": (-58.0, 2.0),
    "right_hip_y": (-27.0, 4.0),
    "right_knee": (-144.0, 5.0),
    "left_hip_y": (-41.0, 4.0),
    "left_knee": (-114.0, 4.0),
}

# Goal poses and near misses of the tasks that pretraining does not draw.
TASK_POSES: dict[str, Pose] = {
    "lotus": Pose(_TAILOR, pitch=(-13.0, 3.0), arms=("knees",)),
    "lotus_open": Pose(
        {**_TAILOR, "right_knee": (-80.0, 12.0), "left_knee": (-70.0, 12.0)},
        pitch=(-13.0, 3.0),
        arms=("knees",),
    ),
    "standing_arms_down": Pose(_STRAIGHT, arms=("down",)),
    "standing_one_arm_raised": Pose(_STRAIGHT, arms=("raised",), other_arm=("down",)),
    "standing_one_hand_on_hip": Pose(_STRAIGHT, arms=("hips",), other_arm=("down",)),
    "standing_one_arm_crossed": Pose(_STRAIGHT, arms=("crossed_low",), other_arm=("down",)),
    "standing_forearms_crossed": Pose(
        _STRAIGHT, arms=("crossed_low",), other_arm=("crossed_high",)
    ),
    "standing_heel_lifted": Pose({
        **_STRAIGHT,
        "right_hip_y": (-14.0, 5.0),
        "right_knee": (-30.0, 6.0),
    }),
    "half_squat": Pose({"hip_y": (-52.0, 6.0), "knee": (-92.0, 8.0)}, pitch=(16.0, 6.0)),
    "splits_bent": Pose({
        "hip_y": (-84.0, 10.0),
        "hip_z": (-56.0, 4.0),
        "hip_x": (-20.0, 5.0),
        "knee": (-62.0, 10.0),
    }),
    "straddle": Pose({
        "hip_y": (-84.0, 8.0),
        "hip_z": (-24.0, 6.0),
        "hip_x": (-5.0, 5.0),
        "knee": (-4.0, 2.0),
    }),
}


def find_pose(name: str) -> Pose:
    """Return the pose of that name.

    Args:
        name: a key of `POSES` or `TASK_POSES`.

    Returns:
        The pose.
    """
    return POSES[name] if name in POSES else TASK_POSES[name]
