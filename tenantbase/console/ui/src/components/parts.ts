// The parts of the page that are read after the first keys are shown.

export const parts = {
  admin: () => import("./Admin.svelte"),
  health: () => import("./HealthPage.svelte"),
  dialogs: () => import("./Dialogs.svelte"),
  palette: () => import("./Palette.svelte"),
  help: () => import("./Help.svelte"),
  value: () => import("./ValuePane.svelte"),
  editor: () => import("./Editor.svelte"),
  newKey: () => import("./NewKey.svelte"),
};

/** Read all of them now, so that they are there when the connection is not. */
export function readAhead(): void {
  for (const load of Object.values(parts)) load().catch(() => undefined);
}
