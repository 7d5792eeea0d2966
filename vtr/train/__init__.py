"""Training on cached features: heads, text towers, losses, batches, the loop, checkpoints."""
