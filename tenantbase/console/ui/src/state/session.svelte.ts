// Who is calling: the token, what it allows, and the tenant that is open.

import { bytes } from "../lib/format";
import { named } from "../lib/keys";
import { api, Problem, statusOf, Unreachable } from "./api";

export type Scope = "read" | "write" | "metrics" | "admin";

export interface Who {
  scope: Scope;
  tenant: string | null;
  prefix: string | null;
  max_value_bytes: number;
  token: { id: string; name: string; expires_at: number | null } | null;
}

export interface Tenant {
  name: string;
  entries: number;
  bytes: number;
  max_entries: number | null;
  max_bytes: number | null;
  max_requests_per_second: number | null;
}

type Status = "starting" | "ready" | "gate" | "unreachable";

class Session {
  status = $state<Status>("starting");
  who = $state.raw<Who | null>(null);
  tenant = $state("default");
  hasToken = $state(false);
  /** The token was accepted once, and is refused now. */
  revoked = $state(false);
  refused = $state(false);
  tenants = $state.raw<Tenant[]>([]);
  cacheDown = $state(false);
  /** Unix seconds: until then, the service asked to wait. */
  busyUntil = $state(0);

  constructor() {
    api.onBusy = (until) => (this.busyUntil = until);
    api.onUnauthenticated = () => {
      if (this.status === "ready") this.revoked = true;
    };
  }

  get scope(): Scope {
    return this.who?.scope ?? "read";
  }
  get isAdmin(): boolean {
    return this.scope === "admin";
  }
  get mayRead(): boolean {
    return this.scope !== "metrics";
  }
  get mayWrite(): boolean {
    return this.scope === "write" || this.isAdmin;
  }
  get maySeeHealth(): boolean {
    return this.scope === "metrics" || this.isAdmin;
  }
  get prefix(): string {
    return this.who?.prefix ?? "";
  }
  get maxValueBytes(): number {
    return this.who?.max_value_bytes ?? 1 << 20;
  }

  /** Whether a token may reach keys that begin with this text. */
  reaches(text: string): boolean {
    return text.startsWith(this.prefix);
  }

  /** Why nothing may be written there, for a person; null if it may. */
  whyNotBelow(text: string): string | null {
    return this.reaches(text) ? null : `Your token writes only below ${named(this.prefix)}.`;
  }

  /** Why a value of so many bytes cannot be stored, for a person; null if it can. */
  whyTooLarge(size: number): string | null {
    return size > this.maxValueBytes
      ? `${bytes(size)}: this service takes at most ${bytes(this.maxValueBytes)} a value.`
      : null;
  }

  /** Find out who is calling. True if the service lets us in. */
  async start(token: string | null): Promise<boolean> {
    const previous = api.token;
    api.token = token;
    api.tenant = null;
    try {
      const who = await api.json<Who>("GET", "v1/whoami");
      this.who = who;
      this.hasToken = token !== null;
      this.revoked = false;
      this.refused = false;
      if (who.tenant !== null) this.tenant = who.tenant;
      this.useTenant(this.tenant);
      this.status = "ready";
      if (who.scope === "admin") void this.loadTenants();
      return true;
    } catch (error) {
      if (statusOf(error) === 401) {
        this.refused = token !== null;
        if (this.status !== "ready") this.status = "gate";
        api.token = this.status === "ready" ? previous : null;
      } else if (error instanceof Unreachable || error instanceof Problem) {
        if (this.status !== "ready") this.status = "unreachable";
      } else throw error;
      return false;
    }
  }

  /** Back to the question for a token; drafts stay. */
  ask(): void {
    this.refused = false;
    this.status = "gate";
  }

  /** Go on with the token that is in use. */
  back(): void {
    this.status = "ready";
  }

  /** Forget the token and everything that it showed. */
  forget(): void {
    api.token = null;
    location.hash = "";
    location.reload();
  }

  useTenant(name: string): void {
    this.tenant = name;
    api.tenant = this.isAdmin && name !== "default" ? name : null;
  }

  async loadTenants(): Promise<void> {
    try {
      this.tenants = (await api.json<{ tenants: Tenant[] }>("GET", "v1/tenants")).tenants;
    } catch {
      // The page that lists them says why; the menu keeps what it has.
    }
  }

  async checkHealth(): Promise<void> {
    try {
      const health = await fetch(api.address("health-check"), { cache: "no-store" });
      this.cacheDown = ((await health.json()) as { cache?: string }).cache === "unavailable";
    } catch {
      // Not being reached is told by the connection's own sign.
    }
  }
}

export const session = new Session();
