"""In-memory twins of every seam, for tests of your own code and of ours."""

from trilith.testing.scanner import PatternScanner
from trilith.testing.upstream import MemoryReply, MemoryUpstream

__all__ = ["MemoryReply", "MemoryUpstream", "PatternScanner"]
