/** Lays out rows in columns; the first row is the head. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column]!)))
      .join("  ")
      .trimEnd();
  return `${rows.map(line).join("\n")}\n`;
}

/** `2026-03-01T10:00:00Z` → `3 hours ago`. */
export function ago(date: string, now = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - Date.parse(date)) / 1000));
  const units: [limit: number, size: number, name: string][] = [
    [90, 1, "second"],
    [90 * 60, 60, "minute"],
    [36 * 3600, 3600, "hour"],
    [Number.POSITIVE_INFINITY, 86_400, "day"],
  ];
  const [, size, name] = units.find(([limit]) => seconds < limit)!;
  const count = Math.round(seconds / size);
  return `${count} ${name}${count === 1 ? "" : "s"} ago`;
}
