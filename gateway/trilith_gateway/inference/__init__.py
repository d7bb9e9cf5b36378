"""The inference protocols at the gateway's edge: Open Inference Protocol, MLflow's, and remote servers."""
