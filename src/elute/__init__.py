"""elute: what a scientific model has learnt, feature by feature."""
