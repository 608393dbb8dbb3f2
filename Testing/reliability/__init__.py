"""Property tests, fuzzing and faults: what a stranger sends and what a computer does must end in words."""
