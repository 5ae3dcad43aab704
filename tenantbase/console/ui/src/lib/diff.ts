// The lines in which two texts differ.

export interface Hunk {
  /** Half-open ranges of lines: [from, to). */
  leftFrom: number;
  leftTo: number;
  rightFrom: number;
  rightTo: number;
}

/** Above this many cells of the table, what differs in the middle counts as one change. */
const MAX_CELLS = 4_000_000;

/** The places in which two lists of lines differ, by their longest common subsequence. */
export function diff(left: readonly string[], right: readonly string[]): Hunk[] {
  let head = 0;
  while (head < left.length && head < right.length && left[head] === right[head]) head++;
  let tail = 0;
  while (
    tail < left.length - head &&
    tail < right.length - head &&
    left[left.length - 1 - tail] === right[right.length - 1 - tail]
  )
    tail++;
  const rows = left.length - head - tail;
  const columns = right.length - head - tail;
  if (rows === 0 && columns === 0) return [];
  if (rows * columns > MAX_CELLS || rows === 0 || columns === 0)
    return [{ leftFrom: head, leftTo: head + rows, rightFrom: head, rightTo: head + columns }];
  const width = columns + 1;
  const common = new Uint32Array((rows + 1) * width);
  const at = (i: number, j: number): number => common[i * width + j] ?? 0;
  for (let i = rows - 1; i >= 0; i--)
    for (let j = columns - 1; j >= 0; j--)
      common[i * width + j] =
        left[head + i] === right[head + j]
          ? at(i + 1, j + 1) + 1
          : Math.max(at(i + 1, j), at(i, j + 1));
  const hunks: Hunk[] = [];
  let i = 0;
  let j = 0;
  while (i < rows || j < columns) {
    if (i < rows && j < columns && left[head + i] === right[head + j]) {
      i++;
      j++;
      continue;
    }
    const hunk = { leftFrom: head + i, leftTo: 0, rightFrom: head + j, rightTo: 0 };
    while (
      (i < rows || j < columns) &&
      !(i < rows && j < columns && left[head + i] === right[head + j])
    )
      if (j >= columns || (i < rows && at(i + 1, j) >= at(i, j + 1))) i++;
      else j++;
    hunks.push({ ...hunk, leftTo: head + i, rightTo: head + j });
  }
  return hunks;
}

/** Where a line differs from its counterpart: [from, to), as UTF-16 offsets of `line`. */
export function within(line: string, other: string): [number, number] {
  let from = 0;
  while (from < line.length && from < other.length && line[from] === other[from]) from++;
  let end = 0;
  while (
    end < line.length - from &&
    end < other.length - from &&
    line[line.length - 1 - end] === other[other.length - 1 - end]
  )
    end++;
  return [from, line.length - end];
}
