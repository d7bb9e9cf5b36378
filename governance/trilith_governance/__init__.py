"""Trilith: governance."""
