"""The ways to a node: here through a pipe, elsewhere through SSH."""
