"""Messages have the fields and types of their class, or decoding refuses them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import geometry_of
from DiffusionSegmentBackend.protocol.messages import (
    Ping,
    Review,
    Similar,
    VolumeReference,
    buffers_of,
    decode,
    encode,
)
from DiffusionSegmentBackend.schema.reviewed_segmentation import OtherSegment, ReviewedSegmentation
from DiffusionSegmentBackend.schema.segment_matching import SegmentMatch

VOLUME = VolumeReference(path="v.raw", shape=(2, 3, 4), dtype="int16", ijk_to_lps=(1.0,) * 16)
SIMILAR = Similar(id="1", output_folder="out", volume=VOLUME, point_lps=(1.0, -2.0, 3.0))


def test_a_message_is_unchanged_by_encoding_and_decoding() -> None:
    assert decode(encode(SIMILAR)) == SIMILAR
    assert buffers_of(SIMILAR) == [VOLUME]
    assert buffers_of(Ping(id="1")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"type": "greeting"},
        {"id": 1},
        {"point_lps": [1.0, 2.0]},
        {"point_lps": [1.0, 2.0, 3.0, 4.0]},
        {"point_lps": ["1", "2", "3"]},
        {"volume": None},
        {"volume": {"path": "v.raw"}},
        {"model": "a\0b"},
    ],
)
def test_a_value_of_another_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        decode(json.dumps({**json.loads(encode(SIMILAR)), **change}))
    assert caught.value.code is ErrorCode.PROTOCOL


def test_the_segments_of_a_review_are_read_with_their_types() -> None:
    segments = ReviewedSegmentation(
        matches=(SegmentMatch(segment="Milz", organ="spleen", value=1, reason="given"),),
        unmatched=(OtherSegment(name="Herz", value=255),),
    )
    review = Review(id="1", output_folder="out", volume=VOLUME, labels=VOLUME, segments=segments)
    assert decode(encode(review)) == review
    with pytest.raises(DiffusionSegmentError) as caught:
        decode(json.dumps({**json.loads(encode(review)), "segments": {"matches": 5}}))
    assert caught.value.code is ErrorCode.PROTOCOL


@pytest.mark.parametrize(
    "line", ["", "[]", "null", "{", '{"type": "ping", "id": NaN}', '{"type": "ping", "id": 1e999}']
)
def test_a_line_without_a_message_is_refused(line: str) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        decode(line)
    assert caught.value.code is ErrorCode.PROTOCOL


@pytest.mark.parametrize("count", [0, 15, 17])
def test_a_matrix_has_sixteen_values(count: int) -> None:
    with pytest.raises(DiffusionSegmentError, match="16 values") as caught:
        geometry_of(VolumeReference(path="v.raw", shape=(2, 3, 4), dtype="int16", ijk_to_lps=(1.0,) * count))
    assert caught.value.code is ErrorCode.PROTOCOL


@pytest.mark.parametrize(
    "report", [{}, {"organs": [], "review": []}, {"organs": [{"name": "liver"}], "review": [{}]}, 3, None]
)
def test_an_answer_with_an_incomplete_report_is_refused(report: Any) -> None:
    volume = json.loads(encode(SIMILAR))["volume"]
    maps = dict.fromkeys(("labels", "uncertainty", "mutual_information", "regions"), volume)
    with pytest.raises(DiffusionSegmentError) as caught:
        decode(json.dumps({"type": "corrected", "id": "1", **maps, "report": report}))
    assert caught.value.code is ErrorCode.PROTOCOL
