"""The server's own way in: HTTP/1.1 to exchanges without ASGI in between."""
