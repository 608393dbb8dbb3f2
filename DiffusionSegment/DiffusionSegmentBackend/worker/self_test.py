"""What this computer computes with, and how fast: asked for in one click when something is slow or does not run."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

from .. import __version__
from ..errors import DiffusionSegmentError, ErrorCode
from ..pipeline.progress import Progress, silent
from ..schema.self_test_findings import SelfTestFindings

PACKAGES = (
    "torch",
    "monai",
    "numpy",
    "scipy",
    "SimpleITK",
    "nibabel",
    "pydicom",
    "highdicom",
    "safetensors",
    "tqdm",
    "psutil",
    "platformdirs",
)
NO_TORCH_ADVICE = "PyTorch is not installed. Segment offers to install it."
_SIDE, _CHANNELS, _TICKS = 48, 16, 10
_DRIVER_SECONDS = 10.0


def run_self_test(device: str = "auto", *, seconds: float = 1.0, progress: Progress = silent) -> SelfTestFindings:
    """Check torch, driver and memory, and time 3D convolutions for about `seconds`.

    Raises:
        DiffusionSegmentError: OPTION for an unknown device, NO_DEVICE for one that is not there.
    """
    missing = tuple(name for name in PACKAGES if find_spec(name) is None)
    known: dict[str, Any] = {"software": __version__, "python": sys.version.split()[0], "missing": missing}
    driver = nvidia_driver()
    if "torch" in missing:
        known |= {"torch": "", "build": "", "device": "", "driver": driver, "free_memory_bytes": free_memory()}
        return SelfTestFindings(**known, gflops=0.0, seconds=0.0, advice=(NO_TORCH_ADVICE,))
    import torch

    from ..models.model import choose_device

    torch_device = choose_device(device)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    gflops, elapsed = _measured(torch_device, seconds, progress)
    on_card = torch_device.type == "cuda"
    return SelfTestFindings(
        **known,
        torch=torch.__version__,
        build=build,
        device=torch.cuda.get_device_name(torch_device) if on_card else f"CPU, {torch.get_num_threads()} threads",
        driver=driver,
        free_memory_bytes=torch.cuda.mem_get_info(torch_device)[0] if on_card else free_memory(),
        gflops=gflops,
        seconds=elapsed,
        advice=advice_on(driver=driver, build=build, works=torch.cuda.is_available()),
    )


def advice_on(*, driver: str, build: str, works: bool) -> tuple[str, ...]:
    """What to do where a card is there and is not used; `works` says whether torch can use it."""
    if not driver or works:
        return ()
    if build == "CPU":
        return (f"An NVIDIA card was found ({driver}), but this PyTorch is a CPU build: install a CUDA build.",)
    return (f"An NVIDIA card was found ({driver}), but PyTorch for {build} cannot use it: update the driver.",)


def _measured(torch_device: Any, seconds: float, progress: Progress) -> tuple[float, float]:
    """Speed in 1e9 operations per second, and the time that measuring took."""
    import torch

    scan = torch.rand(1, _CHANNELS, _SIDE, _SIDE, _SIDE, device=torch_device)
    weight = torch.rand(_CHANNELS, _CHANNELS, 3, 3, 3, device=torch_device)
    operations = 2 * 27 * _CHANNELS**2 * _SIDE**3
    try:
        with torch.inference_mode():
            # The first one chooses an algorithm, which takes longer than all that follow.
            _convolve(scan, weight)
            began, count, elapsed = time.perf_counter(), 0, 0.0
            while elapsed < seconds or count == 0:
                progress("self_test", min(_TICKS, int(_TICKS * elapsed / seconds)) if seconds > 0 else _TICKS, _TICKS)
                _convolve(scan, weight)
                count += 1
                elapsed = time.perf_counter() - began
    except RuntimeError as error:
        raise DiffusionSegmentError(
            ErrorCode.NO_DEVICE,
            f"PyTorch cannot compute on {torch_device.type} ({str(error).splitlines()[0]}).",
            hint="Install a PyTorch that fits the driver, or choose the device cpu.",
        ) from error
    return operations * count / elapsed / 1e9, elapsed


def _convolve(scan: Any, weight: Any) -> None:
    import torch

    torch.nn.functional.conv3d(scan, weight, padding=1)
    if scan.is_cuda:
        torch.cuda.synchronize(scan.device)


def nvidia_driver() -> str:
    """Name and driver version of the first NVIDIA card as its own tool states them; empty without one."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        completed = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_DRIVER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = completed.stdout.strip().splitlines()
    return " driver ".join(part.strip() for part in lines[0].split(",")) if completed.returncode == 0 and lines else ""


def free_memory() -> int | None:
    """Bytes of main memory that are still available; None where that is unknown."""
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except (ModuleNotFoundError, OSError, RuntimeError, KeyError):
        return None
