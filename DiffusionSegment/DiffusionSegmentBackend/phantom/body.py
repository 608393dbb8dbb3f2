"""The phantom's frame: trunk wall, fat, muscles, spine, ribs, lungs, heart and table.

Millimetres in the body frame of `canvas`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Field, Region, capsule, ellipsoid, ripple, union

_HEIGHTS = (-170.0, -120.0, -60.0, 0.0, 60.0, 120.0, 180.0)
_TRUNK_WIDTH = (148.0, 140.0, 130.0, 130.0, 134.0, 138.0, 136.0)
_TRUNK_DEPTH = (86.0, 84.0, 83.0, 87.0, 92.0, 95.0, 95.0)
_TRUNK_CENTRE = (8.0, 6.0, 4.0, 5.0, 7.0, 11.0, 14.0)
_SPINE_DEPTH = (46.0, 34.0, 27.0, 33.0, 40.0, 49.0, 56.0)
_VERTEBRA_MM = 33.0


@dataclass(frozen=True)
class Tissues:
    """Hounsfield units of one patient's tissues in the portal-venous phase."""

    fat: float
    muscle: float
    artery: float
    vein: float
    portal: float
    bone: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Tissues:
        """Values within the range of patients and injection protocols."""
        blood = rng.normal(0.0, 10.0)
        return Tissues(
            fat=rng.normal(-104.0, 4.0),
            muscle=rng.normal(60.0, 4.0),
            artery=float(np.clip(rng.normal(150.0, 8.0) + blood, 120.0, 190.0)),
            vein=float(np.clip(rng.normal(132.0, 8.0) + blood, 100.0, 170.0)),
            portal=float(np.clip(rng.normal(160.0, 8.0) + blood, 125.0, 200.0)),
            bone=rng.normal(190.0, 30.0),
        )


@dataclass(frozen=True)
class Trunk:
    """Distances to the layers of the trunk over the whole canvas, to which all other shapes refer.

    `muscle` to the outside of the muscular wall, `cavity` to its inside, `skin` to the body's surface; `front` and
    `back` are 1 straight ahead and behind, 0 at the sides.
    """

    muscle: Field
    cavity: Field
    skin: Field
    front: Field
    back: Field

    @staticmethod
    def draw(canvas: Canvas, rng: np.random.Generator) -> Trunk:
        """The trunk of one patient; the thickness of the fat below the skin is drawn between lean and obese."""
        fat_mm = float(np.clip(rng.gamma(5.0, 3.2), 6.0, 32.0))
        heights = canvas.axes[2]
        width, depth, centre, more_fat = (
            np.interp(heights, _HEIGHTS, knots).astype(np.float32)[:, None, None]
            for knots in (_TRUNK_WIDTH, _TRUNK_DEPTH, _TRUNK_CENTRE, (1.4, 1.35, 1.15, 1.0, 0.85, 0.65, 0.6))
        )
        dy = canvas.y - centre
        reach = np.sqrt(canvas.x**2 + dy**2) + 1e-3
        ray = (np.abs(canvas.x / width) ** 2.4 + np.abs(dy / depth) ** 2.4) ** np.float32(1 / 2.4) + 1e-6
        muscle = reach - reach / ray
        front, back = (np.clip(side, 0, 1).astype(np.float32, copy=False) for side in (-dy / reach, dy / reach))
        groove = np.exp(-((canvas.x / 22) ** 2))
        navel = np.exp(-(canvas.x**2 + (canvas.z + 62) ** 2) / 60) * front
        below_skin = fat_mm * more_fat * (0.85 + 0.35 * back - 0.5 * back**2 * groove - 0.75 * navel) + 2.0
        rectus = np.exp(-((np.abs(canvas.x) - 36) ** 4) / 22.0**4) * front**2
        midline = np.exp(-((canvas.x / 5) ** 2)) * front
        wall = np.where(canvas.z > 75 - 70 * (1 - front), 15.0, 13.0) - 8.0 * front**2 + 6.0 * rectus - 2.0 * midline
        return Trunk(muscle, muscle + wall, muscle - below_skin, front, back)


def draw_wall(canvas: Canvas, trunk: Trunk, tissues: Tissues) -> None:
    """Muscular wall, fat below the skin, skin, and the surrounding air, over all that extends beyond the cavity."""
    everything = canvas.whole()
    lateral = 1 - np.maximum(trunk.front, trunk.back) ** 4
    layers = np.exp(-(((trunk.muscle + 5) / 0.9) ** 2)) + np.exp(-(((trunk.muscle + 9) / 0.9) ** 2))
    muscle = tissues.muscle - 55 * lateral * layers
    canvas.paint(everything, -trunk.cavity, muscle, texture=4.0)
    canvas.paint(everything, -trunk.muscle, tissues.fat, texture=5.0)
    canvas.paint(everything, -(trunk.skin + 2.0), 15.0)
    canvas.paint(everything, -trunk.skin, -1000.0)


def draw_back(canvas: Canvas, trunk: Trunk, tissues: Tissues) -> None:
    """Erector spinae, psoas, quadratus lumborum and the crura of the diaphragm on both sides of the spine."""
    at = canvas.region((-100, 0, -400), (100, 140, 400))
    spine_y = _along_spine(at)
    inside = trunk.muscle[at.box] + 2
    for side in (-1, 1):
        erector = _oval(at, side * 33, spine_y + 37, 31, 21) + 1.2 * np.sin(at.x / 4 + at.z / 15)
        square = np.maximum(_oval(at, side * 64, spine_y + 28, 20, 8), np.abs(at.z + 45) - 55)
        canvas.paint(at, np.maximum(erector, inside), tissues.muscle - 4, texture=9.0)
        canvas.paint(at, np.maximum(square, inside), tissues.muscle, texture=5.0)
        points = [
            (side * x, y, z) for x, y, z in ((26, 36, 30), (34, 30, 0), (42, 24, -50), (52, 18, -110), (62, 8, -190))
        ]
        canvas.paint(*canvas.tube(points, (3, 11, 18, 22, 22)), tissues.muscle + 2, texture=5.0)
        crus = [(side * 14, 20, -40), (side * 17, 20, 20), (side * 20, 26, 70), (side * 30, 36, 105)]
        canvas.paint(*canvas.tube(crus, (3, 5.5, 4.5, 2.5)), tissues.muscle, texture=3.0)


def draw_spine(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> None:
    """Vertebral bodies with cortex, discs, canal with thecal sac, arches with spinous and transverse processes."""
    at = canvas.region((-50, -20, -400), (50, 130, 400))
    phase = (at.z + rng.uniform(0, _VERTEBRA_MM)) % _VERTEBRA_MM - _VERTEBRA_MM / 2
    y = at.y - _along_spine(at)
    waist = 1.5 * np.cos(phase * (2 * np.pi / _VERTEBRA_MM))
    column = np.sqrt((at.x / 24) ** 2 + (y / 17) ** 2)
    column = (column - 1) * 19 + waist
    canvas.paint(at, column - 0.5, 85.0, texture=6.0)
    body = np.maximum(column, np.abs(phase) - 12.5)
    canvas.paint(at, body, tissues.bone + 230)
    canvas.paint(at, body + 2.0, tissues.bone, texture=28.0)
    canal = np.sqrt((at.x / 1.25) ** 2 + (y - 25) ** 2) - 9
    arch = np.maximum(np.abs(canal - 2.5) - 3.5, np.abs(phase - 2) - np.where(y < 25, 7.0, 11.0))
    spinous = np.maximum(np.abs(at.x) - 3.0, np.maximum(np.abs(y - 46) - 13, np.abs(phase + 4 + 0.25 * (y - 40)) - 8))
    lateral = np.abs(at.x)
    facet = np.sqrt((lateral - 17) ** 2 + (y - 26) ** 2 + (0.6 * (np.abs(phase) - 14)) ** 2) - 7
    process = np.maximum(np.sqrt((y - 21) ** 2 + (phase - 2) ** 2) - 4.5, np.abs(lateral - 28) - 15)
    bone = np.minimum(np.minimum(arch, spinous), np.minimum(facet, process))
    canvas.paint(at, bone, tissues.bone + 260)
    canvas.paint(at, bone + 2.2, tissues.bone + 60, texture=25.0)
    canvas.paint(at, canal, tissues.fat + 60)
    canvas.paint(at, canal + 2, 22.0, texture=4.0)


def draw_ribs(canvas: Canvas, trunk: Trunk, tissues: Tissues, rng: np.random.Generator) -> None:
    """Ribs in the chest wall above the costal margin, cartilage in front, iliac wings below."""
    at = canvas.region((-400, -400, -40), (400, 400, 400))
    muscle, front, back = trunk.muscle[at.box], trunk.front[at.box], trunk.back[at.box]
    around = np.where(front > 0, 1 + np.arcsin(front) / (np.pi / 2), 1 - np.arcsin(back) / (np.pi / 2))
    pitch = 29.0
    phase = (at.z + 52 * around + rng.uniform(0, pitch)) % pitch - pitch / 2
    rib = (np.sqrt(((muscle + 8) / 3.6) ** 2 + (phase / 6.8) ** 2) - 1) * 4.2
    margin = (
        -28 + 45 * np.maximum(around - 0.9, 0) + 62 * np.maximum(around - 1.4, 0) + 60 * np.clip(0.35 - around, 0, 1)
    )
    rib = np.maximum(np.maximum(rib, margin - at.z), 40 - np.hypot(at.x, at.y - 60))
    cartilage = around > 1.62
    canvas.paint(at, rib, np.where(cartilage, 105.0, tissues.bone + 330).astype(np.float32))
    canvas.paint(at, rib + 1.5, np.where(cartilage, 95.0, tissues.bone).astype(np.float32), texture=15.0)
    for side in (-1, 1):
        wing = canvas.region((-135, -60, -400), (135, 110, -75))
        blade = _leaf(wing, side)
        canvas.paint(wing, blade, tissues.bone + 280)
        canvas.paint(wing, blade + 2.2, tissues.bone, texture=20.0)


def draw_chest(
    canvas: Canvas, trunk: Trunk, tissues: Tissues, at: Region, below: Field, rng: np.random.Generator
) -> None:
    """Lung bases above the diaphragm, whose underside is `below` in `at`, with vessels, mediastinum and heart."""
    recess = 26 + 62 * trunk.front[at.box] ** 1.5
    chest = np.maximum(trunk.cavity[at.box] + 1.0, recess - at.z)
    column = np.sqrt((at.x / 30) ** 2 + ((at.y - _along_spine(at) + 12) / 34) ** 2) * 30 - 30
    heart = ellipsoid(at, (20, -38, 156), (68, 50, 48), tilt=0.3) + ripple(at, rng, amplitude=3, wavelength=(60, 120))
    lung = np.maximum(chest, -np.minimum(union(below - 3, column, blend_mm=8), heart - 4))
    sheet = np.maximum(np.maximum(below - 3.5, -below), np.maximum(trunk.cavity[at.box], recess - 10 - at.z))
    canvas.paint(at, sheet, tissues.muscle - 5, label=None)
    canvas.paint(at, lung, rng.normal(-845, 15), texture=14.0)
    for side in (-1, 1):
        for _ in range(26):
            tip = np.array([side * rng.uniform(45, 120), rng.uniform(-50, 75), rng.uniform(30, 150)])
            root = np.array([side * 38.0, 12.0, 200.0])
            vessel, distance = canvas.tube([tip, 0.4 * tip + 0.6 * root + rng.normal(0, 8, 3), root], (0.9, 1.6, 3.5))
            air = np.where(canvas.hu[vessel.box] < -600, np.float32(-9), np.float32(9))
            canvas.paint(vessel, np.maximum(distance, air), 30.0)
    inside = np.maximum(heart, trunk.cavity[at.box] + 6)
    canvas.paint(at, np.maximum(inside, 3 - below), tissues.muscle + 45, texture=4.0)
    chamber = np.maximum(inside + np.where(at.x > 15, 11, 4), 8 - below)
    canvas.paint(at, chamber, tissues.vein + 8, texture=3.0)


def draw_table(canvas: Canvas, trunk: Trunk) -> None:
    """The curved top of the scanner's table below the patient: two thin shells around foam."""
    body = trunk.skin < 0
    if not body.any():
        return
    at = canvas.whole()
    across, down, _ = canvas.axes
    lowest = down[body.any(axis=(0, 2))].max()
    depth = np.broadcast_to((down[:, None] - (lowest + 3 - (across / 48) ** 2)).astype(np.float32), canvas.shape)
    foam, shell = np.abs(depth - 12) - 12, np.abs(np.abs(depth - 12) - 12) - 1.6
    canvas.paint(at, np.maximum(foam, -trunk.skin), -880.0)
    canvas.paint(at, np.maximum(shell, -trunk.skin), 40.0)


def left_dome(at: Region) -> Field:
    """The space below the left half of the diaphragm, in which spleen and gastric fundus lie."""
    return ellipsoid(at, (60, 6, 40), (76, 76, 68))


def _along_spine(at: Region) -> Field:
    """The depth (y) of the vertebral column at every height."""
    return np.interp(at.z, _HEIGHTS, _SPINE_DEPTH).astype(np.float32)


def _oval(at: Region, x: float, y: Field, width: float, depth: float) -> Field:
    """Distance to an upright pillar with an oval cross-section."""
    reach = np.sqrt(((at.x - x) / width) ** 2 + ((at.y - y) / depth) ** 2)
    return ((reach - 1) * min(width, depth)).astype(np.float32)


def _leaf(at: Region, side: int) -> Field:
    """Distance to one iliac wing: a thin slanted plate, wider further down."""
    down = np.clip(-88 - at.z, 0, None)
    start, end = np.array([side * 48.0, 62.0, 0.0]), np.array([side * 116.0, 0.0, 0.0])
    flat = Region(at.box, at.x - side * 0.05 * down, at.y, np.zeros_like(at.z))
    plate = capsule(flat, start, end, 6.5, 5.0)
    crest = at.z + 88 + 0.012 * (at.y - 30) ** 2
    return np.maximum(plate, crest)
