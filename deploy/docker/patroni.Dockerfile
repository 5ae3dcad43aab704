# PostgreSQL under Patroni, and etcd, from Debian. cluster.yaml builds it.

FROM debian:bookworm-slim
# Debian starts no server in an image, and makes no database here: Patroni does.
# hadolint ignore=DL3008
RUN groupadd --system --gid 10001 postgres \
    && useradd --system --uid 10001 --gid postgres --home-dir /var/lib/postgresql postgres \
    && mkdir -p /etc/postgresql-common \
    && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
    && apt-get update \
    && apt-get install --yes --no-install-recommends etcd-server patroni postgresql-15 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres -m 0700 /data
COPY deploy/patroni/tenantbase.yml /etc/patroni/1-tenantbase.yml
COPY deploy/postgresql/tenantbase.sql /etc/tenantbase/tenantbase.sql
USER 10001:10001
WORKDIR /data
VOLUME /data
# A fast shutdown: clients are disconnected, and the standby gets everything.
STOPSIGNAL SIGINT
CMD ["patroni", "/etc/patroni"]
