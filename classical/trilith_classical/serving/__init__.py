"""Serving of classical models inside the gateway's process: tensors, versions, micro-batches, features."""
