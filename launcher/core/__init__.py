"""The pure core: values and decisions. No clock, socket, thread or file."""
