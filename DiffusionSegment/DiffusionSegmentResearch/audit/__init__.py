"""The audit network: where the mask of any organ is wrong. Research until its table shows that it helps."""
