// The parts of the page that are read after the first keys are shown: one file, because many small ones
// compress worse.

export { default as admin } from "./Admin.svelte";
export { default as dialogs } from "./Dialogs.svelte";
export { default as health } from "./HealthPage.svelte";
export { default as help } from "./Help.svelte";
export { default as newKey } from "./NewKey.svelte";
export { default as palette } from "./Palette.svelte";
export { default as value } from "./ValuePane.svelte";
