import { cpus } from "node:os";

/** One promise, and what came out. */
export interface Verdict {
  readonly what: string;
  readonly measured: string;
  readonly bare: string;
  readonly promise: string;
  readonly kept: boolean;
}

/** Prints a table, and lets the process end with 1 if a promise is not kept. */
export function report(verdicts: readonly Verdict[]): void {
  const lines = verdicts.map(
    ({ what, measured, bare, promise, kept }) =>
      `| ${what} | ${measured} | ${bare} | ${promise} | ${kept ? "yes" : "NO"} |`,
  );
  process.stdout.write(
    `| what | mvmctl | bare | promise | kept |\n| --- | --- | --- | --- | --- |\n${lines.join("\n")}\n`,
  );
  process.stdout.write(`\nMedians. ${cpus().length} cores, ${cpus()[0]?.model ?? "unknown"}.\n`);
  process.exitCode = verdicts.every(({ kept }) => kept) ? 0 : 1;
}
