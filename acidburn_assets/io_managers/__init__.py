"""How what an asset makes becomes an object or a Postgres slice, and an event that says so.

`base` owns the loop over partitions, reuse, versions, events and failures, once; `shards`,
`records` and `slices` write and read one format each.
"""
