-- The role and the database of tenantbase, made once on the primary:
--   psql --username postgres --file tenantbase.sql
-- Give the role a password, or a certificate, as pg_hba.conf asks for it.

CREATE ROLE tenantbase LOGIN;

-- It recognises the synchronous standby by the name in the standby's primary_conninfo.
GRANT pg_read_all_settings TO tenantbase;
-- It reports transactions of other users that are open for minutes.
GRANT pg_read_all_stats TO tenantbase;

-- The clients of a node that died leave soon, with their locks. None of these ends a COMMIT that
-- waits for the standby.
ALTER ROLE tenantbase SET lock_timeout = '5s'; -- as --write-timeout
ALTER ROLE tenantbase SET idle_in_transaction_session_timeout = '2s';
ALTER ROLE tenantbase SET tcp_user_timeout = '5s';
ALTER ROLE tenantbase SET tcp_keepalives_idle = '5s';
ALTER ROLE tenantbase SET client_connection_check_interval = '1s';

CREATE DATABASE tenantbase OWNER tenantbase TEMPLATE template0 ENCODING UTF8;
