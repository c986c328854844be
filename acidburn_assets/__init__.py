"""Acidburn: a public text corpus made into clusters that one person owns and can query.

The graph is wired in `definitions`; what runs without Dagster (a rented box, the query
runtime) is `core`, `adapters` and `runtime`.
"""

__version__ = "0.1.0"
