"""Benchmarks: what a stage costs beside what others offer for the same work, in one run.

    python -m benchmarks.ask        questions: routed, IVF, HNSW, full text; large pools' cost
    python -m benchmarks.chunk      chunks: ours, semantic-text-splitter, chonkie, LangChain
    python -m benchmarks.embed      encoder: ours, SentenceTransformer.encode
    python -m benchmarks.cluster    engines on labelled titles
    python -m benchmarks.gate       what is accepted as an answer, and what should not be
    python -m benchmarks.label      titles of clusters: ours, c-TF-IDF, words near the centroid
    python -m benchmarks.load       Postgres: COPY, executemany, row by row
    python -m benchmarks.map        the page of a map: its size, loading, frames, search
    python -m benchmarks.refit      a tenth more: clusters kept, labels made again, drift
    python -m benchmarks.route      clusters that are searched: routed, by centroid, all
    python -m benchmarks.store      vectors as Parquet: our layout, pyarrow's defaults, others
    python -m benchmarks.plan       chunks that a plan foresees, and that are made

One script per stage, run from the checkout; each takes a minute or two on two cores, embed five,
prints a table, and with `--json` ends with one JSON object on a line of its own. Figures of a run
of all that concerns chunks, embeddings and the map are in `RESULTS.md`. What they share:
`evaluation` finds texts, `timing` measures, `report` prints. What is right is the tests' matter;
here belongs how good and how fast.

Seconds of another machine, or of another hour on this one, compare with nothing: only what
stands in one table does.
"""
