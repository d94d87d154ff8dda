"""The words that a launcher and an agent exchange, and how they stand in bytes.

Shipped to nodes: Python 3.7 and its standard library only.
"""
