// What the address says, and how it is written: #/t/default/k/user%2F1

import { folderOf } from "./keys";

export type Mode = "view" | "edit" | "new";

export interface KeysRoute {
  place: "keys";
  tenant: string;
  /** The open folder, or any text that the keys begin with. */
  prefix: string;
  /** The open key; the one to make, if the mode says so. */
  key: string | null;
  mode: Mode;
  filter: string;
  all: boolean;
  desc: boolean;
}

export type Route = KeysRoute | { place: "tenants" } | { place: "health" } | { place: "start" };

function part(text: string | undefined): string {
  try {
    return decodeURIComponent(text ?? "");
  } catch {
    return text ?? "";
  }
}

/** The route of an address. One that means nothing leads to the start. */
export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const [, place, tenant, kind, name, last] = path.split("/");
  if (place === "tenants" || place === "tokens") return { place: "tenants" };
  if (place === "health") return { place: "health" };
  if (place !== "t" || !tenant) return { place: "start" };
  const options = new URLSearchParams(query);
  const route: KeysRoute = {
    place: "keys",
    tenant: part(tenant),
    prefix: "",
    key: null,
    mode: "view",
    filter: options.get("q") ?? "",
    all: options.get("all") === "1",
    desc: options.get("order") === "desc",
  };
  if (kind === "p") route.prefix = part(name);
  else if (kind === "k" && name) {
    route.key = part(name);
    route.prefix = options.get("p") ?? folderOf(route.key);
    if (last === "edit") route.mode = "edit";
  } else if (kind === "new") {
    route.mode = "new";
    route.prefix = options.get("p") ?? "";
    route.key = options.get("key");
  }
  return route;
}

/** The address of a route. */
export function formatRoute(route: Route): string {
  if (route.place === "start") return "#/";
  if (route.place !== "keys") return `#/${route.place}`;
  const options = new URLSearchParams();
  let path = `#/t/${encodeURIComponent(route.tenant)}`;
  if (route.mode === "new") {
    path += "/new";
    if (route.prefix) options.set("p", route.prefix);
    if (route.key !== null) options.set("key", route.key);
  } else if (route.key !== null) {
    path += `/k/${encodeURIComponent(route.key)}${route.mode === "edit" ? "/edit" : ""}`;
    if (route.prefix !== folderOf(route.key)) options.set("p", route.prefix);
  } else path += `/p/${encodeURIComponent(route.prefix)}`;
  if (route.filter) options.set("q", route.filter);
  if (route.all) options.set("all", "1");
  if (route.desc) options.set("order", "desc");
  const query = options.toString();
  return query ? `${path}?${query}` : path;
}
