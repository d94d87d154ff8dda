"""The commands. Nothing else prints."""
