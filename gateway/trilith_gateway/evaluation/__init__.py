"""What evals found, kept for the console: runs of suites, and findings of monitors."""
