"""Property tests, fuzzing and fault injection: invalid input and system faults must end in an error message."""
