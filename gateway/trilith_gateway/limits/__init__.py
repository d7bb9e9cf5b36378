"""Limits on requests, tokens and concurrency: one seam, kept in one process, on one machine, or on many."""
