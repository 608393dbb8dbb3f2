"""Slabs of volumes: every codec gives back the bytes, and the choice among codecs follows the network."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.protocol.slabs import Codec, codec_named, decode_slab, encode_slab, installed_codecs
from DiffusionSegmentBackend.remote.codec_choice import CodecChoice
from hypothesis import given
from hypothesis import strategies as st

MEGABYTE = 1_000_000
CODECS = tuple(Codec)


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary(max_size=400), itemsize=st.sampled_from([1, 2, 4, 8]))
def test_a_slab_is_given_back_bit_by_bit(codec: Codec, data: bytes, itemsize: int) -> None:
    data = data[: len(data) // itemsize * itemsize]
    if not data:
        return
    encoded = encode_slab(data, itemsize, codec)
    assert bytes(decode_slab(encoded, itemsize, codec, len(data))) == data
    with pytest.raises(DiffusionSegmentError):
        decode_slab(encoded, itemsize, codec, len(data) + itemsize)


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.ZLIB])
def test_a_scan_with_noise_is_smaller_when_compressed(codec: Codec) -> None:
    scan = np.random.default_rng(0).normal(40, 12, 100_000).astype(np.int16).tobytes()
    assert len(encode_slab(scan, 2, codec)) < 0.65 * len(scan)


def test_a_frame_that_does_not_say_how_large_it_is_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(48))
    with pytest.raises(DiffusionSegmentError, match="larger than its volume"):
        decode_slab(frame, 1, Codec.ZSTD, 48)


def test_without_zstandard_the_codec_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_codecs() == CODECS
    monkeypatch.setattr("DiffusionSegmentBackend.protocol.slabs.find_spec", lambda name: None)
    assert installed_codecs() == (Codec.RAW, Codec.ZLIB)
    with pytest.raises(DiffusionSegmentError, match="unknown codec"):
        codec_named("zstd")


def moved(choice: CodecChoice, rates: dict[Codec, float], slabs: int) -> list[Codec]:
    """The codecs of some slabs, moved one after the other at fixed rates in bytes a second."""
    used = []
    for _ in range(slabs):
        codec = choice.next()
        used.append(codec)
        choice.moved(codec, MEGABYTE, MEGABYTE / rates[codec])
    return used


def test_a_fast_network_gets_no_compression() -> None:
    rates = {Codec.RAW: 300e6, Codec.ZSTD: 900e6, Codec.ZLIB: 60e6}
    assert moved(CodecChoice(CODECS, itemsize=2), rates, 5) == [Codec.RAW] * 5


def test_over_a_slow_network_each_is_tried_once_and_the_fastest_is_used() -> None:
    rates = {Codec.RAW: 10e6, Codec.ZSTD: 20e6, Codec.ZLIB: 18e6}
    assert moved(CodecChoice(CODECS, itemsize=2), rates, 5) == [
        Codec.RAW,
        Codec.ZSTD,
        Codec.ZLIB,
        Codec.ZSTD,
        Codec.ZSTD,
    ]


def test_slabs_that_leave_before_the_first_has_arrived_are_not_compressed() -> None:
    choice = CodecChoice(CODECS, itemsize=2)
    assert [choice.next(), choice.next()] == [Codec.RAW, Codec.RAW]


def test_only_codecs_of_both_sides_are_tried() -> None:
    rates = {Codec.RAW: 10e6, Codec.ZLIB: 18e6}
    assert moved(CodecChoice((Codec.RAW, Codec.ZLIB), itemsize=2), rates, 3) == [Codec.RAW, Codec.ZLIB, Codec.ZLIB]


def test_label_maps_are_compressed_on_a_fast_network_too() -> None:
    choice = CodecChoice(CODECS, itemsize=1)
    assert [choice.next(), choice.next()] == [Codec.ZSTD, Codec.ZSTD]
    assert moved(choice, {Codec.ZSTD: 400e6}, 3) == [Codec.ZSTD] * 3
    # zlib is slower than such a network.
    without = CodecChoice((Codec.RAW, Codec.ZLIB), itemsize=1)
    assert moved(without, {Codec.RAW: 300e6}, 3) == [Codec.RAW] * 3


def test_what_only_looks_like_a_label_map_is_not_slowed_down_by_compression() -> None:
    rates = {Codec.ZSTD: 40e6, Codec.RAW: 300e6}
    expected = [Codec.ZSTD, Codec.RAW, Codec.RAW, Codec.RAW]
    assert moved(CodecChoice(CODECS, itemsize=1), rates, 4) == expected
    assert moved(CodecChoice((Codec.RAW,), itemsize=1), rates, 2) == [Codec.RAW] * 2
