import { createInterface } from "node:readline/promises";
import { MvmError } from "../core/errors.ts";
import type { Cli } from "./cli.ts";
import { UsageError } from "./errors.ts";

/**
 * Asks on a terminal. Nothing is asked where nobody can answer.
 * @throws UsageError without a terminal, MvmError `NOT_CONFIRMED` for a no
 */
export async function confirm(cli: Cli, question: string): Promise<void> {
  if (!cli.stdin.isTTY || !cli.stderr.isTTY)
    throw new UsageError(`${question.replace(/\?$/, "")}: this has to be confirmed`, "add --yes");
  const lines = createInterface({ input: cli.stdin, output: cli.stderr });
  try {
    const answer = await lines.question(`${question} [y/N] `, { signal: cli.signal });
    if (/^y(es)?$/i.test(answer.trim())) return;
  } finally {
    lines.close();
  }
  throw new MvmError("NOT_CONFIRMED", "nothing was done");
}
