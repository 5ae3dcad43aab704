// The parts of the page that are loaded after the first keys are shown: one file, because many small
// ones compress worse.

export { default as Admin } from "./Admin.svelte";
export { default as Dialogs } from "./Dialogs.svelte";
export { default as HealthPage } from "./HealthPage.svelte";
export { default as Help } from "./Help.svelte";
export { default as NewKey } from "./NewKey.svelte";
export { default as Palette } from "./Palette.svelte";
export { default as ValuePane } from "./ValuePane.svelte";
