"""Answers questions: no Dagster, nothing that fits or loads. What `acidburn ask` and
`acidburn serve` run."""
