-- Which shards fed which clusters, and what each shard was made from.
--
-- Of one pool all rows are replaced in one transaction, with a row in acidburn.pool_loads; they
-- tell of the lineage that was counted, whatever shards are loaded. Frozen: a change is a new file.

-- What a shard was made from is said once: there are thousands of rows below for each of these.
create table acidburn.lineage_shards (
  pool_id smallint not null references acidburn.pools,
  shard_no int not null,               -- from 0, of this pool's lineage
  dataset text not null,
  shard text not null,
  revision text not null,              -- of the dataset
  first_row bigint not null,           -- of the dataset
  n_rows bigint not null,              -- of the dataset
  n_chunks bigint not null,            -- noise included
  n_noise bigint not null,
  model text not null,                 -- fingerprint of the encoder
  model_name text not null,
  chunks_sha256 text not null,
  embeddings_sha256 text not null,
  embeddings_code_version text not null,
  embeddings_run_id text not null,
  embeddings_event_id bigint not null, -- storage id of Dagster's event
  assignments_sha256 text not null,
  assignments_code_version text not null,
  assignments_run_id text not null,
  assignments_event_id bigint not null,
  cluster_model text not null,         -- content version of the model that assigned the chunks
  primary key (pool_id, shard_no),
  unique (pool_id, dataset, shard)
);

-- No foreign key: a check per row would be dearer than the COPY.
create table acidburn.lineage (
  pool_id smallint not null,
  cluster_id int not null,
  shard_no int not null,
  n_chunks int not null,               -- members, noise not counted
  n_noise int not null,                -- noise whose nearest cluster this is
  primary key (pool_id, cluster_id, shard_no)
);
create index lineage_shard on acidburn.lineage (pool_id, shard_no);

do $$
declare
  name text;
begin
  foreach name in array array['lineage', 'lineage_shards'] loop
    execute format('alter table acidburn.%I enable row level security', name);
    execute format('revoke all on acidburn.%I from public', name);
    if exists (select from pg_roles where rolname = 'anon')
      and exists (select from pg_roles where rolname = 'authenticated') then
      execute format('revoke all on acidburn.%I from anon, authenticated', name);
    end if;
    if exists (select from pg_roles where rolname = 'acidburn_reader')
      and exists (select from pg_roles where rolname = 'acidburn_loader') then
      execute format('grant select on acidburn.%I to acidburn_reader, acidburn_loader', name);
      execute format(
        'create policy reads on acidburn.%I for select to acidburn_reader using (true)', name);
      execute format('grant insert, update, delete on acidburn.%I to acidburn_loader', name);
    end if;
  end loop;
end $$;
