"""Run inside Slicer by ctest."""

import unittest

from DiffusionSegmentLib.self_test import runSelfTest


class DiffusionSegmentSelfTest(unittest.TestCase):
    """The worker answers from within Slicer."""

    def test_worker_answers(self):
        """A scan without organs is refused in words."""
        runSelfTest()
