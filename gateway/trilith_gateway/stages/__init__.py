"""The nine stages of a request, one file each."""
