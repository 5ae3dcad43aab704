import { ui } from "../state/ui.svelte";

/** Copy a text. Pages without TLS have no clipboard; then the selection is copied the old way. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "sr";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) ui.fail("Not copied: the browser does not allow it here.");
    return copied;
  }
}
