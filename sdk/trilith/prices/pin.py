"""Which edition of the price book belongs to this release; written by `tools/prices.py`."""

VERSION = "litellm-1.106.2"
SHA256 = "9966da34d670a9e56550b223921db7a1dbddfa23ac8cadeea3fe76b0c455b945"
