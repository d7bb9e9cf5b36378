"""In-memory twins of every seam, for tests of your own code and of ours."""

from trilith.testing.index import MemoryIndex
from trilith.testing.nearest import MemoryNearest
from trilith.testing.predictor import MemoryPredictor
from trilith.testing.registry import MemoryRegistry
from trilith.testing.scanner import PatternScanner
from trilith.testing.upstream import MemoryReply, MemoryUpstream

__all__ = [
    "MemoryIndex",
    "MemoryNearest",
    "MemoryPredictor",
    "MemoryRegistry",
    "MemoryReply",
    "MemoryUpstream",
    "PatternScanner",
]
