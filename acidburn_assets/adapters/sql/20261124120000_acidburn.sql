-- The corpus in Postgres: clusters, vectors, texts, and the ledger of what was loaded.
--
-- Runs as Supabase's `postgres` (not a superuser) through `acidburn` itself or `supabase db push`,
-- on Postgres 15 or newer with pgvector 0.7 or newer. Frozen: a change is a new file.
--
-- The schema is private: do not add it to the Data API's exposed schemas. Every table has row
-- level security and grants nothing to public, anon or authenticated all the same.

do $$
begin
  if not exists (select from pg_namespace where nspname = 'extensions') then
    create schema extensions;
  end if;
  if not exists (select from pg_extension where extname = 'vector') then
    create extension vector with schema extensions;
  end if;
  if to_regtype('extensions.halfvec') is null then
    raise exception 'Acidburn needs pgvector 0.7 or newer in the schema "extensions"; found %',
      (select format('%s in "%s"', extversion, nspname) from pg_extension
         join pg_namespace on pg_namespace.oid = extnamespace where extname = 'vector')
      using hint = 'alter extension vector update, or: alter extension vector set schema extensions';
  end if;
end $$;

create schema if not exists acidburn;
revoke all on schema acidburn from public;

-- Roles without a login: make one of your own and grant it the role. BYPASSRLS is not inherited
-- and COPY refuses tables with row level security, so a login that loads and does not own the
-- tables needs BYPASSRLS itself.
do $$
begin
  if not exists (select from pg_roles where rolname = 'acidburn_reader') then
    create role acidburn_reader nologin;
  end if;
  if not exists (select from pg_roles where rolname = 'acidburn_loader') then
    begin
      create role acidburn_loader nologin bypassrls;
    exception when insufficient_privilege then
      create role acidburn_loader nologin;
    end;
  end if;
exception when insufficient_privilege then
  raise notice 'no roles made: % may not; only the owner of the tables can use them', current_user;
end $$;

create table acidburn.migrations (
  version text primary key,
  name text not null,
  sha256 text not null,
  applied_at timestamptz not null default now()
);

-- Datasets clustered together in one space, and the one model that made their vectors.
create table acidburn.pools (
  pool_id smallint generated always as identity primary key,
  name text not null unique,
  tier text not null check (tier in ('knowledge', 'verification')),
  model text not null,       -- fingerprint of the encoder
  model_name text not null,
  -- a vector is stored inside its row, and a row must fit a page of 8 KB
  dim int not null check (dim between 1 and 4000)
);

create table acidburn.shards (
  shard_id int generated always as identity primary key,
  dataset text not null,
  shard text not null,
  pool_id smallint not null references acidburn.pools,
  first_row bigint not null, -- of the dataset
  n_rows bigint not null,    -- of the dataset
  licence text not null,
  may_redistribute_text boolean not null,
  unique (dataset, shard)
);

-- The ledger: a row is written in the transaction that writes the slice.
create table acidburn.loads (
  shard_id int not null references acidburn.shards,
  table_name text not null,
  source_sha256 text not null, -- of everything the slice was made from
  revision text not null,      -- of the dataset
  chunks_sha256 text not null,
  embeddings_sha256 text not null,
  assignments_sha256 text not null,
  clustering text not null,    -- content version of the cluster model
  made_from text not null,     -- fingerprint of code and inputs, '' where it is not known
  n_rows bigint not null,
  run_id text not null,
  loaded_at timestamptz not null default now(),
  primary key (shard_id, table_name)
);

create table acidburn.pool_loads (
  pool_id smallint not null references acidburn.pools,
  table_name text not null,
  source_sha256 text not null,
  clustering text not null,
  made_from text not null,
  n_rows bigint not null,
  run_id text not null,
  loaded_at timestamptz not null default now(),
  primary key (pool_id, table_name)
);

create table acidburn.cluster_headers (
  pool_id smallint not null references acidburn.pools,
  cluster_id int not null,
  parent int,                -- null: no cluster above it
  title text not null,
  summary text not null,
  keywords text[] not null,
  n_chunks bigint not null,  -- members, noise not counted
  n_noise bigint not null,
  radius real not null,      -- 1 - cosine, 95th percentile of members
  centroid extensions.halfvec not null,
  medoid_ids uuid[] not null,
  label_source text not null,
  primary key (pool_id, cluster_id)
);

-- The bulk tables below have no foreign keys: a check per row would be dearer than the COPY.

-- Vectors lie inside their rows and the loader writes a shard in the order of its clusters: a
-- cluster is then read from few pages, 806 instead of 18,801 for 2,200 rows of 1,024 dimensions.
-- No HNSW here: exact search inside clusters costs 1 to 3 ms, and with one a reload takes 27
-- times as long. (Measured, 150,000 rows.)
-- halfvec without a dimension: each pool has its own, in acidburn.pools; the loader holds it.
create table acidburn.chunk_embeddings (
  shard_id int not null,
  chunk_id uuid not null,
  pool_id smallint not null,
  cluster_id int not null,
  embedding extensions.halfvec not null,
  primary key (shard_id, chunk_id)
);
create index chunk_embeddings_cluster on acidburn.chunk_embeddings (pool_id, cluster_id);

create table acidburn.chunk_texts (
  shard_id int not null,
  chunk_id uuid not null,
  doc_id text not null,
  doc_row bigint not null,   -- of the dataset
  title text not null,
  chunk_index int not null,
  char_start bigint not null,
  char_end bigint not null,
  n_tokens int not null,
  body text,                 -- null: the text stays in the bucket
  primary key (shard_id, chunk_id)
);

create table acidburn.chunk_clusters (
  shard_id int not null,
  chunk_id uuid not null,
  pool_id smallint not null,
  cluster_id int not null,   -- the nearest, for noise too
  strength real not null,
  distance real not null,
  is_noise boolean not null,
  primary key (shard_id, chunk_id)
);

alter table acidburn.chunk_embeddings alter column embedding set storage plain;
alter table acidburn.cluster_headers alter column centroid set storage plain;
-- a plain vector in a row pushes every short text out of line, unless told to stay
alter table acidburn.cluster_headers
  alter column title set storage main,
  alter column summary set storage main,
  alter column keywords set storage main,
  alter column medoid_ids set storage main,
  alter column label_source set storage main;
alter table acidburn.chunk_texts
  alter column doc_id set storage main,
  alter column title set storage main;
do $$
begin
  -- three times as fast as the default, which takes nine tenths of a load's time
  alter table acidburn.chunk_texts alter column body set compression lz4;
exception when feature_not_supported then
  raise notice 'this Postgres was built without lz4';
end $$;

-- One replaced shard is what there is to vacuum, however large the table has grown.
do $$
declare
  name text;
begin
  foreach name in array array['chunk_embeddings', 'chunk_texts', 'chunk_clusters'] loop
    execute format(
      'alter table acidburn.%I set (autovacuum_vacuum_scale_factor = 0,'
      ' autovacuum_vacuum_threshold = 50000, autovacuum_vacuum_insert_scale_factor = 0.02,'
      ' autovacuum_analyze_scale_factor = 0.02)', name);
  end loop;
end $$;

do $$
declare
  name text;
  has_roles boolean := exists (select from pg_roles where rolname = 'acidburn_reader')
    and exists (select from pg_roles where rolname = 'acidburn_loader');
begin
  if has_roles then
    grant usage on schema acidburn, extensions to acidburn_reader, acidburn_loader;
  end if;
  for name in select tablename from pg_tables where schemaname = 'acidburn' loop
    execute format('alter table acidburn.%I enable row level security', name);
    execute format('revoke all on acidburn.%I from public', name);
    if exists (select from pg_roles where rolname = 'anon')
      and exists (select from pg_roles where rolname = 'authenticated') then
      execute format('revoke all on acidburn.%I from anon, authenticated', name);
    end if;
    if has_roles then
      execute format('grant select on acidburn.%I to acidburn_reader, acidburn_loader', name);
      execute format(
        'create policy reads on acidburn.%I for select to acidburn_reader using (true)', name);
      if name <> 'migrations' then
        execute format('grant insert, update, delete on acidburn.%I to acidburn_loader', name);
      end if;
    end if;
  end loop;
end $$;
