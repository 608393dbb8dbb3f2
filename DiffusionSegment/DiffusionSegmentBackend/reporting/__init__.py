"""What leaves the program for others: the case report on one page, and DICOM SEG."""
