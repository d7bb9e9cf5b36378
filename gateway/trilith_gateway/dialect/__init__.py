"""Protocols that callers speak and upstreams need not: translated to OpenAI's chat and back."""
