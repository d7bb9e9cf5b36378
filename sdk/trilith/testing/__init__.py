"""In-memory twins of every seam, for tests of your own code and of ours."""
