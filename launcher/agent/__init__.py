"""The supervisor on a node. Shipped there: Python 3.7 and its standard library only."""
