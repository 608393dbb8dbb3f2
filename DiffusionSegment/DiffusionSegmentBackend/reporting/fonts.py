"""Fonts of this computer for text in any script, and a placeholder for missing characters."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

# Comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more.
DEFAULT_FAMILY = "DejaVu Sans"
MISSING = "□"
# Fonts with the same placeholder for every character; matplotlib includes one.
_NO_LETTERS = ("Last Resort", ".LastResort", "LastResort")
_SUFFIXES = (".ttf", ".otf", ".ttc")

_log = logging.getLogger(__name__)


def families_for(text: str) -> list[str]:
    """Font families in fallback order: the default, then others for the characters that it lacks."""
    return [name for name, _ in _fonts_for(text)]


def shown(text: str) -> str:
    """The text with a box for every character that no font of this computer has."""
    there = frozenset[str]().union(*(_letters_of(path) for _, path in _fonts_for(text)))
    return "".join(letter if letter.isspace() or letter in there else MISSING for letter in text)


@lru_cache(maxsize=64)
def _fonts_for(text: str) -> tuple[tuple[str, str], ...]:
    """Family and file of each font that is needed, the default first."""
    default = font_manager.FontProperties(family=[DEFAULT_FAMILY])
    fonts = [(DEFAULT_FAMILY, str(font_manager.findfont(default)))]
    missing = {letter for letter in text if not letter.isspace()} - _letters_of(fonts[0][1])
    plain_first = sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.style != "normal", entry.name))
    for entry in plain_first:
        if not missing:
            break
        if entry.name.startswith(_NO_LETTERS) or entry.name in dict(fonts):
            continue
        if missing & (there := _letters_of(str(entry.fname))):
            fonts.append((entry.name, str(entry.fname)))
            missing -= there
    return tuple(fonts)


@lru_cache(maxsize=512)
def _letters_of(path: str) -> frozenset[str]:
    """The characters of a font file; none for an unusable file, such as bitmaps of emoji."""
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
