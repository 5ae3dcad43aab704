// Command lines for a shell.

/** A word of a POSIX shell that means exactly this text. */
export function quote(text: string): string {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  if (/[\u0000-\u001f\u007f]/.test(text))
    return `$'${[...text]
      .map((char) => {
        const code = char.charCodeAt(0);
        if (char === "'" || char === "\\") return `\\${char}`;
        return code < 0x20 || code === 0x7f ? `\\x${code.toString(16).padStart(2, "0")}` : char;
      })
      .join("")}'`;
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

export interface Where {
  /** The address of the service, ending in a slash. */
  base: string;
  /** Whether a token is in use; its text is never part of a command. */
  token: boolean;
  /** The tenant to name, if it is not the default one. */
  tenant: string | null;
}

function headers(where: Where): string {
  const token = where.token ? ' -H "Authorization: Bearer $TENANTBASE_TOKEN"' : "";
  return token + (where.tenant === null ? "" : ` -H ${quote(`X-Tenant: ${where.tenant}`)}`);
}

/** http://localhost:8000/ becomes localhost:8000/, as one types it. */
function short(base: string): string {
  return base.replace(/^http:\/\//, "");
}

/** The command that reads a value. */
export function readCommand(key: string, where: Where): string {
  // A path of dots would be resolved away before it is sent.
  const target = /^\.{1,2}$/.test(key)
    ? `get-value?key=${key}`
    : `v1/values/${encodeURIComponent(key)}`;
  return `curl ${quote(short(where.base) + target)}${headers(where)}`;
}

/** The command that stores a first value. */
export function writeCommand(key: string, json: string, where: Where): string {
  const body = `{"key": ${JSON.stringify(key)}, "value": ${json}}`;
  return `curl ${quote(`${short(where.base)}set-value`)}${headers(where)} -d ${quote(body)}`;
}

/** The command that reads an entry as JSON. */
export function getCommand(key: string, where: Where): string {
  const target = `${short(where.base)}get-value?key=${encodeURIComponent(key)}`;
  return `curl '${target}'${headers(where)}`;
}
