import { spawnChecked } from "../../src/core/process.ts";
import { LAUNCHER, type Mvmctl } from "./mvmctl.ts";
import { until } from "./wait.ts";

/**
 * Runs `mvmctl ARGS` on a terminal of its own, and types each answer once its question is on it. Returns the exit code, and all
 * that was on the terminal. Needs script(1).
 */
export async function onTerminal(
  mvm: Mvmctl,
  args: readonly string[],
  dialogue: readonly (readonly [question: RegExp, answer: string])[],
): Promise<{ readonly exitCode: number | null; readonly screen: string }> {
  const command = [process.execPath, LAUNCHER, ...args].map((word) => `'${word}'`).join(" ");
  const child = await spawnChecked("script", ["-qec", command, "/dev/null"], { env: mvm.env, stdio: "pipe" });
  let screen = "";
  child.stdout!.setEncoding("utf8").on("data", (text) => {
    screen += text;
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  try {
    for (const [question, answer] of dialogue) {
      await until(`${question} is asked`, () => question.test(screen));
      child.stdin!.write(`${answer}\r`);
    }
    return { exitCode: await ended, screen };
  } finally {
    child.kill("SIGKILL");
  }
}
