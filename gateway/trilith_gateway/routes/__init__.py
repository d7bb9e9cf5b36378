"""The gateway's HTTP routes, by protocol."""
