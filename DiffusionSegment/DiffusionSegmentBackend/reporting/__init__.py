"""Export of results: the case report on one page, and DICOM SEG."""
