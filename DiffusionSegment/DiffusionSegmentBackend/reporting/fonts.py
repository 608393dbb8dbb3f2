"""Fonts for names in any script: those of this computer that have the letters; what none has is told."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

# Comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more.
DEFAULT_FAMILY = "DejaVu Sans"
MISSING = "□"
# Fonts that draw the same placeholder for every letter; matplotlib brings one.
_NO_LETTERS = ("Last Resort", ".LastResort", "LastResort")
_SUFFIXES = (".ttf", ".otf", ".ttc")

_log = logging.getLogger(__name__)


def families_for(text: str) -> list[str]:
    """Font families in the order in which they are asked for a letter: the default, then others for what it lacks."""
    return [name for name, _ in _fonts_for(text)]


def shown(text: str) -> str:
    """The text with a box for every letter that no font of this computer has, and for what is no letter at all."""
    there = frozenset[str]().union(*(_letters_of(path) for _, path in _fonts_for(text)))
    return "".join(letter if letter.isspace() or letter in there else MISSING for letter in text)


@lru_cache(maxsize=64)
def _fonts_for(text: str) -> tuple[tuple[str, str], ...]:
    """Family and file of each font that is needed, the default first."""
    default = font_manager.FontProperties(family=[DEFAULT_FAMILY])
    found = [(DEFAULT_FAMILY, str(font_manager.findfont(default)))]
    missing = {letter for letter in text if not letter.isspace()} - _letters_of(found[0][1])
    plain_first = sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.style != "normal", entry.name))
    for entry in plain_first:
        if not missing:
            break
        if entry.name.startswith(_NO_LETTERS) or entry.name in dict(found):
            continue
        if missing & (there := _letters_of(str(entry.fname))):
            found.append((entry.name, str(entry.fname)))
            missing -= there
    return tuple(found)


@lru_cache(maxsize=512)
def _letters_of(path: str) -> frozenset[str]:
    """The letters that a font file can draw; none for a file that cannot be used, such as bitmaps of emoji."""
    if Path(path).suffix.lower() not in _SUFFIXES:
        return frozenset()
    try:
        font = FT2Font(path)
        font.set_size(10, 72)
        letters = frozenset(map(chr, font.get_charmap()))
        font.set_text(next(iter(letters), "a"))
    except (RuntimeError, OSError, ValueError) as error:
        _log.debug("font %s: %s", path, error)
        return frozenset()
    return letters
