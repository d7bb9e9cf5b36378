"""Chooses among the replicas of a model, and tries again where that can help."""
