"""Trilith: gateway."""
