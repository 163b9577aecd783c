"""Train binary neural networks in quantum superposition with tensor networks."""
