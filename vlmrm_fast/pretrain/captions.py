"""Captions from what is true of a state: a small template grammar with synonyms.

A caption is a text and the concepts that it claims, drawn for a state among the concepts that
hold there, or at random. How true it is of *any* state is the product of its concepts' degrees, so
a batch of pictures and captions has exact targets for every pair, not only for the drawn ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmrm_fast.pretrain.concepts import ANGLE_BINS, CONCEPTS, INDEX

# Table 3 of the paper (Rocamonde et al., ICLR 2024), verbatim, with the concepts that each claims.
PAPER_PROMPTS: dict[str, tuple[str, ...]] = {
    "pole vertically upright on top of the cart": ("upright",),
    "pole and cart": ("cartpole",),
    "a car at the peak of the mountain, next to the yellow flag": ("car_high", "car_flag"),
    "a car in the mountain": ("mountaincar",),
    "a humanoid robot kneeling": ("kneeling",),
    "a humanoid robot seated down, meditating in the lotus position": ("lotus",),
    "a humanoid robot standing up": ("standing",),
    "a humanoid robot standing up, with both arms raised": ("standing", "arms_raised"),
    "a humanoid robot practicing gymnastics, doing the side splits": ("splits",),
    "a humanoid robot standing up with hands on hips": ("standing", "hands_on_hips"),
    "a humanoid robot standing up, with its arms crossed": ("standing", "arms_crossed"),
    "a humanoid robot standing up on one leg": ("one_leg",),
    "a humanoid robot": ("humanoid",),
}

POLES = ("pole", "the pole", "a pole", "the pendulum", "a stick", "the rod")
ROBOTS = (
    "a humanoid robot",
    "the humanoid robot",
    "a humanoid",
    "a robot",
    "the robot",
    "a human-like robot",
    "a person",
    "someone",
)
PREFIXES = ("a photo of ", "a picture of ", "an image of ", "a rendering of ", "a simulation of ")
POLE_PREDICATES: dict[str, tuple[str, ...]] = {
    "upright": (
        "vertically upright on top of the cart",
        "upright",
        "standing upright",
        "perfectly vertical",
        "vertical on the cart",
        "standing straight up on the cart",
        "balanced on top of the cart",
        "balancing upright on the cart",
        "pointing straight up",
        "upright on the cart",
    ),
    "tilted": ("tilted", "not upright", "leaning over", "falling over", "tipping off the vertical"),
    "slightly_left": (
        "leaning slightly left",
        "tilted a little to the left",
        "almost upright, left",
    ),
    "slightly_right": (
        "leaning slightly right",
        "tilted a little to the right",
        "almost upright, right",
    ),
    "leaning_left": ("leaning left", "tilted to the left", "tipping to the left", "falling left"),
    "leaning_right": (
        "leaning right",
        "tilted to the right",
        "tipping to the right",
        "falling right",
    ),
    "fallen_left": ("fallen to the left side", "lying horizontal to the left", "fallen over, left"),
    "fallen_right": (
        "fallen to the right side",
        "lying horizontal to the right",
        "fallen over, right",
    ),
    "hanging": ("hanging down from the cart", "pointing down", "upside down", "hanging below"),
    **{
        f"angle_{angle}": (
            f"tilted {angle} degrees",
            f"tilted by about {angle} degrees",
            f"at {angle} degrees from the vertical",
        )
        for angle in ANGLE_BINS
    },
}
CARTPOLE_SCENES = (
    "pole and cart",
    "a pole and a cart",
    "a cart with a pole",
    "a cart-pole",
    "the cart and the pole",
    "a cart on a rail with a pole",
)
CARTPOLE_DETAILS: dict[str, tuple[str, ...]] = {
    "cart_left": ("cart on the left", "with the cart at the left of the rail"),
    "cart_middle": ("cart in the middle", "with the cart in the center"),
    "cart_right": ("cart on the right", "with the cart at the right of the rail"),
}
ROBOT_PREDICATES: dict[str, tuple[str, ...]] = {
    "standing": ("standing up", "standing", "standing upright", "standing on both feet", "upright"),
    "one_leg": ("standing up on one leg", "standing on one leg", "balancing on one foot"),
    "kneeling": (
        "kneeling",
        "kneeling down",
        "on its knees",
        "kneeling on the floor",
        "on both knees",
        "kneeling on both knees",
        "kneeling on the ground",
    ),
    "kneeling_one": ("on one knee", "kneeling on one knee", "down on one knee"),
    "crouching": ("crouching", "squatting", "in a squat", "crouching down"),
    "bending": ("bending forward", "bowing", "bent over", "touching its toes"),
    "sitting": (
        "sitting",
        "seated",
        "sitting on the floor",
        "sitting down",
        "seated on the ground",
    ),
    "lotus": (
        "seated down, meditating in the lotus position",
        "meditating",
        "sitting in the lotus position",
        "sitting cross-legged",
    ),
    "splits": (
        "practicing gymnastics, doing the side splits",
        "doing the splits",
        "doing the side splits",
        "doing a split on the floor",
    ),
    "all_fours": ("on all fours", "crawling", "on hands and knees"),
    "lying": ("lying down", "lying on the floor", "lying on the ground", "fallen down"),
    "lying_back": ("lying on its back", "lying face up", "on its back on the floor"),
    "lying_front": ("lying on its front", "lying face down", "lying on its belly"),
    "lying_side": ("lying on its side", "on its side on the floor"),
    "falling": ("falling", "falling over", "losing its balance", "tipping over"),
}
ROBOT_DETAILS: dict[str, tuple[str, ...]] = {
    "arms_raised": (", with both arms raised", "with its arms up", "with raised arms"),
    "hands_on_hips": ("with hands on hips", "with its hands on its hips"),
    "arms_crossed": (", with its arms crossed", "with crossed arms", "with folded arms"),
    "arms_out": ("with arms out to the sides", "in a T-pose", "with its arms spread"),
    "arms_forward": ("with arms stretched forward", "reaching forward"),
    "seen_front": ("seen from the front", "facing the camera"),
    "seen_back": ("seen from behind", "from the back"),
    "seen_side": ("seen from the side", "in profile"),
}
DISTANCES: dict[str, tuple[str, ...]] = {
    "near": ("close to the camera", "up close"),
    "far": ("far away", "seen from far"),
}
CARS = ("a car", "the car", "a small car", "a vehicle")
CAR_SCENES = (
    "a car in the mountain",
    "a car in the mountains",
    "a car on a mountain",
    "a car on a hill",
    "a mountain car",
    "a car and a mountain",
    "a car and a yellow flag",
)
CAR_PREDICATES: dict[str, tuple[str, ...]] = {
    "car_high": (
        "at the peak of the mountain",
        "at the top of the mountain",
        "on top of the hill",
        "at the summit",
        "high up on the mountain",
    ),
    "car_flag": (
        "next to the yellow flag",
        "at the yellow flag",
        "at the flag",
        "beside the flag",
        "that has reached the flag",
    ),
    "car_below_flag": (
        "just below the flag",
        "below the peak of the mountain",
        "almost at the flag",
        "almost at the top",
    ),
    "car_valley": (
        "in the valley",
        "at the bottom of the valley",
        "between two mountains",
        "at the lowest point",
        "down in the valley",
    ),
    "car_left": ("on the left mountain", "on the left slope", "on the hill on the left"),
    "car_right": (
        "on the right slope",
        "climbing the right slope",
        "driving up to the flag",
        "halfway up the mountain",
    ),
}
NOTHING = (
    "a dog on a sofa",
    "a bowl of fruit",
    "a red sports car",
    "an empty room",
    "a bird in the sky",
    "a house by the sea",
    "a plate of food",
)


@dataclass(frozen=True)
class Caption:
    """A text and the concepts that it claims, all of which must hold.

    Attributes:
        text: what the text tower reads.
        concepts: names out of `concepts.CONCEPTS`.
    """

    text: str
    concepts: tuple[str, ...]


def truth(captions: Sequence[Caption], degrees: np.ndarray) -> np.ndarray:
    """Return how true each caption is of each state: the product of its concepts' degrees.

    Args:
        captions: P captions.
        degrees: (N, len(CONCEPTS)) float32 in [0, 1].

    Returns:
        (N, P) float32 in [0, 1].
    """
    claims = np.zeros((len(CONCEPTS), len(captions)), np.float32)
    for column, caption in enumerate(captions):
        claims[[INDEX[name] for name in caption.concepts], column] = 1.0
    return np.exp(np.log(np.maximum(degrees, 1e-12)) @ claims).astype(np.float32)


def describe(degrees: np.ndarray, rng: np.random.Generator) -> Caption:
    """Draw a caption that is true of one state (each concept at least one half).

    Of a state that shows nothing, captions are drawn as without one.

    Args:
        degrees: (len(CONCEPTS),) the state's degrees.
        rng: the source of randomness, advanced by this call.

    Returns:
        The caption.
    """
    true = {name for name, degree in zip(CONCEPTS, degrees, strict=True) if degree >= 0.5}
    if not true:
        return random_caption(rng)
    if rng.random() < 0.15:
        fitting = [t for t, claims in PAPER_PROMPTS.items() if true.issuperset(claims)]
        text = str(rng.choice(fitting))
        return Caption(text, PAPER_PROMPTS[text])
    if "mountaincar" in true:
        return _car(_pick(true, CAR_PREDICATES, 0.88, rng), true, rng)
    if "cartpole" in true:
        return _cartpole(_pick(true, POLE_PREDICATES, 0.85, rng), true, rng)
    return _humanoid(_pick(true, ROBOT_PREDICATES, 0.88, rng), true, rng)


def random_caption(rng: np.random.Generator) -> Caption:
    """Draw a caption without a state: any claim of the grammar, or one that is true of nothing.

    Args:
        rng: the source of randomness, advanced by this call.

    Returns:
        The caption.
    """
    kind = rng.random()
    if kind < 0.3:
        text = str(rng.choice(list(PAPER_PROMPTS)))
        return Caption(text, PAPER_PROMPTS[text])
    if kind < 0.35:
        return Caption(str(rng.choice(NOTHING)), ("nothing",))
    if kind < 0.6:
        return _cartpole(str(rng.choice(list(POLE_PREDICATES))), set(), rng)
    if kind < 0.7:
        return _car(str(rng.choice(list(CAR_PREDICATES))), {"car_flag"}, rng)
    return _humanoid(str(rng.choice(list(ROBOT_PREDICATES))), set(), rng)


def _pick(
    true: set[str], phrases: dict[str, tuple[str, ...]], chance: float, rng: np.random.Generator
) -> str | None:
    """Return a true concept that has phrases with the given chance, None otherwise."""
    fitting = [name for name in phrases if name in true]
    return str(rng.choice(fitting)) if fitting and rng.random() < chance else None


def _cartpole(concept: str | None, true: set[str], rng: np.random.Generator) -> Caption:
    """Phrase a claim about the pole, with true details of the cart and the distance."""
    if concept is None:
        text, claims = str(rng.choice(CARTPOLE_SCENES)), ["cartpole"]
    else:
        text, claims = f"{rng.choice(POLES)} {rng.choice(POLE_PREDICATES[concept])}", [concept]
    return _finish(text, claims, _pick(true, {**CARTPOLE_DETAILS, **DISTANCES}, 0.25, rng), rng)


def _humanoid(concept: str | None, true: set[str], rng: np.random.Generator) -> Caption:
    """Phrase a claim about the robot's posture, with true details of arms, view and distance."""
    # The plain subject is the paper's, so it is drawn most.
    text = str(rng.choice(ROBOTS)) if rng.random() < 0.6 else ROBOTS[0]
    claims = ["humanoid"]
    if concept is not None:
        text, claims = f"{text} {rng.choice(ROBOT_PREDICATES[concept])}", [concept]
    return _finish(text, claims, _pick(true, {**ROBOT_DETAILS, **DISTANCES}, 0.35, rng), rng)


def _car(concept: str | None, true: set[str], rng: np.random.Generator) -> Caption:
    """Phrase a claim about where the car is, the peak with or without the flag there."""
    if concept is None:
        return _finish(str(rng.choice(CAR_SCENES)), ["mountaincar"], None, rng)
    text, claims = f"{rng.choice(CARS)} {rng.choice(CAR_PREDICATES[concept])}", [concept]
    if concept == "car_high" and "car_flag" in true and rng.random() < 0.4:
        phrase, claims = str(rng.choice(CAR_PREDICATES["car_flag"])), [concept, "car_flag"]
        text = f"{text}, {phrase}"
    return _finish(text, claims, None, rng)


def _finish(text: str, claims: list[str], detail: str | None, rng: np.random.Generator) -> Caption:
    """Append a detail and prepend "a photo of" to some captions."""
    if detail is not None:
        phrase = str(rng.choice({**CARTPOLE_DETAILS, **ROBOT_DETAILS, **DISTANCES}[detail]))
        text, claims = f"{text}{'' if phrase[0] == ',' else ' '}{phrase}", [*claims, detail]
    if rng.random() < 0.15:
        text = f"{rng.choice(PREFIXES)}{text}"
    return Caption(text, tuple(claims))


def vocabulary() -> list[str]:
    """Return every phrase of the grammar, each short enough to be tokenised.

    Returns:
        The phrases; together they hold all words that captions use.
    """
    tables = (
        POLE_PREDICATES,
        CARTPOLE_DETAILS,
        ROBOT_PREDICATES,
        ROBOT_DETAILS,
        DISTANCES,
        CAR_PREDICATES,
    )
    phrases = [phrase for table in tables for phrases in table.values() for phrase in phrases]
    scenes = (*CARTPOLE_SCENES, *CAR_SCENES)
    return [*PAPER_PROMPTS, *POLES, *ROBOTS, *CARS, *PREFIXES, *scenes, *NOTHING, *phrases]
