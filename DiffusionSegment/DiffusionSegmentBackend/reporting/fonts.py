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
_SUFFIXES = (".ttf", ".otf", ".ttc")

_log = logging.getLogger(__name__)


@lru_cache(maxsize=64)
def families_for(text: str) -> tuple[str, ...]:
    """Font families in the order in which they are asked for a letter: the default, then others for what it lacks."""
    missing = {letter for letter in text if letter.isprintable() and not letter.isspace()} - _letters_of_default()
    families = [DEFAULT_FAMILY]
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.style != "normal", entry.name)):
        if not missing:
            break
        there = _letters_of(entry.fname) if entry.name not in families else frozenset()
        if missing & there:
            families.append(entry.name)
            missing -= there
    return tuple(families)


def shown(text: str) -> str:
    """The text with a box for every letter that no font of this computer has, and for what is no letter at all."""
    there = frozenset[str]().union(*(_letters_of_family(family) for family in families_for(text)))
    return "".join(letter if letter.isspace() or letter in there else MISSING for letter in text)


def _letters_of_family(family: str) -> frozenset[str]:
    return _letters_of(font_manager.findfont(family, fallback_to_default=True))


def _letters_of_default() -> frozenset[str]:
    return _letters_of_family(DEFAULT_FAMILY)


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
