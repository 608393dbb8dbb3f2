"""bfloat16 where the processor has it: the same answer to within what a reader could see."""

from __future__ import annotations

import pytest
import torch
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.networks.precision import autocast, inference_dtype
from DiffusionSegmentBackend.networks.refiner import Refiner
from DiffusionSegmentBackend.pipeline.prepare import windowed

CPU = torch.device("cpu")
SIDE = 32


def test_bfloat16_agrees_with_float32(phantom_ct: Volume) -> None:
    """On half a tile: a processor without instructions for bfloat16 emulates it, and takes long."""
    middle = tuple(slice((n - SIDE) // 2, (n + SIDE) // 2) for n in phantom_ct.array.shape)
    image = torch.from_numpy(windowed(phantom_ct.array[middle], (-125.0, 275.0)))[None, None]
    result = []
    for precision in ("float32", "bfloat16"):
        model = load_model("abdomen-ct", "cpu", precision=precision)
        with torch.inference_mode(), autocast(model.device, model.dtype):
            pyramid = model.pre_segmenter.features(image, torch.zeros(1, 3, SIDE, SIDE, SIDE))
            result.append(model.pre_segmenter.logits(image, pyramid)[0].float().softmax(dim=0))
    exact, quick = result
    organs = exact.argmax(dim=0) > 0
    agree = exact.argmax(dim=0) == quick.argmax(dim=0)
    assert float(organs.float().mean()) > 0.05
    assert float(agree[organs].float().mean()) > 0.98
    assert float((exact - quick).abs().mean()) < 1e-3


def test_automatic_precision_depends_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert inference_dtype(CPU) is torch.float32
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert inference_dtype(CPU) is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert inference_dtype(torch.device("cuda")) is torch.float32


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(DiffusionSegmentError, match="fp4") as caught:
        inference_dtype(CPU, "fp4")
    assert caught.value.code is ErrorCode.OPTION


@pytest.mark.parametrize(
    ("precision", "self_conditioning"), [("float32", False), ("float32", True), ("bfloat16", True)]
)
def test_what_the_steps_share_is_what_one_whole_pass_would_see(precision: str, self_conditioning: bool) -> None:
    torch.manual_seed(0)
    refiner = Refiner([4, 8], 3, channels=(8, 16), self_conditioning=self_conditioning).eval()
    torch.nn.init.normal_(refiner.head.weight)
    fine, half, coordinates = torch.randn(1, 4, 8, 8, 8), torch.randn(1, 8, 4, 4, 4), torch.randn(1, 3, 8, 8, 8)
    x_t, previous, pre = torch.randn(1, 3, 8, 8, 8), torch.randn(1, 3, 8, 8, 8), torch.rand(1, 3, 8, 8, 8).softmax(1)
    scribbles, level = (pre > 0.4).float(), torch.zeros(1)
    with torch.inference_mode(), autocast(CPU, inference_dtype(CPU, precision)):
        shared = refiner.shared(fine, coordinates, pre, scribbles)
        stepped = refiner.step(shared, half, x_t, pre, level, previous)
        known = [x_t, 2 * pre - 1, scribbles, coordinates, *([previous] if self_conditioning else [])]
        state = refiner.enter(torch.cat(known, dim=1))
        inner = refiner.unet(torch.cat([state, half], dim=1), level)[0]
        full = torch.nn.functional.interpolate(refiner.leave(inner), scale_factor=2.0)
        fused = refiner.fuse(torch.cat([full, fine.to(full.dtype), x_t.to(full.dtype), 2 * pre - 1], dim=1))
        whole = pre.clamp(min=1e-3).log() + refiner.head(fused)
    torch.testing.assert_close(stepped, whole.float(), atol=1e-4 if precision == "float32" else 0.1, rtol=0)
