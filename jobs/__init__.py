"""The jobs that flowlaunch ships, and what they share: models, data, the training loop."""
