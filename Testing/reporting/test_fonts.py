"""Names in any script in the PDF: in an installed font that has the letters, else as boxes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from DiffusionSegmentBackend.reporting import fonts
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

FAMILY = "Test-Script 1"
LETTERS = "日本"


@pytest.fixture
def foreign_font(tmp_path: Path) -> Iterator[None]:
    """An installed font of two letters."""
    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", "a1", "a2"]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, LETTERS), names[1:], strict=True)))
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((500, 0))
    pen.lineTo((500, 700))
    pen.closePath()
    glyph = pen.glyph()
    builder.setupGlyf(dict.fromkeys(names, glyph))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800)
    builder.setupPost()
    builder.save(tmp_path / "test.ttf")
    font_manager.fontManager.addfont(str(tmp_path / "test.ttf"))
    fonts._fonts_for.cache_clear()
    yield
    entries = font_manager.fontManager.ttflist
    entries[:] = [entry for entry in entries if entry.name != FAMILY]
    fonts._fonts_for.cache_clear()


@pytest.fixture
def no_other_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the fonts of matplotlib are installed."""
    own = [entry for entry in font_manager.fontManager.ttflist if entry.name.startswith(("DejaVu", "Last Resort"))]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    fonts._fonts_for.cache_clear()
    yield
    fonts._fonts_for.cache_clear()


@pytest.mark.usefixtures("no_other_fonts", "foreign_font")
def test_an_installed_font_is_used_for_the_letters_it_has() -> None:
    assert fonts.families_for(f"CT {LETTERS}") == [fonts.DEFAULT_FAMILY, FAMILY]
    assert fonts.shown(f"CT {LETTERS}") == f"CT {LETTERS}"


@pytest.mark.usefixtures("no_other_fonts")
def test_letters_without_a_font_become_boxes_without_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = f"CT {LETTERS} Łódź Ω \udcff"
    assert fonts.shown(name) == f"CT {2 * fonts.MISSING} Łódź Ω {fonts.MISSING}"
    figure = Figure()
    FigureCanvasAgg(figure)
    figure.text(0, 0, fonts.shown(name), fontfamily=fonts.families_for(name))
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert caplog.records == []


def test_latin_names_need_no_other_font() -> None:
    assert fonts.families_for("CT 1004 $x$") == [fonts.DEFAULT_FAMILY]
