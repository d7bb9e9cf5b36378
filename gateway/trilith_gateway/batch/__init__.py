"""Files that callers upload, and batches of requests that are answered from them when there is time."""
