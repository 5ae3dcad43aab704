"""The functions that run in the server, for transactions that must hold the clock's lock for a short
time only: a group of writes is one call.
"""

from __future__ import annotations

from typing import Final

from tenantbase.entry import MAX_KEY_BYTES
from tenantbase.interfaces.postgres.driver_errors import DEFEATED, LATE, NO_STANDBY, WRONG_TERM

LATE_SECONDS: Final = 60.0
"""A group that arrives later than this after it was planned is refused. So a mark that says it was
never made need not be kept for ever."""

HIGHEST: Final = 0x10FFFF

ALIVE: Final = """
    (entries.expires_at IS NULL OR entries.expires_at > $3) AND NOT (
        entries.created <= $4 AND EXISTS (
            SELECT FROM deleted_prefixes AS gone WHERE entries.created <= gone.version
                AND entries.key >= gone.low AND entries.key < gone.high
        )
    )
"""
_ROW_PARAMETERS: Final = """
    deleted text[],
    put_keys text[], put_offsets bigint[], put_created bigint[], put_expires double precision[],
    put_ids uuid[], put_types text[], put_values bytea[],
    grown text[], grown_entries bigint[], grown_bytes bigint[],
    change_kinds text[], change_keys text[], change_sizes bigint[], change_types text[],
    change_expires double precision[]
"""

# present: the server's time in Unix seconds.
#
# lock_clock: takes the lock that orders all changes, after which no other group is in flight. Refuses
# to on a server that is not the primary of the caller's term, and without a synchronous standby.
# Returns how many seconds it waited, too.
#
# write_rows: the rows of one run of transactions. Positions count from ``base``.
#
# finish_group: the last step of a group that changed anything.
#
# commit_group: all of it, if what the group was planned from still holds: no key, prefix, tenant or
# usage of a limited tenant has changed, and no entry that was seen has expired. Returns the position
# that the group's own follow, and how many seconds it waited for the lock.
#
# list_range: the items of a range, with keys folded, until there are enough of them or their values
# are large enough together.
FUNCTIONS: Final = f"""
    CREATE FUNCTION present() RETURNS double precision LANGUAGE sql VOLATILE AS
        'SELECT extract(epoch FROM clock_timestamp())::double precision';

    CREATE FUNCTION lock_clock(
        my_epoch bytea, my_timeline bigint, replicated boolean, latest double precision,
        OUT base bigint, OUT now double precision, OUT last_prefix bigint, OUT access_version bigint,
        OUT waited double precision
    ) LANGUAGE plpgsql AS $$
    DECLARE
        began timestamptz := clock_timestamp();
        newest bytea;
        wal text;
    BEGIN
        SELECT position, greatest(at, present(), latest), prefixes, access, epoch
            INTO base, now, last_prefix, access_version, newest FROM clock FOR UPDATE;
        waited := extract(epoch FROM clock_timestamp() - began);
        wal := pg_walfile_name(pg_current_wal_insert_lsn());
        IF newest <> my_epoch OR left(wal, 8) <> lpad(upper(to_hex(my_timeline)), 8, '0') THEN
            RAISE EXCEPTION 'another term' USING ERRCODE = '{WRONG_TERM}';
        END IF;
        IF replicated AND current_setting('synchronous_standby_names') IN ('', '*') THEN
            RAISE EXCEPTION 'no synchronous standby' USING ERRCODE = '{NO_STANDBY}';
        END IF;
    END $$;

    CREATE FUNCTION write_rows(
        base bigint,
        {_ROW_PARAMETERS}
    ) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF cardinality(deleted) > 0 THEN
            DELETE FROM entries WHERE key = ANY(deleted);
        END IF;
        IF cardinality(put_keys) > 0 THEN
            INSERT INTO entries (key, created, version, expires_at, id, content_type, value)
                SELECT key, coalesce(created, base + offset_), base + offset_, expires_at, id, type,
                    value
                FROM unnest(
                    put_keys, put_created, put_offsets, put_expires, put_ids, put_types, put_values
                ) AS put (key, created, offset_, expires_at, id, type, value)
                ON CONFLICT (key) DO UPDATE SET created = excluded.created,
                    version = excluded.version, expires_at = excluded.expires_at, id = excluded.id,
                    content_type = excluded.content_type, value = excluded.value;
        END IF;
        IF cardinality(grown) > 0 THEN
            UPDATE tenants
                SET entries = tenants.entries + more.entries, bytes = tenants.bytes + more.bytes
                FROM unnest(grown, grown_entries, grown_bytes) AS more (name, entries, bytes)
                WHERE tenants.name = more.name;
        END IF;
        INSERT INTO changes (position, kind, key, size, content_type, expires_at)
            SELECT base + number, kind, key, size, type, expires_at
            FROM unnest(change_kinds, change_keys, change_sizes, change_types, change_expires)
                WITH ORDINALITY AS change (kind, key, size, type, expires_at, number);
    END $$;

    CREATE FUNCTION finish_group(
        token uuid, last_position bigint, now double precision, key_hashes bytea, prefix bigint,
        new_access bigint
    ) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        before bigint;
        number bigint;
    BEGIN
        SELECT position INTO before FROM clock;
        UPDATE clock SET position = last_position, at = now, groups = groups + 1,
                prefixes = coalesce(prefix, prefixes), access = coalesce(new_access, access)
            RETURNING groups INTO number;
        INSERT INTO commits (token, made, position, number, at, hashes)
            VALUES (token, true, nullif(last_position, before), number, now, key_hashes);
    END $$;

    CREATE FUNCTION commit_group(
        my_epoch bytea, my_timeline bigint, replicated boolean, planned_at double precision,
        token uuid, key_hashes bytea,
        planned_base bigint, planned_prefix bigint, planned_access bigint,
        alive_until double precision,
        seen_keys text[], seen_versions bigint[],
        limited text[], limited_entries bigint[], limited_bytes bigint[],
        {_ROW_PARAMETERS},
        OUT base bigint, OUT waited double precision
    ) LANGUAGE plpgsql AS $$
    DECLARE
        now double precision;
        last_prefix bigint;
        access_version bigint;
    BEGIN
        SELECT * INTO base, now, last_prefix, access_version, waited
            FROM lock_clock(my_epoch, my_timeline, replicated, planned_at);
        IF present() - planned_at > {LATE_SECONDS} THEN
            RAISE EXCEPTION 'too late' USING ERRCODE = '{LATE}';
        END IF;
        IF last_prefix <> planned_prefix OR access_version <> planned_access
            OR base <> coalesce(planned_base, base) OR now >= alive_until
            OR EXISTS (
                SELECT FROM unnest(seen_keys, seen_versions) AS seen (key, version)
                LEFT JOIN entries USING (key)
                WHERE seen.version <> coalesce(entries.version, 0)
            )
            OR EXISTS (
                SELECT FROM unnest(limited, limited_entries, limited_bytes)
                    AS seen (name, entries, bytes)
                JOIN tenants USING (name)
                WHERE (seen.entries, seen.bytes) <> (tenants.entries, tenants.bytes)
            )
        THEN
            RAISE EXCEPTION 'defeated' USING ERRCODE = '{DEFEATED}';
        END IF;
        PERFORM write_rows(
            base, deleted, put_keys, put_offsets, put_created, put_expires, put_ids, put_types,
            put_values, grown, grown_entries, grown_bytes, change_kinds, change_keys, change_sizes,
            change_types, change_expires
        );
        PERFORM finish_group(token, base + cardinality(change_keys), now, key_hashes, NULL, NULL);
    END $$;

    CREATE FUNCTION list_range(
        now double precision, last_prefix bigint, first text, beyond text, prefix_length integer,
        delimiter text, descending boolean, max_items bigint, max_bytes bigint, with_values boolean
    ) RETURNS TABLE (
        folded boolean, key text, value bytea, size integer, content_type text, id uuid,
        version bigint, expires_at double precision
    ) LANGUAGE plpgsql STABLE AS $$
    DECLARE
        low text COLLATE "C" := first;
        high text COLLATE "C" := beyond;
        found boolean := true;
        place integer;
        total bigint := 0;
        entry record;
    BEGIN
        WHILE found AND max_items > 0 LOOP
            found := false;
            FOR entry IN EXECUTE format(
                'SELECT * FROM entries WHERE entries.key >= $1 AND entries.key < $2 AND {ALIVE}'
                ' ORDER BY entries.key %s LIMIT $5', CASE WHEN descending THEN 'DESC' ELSE 'ASC' END
            ) USING low, high, now, last_prefix, max_items LOOP
                max_items := max_items - 1;
                place := CASE WHEN delimiter = '' THEN 0
                    ELSE strpos(substr(entry.key, prefix_length + 1), delimiter) END;
                IF place > 0 THEN
                    -- What else is folded into this item is skipped by a new search of the index.
                    folded := true;
                    key := left(entry.key, prefix_length + place - 1 + length(delimiter));
                    value := NULL;
                    RETURN NEXT;
                    found := true;
                    IF descending THEN high := key;
                    ELSE low := key || repeat(chr({HIGHEST}), {MAX_KEY_BYTES} / 4 + 1);
                    END IF;
                    EXIT;
                END IF;
                folded := false;
                key := entry.key;
                size := octet_length(entry.value);
                value := CASE WHEN with_values THEN entry.value END;
                content_type := entry.content_type;
                id := entry.id;
                version := entry.version;
                expires_at := entry.expires_at;
                RETURN NEXT;
                total := total + size;
                IF total >= max_bytes THEN RETURN; END IF;
            END LOOP;
        END LOOP;
    END $$;
"""
