"""A DICOM node: receives series, segments those that fit, and sends results back by C-STORE or DICOMweb."""
