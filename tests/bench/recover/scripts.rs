//! What is built once, and what the peers do, as shell scripts: a person would type just this.

/// `$1` PostgreSQL's programs, `$2` the place, `$3` a port, `$4` pgbench's scale, `$5` segments of WAL after the backups.
/// Three backups and three archives of the same cluster.
pub const BUILD: &str = r#"
set -eu
bin=$1 place=$2 port=$3 scale=$4 segments=$5
export PGHOST="$place" PGPORT="$port" PGUSER=bench PGDATABASE=postgres LC_ALL=C
mkdir "$place/bucket" "$place/repo" "$place/plain" "$place/spool" "$place/lock" "$place/home"
mkdir "$place/bucket/db"
cat > "$place/pgbackrest.conf" <<CONF
[global]
repo1-path=$place/repo
lock-path=$place/lock
spool-path=$place/spool
log-level-file=off
log-level-console=warn
compress-type=zst
compress-level=1
process-max=2
start-fast=y
repo1-bundle=y
archive-get-queue-max=1GiB

[global:archive-get]
archive-async=y

[x]
pg1-path=$place/data
pg1-port=$port
pg1-socket-path=$place
pg1-user=bench
CONF
cat > "$place/pgbackrest-and-others.sh" <<'ARCHIVE'
set -e
place=$1
"$place/lifeboat" wal push --store "file://$place/bucket" --prefix db "$2"
pgbackrest --config="$place/pgbackrest.conf" --stanza=x archive-push "$PWD/$2"
cp "$2" "$place/plain/$3"
ARCHIVE
"$bin/initdb" -D "$place/data" -U bench --no-sync --data-checksums --locale=C -E UTF8 > /dev/null
cat >> "$place/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$place'
port = $port
fsync = off
synchronous_commit = off
shared_buffers = 1GB
max_wal_size = 20GB
checkpoint_timeout = 1h
archive_mode = on
archive_command = 'sh $place/pgbackrest-and-others.sh $place %p %f'
CONF
"$bin/pg_ctl" -D "$place/data" -w -l "$place/log" start > /dev/null
pgbackrest --config="$place/pgbackrest.conf" --stanza=x stanza-create
"$bin/pgbench" -i -q -s "$scale" > /dev/null 2>&1
"$bin/psql" -qc 'create extension pg_buffercache' -c checkpoint
"$place/lifeboat" run "$place/backup.toml" -i "$place/lifeboat.toml" --headless --yes --state-dir "$place/home" > "$place/backup.log"
pgbackrest --config="$place/pgbackrest.conf" --stanza=x --type=full backup
"$bin/pg_basebackup" -D - -F tar -X none --checkpoint=fast --no-manifest > "$place/base.tar" 2> /dev/null
start=$("$bin/psql" -Atqc 'select pg_current_wal_lsn()')
until [ "$("$bin/psql" -Atqc "select pg_wal_lsn_diff(pg_current_wal_lsn(), '$start') >= $segments * 16777216::bigint")" = t ]; do
    "$bin/pgbench" -n -c 4 -t 5000 > /dev/null 2>&1
done
"$bin/psql" -Atqc "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US\"+00\"')" > "$place/target"
"$bin/pgbench" -n -c 4 -t 500 > /dev/null 2>&1
last=$("$bin/psql" -Atqc 'select pg_walfile_name(pg_switch_wal())')
until [ -e "$place/plain/$last" ]; do sleep 0.2; done
"$bin/pg_ctl" -D "$place/data" -w -m fast stop > /dev/null
"$place/lifeboat" points -i "$place/lifeboat.toml" > /dev/null
"#;

/// `$1` PostgreSQL's programs, `$2` the place, `$3` a port, `$4` the new data directory, `$5` the target.
pub const TAR: &str = r#"
set -eu
bin=$1 place=$2 port=$3 data=$4 target=$5
mkdir -m 700 "$data"
tar xf "$place/base.tar" -C "$data"
chmod 700 "$data"
cat >> "$data/postgresql.conf" <<CONF
archive_mode = off
fsync = on
restore_command = 'cp $place/plain/%f %p'
recovery_target_time = '$target'
recovery_target_inclusive = off
recovery_target_action = promote
CONF
touch "$data/recovery.signal"
"$bin/pg_ctl" -D "$data" -w -t 600 -l "$data/log" start > /dev/null
until "$bin/psql" -h "$place" -p "$port" -U bench -d postgres -Atqc 'select pg_current_xact_id()' > /dev/null 2>&1; do sleep 0.02; done
"#;

/// As [`TAR`], and `$6` the configuration.
pub const PGBACKREST: &str = r#"
set -eu
bin=$1 place=$2 port=$3 data=$4 target=$5 conf=$6
mkdir -m 700 "$data"
pgbackrest --config="$conf" --stanza=x --pg1-path="$data" --archive-mode=off --type=time --target="$target" \
    --target-exclusive --target-action=promote restore
echo 'fsync = on' >> "$data/postgresql.conf"
"$bin/pg_ctl" -D "$data" -w -t 600 -l "$data/log" start > /dev/null
until "$bin/psql" -h "$place" -p "$port" -U bench -d postgres -Atqc 'select pg_current_xact_id()' > /dev/null 2>&1; do sleep 0.02; done
"#;

pub const BACKUP_RUNBOOK: &str = r#"
format = 1
id = "backup"
title = "Back up"
owner = "bench"
revision = 1
systems = { db = "postgres" }
[[phases]]
title = "Back up"
[[phases.steps]]
id = "backup"
do = "postgres.backup"
system = "db"
"#;

pub const RECOVER_RUNBOOK: &str = r#"
format = 1
id = "recover"
title = "Recover"
owner = "bench"
revision = 1
systems = { db = "postgres" }
[variables.at]
[[phases]]
title = "Recover"
[[phases.steps]]
id = "choose"
do = "recovery.choose"
systems = ["db"]
suggest = "{at}"
[[phases.steps]]
id = "restore"
do = "postgres.restore"
system = "db"
LOOK
[[phases.steps]]
id = "promote"
do = "postgres.promote"
system = "db"
[[phases.steps]]
id = "write"
do = "smoke.sql"
system = "db"
sql = "select pg_current_xact_id()::text as written"
"#;

/// Between restore and promotion, where the promotion alone is measured.
pub const LOOK: &str = r#"
[[phases.steps]]
id = "look"
do = "postgres.query"
system = "db"
sql = "select count(*) * 8192 / 1000000 as dirty from pg_buffercache where isdirty"
expect = [{ column = "dirty", at_least = 1000 }]
"#;
