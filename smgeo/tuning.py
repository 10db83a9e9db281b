"""Search over models' parameters on Ray Tune."""
