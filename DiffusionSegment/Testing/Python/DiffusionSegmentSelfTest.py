"""Run inside Slicer by ctest."""

import unittest

from DiffusionSegmentLib.self_test import runSelfTest


class DiffusionSegmentSelfTest(unittest.TestCase):
    """The main job from within Slicer."""

    def test_main_job(self):
        """The phantom's organs and their uncertainty come into the scene; without PyTorch that is refused in words."""
        runSelfTest()
