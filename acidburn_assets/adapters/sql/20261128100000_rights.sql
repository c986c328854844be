-- What each role may do, taken away again in full; and limits for the two roles of ours.
--
-- Functions and sequences are included, whatever default privileges the database has. Frozen: a
-- change is a new file.

do $$
declare
  web text;
begin
  for web in
    select quote_ident(rolname) from pg_roles where rolname in ('anon', 'authenticated')
    union all select 'public'
  loop
    execute 'revoke all on schema acidburn from ' || web;
    execute 'revoke all on all tables in schema acidburn from ' || web;
    execute 'revoke all on all sequences in schema acidburn from ' || web;
    execute 'revoke all on all routines in schema acidburn from ' || web;
  end loop;
end $$;

-- They hold where one of the roles is given a login itself. A login of your own that is a member
-- does not inherit them: alter role … set statement_timeout = … for it too. A load and a search set
-- the same limits for their own transactions.
do $$
declare
  limits text;
begin
  foreach limits in array array[
    'acidburn_reader in database %I set statement_timeout = ''60s''',
    'acidburn_reader in database %I set idle_in_transaction_session_timeout = ''60s''',
    'acidburn_loader in database %I set statement_timeout = ''1h''',
    'acidburn_loader in database %I set lock_timeout = ''10min''',
    'acidburn_loader in database %I set idle_in_transaction_session_timeout = ''1h'''
  ] loop
    if exists (select from pg_roles where rolname = split_part(limits, ' ', 1)) then
      execute format('alter role ' || limits, current_database());
    end if;
  end loop;
exception when insufficient_privilege then
  raise notice 'no limits set: % may not alter the roles of Acidburn', current_user;
end $$;
