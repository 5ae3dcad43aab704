// Figures of the service over the last ten minutes, kept in memory.

import { api, statusOf } from "./api";

export interface Stats {
  version: string;
  uptime_seconds: number;
  workers: number;
  requests: {
    total: number;
    per_second: number;
    errors_per_second: number;
    p50_ms: number | null;
    p99_ms: number | null;
  };
  cache: {
    available: boolean | null;
    hits: number;
    /** Served without asking the database, as `max-stale` permitted. */
    stale: number;
    misses: number;
    bypasses: number;
    hit_ratio: number | null;
  };
  /** Null while the database cannot say. */
  store: {
    entries: number | null;
    bytes: number | null;
    database_bytes: number | null;
    log_bytes: number | null;
    commits: number;
  };
  watchers: number;
  connections: number;
}

export interface Health {
  status: "ok" | "degraded" | "unavailable";
  store: string;
  cache: string;
  /** The memcacheds that do not answer, by their place in `--memcached`, from 1. */
  cache_away: number[];
  troubles: string[];
}

export const SAMPLES = 300;
export const STEP_SECONDS = 2;

const RATIO_SAMPLES = 5;

/** The share of reads that the cache served in the ten seconds before each sample; null: no reads. */
export function ratios(samples: readonly Stats[]): (number | null)[] {
  return samples.map(({ cache }, i) => {
    const before = samples[Math.max(0, i - RATIO_SAMPLES)]?.cache;
    if (!before || i === 0) return null;
    const hits = cache.hits + cache.stale - before.hits - before.stale;
    const reads = hits + cache.misses - before.misses + cache.bypasses - before.bypasses;
    return reads > 0 ? (hits / reads) * 100 : null;
  });
}

class Figures {
  latest = $state.raw<Stats | null>(null);
  samples = $state.raw<Stats[]>([]);
  health = $state.raw<Health | null>(null);
  problem = $state<string | null>(null);
  /** Unix seconds at which the latest figures were read. */
  readAt = $state(0);

  async read(): Promise<void> {
    try {
      const stats = await api.json<Stats>("GET", "v1/stats");
      this.latest = stats;
      this.samples = [...this.samples, stats].slice(-SAMPLES);
      this.readAt = Date.now() / 1000;
      this.problem = null;
    } catch (error) {
      this.problem =
        statusOf(error) === 404
          ? "This version of the service has no figures."
          : (error as Error).message;
    }
    try {
      const answer = await fetch(api.address("health-check"), { cache: "no-store" });
      this.health = (await answer.json()) as Health;
    } catch {
      this.health = null;
    }
  }
}

export const figures = new Figures();
