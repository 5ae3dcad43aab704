// The address bar. Opening something adds to the history; typing in the filter replaces.

import { formatRoute, parseRoute, type KeysRoute, type Route } from "../lib/route";

/** What the history keeps beside the address: where the list was. */
export interface Place {
  top: number;
  focus: string | null;
}

class Router {
  route = $state.raw<Route>(parseRoute(location.hash));
  /** Asked before the address changes; false keeps it. */
  #places = new Map<string, Place>();

  constructor() {
    window.addEventListener("hashchange", () => this.#read());
    window.addEventListener("popstate", () => this.#read());
  }

  #read(): void {
    const route = parseRoute(location.hash);
    if (formatRoute(route) !== formatRoute(this.route)) this.route = route;
  }

  go(route: Route, { replace = false } = {}): void {
    const address = formatRoute(route);
    this.route = route;
    if (address === location.hash) return;
    if (replace) history.replaceState(history.state, "", address);
    else history.pushState(null, "", address);
  }

  /** The same place with something changed. */
  change(changes: Partial<KeysRoute>, options: { replace?: boolean } = {}): void {
    if (this.route.place === "keys") this.go({ ...this.route, ...changes }, options);
  }

  remember(list: string, place: Place): void {
    this.#places.set(list, place);
  }

  remembered(list: string): Place | null {
    return this.#places.get(list) ?? null;
  }
}

export const router = new Router();
