"""The scans of the benchmark and its clock."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentResearch.benchmark.scans import benchmark_scan, slice_thickness_mm
from DiffusionSegmentResearch.benchmark.timing import load_average, measure, measure_repeated

CPU = torch.device("cpu")
SMALL = 48


def test_a_scan_has_the_requested_size_and_a_fixed_field_of_view() -> None:
    scan = benchmark_scan(20, seed=0, in_plane=SMALL)
    assert scan.array.shape == (20, SMALL, SMALL)
    assert scan.array.dtype == np.int16
    np.testing.assert_allclose(scan.spacing, (7.5, 7.5, 3.0))
    assert scan.array.min() < -900
    assert -1024 <= scan.array.min() <= scan.array.max() <= 3071


def test_a_scan_is_reproduced_by_its_seed() -> None:
    first, again, other = (benchmark_scan(8, seed=seed, in_plane=SMALL).array for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_scan_longer_than_the_phantom_is_continued_by_its_mirror_image() -> None:
    array = benchmark_scan(110, seed=0, in_plane=SMALL).array
    assert np.array_equal(array[100:], array[99:89:-1])


def test_long_scans_have_thin_slices() -> None:
    assert [slice_thickness_mm(n) for n in (100, 300, 800)] == [3.0, 1.5, 1.0]


@pytest.mark.parametrize(("slices", "in_plane"), [(1, 48), (20, 1), (-3, 48)])
def test_an_impossible_size_is_refused(slices: int, in_plane: int) -> None:
    with pytest.raises(DiffusionSegmentError) as error:
        benchmark_scan(slices, seed=0, in_plane=in_plane)
    assert error.value.code is ErrorCode.OPTION


def test_measure_returns_the_result_and_its_time() -> None:
    run = measure(lambda: time.sleep(0.1) or "done", CPU)  # type: ignore[func-returns-value]
    assert run.value == "done"
    assert 0.1 <= run.seconds < 1
    # Sleeping takes no processor time.
    assert run.processor_s < 0.05
    assert run.device_mb is None
    assert run.load == load_average()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can reset the peak")
def test_the_peak_of_memory_is_that_of_the_call_and_not_of_an_earlier_one() -> None:
    idle = measure(lambda: None, CPU).host_mb
    busy = measure(lambda: np.ones(300 * 2**20, dtype=np.uint8).sum(), CPU).host_mb
    after = measure(lambda: None, CPU).host_mb
    assert busy == pytest.approx(idle + 300, abs=60)
    assert after == pytest.approx(idle, abs=60)


def test_the_first_call_warms_up_and_does_not_count() -> None:
    waits = iter([0.3, 0.02, 0.06, 0.04])
    run = measure_repeated(lambda: time.sleep(next(waits)), CPU, repeats=3)
    assert len(run.value) == 3
    assert 0.04 <= run.seconds < 0.06
    with pytest.raises(ValueError, match="0 repeats"):
        measure_repeated(lambda: None, CPU, repeats=0)
