"""Which segments of a segmentation from any source are which labels of a model: by SNOMED CT code, then by name.

Standard library only, because Slicer's process matches the segments of a segmentation node in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import DiffusionSegmentError, ErrorCode
from .model_manifest import CodedTerm, ModelLabel

# Values of `SegmentMatch.reason`, strongest first.
GIVEN, CODE, NAME = "given", "code", "name"
_REASONS = (GIVEN, CODE, NAME)
# The reason in a segmentation without names that has the values of the model.
VALUE = "value"
_SNOMED = ("SCT", "SNOMED-CT")
# Words without which an anatomical name means the same.
_FILLERS = {"and", "the", "of", "gland", "structure", "organ"}
# Other spellings and abbreviations of single words.
_SAME_WORD = {
    "l": "left",
    "lt": "left",
    "r": "right",
    "rt": "right",
    "oesophagus": "esophagus",
    "suprarenal": "adrenal",
    "veins": "vein",
    "kidneys": "kidney",
    # As the names of labels in the AMOS data set spell it.
    "arota": "aorta",
}
# Names that consist of other words: those of public data sets (BTCV, AMOS, FLARE), and words that are written apart.
_SAME_NAME = {
    "gall bladder": "gallbladder",
    "brain stem": "brainstem",
    "ivc": "inferior vena cava",
    "postcava": "inferior vena cava",
    "post cava": "inferior vena cava",
    "rad": "right adrenal",
    "lad": "left adrenal",
    "rag": "right adrenal",
    "lag": "left adrenal",
}
_SAME_WORDS = {frozenset(name.split()): frozenset(usual.split()) for name, usual in _SAME_NAME.items()}


@dataclass(frozen=True, kw_only=True)
class SegmentName:
    """What a file states of a segment: its name and, where it has them, the codes of its anatomy and of its side."""

    name: str
    code: CodedTerm | None = None
    modifier: CodedTerm | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentMatch:
    """A segment, the name and value of the label that it is, and the reason: "given", "code", "name" or "value"."""

    segment: str
    organ: str
    value: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SegmentMatching:
    """The match of each segment, None for a segment that is no label of the model; in the order of the segments."""

    segments: tuple[str, ...]
    matches: tuple[SegmentMatch | None, ...]

    @property
    def matched(self) -> tuple[SegmentMatch, ...]:
        """The matches of the segments that have one."""
        return tuple(match for match in self.matches if match is not None)

    @property
    def unmatched(self) -> tuple[str, ...]:
        """The names of the segments that have no match."""
        return tuple(name for name, match in zip(self.segments, self.matches, strict=True) if match is None)

    @property
    def organs(self) -> tuple[str, ...]:
        """The names of the labels that the segmentation covers, in the order of their values."""
        return tuple(dict.fromkeys(match.organ for match in sorted(self.matched, key=lambda match: match.value)))


def match_segments(
    segments: Sequence[SegmentName], labels: Sequence[ModelLabel], *, given: Mapping[str, str] | None = None
) -> SegmentMatching:
    """Match the segments of a segmentation with the labels of a model.

    A code decides before a name. Where several segments are the same label by code or name, the one with the stronger
    reason is it, of equal ones the first, and the others have no match.

    Args:
        segments: the segments in the order of their file.
        labels: the labels of the model.
        given: names of segments, and of each the name or title of its label, which decides before code and name;
            an empty text leaves the segment without a match. Several segments may be given the same label.

    Raises:
        DiffusionSegmentError: OPTION for a given segment or label that does not exist.
    """
    chosen = _given_labels(segments, labels, given or {})
    matches = [_match(segment, labels, chosen) for segment in segments]
    return SegmentMatching(segments=tuple(segment.name for segment in segments), matches=_one_for_each_label(matches))


def normalised(name: str) -> frozenset[str]:
    """The words of an anatomical name in lower case, in one spelling, without fillers and without their order."""
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())
    plain = frozenset(_SAME_WORD.get(word, word) for word in words) - _FILLERS
    return _SAME_WORDS.get(plain, plain)


def _given_labels(
    segments: Sequence[SegmentName], labels: Sequence[ModelLabel], given: Mapping[str, str]
) -> dict[str, ModelLabel | None]:
    """The label that each segment was given by its exact name, None for no label."""
    names = [segment.name for segment in segments]
    chosen: dict[str, ModelLabel | None] = {}
    for segment, organ in given.items():
        if segment not in names:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"The segmentation has no segment '{segment}'.",
                hint=f"Its segments: {', '.join(names)}.",
            )
        chosen[segment] = _label_named(organ, labels) if organ.strip() else None
    return chosen


def _label_named(organ: str, labels: Sequence[ModelLabel]) -> ModelLabel:
    words = normalised(organ)
    for label in labels:
        if words in (normalised(label.name), normalised(label.title)):
            return label
    raise DiffusionSegmentError(
        ErrorCode.OPTION,
        f"The model has no organ '{organ}'.",
        hint=f"Its organs: {', '.join(label.title for label in labels)}.",
    )


def _match(
    segment: SegmentName, labels: Sequence[ModelLabel], chosen: Mapping[str, ModelLabel | None]
) -> SegmentMatch | None:
    """The match of one segment, regardless of the others."""
    label, reason = None, GIVEN
    if segment.name in chosen:
        label = chosen[segment.name]
    # Labels of a model may share a code, as the two parts of a hippocampus do: then the name decides.
    elif len(coded := [label for label in labels if _same_code(segment, label)]) == 1:
        label, reason = coded[0], CODE
    elif words := normalised(segment.name):
        named = [label for label in labels if words in (normalised(label.name), normalised(label.title))]
        label, reason = (named[0] if len(named) == 1 else None), NAME
    if label is None:
        return None
    return SegmentMatch(segment=segment.name, organ=label.name, value=label.value, reason=reason)


def _same_code(segment: SegmentName, label: ModelLabel) -> bool:
    if segment.code is None or label.code is None:
        return False
    return _code(segment.code) == _code(label.code) and _code(segment.modifier) == _code(label.modifier)


def _code(term: CodedTerm | None) -> tuple[str, str] | None:
    if term is None or not term.value:
        return None
    scheme = term.scheme.upper()
    return ("SCT" if scheme in _SNOMED else scheme), term.value


def _one_for_each_label(matches: Sequence[SegmentMatch | None]) -> tuple[SegmentMatch | None, ...]:
    """The matches without those of a label that another segment is for a stronger reason, or earlier in the list.

    Several segments that were given the same label keep it.
    """
    best: dict[str, SegmentMatch] = {}
    for match in matches:
        if match is not None:
            earlier = best.setdefault(match.organ, match)
            if _REASONS.index(match.reason) < _REASONS.index(earlier.reason):
                best[match.organ] = match
    return tuple(
        match if match is not None and (match.reason == GIVEN or best[match.organ] is match) else None
        for match in matches
    )


def terms_of_entry(entry: str) -> tuple[CodedTerm | None, CodedTerm | None]:
    """Type and modifier in a terminology entry of 3D Slicer, None where they are not stated.

    An entry is "context~category~type~modifier~context of the region~region~its modifier|", and a term in it
    "scheme^value^meaning".
    """
    parts = entry.partition("|")[0].split("~")
    code, modifier = (_term(part) for part in (*parts[2:4], "", "")[:2])
    return code, modifier


def _term(text: str) -> CodedTerm | None:
    parts = text.split("^")
    if len(parts) != 3 or not parts[0] or not parts[1]:
        return None
    return CodedTerm(scheme=parts[0], value=parts[1], meaning=parts[2])
