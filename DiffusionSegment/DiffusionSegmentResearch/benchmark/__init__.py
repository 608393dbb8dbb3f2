"""What a click costs: our stages and memory, and other networks on the same scan by the same clock."""
