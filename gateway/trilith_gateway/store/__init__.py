"""What the gateway keeps: a journal on disk first, a database behind it."""
