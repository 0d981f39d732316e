/** The last lines of a log that are not empty, without control characters that could upset a terminal. */
export function lastLines(text: string, count: number): string {
  return text
    .split(/\r?\n/)
    .map((line) => line.replace(/\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]/g, "").trimEnd())
    .filter((line) => line !== "")
    .slice(-count)
    .join("\n");
}
