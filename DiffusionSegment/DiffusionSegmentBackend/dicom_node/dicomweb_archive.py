"""An archive that is reached by DICOMweb: QIDO-RS, WADO-RS and STOW-RS."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient

from ..errors import DiffusionSegmentError, ErrorCode
from .destination import ObjectName, TransferError
from .settings import Dicomweb

# Seconds until a connection stands, and between two packets.
_TIMEOUT_S = (10.0, 300.0)
_PAGE = 200
# Larger than any body, so that none is sent in chunks: some servers then store nothing.
_NO_CHUNKS = 2**40
_MODALITY, _SERIES_UID, _STUDY_UID, _IMAGES = "00080060", "0020000E", "0020000D", "00201209"
_SOP_UID = "00080018"
_MAX_PAGES = 1000
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class ArchivedSeries:
    """A series that the archive has, and the number of its images, None if it does not say."""

    study_uid: str
    series_uid: str
    images: int | None


class DicomwebArchive:
    """The services at a URL.

    Raises:
        DiffusionSegmentError: OPTION for a URL that is none, INPUT_MISSING for a missing file.
    """

    def __init__(self, service: Dicomweb) -> None:
        session = requests.Session()
        # Proxies and passwords of the environment are not for patients' data.
        session.trust_env = False
        if service.authorization_file is not None:
            session.headers["Authorization"] = _text_of(service.authorization_file)
        if service.authorities is not None:
            _text_of(service.authorities)
            session.verify = str(service.authorities)
        try:
            self._client = DICOMwebClient(service.url.rstrip("/"), session=session, timeout=_TIMEOUT_S)
        except (ValueError, TypeError) as error:
            raise DiffusionSegmentError(
                ErrorCode.OPTION, f"'{service.url}' is no URL of DICOMweb.", hint="Write https://HOST:PORT/PATH."
            ) from error
        self._client.set_chunk_size(_NO_CHUNKS)
        # Attempts are repeated by the ledger, with longer pauses.
        self._client.set_http_retry_params(retry=False)

    def send(self, files: Sequence[Path]) -> None:
        """See `Destination`; one request for each object."""
        for file in files:
            dataset = pydicom.dcmread(file)
            answer = _answered(partial(self._client.store_instances, [dataset], dataset.StudyInstanceUID))
            # An archive may answer 202, which is no error of HTTP, and name what it did not take.
            if answer.get("FailedSOPSequence"):
                raise TransferError("STORE_REFUSED")

    def has(self, names: Sequence[ObjectName]) -> bool | None:
        """See `Destination`."""
        return all(name.sop_uid in self.instances(name.study_uid, name.series_uid) for name in names)

    def images_of(self, study_uid: str, series_uid: str) -> int | None:
        """See `Destination`."""
        filters = {"SeriesInstanceUID": series_uid}
        found = _answered(lambda: self._client.search_for_series(study_uid, search_filters=filters, fields=[_IMAGES]))
        counts = [_number(item) for item in found if _text(item, _SERIES_UID) == series_uid]
        return max((count for count in counts if count is not None), default=None)

    def series_since(self, first: datetime.date, modality: str) -> Iterator[ArchivedSeries]:
        """All series of a modality in studies of this day and later.

        Raises:
            TransferError: the archive did not answer.
        """
        filters = {"Modality": modality, "StudyDate": f"{first:%Y%m%d}-"}
        seen: set[str] = set()
        for page in range(_MAX_PAGES):
            request = partial(self._client.search_for_series, search_filters=filters, fields=[_IMAGES])
            found = _answered(partial(request, limit=_PAGE, offset=page * _PAGE))
            new = [item for item in found if _text(item, _SERIES_UID) not in seen]
            seen |= {_text(item, _SERIES_UID) for item in new}
            for item in new:
                if _text(item, _MODALITY).upper() == modality:
                    yield ArchivedSeries(
                        study_uid=_text(item, _STUDY_UID), series_uid=_text(item, _SERIES_UID), images=_number(item)
                    )
            # An archive without paging answers with the same page again.
            if not new or len(found) < _PAGE:
                return

    def instances(self, study_uid: str, series_uid: str) -> list[str]:
        """The SOP instance UIDs of a series.

        Raises:
            TransferError: the archive did not answer.
        """
        found = _answered(lambda: self._client.search_for_instances(study_uid, series_uid))
        return [_text(item, _SOP_UID) for item in found if _text(item, _SERIES_UID) in ("", series_uid)]

    def fetch(self, study_uid: str, series_uid: str, sop_uid: str) -> bytes:
        """An image as the bytes of a DICOM file.

        Raises:
            TransferError: the archive did not send it.
        """
        image = _answered(lambda: self._client.retrieve_instance(study_uid, series_uid, sop_uid))
        buffer = BytesIO()
        pydicom.dcmwrite(buffer, image, enforce_file_format=True)
        return buffer.getvalue()


def _answered(request: Callable[[], _T]) -> _T:
    """The answer to a request, with every failure as a `TransferError`."""
    try:
        return request()
    except requests.HTTPError as error:
        raise TransferError(f"HTTP_{error.response.status_code}" if error.response is not None else "HTTP") from error
    except requests.RequestException as error:
        raise TransferError("UNREACHABLE") from error
    except Exception as error:
        # What dicomweb-client raises on an answer that is no DICOM has many types.
        raise TransferError("BAD_ANSWER") from error


def _text(item: dict[str, dict[str, Any]], tag: str) -> str:
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _number(item: dict[str, dict[str, Any]]) -> int | None:
    text = _text(item, _IMAGES)
    return int(float(text)) if text.replace(".", "", 1).isdecimal() else None


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, f"{path} cannot be read ({error.strerror}).", hint="Check the path."
        ) from error
