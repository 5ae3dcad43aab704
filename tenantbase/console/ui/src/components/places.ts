// The places that the bars, the palette and the keys lead to.

import type { Route } from "../lib/route";
import { session } from "../state/session.svelte";
import { workspace } from "../state/workspace.svelte";
import type { IconName } from "./Icon.svelte";

export interface Place {
  name: string;
  /** For a bar on a narrow screen. */
  short: string;
  icon: IconName;
  /** Typed after a g. */
  key: string;
  route: Route;
}

/** Those that the token may open. */
export function places(): Place[] {
  const found: Place[] = [];
  if (session.mayRead)
    found.push({ name: "Keys", short: "Keys", icon: "list", key: "k", route: workspace.home() });
  if (session.isAdmin)
    found.push({
      name: "Tenants and tokens",
      short: "Tenants",
      icon: "people",
      key: "t",
      route: { place: "tenants" },
    });
  if (session.maySeeHealth)
    found.push({
      name: "Health",
      short: "Health",
      icon: "health",
      key: "h",
      route: { place: "health" },
    });
  return found;
}
