"""`python -m DiffusionSegmentBackend`, and by path, so that a launcher with its own search path finds the package."""

import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from DiffusionSegmentBackend.cli.main import main

sys.exit(main())
