"""`python -m DiffusionSegmentResearch`."""

import sys

from DiffusionSegmentResearch.cli.main import main

sys.exit(main())
