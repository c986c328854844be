-- Cells: the regions that a cluster is divided into, and the unit that a search looks into.
--
-- The loader writes a shard in the order of its cells. Shards that were loaded before have no cells
-- (-1) and are not found until they are loaded again. Frozen: a change is a new file.

alter table acidburn.chunk_embeddings add column cell_id int not null default -1;
alter table acidburn.chunk_embeddings alter column cell_id drop default;

create index chunk_embeddings_cell on acidburn.chunk_embeddings (pool_id, cell_id);
drop index acidburn.chunk_embeddings_cluster;
