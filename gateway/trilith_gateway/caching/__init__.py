"""Answers that are given again: exact and semantic caches, and calls under way that others join."""
