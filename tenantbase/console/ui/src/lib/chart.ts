// Lines for charts 300 by 100 units large.

/** The next of 1, 2, 5, 10, 20, 50 … that is not smaller. */
export function ceiling(value: number, least: number): number {
  let step = least;
  for (const factors = [2, 2.5, 2]; step < value;) {
    const factor = factors.shift() ?? 2;
    factors.push(factor);
    step *= factor;
  }
  return step;
}

/** The path of a line through values from the right; a null is a gap. */
export function linePath(
  values: readonly (number | null)[],
  points: number,
  low: number,
  high: number,
): string {
  let path = "";
  let pen = false;
  const offset = points - values.length;
  values.forEach((value, i) => {
    if (value === null) {
      pen = false;
      return;
    }
    const x = ((offset + i) / Math.max(1, points - 1)) * 300;
    const y = 100 - Math.max(0, Math.min(1, (value - low) / (high - low || 1))) * 100;
    path += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = true;
  });
  return path;
}

/** The same closed down to the axis, for the values after the last gap. */
export function areaPath(line: string): string {
  const last = line.split("M").at(-1) ?? "";
  if (!last.includes("L")) return "";
  const start = last.split(" ", 1)[0] ?? "0";
  const end = last.split("L").at(-1)?.split(" ", 1)[0] ?? "300";
  return `M${last}L${end} 100L${start} 100Z`;
}
