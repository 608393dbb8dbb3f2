"""The phantom's abdominal organs. Positions, sizes and values follow published normal ranges of adults.

Millimetres in the frame of `canvas`: x left, y back, z up, origin on the aorta between the kidneys. Each function draws
one group of organs over those drawn before.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from .body import Tissues, left_dome
from .canvas import Canvas, Field, Region, cut, ellipsoid, ripple, union

Points = Sequence[tuple[float, float, float]]


class Organ(IntEnum):
    """Label values of the phantom, as in the model abdomen-ct."""

    SPLEEN = 1
    RIGHT_KIDNEY = 2
    LEFT_KIDNEY = 3
    GALLBLADDER = 4
    ESOPHAGUS = 5
    LIVER = 6
    STOMACH = 7
    AORTA = 8
    INFERIOR_VENA_CAVA = 9
    PORTAL_AND_SPLENIC_VEIN = 10
    PANCREAS = 11
    RIGHT_ADRENAL_GLAND = 12
    LEFT_ADRENAL_GLAND = 13


def draw_bowel(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> None:
    """Small-bowel loops in mesenteric fat, then the colon as a frame around them."""
    fluid = rng.choice([25.0, 35.0, 45.0, 180.0], p=[0.3, 0.3, 0.2, 0.2])
    centres = [(x, y, z) for z in np.arange(-170, -8, 25.0) for y in (-62, -36, -12) for x in np.arange(-70, 90, 34.0)]
    for centre in rng.permutation(np.array(centres)):
        if rng.random() < 0.12 or (centre[2] > -40 and centre[0] < -20):
            continue
        middle = centre + rng.normal(0, 6, 3)
        swing = rng.normal(size=3) * (1.0, 0.6, 0.5)
        swing *= rng.uniform(16, 30) / np.linalg.norm(swing)
        turn = rng.normal(0, 9, 3)
        radius = rng.uniform(8.5, 13.0)
        at, loop = canvas.tube([middle - swing + turn, middle, middle + swing + turn], (radius, radius, radius * 0.9))
        gas = rng.random() < 0.06
        _draw_gut(canvas, at, loop, wall=rng.normal(88, 10), wall_mm=2.2, fluid=fluid + rng.normal(0, 8), gas=gas)
    _draw_mesentery(canvas, tissues, rng)
    _draw_colon(canvas, rng)


def draw_liver(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> tuple[Region, Field]:
    """The liver with its vessels; returns its shape, without the cuts, as the right half of the diaphragm."""
    size = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.1))
    tip, reach = rng.uniform(-12, 12), rng.uniform(-14, 12)
    at = canvas.region((-150, -100, -70), (95, 110, 150))
    right = ellipsoid(at, (-70, 2, 42), (76 * size, 84 * size, 86 * size))
    left = ellipsoid(at, (reach - 6, -44, 76), (66 * size, 36, 34 * size), tilt=0.12)
    hull = union(right, left, blend_mm=24) + ripple(at, rng, amplitude=2.5, wavelength=(70, 150))
    below = (at.x + 36) * 0.66 - (at.z - 12 - tip) * 0.75 + 0.1 * (at.y + 20)
    lobes = union(cut(right, -below, blend_mm=22), cut(left, at.z - 58, blend_mm=16), blend_mm=16)
    lobes = union(lobes, ellipsoid(at, (-17, -6, 78), (13, 15, 24)), blend_mm=6)
    lobes = lobes + (hull - union(right, left, blend_mm=24))
    wander = ripple(at, rng, amplitude=5, wavelength=(30, 60))
    fissure = np.maximum(
        np.abs(at.x + 12 + 0.2 * at.y + wander) - 1.2 + 0.05 * (at.y + 50), at.z - 78 + 0.3 * (at.y + 50)
    )
    porta = ellipsoid(at, (-26, -24, 52), (22, 11, 12))
    kidney = ellipsoid(at, (-68, 36, -10), (30, 32, 54), tilt=0.17)
    for gap in (fissure, porta, kidney):
        lobes = cut(lobes, gap, blend_mm=5)
    hu = rng.normal(106, 9)
    canvas.paint(at, lobes, hu, label=Organ.LIVER, texture=4.0)
    _draw_liver_vessels(canvas, tissues, hu, rng)
    return at, hull


def draw_stomach(canvas: Canvas, rng: np.random.Generator) -> None:
    """The stomach from cardia to pylorus with wall, contents and a gas bubble in front."""
    fill = rng.uniform(0.78, 1.15)
    shift = rng.normal(0, 5, 3)
    points = [(52, 22, 90), (58, -4, 82), (60, -40, 58), (44, -62, 32), (10, -64, 20), (-20, -52, 26)]
    radii = np.array([32, 37, 33, 27, 21, 8]) * (fill, fill, fill, fill, fill, 1.0)
    at, shape = canvas.tube(np.array(points) + shift, radii)
    below_dome = left_dome(at) + 5 - 2 * np.clip(70 - at.z, 0, None)
    shape = np.maximum(shape + ripple(at, rng, amplitude=2.5, wavelength=(35, 80)), below_dome)
    folds = ripple(at, rng, amplitude=2.0, wavelength=(14, 26))
    canvas.paint(at, shape - 2, -98.0)
    canvas.paint(at, shape, rng.normal(84, 6), label=Organ.STOMACH, texture=4.0)
    fluid = rng.choice([12.0, 30.0, 55.0, 190.0], p=[0.3, 0.3, 0.25, 0.15])
    lumen = shape + 4.5 + folds
    canvas.paint(at, lumen, fluid, label=None, texture=rng.choice([3.0, 16.0]))
    level = -60 + shift[1] + 30 * fill * rng.uniform(0.2, 1.1)
    canvas.paint(at, np.maximum(lumen + 0.5, at.y - level), -960.0, label=None)


def draw_spleen(canvas: Canvas, rng: np.random.Generator) -> None:
    """The spleen: a crescent along the left back wall, hollow towards stomach and kidney."""
    size = float(np.clip(rng.normal(1.0, 0.09), 0.82, 1.22))
    centre = np.array([88, 34, 60]) + rng.normal(0, 4, 3)
    at = canvas.region(centre - 60, centre + 60)
    shape = ellipsoid(at, centre, (34 * size, 46 * size, 52 * size), tilt=-0.2, bend=-0.002)
    hollow = ellipsoid(at, centre + np.array((-38, -16, -4)), (26, 36, 42))
    shape = cut(shape, hollow, blend_mm=8) + ripple(at, rng, amplitude=1.8, wavelength=(40, 80))
    shape = np.maximum(shape, left_dome(at) + 4)
    canvas.paint(at, shape - 2.5, -95.0)
    canvas.paint(at, shape, rng.normal(118, 9), label=Organ.SPLEEN, texture=4.0)


def draw_kidneys(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> None:
    """Both kidneys with cortex, pyramids, sinus fat and pelvis, in their perirenal fat, with the renal veins."""
    cortex = rng.normal(178, 14)
    for side, label, height in ((-1, Organ.RIGHT_KIDNEY, -8.0), (1, Organ.LEFT_KIDNEY, 6.0)):
        size = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12))
        centre = np.array([side * 68, 31, height]) + rng.normal(0, 4, 3)
        at = canvas.region(centre - 75, centre + 75)
        bean = ellipsoid(at, centre, (28 * size, 27 * size, 54 * size), tilt=-side * 0.17, bend=-side * 0.0026)
        shape = bean + ripple(at, rng, amplitude=1.2, wavelength=(25, 60))
        sinus = ellipsoid(at, centre + np.array((-side * 16, -4, 0)), (13, 8, 20), tilt=-side * 0.17)
        sinus = sinus + ripple(at, rng, amplitude=3.0, wavelength=(12, 20))
        tissue = cut(shape, sinus, blend_mm=3)
        canvas.paint(at, shape - 4, tissues.fat)
        canvas.paint(at, tissue, cortex, label=label, texture=5.0)
        pyramids = np.maximum(tissue + 7, ripple(at, rng, amplitude=9, wavelength=(16, 24)) - 0.5)
        canvas.paint(at, pyramids, cortex - rng.uniform(20, 45), label=None, texture=5.0)
        pelvis = ellipsoid(at, centre + np.array((-side * 19, 0, -4)), (9, 5, 9))
        canvas.paint(at, pelvis, rng.normal(14, 5))
        vein = [
            tuple(centre + np.array((-side * 14, -6, 4))),
            (side * 36, 2, 6 + height * 0.5),
            (-8 - 12 * (side < 0), -13, 10),
        ]
        canvas.paint(*canvas.tube(vein, (3.0, 4.5, 4.5)), tissues.vein)


def draw_pancreas(canvas: Canvas, rng: np.random.Generator) -> None:
    """Duodenum, then the pancreas from its head in the duodenal loop to its tail at the splenic hilum; lobulated."""
    loop = [(-24, -46, 28), (-46, -34, 22), (-54, -20, -6), (-42, -13, -36), (0, -17, -46), (28, -18, -26)]
    at, shape = canvas.tube(loop, (10, 11, 11, 10, 9, 9))
    _draw_gut(canvas, at, shape, wall=90, wall_mm=2.5, fluid=rng.normal(25, 8), gas=rng.random() < 0.3)
    size = float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.15))
    points = np.array([(-34, -14, -14), (-32, -21, 6), (-15, -30, 20), (6, -32, 32), (34, -10, 41), (62, 9, 51)], float)
    points[3:] += rng.normal(0, 3, 3)
    at, shape = canvas.tube(points, np.array([10, 17, 12, 11.5, 13, 10.5]) * size, flat=0.9)
    shape = shape + ripple(at, rng, amplitude=2.6, wavelength=(10, 18))
    canvas.paint(at, shape - 1.5, -70.0)
    canvas.paint(at, shape, rng.normal(94, 9), label=Organ.PANCREAS, texture=7.0)


def draw_gallbladder(canvas: Canvas, rng: np.random.Generator) -> None:
    """The pear-shaped gallbladder below the liver."""
    full = float(np.clip(rng.normal(1.0, 0.14), 0.72, 1.3))
    points = np.array([(-46, -30, 34), (-56, -42, 18), (-68, -58, 0)]) + rng.normal(0, 3, 3)
    at, shape = canvas.tube(points, np.array([4.0, 11.0, 15.0]) * full)
    canvas.paint(at, shape, rng.normal(58, 6), label=Organ.GALLBLADDER)
    canvas.paint(at, shape + 1.6, rng.normal(8, 5), label=None)


def draw_vessels(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> None:
    """Vena cava, portal and splenic vein, aorta, and the unlabelled vessels that join them."""
    portal = [(-62, -14, 66), (-42, -22, 60), (-22, -22, 50), (-8, -22, 38), (-7, -25, 20)]
    splenic = [(-8, -21, 38), (14, -19, 42), (40, 2, 48), (70, 24, 58)]
    iliac = [(2, 0, -78), (24, 2, -112), (46, 6, -180)]
    for side in (-1, 1):
        left = [(side * x + 2, y, z) for x, y, z in iliac]
        canvas.paint(*canvas.tube([(x - 6, y + 10, z - 8) for x, y, z in left], (6, 6, 6)), tissues.vein)
        canvas.paint(*canvas.tube(left, (6, 5, 5)), tissues.artery)
    canvas.paint(*canvas.tube([(-7, -27, 20), (-6, -34, -30), (-12, -40, -80)], (5, 4.5, 2)), tissues.portal)
    cava = [(-18, 8, -84), (-22, 2, -40), (-26, -2, 10), (-28, -1, 60), (-26, 1, 95), (-20, -12, 124)]
    wide = rng.uniform(0.88, 1.12)
    _draw_vessel(
        canvas, cava, np.array([10, 11, 12, 12.5, 12.5, 12]) * wide, tissues.vein, Organ.INFERIOR_VENA_CAVA, 0.75
    )
    label = Organ.PORTAL_AND_SPLENIC_VEIN
    _draw_vessel(canvas, splenic, np.array([6, 5.5, 5, 4]), tissues.portal, label)
    _draw_vessel(canvas, portal, np.array([5.5, 7.5, 8.4, 8, 6]), tissues.portal, label)
    _draw_vessel(
        canvas, [(-44, -22, 61), (-34, -34, 72), (-22, -46, 80)], np.array([5, 4.5, 3.5]), tissues.portal, label
    )
    canvas.paint(*canvas.tube([(2, -6, 24), (1, -24, 8), (0, -32, -40)], (3.5, 3.5, 2)), tissues.artery)
    canvas.paint(*canvas.tube([(4, -2, 38), (2, -18, 44), (-16, -22, 48)], (3.5, 3, 2)), tissues.artery)
    canvas.paint(*canvas.tube([(2, -18, 44), (26, -10, 52), (60, 10, 60)], (3, 2.5, 2)), tissues.artery)
    aorta = [(2, -2, -80), (2, 0, -30), (4, 4, 30), (12, 16, 80), (22, 34, 135), (26, 42, 240)]
    wide = rng.uniform(0.88, 1.15)
    _draw_vessel(canvas, aorta, np.array([8.5, 9, 10, 11, 12, 12]) * wide, tissues.artery, Organ.AORTA)
    if rng.random() < 0.5:
        for _ in range(rng.integers(2, 7)):
            spot = np.array([3 + rng.uniform(-8, 8), 7, rng.uniform(-75, 0)])
            canvas.paint(*canvas.tube([spot, spot + np.array((2, 1, 5))], (1.5, 1.2)), 480.0, label=None)


def draw_esophagus(canvas: Canvas, rng: np.random.Generator) -> None:
    """The lower esophagus, in front of the aorta and through the diaphragm to the cardia."""
    points = [(2, 20, 240), (4, 17, 150), (10, 10, 122), (22, 6, 104), (38, 8, 92)]
    at, shape = canvas.tube(points, (8.5, 8.5, 8, 8, 7), flat=0.8)
    canvas.paint(at, shape, rng.normal(58, 6), label=Organ.ESOPHAGUS, texture=5.0)
    if rng.random() < 0.4:
        canvas.paint(at, np.maximum(shape + 5.5, 130 - at.z), -500.0, label=None)


def draw_adrenals(canvas: Canvas, rng: np.random.Generator) -> None:
    """Both adrenal glands: thin limbs, the right one behind the vena cava, the left one like an inverted Y."""
    hu = rng.normal(78, 8)
    right = np.array([-34, 16, 54]) + rng.normal(0, 2, 3)
    left = np.array([28, 8, 48]) + rng.normal(0, 2, 3)
    limbs = {
        Organ.RIGHT_ADRENAL_GLAND: (right, ((-3, 22, -4), (-13, 18, -8))),
        Organ.LEFT_ADRENAL_GLAND: (left, ((-2, 20, -4), (12, 17, -6), (1, -8, 4))),
    }
    for label, (apex, ends) in limbs.items():
        at = canvas.region(apex - 32, apex + 32)
        shape = np.full(at.x.shape, 100.0, dtype=np.float32)
        for end in ends:
            shape = np.minimum(shape, _limb(at, apex, np.array(end, float) * rng.uniform(0.9, 1.1)))
        canvas.paint(at, shape - 2, -100.0)
        canvas.paint(at, shape, hu, label=label, texture=3.0)


def _limb(at: Region, apex: np.ndarray, end: np.ndarray) -> Field:
    """Distance to a sheet about 5 mm thick that runs from `apex` by `end` (x, y) and stands 26 mm high."""
    dz = at.z - apex[2]
    dx, dy = at.x - apex[0] - 0.1 * dz * np.sign(end[0]), at.y - apex[1] - end[2] * dz / 40
    along = np.clip((dx * end[0] + dy * end[1]) / (end[0] ** 2 + end[1] ** 2), 0, 1)
    sheet = np.hypot(dx - along * end[0], dy - along * end[1]) - 2.6
    distance: Field = np.maximum(sheet, sheet + 2.6 * (dz / 13) ** 2 - 0.4)
    return distance


def _draw_vessel(canvas: Canvas, points: Points, radii: np.ndarray, hu: float, label: Organ, flat: float = 1.0) -> None:
    at, shape = canvas.tube(points, radii, flat=flat)
    canvas.paint(at, shape, hu, label=label, texture=2.0)


def _draw_gut(
    canvas: Canvas, at: Region, shape: Field, *, wall: float, wall_mm: float, fluid: float, gas: bool
) -> None:
    """A piece of bowel: a sleeve of fat, the wall, the contents, and gas in the front third."""
    canvas.paint(at, shape - 1.8, -100.0, texture=6.0)
    canvas.paint(at, shape, wall, texture=6.0)
    canvas.paint(at, shape + wall_mm, fluid, texture=9.0)
    if gas and shape.size:
        front = at.y[shape < 0]
        level = float(np.quantile(front, 0.45)) if front.size else 0.0
        canvas.paint(at, np.maximum(shape + wall_mm + 0.5, at.y - level), -950.0)


def _draw_mesentery(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> None:
    """Small vessels fanning out from the root of the mesentery."""
    for _ in range(34):
        root = np.array([rng.uniform(-14, 4), -34.0, rng.uniform(-60, -5)])
        tip = np.array([rng.uniform(-80, 85), rng.uniform(-66, -12), rng.uniform(-150, -20)])
        middle = 0.5 * (root + tip) + rng.normal(0, 7, 3)
        hu = tissues.portal if rng.random() < 0.6 else tissues.artery
        canvas.paint(*canvas.tube([root, middle, tip], (2.0, 1.6, 1.0)), hu - 15)


def _draw_colon(canvas: Canvas, rng: np.random.Generator) -> None:
    """Ascending, transverse and descending colon with haustra, stool and gas."""
    sag = rng.uniform(-30, 15)
    parts: list[tuple[Points, float]] = [
        ([(-88, -20, -190), (-94, -8, -110), (-96, 4, -50), (-86, -24, -32)], 24),
        ([(-86, -30, -34), (-40, -66, -40 + sag), (10, -68, -42 + sag), (60, -58, -18 + sag / 2), (92, -18, 22)], 19),
        ([(94, -12, 22), (102, 22, -10), (100, 26, -70), (94, 14, -130), (86, 0, -190)], 16),
    ]
    for points, radius in parts:
        at, shape = canvas.tube(points, [radius * rng.uniform(0.8, 1.1) for _ in points])
        shape = shape + ripple(at, rng, amplitude=5.0, wavelength=(26, 44))
        gas = rng.random() < 0.7
        _draw_gut(canvas, at, shape, wall=72.0, wall_mm=2.5, fluid=rng.uniform(15, 45), gas=gas)
        bubbles = 4 * (rng.uniform(0.7, 1.4) - canvas.texture[at.box])
        canvas.paint(at, np.maximum(shape + 4, bubbles), -420.0)


def _draw_liver_vessels(canvas: Canvas, tissues: Tissues, hu: float, rng: np.random.Generator) -> None:
    """Hepatic veins that join the vena cava below the diaphragm, and branches of the portal vein."""
    cava, gate = np.array([-26.0, -2.0, 100.0]), np.array([-50.0, -18.0, 64.0])
    hepatic = [(-110, 20, 60), (-74, -36, 68), (-10, -56, 84)]
    portal = [(-108, -30, 40), (-108, 30, 44), (-84, -10, 20), (-78, 34, 80), (-100, -22, 84), (10, -56, 80)]
    for root, ends, radius, value in ((cava, hepatic, 5.0, tissues.vein), (gate, portal, 4.0, tissues.portal)):
        for end in ends:
            tip = np.array(end) + rng.normal(0, 9, 3)
            fork = 0.45 * root + 0.55 * tip + rng.normal(0, 6, 3)
            branches: list[tuple[list[np.ndarray], tuple[float, ...]]] = [
                ([root, fork, tip], (radius, radius * 0.7, 1.2))
            ]
            branches += [([fork, fork + rng.normal(0, 22, 3)], (radius * 0.55, 0.9)) for _ in range(4)]
            for points, radii in branches:
                at, shape = canvas.tube(points, radii)
                inside = np.where(canvas.labels[at.box] == Organ.LIVER, np.float32(-9), np.float32(9))
                canvas.paint(at, np.maximum(shape, inside), max(value, hu + 18), label=None)
