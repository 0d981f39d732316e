import { checkRegistry, type RegistryCheck } from "../../../registry/check-registry.ts";
import type { Style } from "../../cli.ts";
import type { Page } from "../../page.ts";

export const page: Page = {
  summary: "Check that the registry can be used, and say how to mend it",
  description:
    "Tries everything that a push and a pull need: the endpoint, its certificate, the credentials, the bucket, writing, reading and deleting a small object, the clock, conditional writes. Exit code 1 if something fails.",
  define: () => {},
  examples: ["mvmctl registry status", "mvmctl registry status --json"],
  json: true,
  async run(cli) {
    cli.report({ kind: "step", text: "Trying the registry" });
    const checks = await checkRegistry(cli);
    const works = checks.every(({ ok }) => ok);
    cli.print({ ok: works, checks }, () => describeChecks(checks, cli.style));
    return works ? 0 : 1;
  },
};

export function describeChecks(checks: readonly RegistryCheck[], style: Style): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lines = checks.flatMap(({ name, ok, detail, fix }) => [
    `${ok ? style.green("ok    ") : style.red("failed")}  ${name.padEnd(width)}  ${detail}`,
    ...(fix ? [`${" ".repeat(width + 10)}${fix}`] : []),
  ]);
  return `${lines.join("\n")}\n`;
}
