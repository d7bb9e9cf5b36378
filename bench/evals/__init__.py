"""Measures the evals: what their statistics promise, and what they cost."""
