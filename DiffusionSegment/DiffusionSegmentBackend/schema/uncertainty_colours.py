"""How uncertainty is shown, in the overlay in Slicer and on the case report: standard library only."""

from __future__ import annotations

# Uncertainty below the first value is not shown; from the second value on the colour is the same.
UNCERTAINTY_LOW, UNCERTAINTY_HIGH = 0.15, 0.6
# Colours (position, red, green, blue), all 0..1; position 1 is UNCERTAINTY_HIGH. Between them they are interpolated.
UNCERTAINTY_STOPS = (
    (0.0, 0.16, 0.04, 0.33),
    (0.35, 0.55, 0.12, 0.50),
    (0.65, 0.93, 0.41, 0.22),
    (1.0, 0.99, 0.97, 0.55),
)
