"""Upstreams that the gateway itself owns: OpenAI-compatible HTTP servers, and providers through litellm."""
