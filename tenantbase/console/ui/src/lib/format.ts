// Figures, sizes and times in words.

const plain = new Intl.NumberFormat("en-US");
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function count(value: number): string {
  return plain.format(value);
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** 379 B, 1.1 KiB, 24.6 MiB, 410 MiB. */
export function bytes(value: number): string {
  let unit = 0;
  let size = value;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit++;
  }
  const digits = unit === 0 || size >= 100 ? 0 : 1;
  return `${size.toFixed(digits).replace(/\.0$/, "")} ${UNITS[unit] ?? ""}`;
}

/** What is left of a time to live: 0:41, 29:44, 1:58:40, 6 d 4 h. Longest: 29 d 23 h. */
export function countdown(seconds: number): string {
  const left = Math.max(0, Math.ceil(seconds));
  const days = Math.floor(left / 86_400);
  const hours = Math.floor((left % 86_400) / 3600);
  if (days >= 366) return `${count(Math.floor(days / 365))} y ${count(days % 365)} d`;
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  const minutes = Math.floor((left % 3600) / 60);
  const two = (part: number): string => String(part).padStart(2, "0");
  if (hours) return `${hours}:${two(minutes)}:${two(left % 60)}`;
  return `${minutes}:${two(left % 60)}`;
}

/** A length of time in one or two units: 4 s, 12 min, 5 h, 12 d 4 h. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h`;
  const hours = Math.floor((whole % 86_400) / 3600);
  return `${Math.floor(whole / 86_400)} d${hours ? ` ${hours} h` : ""}`;
}

/** How long ago something was. */
export function ago(seconds: number): string {
  return seconds < 1 ? "just now" : `${duration(seconds)} ago`;
}

export function milliseconds(value: number): string {
  return value < 10 ? value.toFixed(1) : count(Math.round(value));
}

const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const moment = new Intl.DateTimeFormat("en-GB", {
  weekday: "short",
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
});
const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

export function date(unixSeconds: number): string {
  return day.format(unixSeconds * 1000);
}

export function dateTime(unixSeconds: number): string {
  return moment.format(unixSeconds * 1000);
}

export function time(unixSeconds: number): string {
  return clock.format(unixSeconds * 1000);
}

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

/** The seconds of 30s, 15m, 36h, 7d or 1d 12h, or null. */
export function parseDuration(text: string): number | null {
  const trimmed = text.trim();
  if (!/^(?:\d+(?:\.\d+)?\s*[smhdw]\s*)+$/i.test(trimmed)) return null;
  let total = 0;
  for (const [, amount, unit] of trimmed.matchAll(/(\d+(?:\.\d+)?)\s*([smhdw])/gi))
    total += Number(amount) * (SECONDS[(unit ?? "").toLowerCase()] ?? 0);
  return total > 0 ? total : null;
}

/** A number of bytes written as 512, 64 KiB, 1.5 GiB; null if it is not one. */
export function parseBytes(text: string): number | null {
  const found = /^(\d+(?:\.\d+)?)\s*(?:([KMGT])i?)?B?$/i.exec(text.trim().replaceAll(",", ""));
  if (!found) return null;
  const power = ["", "K", "M", "G", "T"].indexOf((found[2] ?? "").toUpperCase());
  return Math.round(Number(found[1]) * 1024 ** power);
}
