"""Pure functions and records: numpy, pyarrow, pydantic and the standard library.

Nothing here reads a clock, a network, a file, the environment or global randomness, so every
result can be made again from its arguments. Outside things live in `adapters`.
"""
