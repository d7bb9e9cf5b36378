"""Trilith: rag."""
