"""Measures the gateway beside its peers; see README.md."""
