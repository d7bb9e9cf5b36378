"""The two Qdrants behind one seam: the Rust engine in this process, and a server."""
