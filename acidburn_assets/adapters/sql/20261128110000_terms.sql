-- Term weights: what lexical search compares with a question's words, beside the vector.
--
-- The inner product of these with the question's own weights is the score of BM25. The column is
-- in the table that search scans, so both scores come from one look at the same rows. Shards that
-- were loaded before have none (null) and are found by their vectors alone until they are loaded
-- again. Frozen: a change is a new file.

alter table acidburn.chunk_embeddings add column terms extensions.sparsevec;

-- Inside the row as long as it fits a page: out of line, every row scanned would cost a look into
-- another table. The target is what makes Postgres leave it there.
alter table acidburn.chunk_embeddings alter column terms set storage main;
alter table acidburn.chunk_embeddings set (toast_tuple_target = 8160);

alter table acidburn.loads add column term_weights_sha256 text not null default '';
