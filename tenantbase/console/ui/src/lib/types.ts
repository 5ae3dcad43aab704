// What a content type means to a person.

export type Kind = "json" | "text" | "image" | "bytes";

/** File names by type. The images are those that a browser decodes and that cannot run anything. */
const EXTENSIONS: Readonly<Record<string, string>> = {
  "application/json": ".json",
  "application/octet-stream": ".bin",
  "image/png": ".png",
  "image/jpeg": ".jpg",
  "image/gif": ".gif",
  "image/webp": ".webp",
  "image/avif": ".avif",
};

export function essence(contentType: string): string {
  return (contentType.split(";", 1)[0] ?? "").trim().toLowerCase();
}

/** What a value of this type is shown as. HTML and SVG are text, never more. */
export function kindOf(contentType: string): Kind {
  const type = essence(contentType);
  if (type === "application/json" || type.endsWith("+json")) return "json";
  if (type.startsWith("image/") && type in EXTENSIONS) return "image";
  if (
    type.startsWith("text/") ||
    type.endsWith("+xml") ||
    /^application\/(?:xml|javascript|ecmascript|x-yaml|yaml|toml|sql|x-sh|x-ndjson)$/.test(type)
  )
    return "text";
  return "bytes";
}

export const KIND_NAMES: Record<Kind, string> = {
  json: "JSON",
  text: "Text",
  image: "Image",
  bytes: "Bytes",
};

/** A file name for a key, without separators and characters that file systems dislike. */
export function fileName(key: string, contentType: string): string {
  const last = key.split("/").filter(Boolean).at(-1) ?? "value";
  const name = last
    .replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069<>:"/\\|?*]/g, "_")
    .slice(0, 120);
  if (/\.[A-Za-z0-9]{1,8}$/.test(name)) return name;
  return (
    name + (EXTENSIONS[essence(contentType)] ?? (kindOf(contentType) === "text" ? ".txt" : ""))
  );
}
