"""Trilith: evals."""
