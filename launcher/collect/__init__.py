"""What comes home: logs, metrics, checkpoints."""
