"""Answers questions: no Dagster, nothing that fits or loads. What `acidburn ask` runs."""
