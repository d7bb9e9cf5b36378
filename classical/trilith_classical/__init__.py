"""Trilith: classical."""
